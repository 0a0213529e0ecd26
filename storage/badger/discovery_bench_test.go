package badger

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

// BenchmarkDiscovery asks what Grafana's query builder and variables ask, of 100,000
// series in 50 metrics: today, whose index is in memory, and a week of which six
// days are closed; without the cache, and with answers that it has.
func BenchmarkDiscovery(b *testing.B) {
	for _, bytes := range []int64{0, DefaultConfig().DiscoveryCacheBytes} {
		b.Run(fmt.Sprintf("cache=%d", bytes), func(b *testing.B) { benchDiscovery(b, bytes) })
	}
}

func benchDiscovery(b *testing.B, cacheBytes int64) {
	const series, metrics = 100_000, 50
	today := time.Now().UTC().Truncate(24 * time.Hour).Add(12 * time.Hour)
	var clock atomic.Int64
	cfg := testConfig(b.TempDir())
	cfg.DiscoveryCacheBytes = cacheBytes
	cfg.Now = func() time.Time { return time.UnixMilli(clock.Load()) }
	clock.Store(today.Add(-6 * 24 * time.Hour).UnixMilli())
	db := openTest(b, cfg)
	tn := storage.MustTenant("bench")
	l := newLoad(series, metrics)
	for day := range 7 {
		at := today.Add(time.Duration(day-6) * 24 * time.Hour)
		clock.Store(at.UnixMilli())
		l.scrape(at.UnixMilli())
		for k := range l.batches {
			storagetest.MustAppend(b, db, "bench", &l.batches[k])
		}
	}
	if err := db.closeDays(b.Context()); err != nil {
		b.Fatal(err)
	}
	name := storagetest.Eq(storage.MetricName, "http_request_duration_seconds_bucket_07")
	for _, span := range []struct {
		name string
		mint int64
	}{{"today", today.Add(-time.Hour).UnixMilli()}, {"week", today.Add(-6 * 24 * time.Hour).UnixMilli()}} {
		s := storage.Selection{MinT: span.mint, MaxT: today.UnixMilli()}
		of := storage.Selection{MinT: span.mint, MaxT: today.UnixMilli(), Matchers: []*storage.Matcher{name}}
		values := func(label string, s storage.Selection) func() (int, error) {
			return func() (int, error) {
				v, err := db.LabelValues(b.Context(), tn, label, s)
				return len(v), err
			}
		}
		names := func(s storage.Selection) func() (int, error) {
			return func() (int, error) {
				v, err := db.LabelNames(b.Context(), tn, s)
				return len(v), err
			}
		}
		for _, c := range []struct {
			name string
			fn   func() (int, error)
		}{
			{"metric names", values(storage.MetricName, s)},
			{"names", names(s)},
			{"names of a metric", names(of)},
			{"values of region", values("region", s)},
			{"values of customer_id", values("customer_id", s)},
			{"values of customer_id of a metric", values("customer_id", of)},
			{"series of a metric", func() (int, error) {
				n := 0
				for _, err := range db.SelectLabels(b.Context(), tn, of) {
					if err != nil {
						return 0, err
					}
					n++
				}
				return n, nil
			}},
		} {
			b.Run(fmt.Sprintf("%s/%s", span.name, c.name), func(b *testing.B) {
				n, err := c.fn()
				b.ReportAllocs()
				for b.Loop() && err == nil {
					n, err = c.fn()
				}
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(n), "found/op")
			})
		}
	}
}
