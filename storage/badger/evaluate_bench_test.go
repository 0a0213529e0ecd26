package badger

import (
	"fmt"
	"testing"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

// benchStore holds scrapes of a performance workload up to end.
type benchStore struct {
	db  *DB
	end int64
	gen *storagetest.Generator
}

func newBenchStore(b *testing.B, series, scrapes int) *benchStore {
	b.Helper()
	// Noon: the data lies in one day whenever the benchmark runs.
	return newBenchStoreAt(b, time.Now().UTC().Truncate(24*time.Hour).Add(-12*time.Hour), series, scrapes)
}

func newBenchStoreAt(b *testing.B, end time.Time, series, scrapes int) *benchStore {
	b.Helper()
	w := storagetest.PerformanceWorkload(series, 1)
	cfg := testConfig(b.TempDir())
	cfg.Now = func() time.Time { return end }
	s := &benchStore{db: openTest(b, cfg), end: end.UnixMilli(), gen: storagetest.NewGenerator(w)}
	var batch storage.Batch
	for k := range scrapes {
		for from := 0; from < series; from += requestSeries {
			batch.Reset()
			s.gen.Scrape(&batch, s.end-int64(scrapes-1-k)*w.Interval, from, min(series, from+requestSeries))
			storagetest.MustAppend(b, s.db, "bench", &batch)
		}
	}
	return s
}

func (s *benchStore) instant(f storage.Func, window int64, agg storage.Aggregate, by ...string) storage.Grid {
	return storage.Grid{
		Matchers: []*storage.Matcher{storagetest.Eq(storage.MetricName, s.gen.Labels(0).Metric())},
		Start:    s.end, End: s.end, Window: window, Func: f, Aggregates: []storage.Aggregate{agg}, Grouping: by,
	}
}

func (s *benchStore) run(b *testing.B, name string, g storage.Grid) {
	b.Run(name, func(b *testing.B) {
		b.ReportAllocs()
		cpu := cpuSeconds()
		for b.Loop() {
			res, err := s.db.Evaluate(b.Context(), storage.MustTenant("bench"), g)
			if err != nil {
				b.Fatal(err)
			}
			if len(res.Groups) == 0 {
				b.Fatal("no groups")
			}
		}
		b.ReportMetric((cpuSeconds()-cpu)*1e3/float64(b.N), "cpu-ms/op")
	})
}

// BenchmarkEvaluate asks the questions of the performance targets over the first four
// scrapes of many series of one metric, all of them in the head.
func BenchmarkEvaluate(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("series=%d", n), func(b *testing.B) {
			s := newBenchStore(b, n, 4)
			s.questions(b)
		})
	}
}

// BenchmarkEvaluateBlocks asks the same when everything is in blocks, and when the day
// is closed, its index packed.
func BenchmarkEvaluateBlocks(b *testing.B) {
	s := newBenchStore(b, 100_000, 20)
	if err := s.db.flush.everything(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Run("open", s.questions)
	for _, p := range s.db.allPartitions() {
		if err := s.db.closePartition(b.Context(), p); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("closed", s.questions)
}

func (s *benchStore) questions(b *testing.B) {
	const minute = 60_000
	sum := storage.Aggregate{Op: storage.AggSum}
	s.run(b, "sum-by-region-rate", s.instant(storage.FuncRate, 5*minute, sum, "region"))
	s.run(b, "sum-by-customer-rate", s.instant(storage.FuncRate, 5*minute, sum, "customer_id"))
	s.run(b, "quantile-by-region", s.instant(storage.FuncLast, 5*minute, storage.Aggregate{Op: storage.AggQuantile, Arg: 0.95}, "region"))
	s.run(b, "topk-10", s.instant(storage.FuncLast, 5*minute, storage.Aggregate{Op: storage.AggTopK, Arg: 10}))
	s.run(b, "count", s.instant(storage.FuncLast, 5*minute, storage.Aggregate{Op: storage.AggCount}))
	one := s.instant(storage.FuncRate, 5*minute, sum)
	one.Matchers = append(one.Matchers, storagetest.Eq("serial", fmt.Sprintf("serial-%010d", s.gen.Series()/2)))
	s.run(b, "one-series", one)
	customer := s.instant(storage.FuncRate, 5*minute, sum)
	customer.Matchers = append(customer.Matchers, storagetest.Eq("customer_id", s.gen.Labels(0).Get("customer_id")))
	s.run(b, "one-customer", customer)
	all := s.instant(storage.FuncRate, 5*minute, sum)
	b.Run("estimate", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.db.Estimate(b.Context(), storage.MustTenant("bench"), all.Selection()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkEvaluateRange is the panel of a dashboard: 40 points of 2,000 series.
func BenchmarkEvaluateRange(b *testing.B) {
	s := newBenchStore(b, 2000, 80)
	g := s.instant(storage.FuncRate, 300_000, storage.Aggregate{Op: storage.AggSum}, "region")
	g.Start, g.Step = g.End-39*15_000, 15_000
	s.run(b, "head", g)
	if err := s.db.flush.everything(b.Context()); err != nil {
		b.Fatal(err)
	}
	s.run(b, "blocks", g)
}

// BenchmarkEvaluateStored asks for the last five minutes, and for everything, while the
// store grows: the cost must follow what is selected, not what is stored.
func BenchmarkEvaluateStored(b *testing.B) {
	for _, hours := range []int{1, 6} {
		scrapes := hours * 240
		s := newBenchStore(b, 2000, scrapes)
		g := s.instant(storage.FuncRate, 300_000, storage.Aggregate{Op: storage.AggSum}, "region")
		s.run(b, fmt.Sprintf("hours=%d/last-5m-head", hours), g)
		if err := s.db.flush.everything(b.Context()); err != nil {
			b.Fatal(err)
		}
		s.run(b, fmt.Sprintf("hours=%d/last-5m-blocks", hours), g)
		g.Start, g.Step = g.End-3_500_000, 60_000
		s.run(b, fmt.Sprintf("hours=%d/last-hour", hours), g)
		g.Start, g.Step = g.End-int64(hours)*3_600_000, 60_000*int64(hours)
		s.run(b, fmt.Sprintf("hours=%d/everything", hours), g)
	}
}

// BenchmarkEvaluateMidnight asks for a window that begins on the day before.
func BenchmarkEvaluateMidnight(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		s := newBenchStoreAt(b, time.Now().UTC().Truncate(24*time.Hour).Add(-23*time.Hour-59*time.Minute), n, 8)
		sum := storage.Aggregate{Op: storage.AggSum}
		s.run(b, fmt.Sprintf("series=%d/sum-by-region-rate", n), s.instant(storage.FuncRate, 300_000, sum, "region"))
		s.run(b, fmt.Sprintf("series=%d/sum-by-customer-rate", n), s.instant(storage.FuncRate, 300_000, sum, "customer_id"))
		s.run(b, fmt.Sprintf("series=%d/count", n), s.instant(storage.FuncLast, 300_000, storage.Aggregate{Op: storage.AggCount}))
	}
}

// BenchmarkEvaluateReference is what Evaluate replaces: the reference over Select.
func BenchmarkEvaluateReference(b *testing.B) {
	s := newBenchStore(b, 100_000, 4)
	g := s.instant(storage.FuncRate, 300_000, storage.Aggregate{Op: storage.AggSum}, "region")
	cpu := cpuSeconds()
	for b.Loop() {
		series := s.db.Select(b.Context(), storage.MustTenant("bench"), g.Selection())
		if _, err := storage.EvaluateSeries(b.Context(), series, g); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric((cpuSeconds()-cpu)*1e3/float64(b.N), "cpu-ms/op")
}
