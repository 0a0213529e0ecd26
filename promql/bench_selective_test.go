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

// BenchmarkSelective asks a Badger with a million series of one metric, four
// samples each, for one series and for one customer's fifty over an hour, through
// the HTTP handler: what the rows of the published figures ask for without the
// network.
func BenchmarkSelective(b *testing.B) {
	const seriesCount, scrapes, request = 1_000_000, 4, 2000
	store := openBadger(b)
	end := time.Now().Truncate(time.Minute).UnixMilli()
	w := storagetest.PerformanceWorkload(seriesCount, 1)
	g := storagetest.NewGenerator(w)
	batch := new(storage.Batch)
	for i := range scrapes {
		for from := 0; from < seriesCount; from += request {
			batch.Reset()
			g.Scrape(batch, end-int64(scrapes-1-i)*w.Interval, from, from+request)
			storagetest.MustAppend(b, store, testTenant.String(), batch)
		}
	}
	api, err := New(store, DefaultConfig(), discardLog(), prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	defer api.Close()
	h := routed(api)
	metric := g.Labels(0).Metric()
	for _, q := range []struct{ name, label, value string }{
		{"one_series", "serial", g.Labels(7).Get("serial")},
		{"one_customer", "customer_id", "customer-00000042"},
	} {
		b.Run(q.name, func(b *testing.B) {
			b.ReportAllocs()
			text := fmt.Sprintf("%s{%s=%q}", metric, q.label, q.value)
			target := "/api/v1/query_range?query=" + url.QueryEscape(text) +
				"&start=" + seconds(end-239*w.Interval) + "&end=" + seconds(end) + "&step=15"
			for b.Loop() {
				rec := httptest.NewRecorder()
				h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, target, nil))
				if rec.Code != 200 {
					b.Fatalf("%d %s", rec.Code, rec.Body)
				}
			}
		})
	}
}
