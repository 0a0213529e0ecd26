package native

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger"
	"github.com/luminate/luminate/storage/storagetest"
)

// openBadger returns a database whose clock stands at testNow.
func openBadger(t testing.TB) storage.Store {
	t.Helper()
	cfg := badger.DefaultConfig()
	cfg.Dir = t.TempDir()
	cfg.Now = func() time.Time { return testNow }
	db, err := badger.Open(cfg, slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// TestBadgerAnswersAsTheModel asks the same of both after the same writes.
func TestBadgerAnswersAsTheModel(t *testing.T) {
	model := newFixture(t)
	real := newFixtureOver(t, openBadger(t))
	g := storagetest.NewGenerator(storagetest.Workload{Series: 300, Metrics: 2, Seed: 1, Customers: 50, Resets: true})
	for _, f := range []*fixture{model, real} {
		if f == real {
			g = storagetest.NewGenerator(storagetest.Workload{Series: 300, Metrics: 2, Seed: 1, Customers: 50, Resets: true})
		}
		for i := range int64(30) {
			var b storage.Batch
			g.Scrape(&b, day+i*15_000, 0, g.Series())
			if _, err := f.store.Append(context.Background(), f.id.Tenant, &b); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 5 {
			w := f.write(fmt.Sprintf(`{"source":"pod-%d","metrics":[%s,%s,%s]}`, i, metric("name", `"events"`, "dimensions", `{"tier":"free"}`),
				metric("name", `"events"`, "dimensions", `{"tier":"free"}`), metric("name", `"events"`, "value", "2.5")))
			if w.Code != 200 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
		}
	}
	name := g.Labels(0).Metric()
	queries := []string{
		`{"queryType":"aggregate","metricName":"events","timeRange":{"relative":"24h"},"aggregations":["count","sum","avg","p50","integral","first","last","stddev"],"groupBy":["tier"]}`,
		`{"queryType":"range","metricName":"events","timeRange":{"relative":"24h"},"limit":4}`,
	}
	for _, more := range []string{
		`"queryType":"aggregate","aggregations":["min","max","count","p95"],"groupBy":["region"]`,
		`"queryType":"aggregate","aggregation":"max","groupBy":["customer_id"],"interval":"1m","orderBy":"value","limit":5`,
		`"queryType":"aggregate","aggregation":"last","groupBy":["endpoint","region"],"interval":"150s","fill":null`,
		`"queryType":"rate","groupBy":["region"],"interval":"2m"`,
		`"queryType":"rate","aggregation":"max"`,
		`"queryType":"range","limit":20`,
		`"queryType":"aggregate","aggregation":"p50","filters":{"region":{"in":["us-east-1","eu-west-1"]}}`,
	} {
		queries = append(queries, fmt.Sprintf(`{"metricName":%q,"timeRange":{"start":%d,"end":%d},%s}`, name, day-1, day+400_000, more))
	}
	for _, q := range queries {
		a, b := resultsOf(t, model.query(q).Body.Bytes()), resultsOf(t, real.query(q).Body.Bytes())
		if !closeJSON(a, b) {
			t.Errorf("%s:\nbadger %.600s\nmodel  %.600s", q, mustJSON(b), mustJSON(a))
		}
	}
	for _, path := range []string{
		"/api/v1/metrics", "/api/v1/metrics?detail=1", "/api/v1/metrics/" + name + "/dimensions?detail=1",
		"/api/v1/metrics/" + name + "/dimensions/region/values?detail=1", "/api/v1/metrics/events/dimensions/instance/values?prefix=pod-&limit=3",
		"/api/v1/cardinality/metrics?start=2024-12-31T00:00:00Z", "/api/v1/cardinality/label_values?label_names[]=region&start=2024-12-31T00:00:00Z",
		"/api/v1/cardinality/active_series?selector=events&start=2024-12-31T00:00:00Z",
	} {
		a, b := model.do("GET", path, "").Body.String(), real.do("GET", path, "").Body.String()
		if a != b {
			t.Errorf("%s:\nbadger %s\nmodel  %s", path, b, a)
		}
	}
}

func resultsOf(t *testing.T, body []byte) any {
	t.Helper()
	var v struct {
		Results any
		Error   any
	}
	if err := json.Unmarshal(body, &v); err != nil || v.Error != nil {
		t.Fatalf("%v %s", err, body)
	}
	return v.Results
}

// closeJSON compares values; numbers within 1e-12 of their size, since the order
// of additions is a backend's own.
func closeJSON(a, b any) bool {
	switch x := a.(type) {
	case float64:
		y, ok := b.(float64)
		d, size := x-y, max(1, x, -x)
		return ok && d <= 1e-12*size && -d <= 1e-12*size
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for i := range x {
			if !closeJSON(x[i], y[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for k := range x {
			if _, has := y[k]; !has || !closeJSON(x[k], y[k]) {
				return false
			}
		}
		return true
	default:
		return a == b
	}
}

func TestBadgerAdministration(t *testing.T) {
	f := newFixtureOver(t, openBadger(t)).as(operatorOf)
	latencies(f)
	got := want[Receipt](t, f.do("DELETE", "/api/v1/admin/metrics/api_latency?before=2024-12-31T00:01:00Z", ""), 202)
	if got.MatchedSeries != 3 || len(f.stored()) != 6 {
		t.Errorf("%+v, left %v", got, f.stored())
	}
	want[Receipt](t, f.do("GET", "/api/v1/admin/deletes/"+got.ID, ""), 200)
	// What is written after the delete is seen.
	if w := f.write(`{"metrics":[` + metric("name", `"api_latency"`) + `]}`); w.Code != 200 || len(f.stored()) != 7 {
		t.Errorf("%s, stored %v", w.Body, f.stored())
	}
	if w := f.do("POST", "/api/v1/admin/retention", `{"metric":"api_*","retentionDays":1}`); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	want[CleanupResponse](t, f.do("POST", "/api/v1/admin/cleanup", ""), 200)
	if w := f.do("POST", "/api/v1/admin/backup", ""); w.Code != 200 || w.Result().Trailer.Get(backupEntriesTrailer) == "" {
		t.Errorf("%d, trailers %v", w.Code, w.Result().Trailer)
	}
	if ts := want[[]TenantInfo](t, f.do("GET", "/api/v1/admin/tenants", ""), 200); len(ts) != 1 || ts[0].Tenant != testTenant || !strings.Contains(mustJSON(ts), "lastWrite") {
		t.Errorf("%+v", ts)
	}
	want[TenantDeleted](t, f.do("DELETE", "/api/v1/admin/tenants/acme", ""), 200)
	if n := len(f.stored()); n != 0 {
		t.Errorf("%d samples left", n)
	}
}
