package storagetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/luminate/luminate/storage"
)

// benchSeries is the number of series in each benchmark's store; figures at other
// sizes come from luminate-bench.
const benchSeries = 20_000

// Bench runs the benchmarks that every backend and wrapper shares, over the data
// set of the published figures. A benchmark's unit of work is in its name; samples
// and series are reported as their own metrics where they differ from it.
func Bench(b *testing.B, newStore func(b testing.TB) storage.Store) {
	for _, c := range []struct {
		name string
		fn   func(*testing.B, storage.Store)
	}{
		{"append a scrape of known series", benchAppendKnown},
		{"append a scrape of new series", benchAppendNew},
		{"select one series", benchSelect(Eq("serial", "serial-0000000007"))},
		{"select one customer", benchSelect(Eq("customer_id", "customer-00000042"))},
		{"select every series", benchSelect()},
		{"evaluate sum by rate", benchEvaluate(storage.FuncRate, storage.AggSum)},
		{"evaluate quantile by last", benchEvaluate(storage.FuncLast, storage.AggQuantile)},
		{"evaluate count", benchEvaluate(storage.FuncLast, storage.AggCount)},
		{"list label values", benchLabelValues},
	} {
		b.Run(c.name, func(b *testing.B) { c.fn(b, newStore(b)) })
	}
}

// benchFill stores 20 scrapes that end now and returns the generator and the time
// of the last.
func benchFill(b *testing.B, s storage.Store) (*Generator, int64) {
	b.Helper()
	g := NewGenerator(PerformanceWorkload(benchSeries, 1))
	end := time.Now().UnixMilli() / 15_000 * 15_000
	for i := range 20 {
		var batch storage.Batch
		g.Scrape(&batch, end-int64(20-i)*15_000, 0, benchSeries)
		if _, err := s.Append(context.Background(), storage.MustTenant(tenantA), &batch); err != nil {
			b.Fatal(err)
		}
	}
	return g, end
}

func benchAppendKnown(b *testing.B, s storage.Store) {
	g, end := benchFill(b, s)
	var batch storage.Batch
	start := end - 24*3600*1000
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		batch.Reset()
		g.Scrape(&batch, start+int64(i)*1000, 0, benchSeries)
		b.StartTimer()
		if _, err := s.Append(b.Context(), storage.MustTenant(tenantA), &batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(benchSeries, "samples/op")
}

func benchAppendNew(b *testing.B, s storage.Store) {
	now := time.Now().UnixMilli()
	g := NewGenerator(PerformanceWorkload(benchSeries, 1))
	var batch storage.Batch
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		batch.Reset()
		g.Scrape(&batch, now, 0, benchSeries)
		tenant := storage.MustTenant(fmt.Sprintf("tenant-%d", i))
		b.StartTimer()
		if _, err := s.Append(b.Context(), tenant, &batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(benchSeries, "series/op")
}

func benchSelect(ms ...*storage.Matcher) func(*testing.B, storage.Store) {
	return func(b *testing.B, s storage.Store) {
		_, end := benchFill(b, s)
		q := storage.Selection{Matchers: ms, MinT: end - 3600_000, MaxT: end, Unsorted: true}
		b.ReportAllocs()
		samples := 0
		for b.Loop() {
			samples = 0
			for x, err := range s.Select(b.Context(), storage.MustTenant(tenantA), q) {
				if err != nil {
					b.Fatal(err)
				}
				samples += len(x.Samples)
			}
		}
		b.ReportMetric(float64(samples), "samples/op")
	}
}

func benchEvaluate(f storage.Func, op storage.AggOp) func(*testing.B, storage.Store) {
	return func(b *testing.B, s storage.Store) {
		_, end := benchFill(b, s)
		g := storage.Grid{
			Matchers: []*storage.Matcher{Eq(storage.MetricName, "http_requests_000_total")},
			Start:    end, End: end, Window: 300_000, Func: f,
			Aggregates: []storage.Aggregate{{Op: op, Arg: 0.95}}, Grouping: []string{"region"},
		}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Evaluate(b.Context(), storage.MustTenant(tenantA), g); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(benchSeries, "series/op")
	}
}

func benchLabelValues(b *testing.B, s storage.Store) {
	_, end := benchFill(b, s)
	q := storage.Selection{MinT: end - 3600_000, MaxT: end}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.LabelValues(b.Context(), storage.MustTenant(tenantA), "customer_id", q); err != nil {
			b.Fatal(err)
		}
	}
}
