package badger

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

const evalTenant = "tenant-a"

// evalWorld is a store with random samples around a moment.
type evalWorld struct {
	t   *testing.T
	db  *DB
	rng *rand.Rand
	now int64
	ls  []storage.Labels
}

func newEvalWorld(t *testing.T, seed uint64, now time.Time, series int) *evalWorld {
	cfg := testConfig(t.TempDir())
	cfg.Now = func() time.Time { return now }
	w := &evalWorld{t: t, db: openTest(t, cfg), rng: rand.New(rand.NewPCG(seed, 7)), now: now.UnixMilli()}
	for i := range series {
		w.ls = append(w.ls, storage.LabelsFromStrings(storage.MetricName, fmt.Sprintf("m%d", i%2*(1+i%19)), "region", fmt.Sprint(i%4),
			"customer", fmt.Sprint(w.rng.IntN(series/4+1)), "serial", fmt.Sprint(i)))
	}
	return w
}

// append writes n scrapes 15 s apart from from on, in any order of series, with gaps,
// resets, markers, odd values, repeats and, if late, samples out of order.
func (w *evalWorld) append(from int64, n int, late bool) {
	var b storage.Batch
	odd := []float64{math.NaN(), math.Float64frombits(0x7ff8000000000777), math.Inf(1), math.Inf(-1), 1e100, math.Copysign(0, -1)}
	for k := range n {
		b.Reset()
		for i, ls := range w.ls {
			t := from + int64(k)*15_000 + int64(i%3)
			v := float64(k*(i%9)) + float64(i)
			switch w.rng.IntN(40) {
			case 0:
				continue
			case 1:
				v = storage.StaleNaN
			case 2:
				v = 0
			case 3:
				if i%16 == 5 {
					v = odd[w.rng.IntN(len(odd))]
				}
			case 4:
				v = w.rng.NormFloat64() * 1000
			case 5:
				if late {
					t -= w.rng.Int64N(int64(k+1) * 15_000)
				}
			}
			b.Add(ls, storage.Sample{T: t, V: v})
			if w.rng.IntN(30) == 0 {
				b.Add(ls, storage.Sample{T: t, V: v + float64(w.rng.IntN(3)-1)})
			}
		}
		storagetest.MustAppend(w.t, w.db, evalTenant, &b)
	}
}

func (w *evalWorld) flush() {
	w.t.Helper()
	if err := w.db.flush.everything(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *evalWorld) grid() storage.Grid {
	r := w.rng
	g := storage.Grid{Matchers: []*storage.Matcher{storagetest.Eq(storage.MetricName, "m0")}, FuncArg: 0.9}
	switch r.IntN(4) {
	case 0:
		g.Matchers = append(g.Matchers, storagetest.Re("region", "1|2"))
	case 1:
		g.Matchers = []*storage.Matcher{storagetest.Re("serial", ".*[1-7]")}
	case 2:
		g.Matchers = []*storage.Matcher{storagetest.Re(storage.MetricName, "m.+")}
	}
	g.Func = storage.Func(r.IntN(int(storage.FuncNativeRate) + 1))
	if r.IntN(4) == 0 {
		g.Func = storage.FuncLast
	}
	switch r.IntN(3) {
	case 0:
		g.Start = w.now - r.Int64N(600_000)
		g.End = g.Start
	case 1:
		g.Start, g.End, g.Step = w.now-r.Int64N(3_600_000), w.now, 15_000+r.Int64N(60_000)
	default:
		g.Edges = []int64{w.now - 3_000_000 - r.Int64N(1000), w.now - 900_000, w.now - 300_001, w.now + r.Int64N(2)}
	}
	if g.Edges == nil {
		g.Window = 15_000 + r.Int64N(600_000)
		if r.IntN(3) == 0 {
			g.Offset = r.Int64N(600_000)
		}
	}
	for op := storage.AggSum; op <= storage.AggGroup; op++ {
		g.Aggregates = append(g.Aggregates, storage.Aggregate{Op: op, Arg: 0.5})
	}
	switch {
	case g.Func == storage.FuncNone:
		g.Aggregates = append(g.Aggregates, storage.Aggregate{Op: storage.AggFirst}, storage.Aggregate{Op: storage.AggLast})
	case r.IntN(4) == 0:
		g.Aggregates = []storage.Aggregate{{Op: storage.AggTopK + storage.AggOp(r.IntN(2)), Arg: float64(r.IntN(5))}}
	}
	switch r.IntN(5) {
	case 0:
		g.Grouping = []string{"region"}
	case 1:
		g.Grouping = []string{"customer", "absent"}
	case 2:
		g.Grouping, g.Without = []string{"serial", "customer"}, true
	case 3:
		g.Grouping = []string{"serial"}
	}
	return g
}

func (w *evalWorld) check(n int) {
	w.t.Helper()
	if answered := w.compare(n); answered < n/3 {
		w.t.Fatalf("only %d of %d grids had an answer", answered, n)
	}
}

// compare holds n random grids against the reference over Select: to the bit, or within
// a tolerance where sums are joined from parts. It returns how many had an answer.
func (w *evalWorld) compare(n int) (answered int) {
	w.t.Helper()
	tn := storage.MustTenant(evalTenant)
	for range n {
		g := w.grid()
		want, err := storage.EvaluateSeries(w.t.Context(), w.db.Select(w.t.Context(), tn, g.Selection()), g)
		if err != nil {
			w.t.Fatal(err)
		}
		got, err := w.db.Evaluate(w.t.Context(), tn, g)
		if err != nil {
			w.t.Fatal(err)
		}
		what := fmt.Sprintf("%+v", g)
		if d := diffGrids(g, got, want); d != "" {
			w.t.Fatalf("%s: %s", what, d)
		}
		if got.Series != want.Series {
			w.t.Fatalf("%s: %d series, want %d", what, got.Series, want.Series)
		}
		if len(got.Groups) > 0 {
			answered++
		}
	}
	return answered
}

// diffGrids compares aggregates that do not depend on the order of additions to the bit.
func diffGrids(g storage.Grid, got, want *storage.GridResult) string {
	if d := storagetest.DiffGrids(got, want, 1e-9); d != "" {
		return d
	}
	for i, w := range want.Groups {
		for a, row := range w.Values {
			switch g.Aggregates[a].Op {
			case storage.AggSum, storage.AggAvg, storage.AggStddev, storage.AggStdvar:
				continue
			}
			for k, v := range row {
				if x := got.Groups[i].Values[a][k]; x != v && !(math.IsNaN(x) && math.IsNaN(v)) {
					return fmt.Sprintf("group %s, %s, step %d: %v, want %v exactly", w.Labels, g.Aggregates[a].Op, k, x, v)
				}
			}
		}
	}
	return ""
}

func noon() time.Time { return time.Now().UTC().Truncate(24 * time.Hour).Add(-12 * time.Hour) }

func TestEvaluateEqualsSelect(t *testing.T) {
	for seed := range uint64(2) {
		w := newEvalWorld(t, seed, noon(), 300)
		w.append(w.now-1_600_000, 100, false)
		w.check(12) // head
		w.flush()
		w.check(12) // blocks
		w.append(w.now-900_000, 60, true)
		w.check(12) // blocks, head and late samples that overlap
		w.remove(storagetest.Re("region", "1|3"), w.now-1_500_000, w.now-200_000)
		w.check(8)
		w.flush()
		w.append(w.now-600_000, 40, true)
		w.remove(storagetest.Eq("region", "2"), w.now-300_000, w.now)
		w.check(12) // tombstones over blocks
	}
}

func (w *evalWorld) remove(m *storage.Matcher, mint, maxt int64) {
	w.t.Helper()
	s := storage.Selection{Matchers: []*storage.Matcher{m}, MinT: mint, MaxT: maxt}
	if _, err := w.db.Delete(w.t.Context(), storage.MustTenant(evalTenant), s); err != nil {
		w.t.Fatal(err)
	}
}

// FuzzEvaluate compares small worlds with the reference.
func FuzzEvaluate(f *testing.F) {
	for seed := range uint64(3) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		at := noon()
		if seed%2 == 1 {
			at = at.Add(-12*time.Hour + 9*time.Minute)
		}
		w := newEvalWorld(t, seed, at, 60)
		for range 2 {
			w.append(w.now-1_200_000+w.rng.Int64N(600_000), 40, w.rng.IntN(2) == 0)
			if w.rng.IntN(2) == 0 {
				w.flush()
			}
			if w.rng.IntN(3) == 0 {
				w.remove(storagetest.Eq("region", "1"), w.now-800_000, w.now-w.rng.Int64N(700_000))
			}
		}
		w.compare(20)
	})
}

func TestEvaluateOverMidnight(t *testing.T) {
	w := newEvalWorld(t, 3, noon().Add(-12*time.Hour+20*time.Minute), 320) // 20 minutes of the day
	w.append(w.now-1_900_000, 80, false)
	// The new day knows the series in another order, and some not.
	w.rng.Shuffle(len(w.ls), func(i, j int) { w.ls[i], w.ls[j] = w.ls[j], w.ls[i] })
	all := w.ls
	w.ls = all[:220]
	w.append(w.now-1_100_000, 70, true)
	w.ls = all
	w.check(15)
	w.flush()
	w.check(15)
	for _, p := range w.db.allPartitions() { // the packed index
		if err := w.db.closePartition(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	w.check(12)
}

func TestEvaluateAfterReopen(t *testing.T) {
	w := newEvalWorld(t, 4, noon(), 200)
	w.append(w.now-1_500_000, 50, false)
	w.flush()
	w.append(w.now-800_000, 30, true)
	w.db = reopenTest(t, w.db).(*DB)
	w.check(12)
	w.append(w.now-500_000, 33, true)
	w.check(12)
}

func TestEvaluateRefusals(t *testing.T) {
	w := newEvalWorld(t, 5, noon(), 100)
	w.append(w.now-600_000, 40, false)
	tn := storage.MustTenant(evalTenant)
	g := storage.Grid{
		Matchers: []*storage.Matcher{storagetest.Eq(storage.MetricName, "m0")}, Start: w.now, End: w.now, Window: 300_000,
		Func: storage.FuncRate, Aggregates: []storage.Aggregate{{Op: storage.AggSum}}, Grouping: []string{"serial"},
	}
	expect := func(what string, g storage.Grid, kind storage.Kind) {
		t.Helper()
		if _, err := w.db.Evaluate(t.Context(), tn, g); err == nil || storage.KindOf(err) != kind {
			t.Fatalf("%s: %v, want an error of kind %s", what, err, kind)
		}
	}
	bounded := g
	bounded.MaxSeries = 10
	expect("max series", bounded, storage.KindTooLarge)
	bounded = g
	bounded.MaxSamples = 100
	expect("max samples", bounded, storage.KindTooLarge)
	bounded = g
	bounded.MaxGroups = 10
	expect("max groups", bounded, storage.KindTooLarge)
	bounded = g
	bounded.MaxSeries, bounded.MaxSamples, bounded.MaxGroups = 1000, 100_000, 1000
	if _, err := w.db.Evaluate(t.Context(), tn, bounded); err != nil {
		t.Fatal(err)
	}
	expect("empty grid", storage.Grid{}, storage.KindInvalid)

	var b storage.Batch
	b.Labels = append(b.Labels, w.ls[0]...)
	b.AddSample(w.now-1000, w.now-5000, 1)
	b.EndSeries()
	storagetest.MustAppend(t, w.db, evalTenant, &b)
	if _, err := w.db.Evaluate(t.Context(), tn, g); err != nil {
		t.Fatalf("start timestamps that nobody asked for: %v", err)
	}
	for _, f := range []storage.Func{storage.FuncRate, storage.FuncLast} {
		starts := g
		starts.Func, starts.UseStartTimestamps = f, true
		expect("start timestamps", starts, storage.KindUnsupported)
	}
	b.Reset()
	b.AddHistograms(w.ls[2], storage.HistogramSample{T: w.now - 500, H: tsdbutil.GenerateTestHistogram(1)})
	storagetest.MustAppend(t, w.db, evalTenant, &b)
	for _, f := range []storage.Func{storage.FuncRate, storage.FuncLast} {
		g.Func = f
		expect("histograms", g, storage.KindUnsupported)
	}
	w.flush()
	expect("histograms in blocks", g, storage.KindUnsupported)
	g.Start, g.End = w.now-1000, w.now-1000 // before them
	if _, err := w.db.Evaluate(t.Context(), tn, g); err != nil {
		t.Fatalf("histograms out of range: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.db.Evaluate(ctx, tn, g); storage.KindOf(err) != storage.KindCanceled {
		t.Fatalf("canceled: %v", err)
	}
}

func TestEvaluateWithRetention(t *testing.T) {
	w := newEvalWorld(t, 6, noon(), 100)
	w.append(w.now-3_000_000, 90, false)
	w.append(w.now-26*3_600_000, 50, false)
	w.append(w.now-24*3_600_000-300_000, 60, false)
	tn := storage.MustTenant(evalTenant)
	if err := w.db.SetRetention(t.Context(), tn, storage.RetentionPolicy{Metric: "m0", Days: 1}); err != nil {
		t.Fatal(err)
	}
	for _, metric := range []string{"m0", "m."} {
		g := storage.Grid{
			Matchers: []*storage.Matcher{storagetest.Re(storage.MetricName, metric)}, Start: w.now - 86_400_000, End: w.now, Step: 900_000,
			Window: 3_600_000, Func: storage.FuncCountOverTime, Aggregates: []storage.Aggregate{{Op: storage.AggSum}}, Grouping: []string{storage.MetricName},
		}
		want, err := storage.EvaluateSeries(t.Context(), w.db.Select(t.Context(), tn, g.Selection()), g)
		if err != nil {
			t.Fatal(err)
		}
		got, err := w.db.Evaluate(t.Context(), tn, g)
		if err != nil {
			t.Fatal(err)
		}
		if d := storagetest.DiffGrids(got, want, 0); d != "" {
			t.Fatal(d)
		}
	}
}
