package storagetest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/luminate/luminate/storage"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
)

// specialValues are floats that lossy paths lose.
func specialValues() []float64 {
	return []float64{
		0, math.Copysign(0, -1), 1, -1, 0.1, 1.0 / 3, math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64,
		math.Inf(1), math.Inf(-1), math.NaN(), storage.StaleNaN, math.Float64frombits(value.NormalNaN),
		math.Float64frombits(0x7ff8000000000123), math.Float64frombits(0xfff8000000000001), math.Float64frombits(0x7ff0000000000001),
		1e15, 1e16, 9007199254740993, 123456.78, 1e-300, 100.25, math.Pi,
	}
}

func (s *suite) testValues(t *testing.T) {
	store, model := s.pair(t)
	rng := rand.New(rand.NewPCG(1, 2))
	var b storage.Batch
	for i := range 5 {
		var xs []storage.Sample
		for j, v := range specialValues() {
			xs = append(xs, storage.Sample{T: s.now - int64(1000-j)*1000, V: v})
		}
		for j := range 300 {
			xs = append(xs, storage.Sample{T: s.now - int64(300-j)*1000, V: math.Float64frombits(rng.Uint64())})
		}
		b.Add(name("m", "i", fmt.Sprint(i)), xs...)
	}
	appendBoth(t, store, model, tenantA, &b)
	compare(t, store, model, tenantA, s.all())
}

func (s *suite) testLabels(t *testing.T) {
	store, model := s.pair(t)
	var b storage.Batch
	for i, v := range []string{"a", "ü", "日本", "a b", `"quoted"`, `back\slash`, "new\nline", "tab\t", "nul\x00byte", "'", "%", "{}", "a=b", strings.Repeat("x", 300), strings.Repeat("y", 4000)} {
		b.Add(name("m", "label", v, "label.with.dots", v, "ünïcode", v, "Upper", "U"), storage.Sample{T: s.now, V: float64(i)})
	}
	b.Add(series("no_metric_name", "x"), storage.Sample{T: s.now, V: 1})
	appendBoth(t, store, model, tenantA, &b)
	compare(t, store, model, tenantA, s.all())
	compare(t, store, model, tenantA, s.all(Eq("ünïcode", "日本")))
	compare(t, store, model, tenantA, s.all(Eq("label", "nul\x00byte")))
	compare(t, store, model, tenantA, s.all(Eq(storage.MetricName, "")))
}

func (s *suite) testOrder(t *testing.T) {
	store, model := s.pair(t)
	rng := rand.New(rand.NewPCG(3, 4))
	for range 4 {
		var b storage.Batch
		for _, i := range rng.Perm(150) {
			b.Add(name("m"+fmt.Sprint(i%7), "a", fmt.Sprint(i%13), "b", fmt.Sprint(i)),
				storage.Sample{T: s.now - rng.Int64N(3*day), V: float64(i)}, storage.Sample{T: s.now - rng.Int64N(3*day), V: float64(i)})
		}
		appendBoth(t, store, model, tenantA, &b)
	}
	compare(t, store, model, tenantA, s.all())
	q := s.all()
	q.Unsorted = true
	got := Collect(t, store, tenantA, q)
	slices.SortFunc(got, func(a, b storage.Series) int { return storage.CompareLabels(a.Labels, b.Labels) })
	if d := DiffSeries(got, Collect(t, model, tenantA, q)); d != "" {
		t.Fatalf("unsorted: %s", d)
	}
}

func (s *suite) testMatchers(t *testing.T) {
	store, model := s.pair(t)
	var b storage.Batch
	for i := range 200 {
		pairs := []string{"num", fmt.Sprint(i)}
		if i%2 == 0 {
			pairs = append(pairs, "even", "yes")
		}
		if i%3 != 0 {
			pairs = append(pairs, "third", fmt.Sprintf("t%d", i%5))
		}
		b.Add(name(fmt.Sprintf("metric_%d", i%4), pairs...), storage.Sample{T: s.now, V: float64(i)})
	}
	appendBoth(t, store, model, tenantA, &b)
	n := storage.MetricName
	for _, ms := range [][]*storage.Matcher{
		{Eq(n, "metric_1")},
		{Eq(n, "nope")},
		{Ne(n, "metric_1")},
		{Re(n, "metric_[12]")},
		{Re(n, "metric_1|metric_3")},
		{Re(n, "metric_.*"), Eq("even", "yes")},
		{Re(n, "etric_1")},
		{Eq(n, "metric_2"), Eq("even", "")},
		{Eq(n, "metric_2"), Ne("even", "yes")},
		{Eq(n, "metric_2"), Ne("third", "")},
		{Eq(n, "metric_2"), Re("third", "")},
		{Eq(n, "metric_2"), Re("third", "|t1|t2")},
		{Eq(n, "metric_2"), Re("third", ".*")},
		{Eq(n, "metric_2"), Re("third", ".+")},
		{Eq(n, "metric_2"), NotRe("third", "t[12]")},
		{Eq(n, "metric_2"), NotRe("third", ".+")},
		{Eq(n, "metric_2"), NotRe("third", "t1|")},
		{Re("num", "1.*")},
		{Re("num", "(?i)1[0-5]")},
		{Re("num", ".*7")},
		{Re("num", ".*7.*"), Ne("num", "77")},
		{Eq("absent", "")},
		{Ne("absent", "")},
		{Eq("num", "5"), Eq("num", "6")},
		{},
	} {
		compare(t, store, model, tenantA, s.all(ms...))
	}
}

func (s *suite) testRange(t *testing.T) {
	store, model := s.pair(t)
	var b storage.Batch
	var xs []storage.Sample
	for i := range 100 {
		xs = append(xs, storage.Sample{T: s.now - int64(i)*1000, V: float64(i)})
	}
	b.Add(name("m"), xs...)
	appendBoth(t, store, model, tenantA, &b)
	for _, r := range [][2]int64{{s.now - 5000, s.now - 2000}, {s.now, s.now}, {s.now - 4999, s.now - 4001}, {s.now + 1, s.now + 10}, {0, s.now - 98_000}, {math.MinInt64 / 4, math.MaxInt64 / 4}} {
		compare(t, store, model, tenantA, storage.Selection{MinT: r[0], MaxT: r[1]})
	}
	for _, err := range store.Select(t.Context(), storage.MustTenant(tenantA), storage.Selection{MinT: 2, MaxT: 1}) {
		if storage.KindOf(err) != storage.KindInvalid {
			t.Fatalf("reversed range: got %v, want an invalid error", err)
		}
	}
}

func (s *suite) testIdempotent(t *testing.T) {
	store, model := s.pair(t)
	g := NewGenerator(Workload{Seed: 7, Series: 100, Metrics: 3, Customers: 5, Resets: true})
	var b storage.Batch
	for i := range 30 {
		g.Scrape(&b, s.now-int64(30-i)*15_000, 0, 100)
	}
	for range 3 {
		appendBoth(t, store, model, tenantA, &b)
	}
	compare(t, store, model, tenantA, s.all())
}

// testDuplicates stores the pairs of the duplicate rule in both orders, in one
// batch and in two.
func (s *suite) testDuplicates(t *testing.T) {
	store, model := s.pair(t)
	h1, h2 := tsdbutil.GenerateTestHistogram(1), tsdbutil.GenerateTestHistogram(5)
	hist := func(h *histogram.Histogram) func(*storage.Batch, storage.Labels, int64) {
		return func(b *storage.Batch, ls storage.Labels, ts int64) {
			b.AddHistograms(ls, storage.HistogramSample{T: ts, H: h})
		}
	}
	float := func(v float64) func(*storage.Batch, storage.Labels, int64) {
		return func(b *storage.Batch, ls storage.Labels, ts int64) { b.Add(ls, storage.Sample{T: ts, V: v}) }
	}
	type put = func(*storage.Batch, storage.Labels, int64)
	for i, c := range [][2]put{
		{float(5), float(3)},
		{float(storage.StaleNaN), float(-7)},
		{float(math.NaN()), float(storage.StaleNaN)},
		{float(math.NaN()), float(math.Inf(-1))},
		{float(0), float(math.Copysign(0, -1))},
		{float(math.Inf(1)), float(math.MaxFloat64)},
		{hist(h1), float(1e300)},
		{hist(h1), float(math.NaN())},
		{hist(h1), hist(h2)},
		{hist(h1), hist(h1)},
	} {
		for order := range 2 {
			first, second := c[order], c[1-order]
			for _, together := range []bool{true, false} {
				ls := name("dup", "case", fmt.Sprint(i), "order", fmt.Sprint(order), "together", fmt.Sprint(together))
				var b, b2 storage.Batch
				first(&b, ls, s.now-1000)
				if together {
					second(&b, ls, s.now-1000)
				}
				appendBoth(t, store, model, tenantA, &b)
				if !together {
					float(1)(&b2, ls, s.now)
					second(&b2, ls, s.now-1000)
					appendBoth(t, store, model, tenantA, &b2)
				}
			}
		}
	}
	compare(t, store, model, tenantA, s.all())
}

func (s *suite) testOutOfOrder(t *testing.T) {
	store, model := s.pair(t)
	rng := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		var b storage.Batch
		for i := range 10 {
			var xs []storage.Sample
			for range 10 {
				xs = append(xs, storage.Sample{T: s.now - rng.Int64N(5*day/1000)*1000, V: float64(rng.IntN(1000))})
			}
			b.Add(name("late", "i", fmt.Sprint(i)), xs...)
		}
		appendBoth(t, store, model, tenantA, &b)
	}
	compare(t, store, model, tenantA, s.all())
	compare(t, store, model, tenantA, storage.Selection{MinT: s.now - 3*day, MaxT: s.now - 2*day})
}

func (s *suite) testStartTimestamps(t *testing.T) {
	store, model := s.pair(t)
	var b storage.Batch
	for i := range 3 {
		b.Labels = append(b.Labels, name("st", "i", fmt.Sprint(i))...)
		for j := range 50 {
			st := int64(0)
			if i > 0 && j > 10*i {
				st = s.now - 1_000_000 + int64(j/20)*1000
			}
			b.AddSample(s.now-int64(50-j)*1000, st, float64(j))
		}
		b.EndSeries()
	}
	h := tsdbutil.GenerateTestHistogram(3)
	b.AddHistograms(name("st_hist"), storage.HistogramSample{T: s.now, ST: s.now - 5000, H: h}, storage.HistogramSample{T: s.now - 1000, ST: s.now - 5000, H: h})
	appendBoth(t, store, model, tenantA, &b)
	compare(t, store, model, tenantA, s.all())
}

func (s *suite) testHistograms(t *testing.T) {
	store, model := s.pair(t)
	stale := &histogram.Histogram{Sum: storage.StaleNaN}
	staleFloat := &histogram.FloatHistogram{Sum: storage.StaleNaN}
	for round := range 3 {
		var b storage.Batch
		for i := range 4 {
			var ints, floats, custom, gauge []storage.HistogramSample
			for j := range 40 {
				ts := s.now - int64((3-round)*100+40-j)*1000
				n := int64(round*50 + j)
				if j == 25 {
					n = 1 // a reset
				}
				ints = append(ints, storage.HistogramSample{T: ts, H: tsdbutil.GenerateTestHistogram(n)})
				floats = append(floats, storage.HistogramSample{T: ts, FH: tsdbutil.GenerateTestFloatHistogram(n)})
				custom = append(custom, storage.HistogramSample{T: ts, H: tsdbutil.GenerateTestCustomBucketsHistogram(n)})
				gauge = append(gauge, storage.HistogramSample{T: ts, FH: tsdbutil.GenerateTestGaugeFloatHistogram(n)})
			}
			end := s.now - int64((3-round)*100-1)*1000
			ints = append(ints, storage.HistogramSample{T: end, H: stale})
			floats = append(floats, storage.HistogramSample{T: end, FH: staleFloat})
			b.AddHistograms(name("h_int", "i", fmt.Sprint(i)), ints...)
			b.AddHistograms(name("h_float", "i", fmt.Sprint(i)), floats...)
			b.AddHistograms(name("h_custom", "i", fmt.Sprint(i)), custom...)
			b.AddHistograms(name("h_gauge", "i", fmt.Sprint(i)), gauge...)
			b.AddHistograms(name("h_mixed", "i", fmt.Sprint(i)), ints[:10]...)
			b.Add(name("h_mixed", "i", fmt.Sprint(i)), storage.Sample{T: ints[20].T, V: 5}, storage.Sample{T: ints[3].T, V: 6})
		}
		appendBoth(t, store, model, tenantA, &b)
	}
	compare(t, store, model, tenantA, s.all())
}

func (s *suite) testExemplars(t *testing.T) {
	store, model := s.pair(t)
	var b storage.Batch
	for i := range 5 {
		b.Labels = append(b.Labels, name("ex_total", "i", fmt.Sprint(i))...)
		b.AddSample(s.now, 0, 1)
		for j := range 4 {
			b.Exemplars = append(b.Exemplars, storage.Exemplar{T: s.now - int64(j)*1000, V: float64(j) / 3, Labels: series("trace_id", fmt.Sprintf("%d-%d", i, j))})
		}
		b.EndSeries()
	}
	for range 2 {
		appendBoth(t, store, model, tenantA, &b)
	}
	for _, q := range []storage.ExemplarQuery{
		{Selectors: [][]*storage.Matcher{{Eq(storage.MetricName, "ex_total")}}, MinT: s.now - 2000, MaxT: s.now},
		{Selectors: [][]*storage.Matcher{{Eq("i", "1")}, {Eq("i", "3")}}, MinT: s.now - day, MaxT: s.now + day},
		{Selectors: [][]*storage.Matcher{{Eq("i", "9")}}, MinT: s.now - day, MaxT: s.now + day},
	} {
		got, err := store.Exemplars(t.Context(), storage.MustTenant(tenantA), q)
		if err != nil {
			t.Fatalf("exemplars: %v", err)
		}
		want, _ := model.Exemplars(t.Context(), storage.MustTenant(tenantA), q)
		if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
			t.Fatalf("exemplars:\n got %s\nwant %s", g, w)
		}
	}
}

func (s *suite) testMetadata(t *testing.T) {
	store, model := s.pair(t)
	for round := range 2 {
		b := storage.Batch{Metadata: []storage.Metadata{
			{Metric: "a_total", Type: "counter", Help: "Help of a.", Unit: ""},
			{Metric: "b_seconds", Type: "gauge", Help: fmt.Sprintf("Round %d.", round), Unit: "seconds"},
			{Metric: "c", Type: "unknown"},
		}}
		b.Add(name("a_total"), storage.Sample{T: s.now, V: 1})
		appendBoth(t, store, model, tenantA, &b)
	}
	for _, q := range []storage.MetadataQuery{{}, {Metric: "b_seconds"}, {Metric: "nope"}, {Limit: 2}} {
		got, err := store.Metadata(t.Context(), storage.MustTenant(tenantA), q)
		if err != nil {
			t.Fatalf("metadata: %v", err)
		}
		want, _ := model.Metadata(t.Context(), storage.MustTenant(tenantA), q)
		if !slices.Equal(got, want) {
			t.Fatalf("metadata %+v: got %+v, want %+v", q, got, want)
		}
	}
}
