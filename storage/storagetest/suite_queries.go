package storagetest

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/luminate/luminate/storage"
)

// fillBoth stores some generated counters, gauges and constants, with resets,
// gaps and staleness markers.
func (s *suite) fillBoth(t testing.TB, store, model storage.Store, tenant string) {
	t.Helper()
	g := NewGenerator(Workload{Seed: 11, Series: 120, Metrics: 4, Customers: 6, Resets: true})
	for i := range 40 {
		var b storage.Batch
		g.Scrape(&b, s.now-int64(40-i)*15_000, 0, 120-i)
		if i == 20 {
			g.Scrape(&b, s.now-int64(40-i)*15_000, 110, 120)
			b.Add(g.Labels(5), storage.Sample{T: s.now - 20*15_000 + 1, V: storage.StaleNaN})
			b.Add(g.Labels(6), storage.Sample{T: s.now - 20*15_000 + 1, V: math.Inf(1)})
			b.Add(g.Labels(7), storage.Sample{T: s.now - 20*15_000 + 1, V: math.NaN()})
		}
		appendBoth(t, store, model, tenant, &b)
	}
}

func (s *suite) testDiscovery(t *testing.T) {
	store, model := s.pair(t)
	s.fillBoth(t, store, model, tenantA)
	tn := storage.MustTenant(tenantA)
	// Whole days, so that an index of days may answer exactly.
	mint, maxt := (s.now/day-1)*day, (s.now/day+1)*day-1
	for _, q := range []storage.Selection{
		{MinT: mint, MaxT: maxt},
		{MinT: mint, MaxT: maxt, Matchers: []*storage.Matcher{Eq(storage.MetricName, "http_requests_001_total")}},
		{MinT: mint, MaxT: maxt, Matchers: []*storage.Matcher{Re("region", "eu-.*"), Ne("status", "200")}},
		{MinT: mint, MaxT: maxt, Matchers: []*storage.Matcher{Eq("region", "nowhere")}},
		{MinT: mint, MaxT: maxt, Limit: 3},
		{MinT: mint - 20*day, MaxT: mint - 10*day},
	} {
		for _, op := range []struct {
			name string
			list func(st storage.Store) ([]string, error)
		}{
			{"label names", func(st storage.Store) ([]string, error) { return st.LabelNames(t.Context(), tn, q) }},
			{"values of region", func(st storage.Store) ([]string, error) { return st.LabelValues(t.Context(), tn, "region", q) }},
			{"values of __name__", func(st storage.Store) ([]string, error) {
				return st.LabelValues(t.Context(), tn, storage.MetricName, q)
			}},
			{"values of serial", func(st storage.Store) ([]string, error) { return st.LabelValues(t.Context(), tn, "serial", q) }},
			{"values of nothing", func(st storage.Store) ([]string, error) { return st.LabelValues(t.Context(), tn, "nothing", q) }},
			{"series", func(st storage.Store) ([]string, error) {
				var out []string
				for ls, err := range st.SelectLabels(t.Context(), tn, q) {
					if err != nil {
						return nil, err
					}
					out = append(out, ls.String())
				}
				return out, nil
			}},
		} {
			got, err := op.list(store)
			if err != nil {
				t.Fatalf("%s: %v", op.name, err)
			}
			want, _ := op.list(model)
			if !slices.Equal(got, want) {
				t.Fatalf("%s of %+v: got %q, want %q", op.name, q, got, want)
			}
		}
	}
}

func (s *suite) testLimits(t *testing.T) {
	store, model := s.pair(t)
	s.fillBoth(t, store, model, tenantA)
	q := s.all()
	q.Limit = 7
	compare(t, store, model, tenantA, q)
	for _, q := range []storage.Selection{
		{MinT: q.MinT, MaxT: q.MaxT, MaxSeries: 10},
		{MinT: q.MinT, MaxT: q.MaxT, MaxSamples: 100},
		{MinT: q.MinT, MaxT: q.MaxT, MaxSamples: 100, Unsorted: true},
	} {
		var last error
		for _, err := range store.Select(t.Context(), storage.MustTenant(tenantA), q) {
			last = err
		}
		if storage.KindOf(last) != storage.KindTooLarge {
			t.Fatalf("select over %+v: got %v, want a too-large error", q, last)
		}
	}
	q = s.all()
	q.MaxSeries, q.MaxSamples = 100_000, 10_000_000
	compare(t, store, model, tenantA, q)
}

func (s *suite) testEstimate(t *testing.T) {
	store, model := s.pair(t)
	s.fillBoth(t, store, model, tenantA)
	for _, q := range []storage.Selection{s.all(), s.all(Eq("region", "eu-west-1")), s.all(Eq("region", "nowhere"))} {
		got, err := store.Estimate(t.Context(), storage.MustTenant(tenantA), q)
		if err != nil {
			t.Fatalf("estimate: %v", err)
		}
		want, _ := model.Estimate(t.Context(), storage.MustTenant(tenantA), q)
		if got.Series < want.Series {
			t.Fatalf("estimate of %s: %d series, there are %d", storage.FormatSelector(q.Matchers), got.Series, want.Series)
		}
		if want.Samples > 0 && got.Samples == 0 {
			t.Fatalf("estimate of %s: no samples, there are %d", storage.FormatSelector(q.Matchers), want.Samples)
		}
	}
}

func (s *suite) testCardinality(t *testing.T) {
	store, model := s.pair(t)
	s.fillBoth(t, store, model, tenantA)
	for _, ms := range [][]*storage.Matcher{nil, {Eq("region", "eu-west-1")}} {
		q := storage.CardinalityQuery{
			Selection:  storage.Selection{Matchers: ms, MinT: (s.now/day - 1) * day, MaxT: (s.now/day+1)*day - 1},
			LabelNames: []string{"status", "region", "absent"}, TopN: 1000,
		}
		got, err := store.Cardinality(t.Context(), storage.MustTenant(tenantA), q)
		if err != nil {
			t.Fatalf("cardinality: %v", err)
		}
		want, _ := model.Cardinality(t.Context(), storage.MustTenant(tenantA), q)
		for _, f := range []struct {
			field     string
			got, want any
		}{
			{"Series", got.Series, want.Series}, {"Metrics", got.Metrics, want.Metrics},
			{"LabelNames", got.LabelNames, want.LabelNames}, {"LabelValueCounts", got.LabelValueCounts, want.LabelValueCounts},
			{"LabelPairs", got.LabelPairs, want.LabelPairs}, {"TotalMetrics", got.TotalMetrics, want.TotalMetrics},
			{"TotalLabelNames", got.TotalLabelNames, want.TotalLabelNames}, {"TotalLabelPairs", got.TotalLabelPairs, want.TotalLabelPairs},
			{"LabelValues[status]", got.LabelValues["status"], want.LabelValues["status"]},
			{"LabelValues[absent]", len(got.LabelValues["absent"]), 0},
			{"LabelValuesTotals[region]", got.LabelValuesTotals["region"], want.LabelValuesTotals["region"]},
		} {
			if fmt.Sprint(f.got) != fmt.Sprint(f.want) {
				t.Fatalf("cardinality of %s: %s: got %v, want %v", storage.FormatSelector(ms), f.field, f.got, f.want)
			}
		}
		for _, mint := range []int64{q.Selection.MinT, s.now / day * day} { // over several days, and over one
			q.MetricsOnly, q.Selection.MinT, q.Selection.MaxT = true, mint, s.now
			got, err := store.Cardinality(t.Context(), storage.MustTenant(tenantA), q)
			if err != nil {
				t.Fatalf("cardinality of metrics: %v", err)
			}
			want, _ := model.Cardinality(t.Context(), storage.MustTenant(tenantA), q)
			if got.Series != want.Series || got.TotalMetrics != want.TotalMetrics || fmt.Sprint(got.Metrics) != fmt.Sprint(want.Metrics) {
				t.Fatalf("cardinality of metrics of %s from %d: got %d series, %v, want %d, %v", storage.FormatSelector(ms), mint, got.Series, got.Metrics, want.Series, want.Metrics)
			}
		}
	}
}

// grids are the shapes that testEvaluate asks; every function and aggregation
// occurs.
func (s *suite) grids() []storage.Grid {
	metric := Re(storage.MetricName, "http_requests_00[12]_total")
	base := storage.Grid{Matchers: []*storage.Matcher{metric}, Start: s.now - 400_000, End: s.now, Step: 30_000, Window: 120_000}
	var gs []storage.Grid
	for f := storage.FuncNone; f <= storage.FuncNativeRate; f++ {
		g := base
		g.Func, g.FuncArg = f, 0.9
		g.Aggregates = []storage.Aggregate{{Op: storage.AggSum}, {Op: storage.AggAvg}, {Op: storage.AggCount}, {Op: storage.AggMin}, {Op: storage.AggMax}, {Op: storage.AggQuantile, Arg: 0.95}, {Op: storage.AggStddev}, {Op: storage.AggStdvar}, {Op: storage.AggGroup}}
		g.Grouping = []string{"region", "absent"}
		gs = append(gs, g)
		g.Aggregates = []storage.Aggregate{{Op: storage.AggSum}}
		g.Start, g.End, g.Step, g.Offset = s.now, s.now, 0, 60_000
		g.Grouping = nil
		gs = append(gs, g)
		g.Without, g.Grouping, g.Aggregates = true, []string{"serial", "instance", "customer_id", "endpoint"}, []storage.Aggregate{{Op: storage.AggMax}, {Op: storage.AggCount}}
		gs = append(gs, g)
	}
	for _, op := range []storage.AggOp{storage.AggTopK, storage.AggBottomK} {
		g := base
		g.Func, g.Aggregates, g.Grouping = storage.FuncRate, []storage.Aggregate{{Op: op, Arg: 2}}, []string{"region"}
		gs = append(gs, g)
	}
	edges := storage.Grid{Matchers: base.Matchers, Edges: []int64{s.now - 500_001, s.now - 300_001, s.now - 100_001, s.now}, Grouping: []string{"status"}}
	edges.Aggregates = []storage.Aggregate{{Op: storage.AggAvg}, {Op: storage.AggQuantile, Arg: 0.5}, {Op: storage.AggFirst}, {Op: storage.AggLast}, {Op: storage.AggCount}}
	gs = append(gs, edges)
	edges.Func, edges.Aggregates = storage.FuncNativeRate, []storage.Aggregate{{Op: storage.AggSum}}
	gs = append(gs, edges)
	return gs
}

func (s *suite) testEvaluate(t *testing.T) {
	store, model := s.pair(t)
	s.fillBoth(t, store, model, tenantA)
	answered := 0
	for _, g := range s.grids() {
		what := fmt.Sprintf("%s/%v by %v without %v", g.Func, g.Aggregates, g.Grouping, g.Without)
		got, err := store.Evaluate(t.Context(), storage.MustTenant(tenantA), g)
		if storage.KindOf(err) == storage.KindUnsupported && err != nil {
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		answered++
		want, err := model.Evaluate(t.Context(), storage.MustTenant(tenantA), g)
		if err != nil {
			t.Fatalf("%s: model: %v", what, err)
		}
		if d := DiffGrids(got, want, s.opts.Tolerance); d != "" {
			t.Fatalf("%s: %s", what, d)
		}
	}
	if answered == 0 {
		t.Fatalf("not one grid was answered")
	}
	t.Logf("%d of %d grids answered", answered, len(s.grids()))
	if _, err := store.Evaluate(t.Context(), storage.MustTenant(tenantA), storage.Grid{}); storage.KindOf(err) != storage.KindInvalid {
		t.Fatalf("empty grid: got %v, want an invalid error", err)
	}
}

// DiffGrids compares two answers of Evaluate within a tolerance relative to the
// greater value, and returns the first difference, "" if there is none. Absent
// and NaN must stand in the same places.
func DiffGrids(got, want *storage.GridResult, tolerance float64) string {
	if len(got.Groups) != len(want.Groups) {
		return fmt.Sprintf("%d groups, want %d", len(got.Groups), len(want.Groups))
	}
	for i, w := range want.Groups {
		g := got.Groups[i]
		if string(g.Labels) != string(w.Labels) {
			return fmt.Sprintf("group %d is %s, want %s", i, g.Labels, w.Labels)
		}
		for a := range w.Values {
			for step := range w.Values[a] {
				x, y := g.Values[a][step], w.Values[a][step]
				if !closeTo(x, y, tolerance) {
					return fmt.Sprintf("group %s, aggregate %d, step %d: %v (%x), want %v (%x)", w.Labels, a, step, x, math.Float64bits(x), y, math.Float64bits(y))
				}
			}
		}
	}
	return ""
}

func closeTo(x, y, tolerance float64) bool {
	switch {
	case storage.IsStale(x) || storage.IsStale(y):
		return storage.IsStale(x) && storage.IsStale(y)
	case math.IsNaN(x) || math.IsNaN(y):
		return math.IsNaN(x) && math.IsNaN(y)
	case x == y:
		return true
	default:
		return math.Abs(x-y) <= tolerance*math.Max(1, math.Max(math.Abs(x), math.Abs(y)))
	}
}

func (s *suite) testCanceled(t *testing.T) {
	store, model := s.pair(t)
	s.fillBoth(t, store, model, tenantA)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tn := storage.MustTenant(tenantA)
	for _, err := range store.Select(ctx, tn, s.all()) {
		if storage.KindOf(err) != storage.KindCanceled {
			t.Fatalf("select: got %v, want a canceled error", err)
		}
	}
	var b storage.Batch
	b.Add(name("m"), storage.Sample{T: s.now, V: 1})
	if _, err := store.Append(ctx, tn, &b); storage.KindOf(err) != storage.KindCanceled {
		t.Fatalf("append: got %v, want a canceled error", err)
	}
	if _, err := store.LabelNames(ctx, tn, s.all()); storage.KindOf(err) != storage.KindCanceled {
		t.Fatalf("label names: got %v, want a canceled error", err)
	}
	if _, err := store.Evaluate(ctx, tn, s.grids()[0]); storage.KindOf(err) != storage.KindCanceled {
		t.Fatalf("evaluate: got %v, want a canceled error", err)
	}
}
