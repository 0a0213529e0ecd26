package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/luminate/luminate/storage/clickhouse/chtest"
)

// TestRealPrometheus runs a real Prometheus that scrapes itself and Luminate and
// writes to Luminate, and a second one that has nothing but remote_read from
// Luminate. What the first one's own API says is the truth for both.
func TestRealPrometheus(t *testing.T) {
	for _, message := range []string{"prometheus.WriteRequest", "io.prometheus.write.v2.Request"} {
		t.Run(message, func(t *testing.T) { testRealPrometheus(t, message) })
	}
}

// TestRealPrometheusOnClickHouse is the same with the data in a real ClickHouse.
func TestRealPrometheusOnClickHouse(t *testing.T) {
	testRealPrometheus(t, "io.prometheus.write.v2.Request", "--storage.backend=clickhouse", "--storage.clickhouse.dsn="+chtest.DSN(t))
}

func testRealPrometheus(t *testing.T, message string, backend ...string) {
	bin, err := prometheusBinary()
	if err != nil {
		t.Fatal(err)
	}
	lum := startLuminate(t, t.TempDir(), backend...)
	writer := startPrometheus(t, bin, func(self string) string {
		return fmt.Sprintf(`
global: {scrape_interval: 500ms, scrape_native_histograms: true}
scrape_configs:
  - {job_name: prometheus, static_configs: [{targets: ['%s']}]}
  - {job_name: luminate, static_configs: [{targets: ['%s']}]}
remote_write:
  - url: %s/api/v1/write
    protobuf_message: %s
    headers: {X-Scope-OrgID: team-a}
    send_native_histograms: true
    send_exemplars: true
    queue_config: {batch_send_deadline: 100ms, retry_on_http_429: true}
    metadata_config: {send_interval: 500ms}
`, self, lum.url[len("http://"):], lum.url, message)
	}, "--enable-feature=exemplar-storage,metadata-wal-records")
	reader := startPrometheus(t, bin, func(string) string {
		return fmt.Sprintf("remote_read:\n  - {url: %s/api/v1/read, read_recent: true, headers: {X-Scope-OrgID: team-a}}\n", lum.url)
	})

	// Wait for some scrapes, then for the newest of them to have arrived.
	at := time.Now().Add(6 * time.Second)
	eventually(t, time.Minute, func() error {
		if time.Now().Before(at) {
			return fmt.Errorf("waiting for scrapes")
		}
		newest, err := strconv.ParseFloat(scalarOf(t, lum.url, `min(timestamp(up))`, time.Now()), 64)
		// Shards send side by side: three scrapes later all of an older one are here.
		if settled := at.Add(1500 * time.Millisecond).UnixMilli(); err != nil || int64(newest*1000) < settled {
			return fmt.Errorf("newest sample is at %v, waiting for %d", newest, settled)
		}
		return nil
	})
	for _, q := range []string{
		`up`,
		`count({__name__=~".+"})`,
		`count by (__name__, job) ({__name__=~".+"})`,
		`sum by (job) (rate(process_cpu_seconds_total[3s]))`,
		`prometheus_build_info`,
		`luminate_build_info`,
		`topk(1, process_start_time_seconds)`,
		`histogram_count(luminate_http_request_duration_seconds)`,
		`histogram_quantile(0.9, sum(rate(luminate_http_request_duration_seconds[5s])))`,
		`histogram_quantile(0.9, sum by (le) (rate(prometheus_http_request_duration_seconds_bucket[5s])))`,
		`go_gc_duration_seconds`,
		`max_over_time(scrape_samples_scraped[4s]) - min_over_time(scrape_samples_scraped[4s])`,
		`absent(nothing_of_this_name)`,
	} {
		want := resultOf(t, writer.url, q, at)
		for name, base := range map[string]string{"Luminate": lum.url, "Prometheus over remote read": reader.url} {
			if diff := cmp.Diff(want, resultOf(t, base, q, at)); diff != "" {
				t.Errorf("%s: %s differs from Prometheus (-want +got):\n%s", name, q, diff)
			}
		}
		wantRange := rangeOf(t, writer.url, q, at)
		if diff := cmp.Diff(wantRange, rangeOf(t, lum.url, q, at)); diff != "" {
			t.Errorf("range of %s differs from Prometheus (-want +got):\n%s", q, diff)
		}
	}
	// Labels come and go with each scrape: what the writer has just scraped is a
	// moment later here.
	for _, path := range []string{"/api/v1/labels", "/api/v1/label/job/values", "/api/v1/label/__name__/values"} {
		eventually(t, 20*time.Second, func() error {
			if diff := cmp.Diff(dataOf(t, writer.url+path), dataOf(t, lum.url+path)); diff != "" {
				return fmt.Errorf("%s differs (-want +got):\n%s", path, diff)
			}
			return nil
		})
	}
	eventually(t, 20*time.Second, func() error {
		if got := dataOf(t, lum.url+"/api/v1/metadata?metric=prometheus_build_info"); fmt.Sprint(got) == "map[]" {
			return fmt.Errorf("no metadata of prometheus_build_info has come")
		}
		return nil
	})
}

// startPrometheus runs a real Prometheus with the configuration that config makes
// of its own address.
func startPrometheus(t *testing.T, bin string, config func(self string) string, args ...string) *process {
	t.Helper()
	dir, addr := t.TempDir(), freeAddress(t)
	path := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(path, []byte(config(addr)), 0o600); err != nil {
		t.Fatal(err)
	}
	argv := append([]string{bin, "--config.file", path, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", addr, "--log.level=warn"}, args...)
	return startProcess(t, "http://"+addr, "/-/ready", nil, argv...)
}

// get decodes the data of a Prometheus API answer for tenant team-a.
func dataOf(t *testing.T, target string) any {
	t.Helper()
	status, body, _ := do(t, "GET", target, "", "", "X-Scope-OrgID", "team-a")
	var answer struct {
		Status string
		Data   any
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Status != "success" {
		t.Fatalf("GET %s: %d %.500s (%v)", target, status, body, err)
	}
	return answer.Data
}

func resultOf(t *testing.T, base, query string, at time.Time) any {
	t.Helper()
	v := url.Values{"query": {query}, "time": {unix(at)}}
	return sortedResult(dataOf(t, base+"/api/v1/query?"+v.Encode()), query)
}

func rangeOf(t *testing.T, base, query string, at time.Time) any {
	t.Helper()
	v := url.Values{"query": {query}, "start": {unix(at.Add(-3 * time.Second))}, "end": {unix(at)}, "step": {"0.5"}}
	return sortedResult(dataOf(t, base+"/api/v1/query_range?"+v.Encode()), query)
}

// sortedResult orders a vector by its labels: instant vectors have no order of
// their own, topk excepted.
func sortedResult(data any, query string) any {
	m, _ := data.(map[string]any)
	rows, _ := m["result"].([]any)
	if len(query) > 4 && query[:4] == "topk" {
		return rows
	}
	byLabels := map[string]any{}
	for _, r := range rows {
		row, _ := r.(map[string]any)
		key, _ := json.Marshal(row["metric"])
		byLabels[string(key)] = row
	}
	return byLabels
}

func scalarOf(t *testing.T, base, query string, at time.Time) string {
	t.Helper()
	v := url.Values{"query": {query}, "time": {unix(at)}}
	m, _ := dataOf(t, base+"/api/v1/query?"+v.Encode()).(map[string]any)
	rows, _ := m["result"].([]any)
	if len(rows) == 0 {
		return ""
	}
	row, _ := rows[0].(map[string]any)
	pair, _ := row["value"].([]any)
	if len(pair) < 2 {
		return ""
	}
	s, _ := pair[1].(string)
	return s
}

func unix(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }
