package promql

import (
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/luminate/luminate/internal/proctest"
)

// TestPromtool asks with the real promtool, which is built on Prometheus's own
// client.
func TestPromtool(t *testing.T) {
	bin, err := proctest.Prometheus("promtool")
	if err != nil {
		t.Fatal(err)
	}
	store, end := filledModel(t)
	srv := serve(t, store, nil)
	run := func(want string, args ...string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), bin, append([]string{"query"}, args...)...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("promtool query %q: %v\n%s\nwant %s", args, err, out, want)
		}
	}
	at := seconds(end)
	run(`{job="api"} => `, "instant", "--time="+at, srv.URL, `sum by (job) (http_requests_total)`)
	run(`temperature{room="attic"}`, "range", "--start="+seconds(end-60_000), "--end="+at, "--step=30s", srv.URL, "temperature")
	run(`room="kitchen"`, "series", "--match=temperature", srv.URL)
	run("attic\ncellar\nkitchen\noven", "labels", srv.URL, "room")
	run(`"metric"`, "instant", "-o", "json", "--time="+at, srv.URL, "temperature")
	run("avg populated: 4/4.000/4", "analyze", "--server="+srv.URL, "--type=histogram", "--match=latency_bucket", "--time="+at)
}

// TestGrafanaRequests replays the requests of Grafana's Prometheus data source:
// forms by POST, what follows them by GET, values with its limit.
func TestGrafanaRequests(t *testing.T) {
	store, end := filledModel(t)
	srv := serve(t, store, nil)
	from, to := fmt.Sprint((end-3_600_000)/1000), fmt.Sprint(end/1000)
	post := func(path string, form url.Values, want string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+path, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if resp, body := send(t, req); resp.StatusCode != 200 || !strings.Contains(body, want) {
			t.Errorf("POST %s %v: %d %s", path, form, resp.StatusCode, body)
		}
	}
	fetch := func(path, want string) {
		t.Helper()
		if resp, body := get(t, srv.URL+path); resp.StatusCode != 200 || !strings.Contains(body, want) {
			t.Errorf("GET %s: %d %s", path, resp.StatusCode, body)
		}
	}
	post("/api/v1/query_range", url.Values{"query": {`sum by(job) (rate(http_requests_total[1m0s]))`}, "start": {from}, "end": {to}, "step": {"15"}}, `"resultType":"matrix"`)
	post("/api/v1/query", url.Values{"query": {"temperature"}, "time": {to + ".123"}}, `"resultType":"vector"`)
	post("/api/v1/labels", url.Values{"start": {from}, "end": {to}, "match[]": {"temperature"}, "limit": {"40000"}}, `["__name__","room"]`)
	post("/api/v1/series", url.Values{"start": {from}, "end": {to}, "match[]": {`{__name__="temperature"}`}, "limit": {"40000"}}, `"room":"oven"`)
	fetch("/api/v1/label/__name__/values?start="+from+"&end="+to+"&limit=40000", `"temperature"`)
	fetch("/api/v1/label/room/values?start="+from+"&end="+to+"&match%5B%5D=temperature&limit=40000", `["attic","cellar","kitchen","oven"]`)
	fetch("/api/v1/metadata?limit=40000", `"data":{}`)
	fetch("/api/v1/rules", `{"groups":[]}`)
	fetch("/api/v1/parse_query?query=up", `"vectorSelector"`)
}

// TestPrometheusFederates lets a real Prometheus scrape /federate and asks it back.
func TestPrometheusFederates(t *testing.T) {
	store, _ := filledModel(t)
	end := time.Now().Truncate(time.Second).UnixMilli()
	appendAll(t, store, sampleData(end))
	srv := serve(t, store, nil)
	config := `
global: {scrape_interval: 1s}
scrape_configs:
  - job_name: federate
    honor_labels: true
    metrics_path: /federate
    params: {"match[]": ['temperature', 'native']}
    static_configs: [{targets: ["` + strings.TrimPrefix(srv.URL, "http://") + `"]}]
    scrape_native_histograms: true
`
	base := startPrometheusWith(t, config)
	for _, want := range []string{`{"__name__":"temperature","job":"federate","room":"attic"}`, `"__name__":"native"`} {
		waitBody(t, base+"/api/v1/query?query="+url.QueryEscape(`{__name__=~"temperature|native"}`), want)
	}
}

// waitBody polls until the answer contains want, for half a minute at most.
func waitBody(t *testing.T, target, want string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		_, body := get(t, target)
		if strings.Contains(body, want) {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("no %s in %s", want, body)
		case <-tick.C:
		}
	}
}
