package promql

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	jsoniter "github.com/json-iterator/go"
	"github.com/prometheus/client_golang/prometheus"
	promengine "github.com/prometheus/prometheus/promql"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

// testEnd is a minute of the recent past: the time of the last sample.
func testEnd() int64 { return time.Now().Truncate(time.Minute).UnixMilli() - 60_000 }

func filledModel(t *testing.T) (storage.Store, int64) {
	t.Helper()
	store, end := storagetest.NewModel(), testEnd()
	appendAll(t, store, sampleData(end))
	return store, end
}

// get asks srv and returns the answer with its body.
func get(t *testing.T, target string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return send(t, req)
}

func send(t *testing.T, req *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

func TestKindError(t *testing.T) {
	want := map[storage.Kind]struct {
		typ  errorType
		code int
	}{
		storage.KindInternal:    {"internal", 500},
		storage.KindInvalid:     {"bad_data", 400},
		storage.KindUnsupported: {"execution", 422},
		storage.KindNotFound:    {"not_found", 404},
		storage.KindLimited:     {"too_many_requests", 429},
		storage.KindTooLarge:    {"execution", 422},
		storage.KindUnavailable: {"unavailable", 503},
		storage.KindTimeout:     {"timeout", 503},
		storage.KindCanceled:    {"canceled", 499},
	}
	for _, k := range storage.Kinds() {
		typ, code := kindError(k)
		if w, ok := want[k]; !ok || typ != w.typ || code != w.code {
			t.Errorf("%v: got %s %d, want %v", k, typ, code, w)
		}
	}
}

func TestEngineError(t *testing.T) {
	check := func(err error, typ errorType, code int) {
		t.Helper()
		if e := engineError(err); e.typ != typ || e.code != code {
			t.Errorf("%v: got %s %d, want %s %d", err, e.typ, e.code, typ, code)
		}
	}
	check(promengine.ErrQueryTimeout("x"), errTimeout, 503)
	check(promengine.ErrQueryCanceled("x"), errCanceled, 499)
	check(promengine.ErrStorage{Err: errors.New("x")}, errInternal, 500)
	check(promengine.ErrTooManySamples("x"), errExec, 422)
	check(fmt.Errorf("expanding series: %w", context.DeadlineExceeded), errTimeout, 503)
	check(fmt.Errorf("expanding series: %w", storage.Errorf(storage.KindUnavailable, "select", "down")), errUnavailable, 503)
	check(errors.New("anything"), errExec, 422)
}

// TestStorageErrors lets every endpoint that asks the store meet every kind of
// error.
func TestStorageErrors(t *testing.T) {
	faulty := storagetest.NewFaulty(storagetest.NewModel(), nil)
	srv := serve(t, faulty, nil)
	endpoints := []string{
		"query?query=up", "query?query=sum(rate(up[5m]))", "query_range?query=up&start=1&end=2&step=1", "labels", "label/a/values",
		"series?match[]=up", "query_exemplars?query=up", "metadata", "status/tsdb",
	}
	for _, k := range storage.Kinds() {
		faulty.SetScript(storagetest.FailWith(k))
		typ, code := kindError(k)
		if k == storage.KindUnsupported { // of Evaluate it is no error, of Select it is
			typ, code = errExec, 422
		}
		for _, e := range endpoints {
			resp, body := get(t, srv.URL+"/api/v1/"+e)
			if resp.StatusCode != code || !strings.Contains(body, `"errorType":"`+string(typ)+`"`) || !strings.HasPrefix(body, `{"status":"error"`) {
				t.Errorf("%v on %s: got %d %s, want %d %s", k, e, resp.StatusCode, body, code, typ)
			}
			retry := resp.Header.Get("Retry-After") != ""
			if want := code == 429 || typ == errUnavailable; retry != want {
				t.Errorf("%v on %s: Retry-After is %v, want %v", k, e, retry, want)
			}
		}
		resp, _ := get(t, srv.URL+"/federate?match[]=up")
		if resp.StatusCode != code {
			t.Errorf("%v on federate: got %d, want %d", k, resp.StatusCode, code)
		}
	}
}

func TestPrometheusPrefix(t *testing.T) {
	store, end := filledModel(t)
	srv := serve(t, store, nil)
	for _, path := range []string{
		"query?query=count(temperature)&time=" + seconds(end), "labels", "status/buildinfo",
		"query_range?query=temperature&step=60&start=" + seconds(end-60_000) + "&end=" + seconds(end),
	} {
		_, plain := get(t, srv.URL+"/api/v1/"+path)
		resp, prefixed := get(t, srv.URL+"/prometheus/api/v1/"+path)
		if resp.StatusCode != 200 || plain != prefixed {
			t.Errorf("%s: got %d %s, want %s", path, resp.StatusCode, prefixed, plain)
		}
	}
}

func seconds(ms int64) string { return fmt.Sprintf("%d.%03d", ms/1000, ms%1000) }

// TestClientGone writes an answer of megabytes to a client that left: nothing piles
// up.
func TestClientGone(t *testing.T) {
	e := &encoder{jsoniter.NewStream(jsonAPI, brokenWriter{}, 4096)}
	encodeList(e, 200_000, func(i int) { e.WriteInt(i) })
	if got := cap(e.Buffer()); got > 4*flushBytes {
		t.Errorf("%d bytes are held", got)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestFeatures(t *testing.T) {
	srv := serve(t, storagetest.NewModel(), nil)
	_, body := get(t, srv.URL+"/api/v1/features")
	var got struct {
		Data map[string]map[string]bool `json:"data"`
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if !got.Data["promql"]["at_modifier"] || !got.Data["promql_functions"]["rate"] || !got.Data["promql_operators"][">="] || got.Data["api"]["remote_write_receiver"] {
		t.Errorf("got %v", got.Data)
	}
	if !strings.Contains(body, `">="`) {
		t.Errorf("operators are escaped: %s", body)
	}
}

func TestLabelInPath(t *testing.T) {
	store := storagetest.NewModel()
	b := new(storage.Batch)
	b.Add(storage.LabelsFromStrings("__name__", "m", "a/b c%20", "found", "é", "also"), storage.Sample{T: testEnd(), V: 1})
	appendAll(t, store, b)
	srv := serve(t, store, nil)
	check := func(path, want string) {
		t.Helper()
		if _, body := get(t, srv.URL+"/api/v1/label/"+path+"/values"); body != `{"status":"success","data":[`+want+`]}` {
			t.Errorf("%s: got %s, want %s", path, body, want)
		}
	}
	check("a%2Fb%20c%2520", `"found"`)
	check("U__a_2f_b_20_c_25_20", `"found"`)
	check("%C3%A9", `"also"`)
	check("a", "")
}

func TestResultTypeBeforeResult(t *testing.T) {
	store, end := filledModel(t)
	srv := serve(t, store, nil)
	_, body := get(t, srv.URL+"/api/v1/query?query=temperature&time="+seconds(end))
	if !strings.HasPrefix(body, `{"status":"success","data":{"resultType":"vector","result":[`) {
		t.Errorf("Grafana must be able to stream this: %.80s", body)
	}
}

func TestGzip(t *testing.T) {
	store, end := filledModel(t)
	srv := serve(t, store, nil)
	u := srv.URL + "/api/v1/query?query=" + url.QueryEscape("{__name__=~\".+\"}[1h]") + "&time=" + seconds(end)
	_, plain := get(t, u, "Accept-Encoding", "identity")
	resp, packed := get(t, u, "Accept-Encoding", "gzip")
	if resp.Header.Get("Content-Encoding") != "gzip" || len(packed) >= len(plain) {
		t.Fatalf("%q, %d of %d bytes", resp.Header.Get("Content-Encoding"), len(packed), len(plain))
	}
	r, err := gzip.NewReader(strings.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != plain {
		t.Errorf("unpacked answer differs: %v", err)
	}
}

// TestGrafanaProbes replays what Grafana's Prometheus data source sends first.
func TestGrafanaProbes(t *testing.T) {
	store, end := filledModel(t)
	srv := serve(t, store, nil)
	if resp, body := get(t, srv.URL+"/api/v1/query?query=1%2B1&time=4&timeout=2m"); resp.StatusCode != 200 || !strings.Contains(body, `[4,"2"]`) {
		t.Errorf("health: %d %s", resp.StatusCode, body)
	}
	resp, body := get(t, srv.URL+"/api/v1/status/buildinfo")
	var info struct {
		Data map[string]any `json:"data"`
	}
	if err := json.Unmarshal([]byte(body), &info); err != nil || resp.StatusCode != 200 {
		t.Fatalf("%d %v", resp.StatusCode, err)
	}
	if _, mimir := info.Data["features"]; mimir || info.Data["version"] != PrometheusVersion {
		t.Errorf("buildinfo %v", info.Data)
	}
	probe := fmt.Sprintf("/api/v1/query_exemplars?query=http_requests_total&start=%d&end=%d", end-3_600_000, end)
	if resp, body := get(t, srv.URL+probe); resp.StatusCode != 200 || !strings.Contains(body, `"trace_id":"api-a-200-0`) {
		t.Errorf("exemplars in milliseconds: %d %.200s", resp.StatusCode, body)
	}
	if resp, body := get(t, srv.URL+"/api/v1/rules"); resp.StatusCode != 200 || body != `{"status":"success","data":{"groups":[]}}` {
		t.Errorf("rules: %d %s", resp.StatusCode, body)
	}
}

func TestDeleteSeries(t *testing.T) {
	store, end := filledModel(t)
	enabled := false
	srv := serve(t, store, func(c *Config) { c.Info.AdminEnabled = func() bool { return enabled } })
	post := func(params url.Values) (*http.Response, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+"/api/v1/admin/tsdb/delete_series",
			strings.NewReader(params.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return send(t, req)
	}
	match := url.Values{"match[]": {`temperature{room="attic"}`}}
	if resp, body := post(match); resp.StatusCode != 403 || !strings.Contains(body, "admin APIs disabled") {
		t.Errorf("disabled: %d %s", resp.StatusCode, body)
	}
	enabled = true
	if resp, _ := post(url.Values{}); resp.StatusCode != 400 {
		t.Errorf("no match[]: %d", resp.StatusCode)
	}
	if resp, _ := post(url.Values{"match[]": {`{a=~".*"}`}}); resp.StatusCode != 400 {
		t.Errorf("a selector that matches everything: %d", resp.StatusCode)
	}
	resp, body := post(match)
	var r struct {
		Data receipt `json:"data"`
	}
	if err := json.Unmarshal([]byte(body), &r); err != nil || resp.StatusCode != 202 || r.Data.ID == "" || r.Data.MatchedSeries != 1 {
		t.Fatalf("%d %s %v", resp.StatusCode, body, err)
	}
	if _, body := get(t, srv.URL+"/api/v1/query?query=count(temperature)&time="+seconds(end)); !strings.Contains(body, `"3"`) {
		t.Errorf("the deleted series is still visible: %s", body)
	}
}

func TestMetadata(t *testing.T) {
	store := storagetest.NewModel()
	appendAll(t, store, &storage.Batch{Metadata: []storage.Metadata{
		{Metric: "b_total", Type: "counter", Help: "Counts <b>.", Unit: "x"}, {Metric: "a", Type: "gauge"},
	}})
	srv := serve(t, store, nil)
	check := func(query, want string) {
		t.Helper()
		if _, body := get(t, srv.URL+"/api/v1/metadata"+query); body != `{"status":"success","data":`+want+`}` {
			t.Errorf("%q: got %s, want %s", query, body, want)
		}
	}
	a := `"a":[{"type":"gauge","unit":"","help":""}]`
	check("", `{`+a+`,"b_total":[{"type":"counter","unit":"x","help":"Counts \u003cb\u003e."}]}`)
	check("?limit=1", `{`+a+`}`)
	check("?metric=a", `{`+a+`}`)
	check("?metric=c", `{}`)
	check("?limit=0", `{}`)
}

func TestStatusTSDB(t *testing.T) {
	store, _ := filledModel(t)
	srv := serve(t, store, nil)
	_, body := get(t, srv.URL+"/api/v1/status/tsdb?limit=1")
	var got struct{ Data tsdbStatus }
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if got.Data.HeadStats.NumSeries != 24 || len(got.Data.SeriesCountByMetricName) != 1 || got.Data.SeriesCountByMetricName[0] != (tsdbStat{"http_requests_total", 8}) {
		t.Errorf("got %+v", got.Data)
	}
	_, body = get(t, srv.URL+"/api/v1/status/tsdb?match[]=temperature")
	if err := json.Unmarshal([]byte(body), &got); err != nil || got.Data.HeadStats.NumSeries != 4 {
		t.Errorf("with a selector: %v %s", err, body)
	}
}

func TestResultBounds(t *testing.T) {
	store, end := filledModel(t)
	srv := serve(t, store, func(c *Config) { c.MaxResultSeries, c.MaxSeries, c.MaxSamples = 3, 3, 1000; c.Planner = false })
	for _, path := range []string{"labels", "series?match[]=temperature", "query?query=temperature&time=" + seconds(end)} {
		resp, body := get(t, srv.URL+"/api/v1/"+path)
		if resp.StatusCode != 422 || !strings.Contains(body, "max-") {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
}

// TestQueueFull fills the only slot and the only place in the queue.
func TestQueueFull(t *testing.T) {
	g := newGate(1, 1)
	if _, err := g.Insert(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan error, 1)
	go func() {
		_, err := g.Insert(ctx, "")
		waiting <- err
	}()
	for len(g.waiting) < 2 { // until the second one waits
		select {
		case err := <-waiting:
			t.Fatalf("did not wait: %v", err)
		default:
		}
	}
	if _, err := g.Insert(t.Context(), ""); storage.KindOf(err) != storage.KindUnavailable {
		t.Errorf("a full queue: %v", err)
	}
	cancel()
	if err := <-waiting; storage.KindOf(err) != storage.KindCanceled {
		t.Errorf("canceled while waiting: %v", err)
	}
	g.Delete(0)
	if _, err := g.Insert(t.Context(), ""); err != nil {
		t.Errorf("a free gate: %v", err)
	}
}

// TestFullQueueIsUnavailable asks while another query has the only slot.
func TestFullQueueIsUnavailable(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxConcurrent, cfg.MaxQueued = 1, 0
	api, err := New(storagetest.NewModel(), cfg, discardLog(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	ask := func() *httptest.ResponseRecorder {
		rec := httptest.NewRecorder()
		routed(api).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/api/v1/query?query=sum(up)", nil))
		return rec
	}
	tracker := api.engine.opts.ActiveQueryTracker
	slot, err := tracker.Insert(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if rec := ask(); rec.Code != 503 || !strings.Contains(rec.Body.String(), "max-queued-queries") || rec.Header().Get("Retry-After") == "" {
		t.Errorf("full: %d %s", rec.Code, rec.Body)
	}
	tracker.Delete(slot)
	if rec := ask(); rec.Code != 200 {
		t.Errorf("free: %d %s", rec.Code, rec.Body)
	}
}

func TestTimeout(t *testing.T) {
	faulty := storagetest.NewFaulty(storagetest.NewModel(), func(string) storagetest.Fault { return storagetest.Fault{Delay: time.Minute} })
	srv := serve(t, faulty, nil)
	resp, body := get(t, srv.URL+"/api/v1/query?query=up&timeout=20ms")
	if resp.StatusCode != 503 || !strings.Contains(body, `"errorType":"timeout"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestConfigValidate(t *testing.T) {
	cfg := DefaultConfig()
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	bad := Config{MaxQueued: -1}
	err := bad.Validate()
	for _, name := range []string{"maxConcurrent", "timeout", "lookbackDelta", "subqueryStep", "maxSamples", "maxPoints", "maxQueued"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named in: %v", name, err)
		}
	}
	if _, err := New(storagetest.NewModel(), bad, discardLog(), prometheus.NewRegistry()); err == nil {
		t.Error("New took a bad configuration")
	}
}

// FuzzQueryParameters feeds the handlers any form: each answer is an envelope, and
// no status is a fault of ours.
func FuzzQueryParameters(f *testing.F) {
	f.Add("query_range", "query=up&start=1&end=100&step=1&limit=2&timeout=1s&stats=all")
	f.Add("query", "query=1&time=NaN&lookback_delta=1e300&explain=1")
	f.Add("series", "match[]=a&match[]={b=~\"c|d\"}&start=-9e99&end=9e99&limit=1")
	f.Add("labels", "start=9223372036854775807&end=-292273086-05-16T16:47:06Z")
	f.Add("label/U__a_2e_b/values", "match[]=up&limit=0")
	f.Add("query_exemplars", "query=a&start=1e12&end=9e12")
	f.Add("status/tsdb", "limit=5&start=0&end=1")
	f.Add("rules", "type=alert&group_limit=1")
	f.Add("parse_query", "query=a[5m:1m] @ end() offset -1s")
	api, err := New(storagetest.NewModel(), DefaultConfig(), discardLog(), prometheus.NewRegistry())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = api.Close() })
	h := routed(api)
	f.Fuzz(func(t *testing.T, endpoint, query string) {
		u := &url.URL{Path: "/api/v1/" + endpoint, RawQuery: query}
		req := httptest.NewRequest(http.MethodGet, "/", nil).WithContext(t.Context())
		req.URL = u
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		if rec.Code >= 500 && rec.Code != 503 {
			t.Errorf("%s: %d %s", u, rec.Code, rec.Body)
		}
		if rec.Header().Get("Content-Type") == "application/json" && !json.Valid(rec.Body.Bytes()) {
			t.Errorf("%s: not JSON: %s", u, rec.Body)
		}
	})
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"1", "-1.5", "1e300", "NaN", "2024-01-01T00:00:00Z", minTimeFormatted, maxTimeFormatted} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ts, err := parseTime(s)
		if err != nil {
			return
		}
		ms := milliseconds(ts)
		if strings.Contains(s, "T") { // RFC 3339 knows the years 0 to 9999 and the two ends
			return
		}
		if ms < milliseconds(minTime) || ms > milliseconds(maxTime) {
			t.Errorf("%q is %d, beyond the ends", s, ms)
		}
	})
}
