//go:build e2e

package main

import (
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// stormRequests are questions each of which takes much memory if it is let.
func stormRequests(t *testing.T, base string, at time.Time) []func() *http.Request {
	start, end := strconv.FormatInt(at.Add(-time.Hour).Unix(), 10), strconv.FormatInt(at.Unix(), 10)
	get := func(path, query, planner string) func() *http.Request {
		return func() *http.Request {
			params := url.Values{"query": {query}, "match[]": {query}, "start": {start}, "end": {end}, "step": {"15"}, "time": {end}}
			r, err := http.NewRequestWithContext(t.Context(), "GET", base+path+"?"+params.Encode(), nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("X-Luminate-Planner", planner)
			return r
		}
	}
	post := func(path, contentType string, body []byte) func() *http.Request {
		return func() *http.Request {
			r, err := http.NewRequestWithContext(t.Context(), "POST", base+path, strings.NewReader(string(body)))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", contentType)
			if contentType == "application/x-protobuf" {
				r.Header.Set("Content-Encoding", "snappy")
			}
			return r
		}
	}
	read := prompb.ReadRequest{Queries: []*prompb.Query{{
		StartTimestampMs: at.Add(-time.Hour).UnixMilli(), EndTimestampMs: at.UnixMilli(),
		Matchers: []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_EQ, Name: "__name__", Value: "storm_metric"}},
	}}}
	samples, err := read.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	read.AcceptedResponseTypes = []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS}
	chunks, err := read.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	native := func(rest string) []byte {
		return []byte(`{"metricName":"storm_metric","timeRange":{"relative":"1h"},` + rest + `}`)
	}
	return []func() *http.Request{
		get("/api/v1/query", `{__name__=~"storm.*"}`, "on"),
		get("/api/v1/query_range", `storm_metric`, "on"),
		get("/api/v1/query_range", `storm_metric`, "off"),
		get("/api/v1/query_range", `sum by (serial) (storm_metric)`, "on"),
		get("/api/v1/query_range", `count(sort(storm_metric) > 2) / count(storm_metric * 3)`, "off"),
		get("/api/v1/series", `storm_metric`, "on"),
		get("/federate", `storm_metric`, "on"),
		post("/api/v1/query", "application/json", native(`"queryType":"aggregate","aggregations":["p95","avg","integral"],"groupBy":["serial"],"interval":"1m","limit":10`)),
		post("/api/v1/query", "application/json", native(`"queryType":"aggregate","aggregation":"p95"`)),
		post("/api/v1/query", "application/json", native(`"queryType":"range"`)),
		post("/api/v1/read", "application/x-protobuf", snappy.Encode(nil, samples)),
		post("/api/v1/read", "application/x-protobuf", snappy.Encode(nil, chunks)),
	}
}

// TestQueryStorm asks a process with a small GOMEMLIMIT far more at once than it can
// hold. Every answer is a whole one or says why there is none; nothing stays
// reserved; and the process lives, in the memory that it was given.
func TestQueryStorm(t *testing.T) {
	const (
		limit   = 256 << 20
		series  = 40_000
		scrapes = 6
		askers  = 16
	)
	bin, err := luminateBinary()
	if err != nil {
		t.Fatal(err)
	}
	addr := freeAddress(t)
	p := startProcess(t, "http://"+addr, "/readyz", []string{"GOMEMLIMIT=" + strconv.Itoa(limit)},
		bin, "serve", "--server.listen", addr, "--storage.badger.dir", t.TempDir(), "--log.format", "text", "--storage.badger.headMaxBytes", "67108864")
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: askers}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	at := time.Now().Truncate(15 * time.Second)
	for s := range scrapes {
		for first := 0; first < series; first += 5000 {
			body := writeBody(t, "storm_metric", first, 5000, at.Add(time.Duration(s-scrapes)*15*time.Second))
			if status := postWrite(t, client, p.url, "", body); status/100 != 2 {
				t.Fatalf("write: %d", status)
			}
		}
	}
	requests := stormRequests(t, p.url, at)
	var mu sync.Mutex
	statuses := map[int]int{}
	var wg sync.WaitGroup
	for a := range askers {
		wg.Go(func() {
			for i := range len(requests) {
				resp, err := client.Do(requests[(a+i)%len(requests)]())
				if err != nil {
					t.Errorf("request %d: %v", (a+i)%len(requests), err)
					continue
				}
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				mu.Lock()
				statuses[resp.StatusCode]++
				mu.Unlock()
				// Remote read says 413 where the query APIs say 422.
				if s := resp.StatusCode; s != 200 && s != 422 && s != 503 && s != 504 && !(s == 413 && resp.Request.URL.Path == "/api/v1/read") {
					t.Errorf("request %d: %s", (a+i)%len(requests), resp.Status)
				} else if err != nil && s != 200 { // a stream may break off, and says so by that
					t.Errorf("request %d: %v", (a+i)%len(requests), err)
				}
			}
		})
	}
	wg.Wait()
	if statuses[200] == 0 {
		t.Errorf("nothing was answered: %v", statuses)
	}
	_, metrics, _ := do(t, "GET", p.url+"/metrics", "", "")
	figure := func(name string) float64 {
		found := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(metrics)
		if found == nil {
			t.Fatalf("%s is not in /metrics", name)
		}
		v, err := strconv.ParseFloat(found[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if n := figure("luminate_query_memory_reserved_bytes"); n != 0 {
		t.Errorf("%v bytes are still reserved", n)
	}
	if n := figure("luminate_query_memory_capacity_bytes"); n != limit/2 {
		t.Errorf("the budget is %v bytes", n)
	}
	peak := peakMemory(t, p.cmd.Process.Pid)
	t.Logf("answers by status: %v; peak of memory %d MiB", statuses, peak>>20)
	if peak > 3*limit {
		t.Errorf("the process took %d MiB", peak>>20)
	}
}
