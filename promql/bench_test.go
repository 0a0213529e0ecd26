package promql

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

// BenchmarkQuery asks a Badger with 20,000 series of one metric, 20 samples each,
// planned and unplanned, through the HTTP handler.
func BenchmarkQuery(b *testing.B) {
	const seriesCount, scrapes = 20_000, 20
	store := openBadger(b)
	end := time.Now().Truncate(time.Minute).UnixMilli()
	w := storagetest.PerformanceWorkload(seriesCount, 1)
	g := storagetest.NewGenerator(w)
	for i := range scrapes {
		batch := new(storage.Batch)
		g.Scrape(batch, end-int64(scrapes-1-i)*w.Interval, 0, seriesCount)
		storagetest.MustAppend(b, store, testTenant.String(), batch)
	}
	api, err := New(store, DefaultConfig(), discardLog(), prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	defer api.Close()
	h := routed(api)
	metric := g.Labels(0).Metric()
	one := fmt.Sprintf("%s{customer_id=%q}", metric, g.Labels(0).Get("customer_id"))
	for _, q := range []struct{ name, text string }{
		{"sum_rate", "sum by (region) (rate(" + metric + "[5m]))"},
		{"topk_sum_rate", "topk(10, sum by (customer_id) (rate(" + metric + "[5m])))"},
		{"quantile", "quantile by (region) (0.95, " + metric + ")"},
		{"count", "count(" + metric + ")"},
		{"topk", "topk(10, " + metric + ")"},
		{"one_customer", "rate(" + one + "[5m])"},
		{"all_series", metric},
	} {
		for _, planner := range []string{"on", "off"} {
			b.Run(q.name+"/planner="+planner, func(b *testing.B) {
				b.ReportAllocs()
				target := "/api/v1/query?query=" + url.QueryEscape(q.text) + "&time=" + seconds(end)
				for b.Loop() {
					req := httptest.NewRequest(http.MethodGet, target, nil)
					req.Header.Set(plannerHeader, planner)
					rec := httptest.NewRecorder()
					h.ServeHTTP(rec, req)
					if rec.Code != 200 {
						b.Fatalf("%d %s", rec.Code, rec.Body)
					}
				}
			})
		}
	}
}
