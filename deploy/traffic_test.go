package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// selfTenant is where Luminate's own metrics are in these tests.
const selfTenant = "luminate"

// startObserved runs a Luminate that scrapes itself often, seeds example customers,
// and keeps it busy with all that dashboards tell of until the test ends.
func startObserved(t *testing.T, args ...string) *process {
	t.Helper()
	limits := filepath.Join(t.TempDir(), "limits.yaml")
	if err := os.WriteFile(limits, []byte("tenants:\n  small: {maxActiveSeries: 2, samplesPerSecond: 1000}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startLuminate(t, []string{"GOMEMLIMIT=2GiB"}, append(args, "--metrics.selfScrape", "--metrics.selfScrapeTenant", selfTenant,
		"--metrics.selfScrapeInterval", "500ms", "--metrics.censusInterval", "500ms", "--limits.file", limits)...)
	seed := exec.Command(binary(t, "luminate-bench"), "example", "--url", p.url, "--customers", "30", "--span", "2h")
	if out, err := seed.CombinedOutput(); err != nil {
		t.Fatalf("seed example customers: %v\n%s", err, out)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- keepBusy(ctx, p.url) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("traffic: %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return p
}

// request is one thing that keepBusy does, and the status that it gets.
type request struct {
	method, path, tenant string
	headers              []string
	body                 func(now time.Time) []byte
	want                 int
}

// keepBusy sends every kind of request five times a second until ctx is done.
func keepBusy(ctx context.Context, base string) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		now := time.Now()
		for _, r := range traffic() {
			var body []byte
			if r.body != nil {
				body = r.body(now)
			}
			status, answer, err := do(ctx, r.method, base+r.path, body, append(r.headers, "X-Scope-OrgID", r.tenant)...)
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				return err
			case status != r.want:
				return fmt.Errorf("%s %s: %d %.300s, want %d", r.method, r.path, status, answer, r.want)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func traffic() []request {
	jsonBody := []string{"Content-Type", "application/json"}
	proto := []string{"Content-Type", "application/x-protobuf", "Content-Encoding", "snappy"}
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	native := func(age time.Duration, values ...float64) func(time.Time) []byte {
		return func(now time.Time) []byte {
			var metrics []map[string]any
			for _, v := range values {
				metrics = append(metrics, map[string]any{"name": "job_seconds", "value": v, "timestamp": now.Add(-age).UnixMilli(), "dimensions": map[string]string{"queue": "mail"}})
			}
			return mustJSON(map[string]any{"metrics": metrics})
		}
	}
	query := func(q map[string]any) func(time.Time) []byte {
		return func(time.Time) []byte { return mustJSON(q) }
	}
	promql := func(path, q string) request {
		return request{"POST", path, selfTenant, form, func(now time.Time) []byte {
			end := float64(now.UnixMilli()) / 1000
			return []byte(url.Values{"query": {q}, "time": {fmt.Sprint(end)}, "start": {fmt.Sprint(end - 5)}, "end": {fmt.Sprint(end)}, "step": {"1"}}.Encode())
		}, http.StatusOK}
	}
	span := map[string]any{"relative": "5m"}
	bad := promql("/api/v1/query", "sum(")
	bad.want = http.StatusBadRequest
	return []request{
		{"POST", "/api/v1/write", "acme", jsonBody, native(0, 1, 2), http.StatusOK},
		{"POST", "/api/v1/write", "acme", jsonBody, native(30*24*time.Hour, 1), http.StatusBadRequest},
		{"POST", "/api/v1/write", "acme", proto, remoteWrite(0, 5), http.StatusNoContent},
		{"POST", "/api/v1/write", "acme", proto, remoteWrite(5*time.Hour, 1), http.StatusBadRequest},
		{"POST", "/api/v1/write", "small", proto, remoteWrite(0, 5), http.StatusBadRequest},
		{"POST", "/api/v1/write", "not/a/tenant", jsonBody, native(0, 1), http.StatusBadRequest},
		{"POST", "/api/v1/query", "acme", jsonBody, query(map[string]any{"queryType": "aggregate", "metricName": "job_seconds", "timeRange": span, "aggregation": "p95"}), http.StatusOK},
		{"POST", "/api/v1/query", "acme", jsonBody, query(map[string]any{"queryType": "range", "metricName": "job_seconds", "timeRange": span}), http.StatusOK},
		{"POST", "/api/v1/query", "acme", jsonBody, query(map[string]any{"queryType": "nothing"}), http.StatusBadRequest},
		promql("/api/v1/query", "sum by (route) (rate(luminate_http_requests_total[5s]))"),
		promql("/api/v1/query_range", "sum by (route) (rate(luminate_http_requests_total[5s]))"),
		promql("/api/v1/query", "go_goroutines"),
		bad,
		{"POST", "/api/v1/read", "acme", proto, remoteRead, http.StatusOK},
		{"GET", "/api/v1/labels", "acme", nil, nil, http.StatusOK},
	}
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps and strings only
	}
	return b
}

// remoteWrite makes requests of so many series, each with one sample that is ahead
// of the clock.
func remoteWrite(ahead time.Duration, series int) func(time.Time) []byte {
	return func(now time.Time) []byte {
		var req prompb.WriteRequest
		for i := range series {
			req.Timeseries = append(req.Timeseries, prompb.TimeSeries{
				Labels:  []prompb.Label{{Name: "__name__", Value: "disk_used_bytes"}, {Name: "device", Value: fmt.Sprint("sd", i)}},
				Samples: []prompb.Sample{{Timestamp: now.Add(ahead).UnixMilli(), Value: float64(i)}},
			})
		}
		raw, err := req.Marshal()
		if err != nil {
			panic(err)
		}
		return snappy.Encode(nil, raw)
	}
}

func remoteRead(now time.Time) []byte {
	req := prompb.ReadRequest{Queries: []*prompb.Query{{
		StartTimestampMs: now.Add(-time.Minute).UnixMilli(), EndTimestampMs: now.UnixMilli(),
		Matchers: []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_EQ, Name: "__name__", Value: "disk_used_bytes"}},
	}}}
	raw, err := req.Marshal()
	if err != nil {
		panic(err)
	}
	return snappy.Encode(nil, raw)
}
