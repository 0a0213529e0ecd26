package grid

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

// memory is series in memory, 64 to a unit, with the groups of one grid.
type memory struct {
	series   []storage.Series
	groups   []uint32 // by series
	labels   []storage.Labels
	interval int // series to a unit
}

func newMemory(series []storage.Series, g storage.Grid, perUnit int) *memory {
	m := &memory{series: series, interval: perUnit}
	at := map[string]uint32{}
	for _, s := range series {
		key := storage.AppendGroupLabels(nil, s.Labels, g.Grouping, g.Without)
		n, ok := at[string(key)]
		if !ok {
			n = uint32(len(m.labels))
			at[string(key)] = n
			m.labels = append(m.labels, key)
		}
		m.groups = append(m.groups, n)
	}
	return m
}

func (m *memory) units() int { return (len(m.series) + m.interval - 1) / m.interval }

func (m *memory) unit(i int) (from, to int) {
	return i * m.interval, min(len(m.series), (i+1)*m.interval)
}

func (m *memory) span(i int) (lo, hi uint32) {
	from, to := m.unit(i)
	lo = math.MaxUint32
	for _, g := range m.groups[from:to] {
		lo, hi = min(lo, g), max(hi, g)
	}
	return lo, hi
}

func (m *memory) GroupLabels(group uint32) (storage.Labels, error) { return m.labels[group], nil }
func (m *memory) seriesLabels(series uint32) (storage.Labels, error) {
	return m.series[series].Labels, nil
}

func (m *memory) SeriesLabels(series []uint32) ([]storage.Labels, error) {
	out := make([]storage.Labels, len(series))
	for i, n := range series {
		var err error
		if out[i], err = m.seriesLabels(n); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (m *memory) Chunk(ctx context.Context, c Chunk, s *Shard) error {
	var ts []int64
	var vs []float64
	for u := c.From; u < c.To; u++ {
		if err := storage.ContextError(ctx, "evaluate"); err != nil {
			return err
		}
		from, to := m.unit(u)
		for i := from; i < to; i++ {
			ts, vs = ts[:0], vs[:0]
			for _, x := range m.series[i].Samples {
				ts, vs = append(ts, x.T), append(vs, x.V)
			}
			s.kernel.Reset()
			if err := s.Add(uint32(i), m.groups[i], ts, vs); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *memory) Close() {}

func (m *memory) evaluate(ctx context.Context, g storage.Grid, budget *Budget) (*storage.GridResult, int, error) {
	p, err := NewPlan(g, budget)
	if err != nil {
		return nil, 0, err
	}
	chunks := p.Chunks(m.units(), DefaultCut, m.span)
	res, err := Evaluate(ctx, p, chunks, uint32(len(m.labels)), func() Worker { return m }, m)
	return res, len(chunks), err
}

func (m *memory) all() iter.Seq2[storage.Series, error] {
	return func(yield func(storage.Series, error) bool) {
		for _, s := range m.series {
			if !yield(s, nil) {
				return
			}
		}
	}
}

// someSeries makes random series whose sums are well conditioned enough to compare with a tolerance relative to the result;
// wild ones hold anything.
func someSeries(rng *rand.Rand, n int, wild bool) []storage.Series {
	out := make([]storage.Series, n)
	for i := range out {
		out[i].Labels = storage.LabelsFromStrings(storage.MetricName, "m", "region", fmt.Sprint(rng.IntN(4)),
			"customer", fmt.Sprint(rng.IntN(n/3+1)), "serial", fmt.Sprint(i))
		ts, vs := randomSeries(rng, 1_700_000_000_000-300_000, rng.IntN(60))
		for k, t := range ts {
			v := vs[k]
			if !wild && !storage.IsStale(v) && !(math.Abs(v) < 1e6) {
				v = float64(k)
			}
			out[i].Samples = append(out[i].Samples, storage.Sample{T: t, V: v})
		}
	}
	return out
}

// exact tells whether joining chunks leaves the result's bits alone.
func exact(op storage.AggOp) bool {
	switch op {
	case storage.AggSum, storage.AggAvg, storage.AggStddev, storage.AggStdvar:
		return false
	default:
		return true
	}
}

func allAggregates(f storage.Func) [][]storage.Aggregate {
	var several []storage.Aggregate
	for op := storage.AggSum; op <= storage.AggGroup; op++ {
		several = append(several, storage.Aggregate{Op: op, Arg: 0.9})
	}
	several = append(several, storage.Aggregate{Op: storage.AggQuantile, Arg: 0.1})
	if f == storage.FuncNone {
		return [][]storage.Aggregate{append(several, storage.Aggregate{Op: storage.AggFirst}, storage.Aggregate{Op: storage.AggLast})}
	}
	lists := [][]storage.Aggregate{several}
	for _, k := range []float64{0, 1, 2, 7, 1e9, math.NaN(), math.Inf(1), -3} {
		lists = append(lists, []storage.Aggregate{{Op: storage.AggTopK, Arg: k}}, []storage.Aggregate{{Op: storage.AggBottomK, Arg: k}})
	}
	return lists
}

func checkGrid(t *testing.T, g storage.Grid, series []storage.Series, perUnit int) (chunks int) {
	t.Helper()
	m := newMemory(series, g, perUnit)
	want, err := storage.EvaluateSeries(t.Context(), m.all(), g)
	if err != nil {
		t.Fatal(err)
	}
	got, chunks, err := m.evaluate(t.Context(), g, NewBudget(plenty, "the test", nil))
	if err != nil {
		t.Fatal(err)
	}
	if d := storagetest.DiffGrids(got, want, 1e-9); d != "" {
		t.Fatalf("%s/%v by %v: %s", g.Func, g.Aggregates, g.Grouping, d)
	}
	for i, w := range want.Groups {
		for a, row := range w.Values {
			if chunks > 1 && !exact(g.Aggregates[a].Op) {
				continue
			}
			for step, v := range row {
				x := got.Groups[i].Values[a][step]
				if x != v && !sameBits(x, v) {
					t.Fatalf("%s/%v by %v in %d chunks: group %s step %d: %v, want %v to the bit", g.Func, g.Aggregates[a], g.Grouping, chunks, w.Labels, step, x, v)
				}
			}
		}
	}
	return chunks
}

func TestEvaluateEqualsReference(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	groupings := []struct {
		names   []string
		without bool
	}{{nil, false}, {[]string{"region"}, false}, {[]string{"customer", "absent"}, false}, {[]string{"serial"}, false}, {[]string{"customer"}, true}}
	many := 0
	for f := storage.FuncNone; f <= storage.FuncNativeRate; f++ {
		for _, aggs := range allAggregates(f) {
			for _, perUnit := range []int{1, 64} {
				g := testGrids()[rng.IntN(len(testGrids()))]
				by := groupings[rng.IntN(len(groupings))]
				g.Func, g.FuncArg, g.Aggregates, g.Grouping, g.Without = f, 0.9, aggs, by.names, by.without
				if checkGrid(t, g, someSeries(rng, 40, perUnit == 64), perUnit) > 1 {
					many++
				}
			}
		}
	}
	if many == 0 {
		t.Fatal("no grid was cut into chunks")
	}
}

// TestSumsOfManyChunks holds the promise for sums that cancel: an error below 1e-12 of the sum of absolute values.
func TestSumsOfManyChunks(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	g := testGrids()[0]
	g.Func, g.Aggregates = storage.FuncLast, []storage.Aggregate{{Op: storage.AggSum}, {Op: storage.AggAvg}}
	g.Grouping = []string{"region"}
	series := someSeries(rng, 2000, false)
	abs := 0.0
	for i := range series {
		v := rng.NormFloat64() * math.Pow(10, float64(rng.IntN(16)))
		abs += math.Abs(v)
		series[i].Samples = []storage.Sample{{T: g.Start, V: v}}
	}
	m := newMemory(series, g, 4)
	want, _ := storage.EvaluateSeries(t.Context(), m.all(), g)
	got, chunks, err := m.evaluate(t.Context(), g, NewBudget(plenty, "the test", nil))
	if err != nil || chunks < 8 {
		t.Fatalf("%d chunks, %v", chunks, err)
	}
	for i, w := range want.Groups {
		for a := range w.Values {
			if d := math.Abs(got.Groups[i].Values[a][0] - w.Values[a][0]); d > 1e-12*abs {
				t.Fatalf("group %s: off by %g of %g", w.Labels, d, abs)
			}
		}
	}
	for range 20 { // whoever comes first
		again, _, err := m.evaluate(t.Context(), g, NewBudget(plenty, "the test", nil))
		if err != nil {
			t.Fatal(err)
		}
		if d := storagetest.DiffGrids(again, got, 0); d != "" {
			t.Fatalf("a second run differs: %s", d)
		}
	}
}

func TestAverageThatOverflows(t *testing.T) {
	g := testGrids()[0]
	g.Func, g.Aggregates = storage.FuncLast, []storage.Aggregate{{Op: storage.AggAvg}}
	for _, vs := range [][]float64{
		{math.MaxFloat64, math.MaxFloat64}, {math.MaxFloat64, -math.MaxFloat64}, {math.Inf(1), 1}, {1, math.Inf(-1)},
		{math.Inf(1), math.Inf(-1)}, {math.MaxFloat64 / 2, math.MaxFloat64 / 4},
	} {
		series := someSeries(rand.New(rand.NewPCG(1, 1)), 64, false)
		for i := range series {
			series[i].Samples = []storage.Sample{{T: g.Start, V: vs[i*len(vs)/len(series)]}}
		}
		m := newMemory(series, g, 1)
		want, _ := storage.EvaluateSeries(t.Context(), m.all(), g)
		got, chunks, err := m.evaluate(t.Context(), g, NewBudget(plenty, "the test", nil))
		if err != nil || chunks < 2 {
			t.Fatalf("%d chunks, %v", chunks, err)
		}
		x, w := got.Groups[0].Values[0][0], want.Groups[0].Values[0][0]
		if !sameBits(x, w) && !(math.Abs(x-w) <= 1e-12*math.MaxFloat64) {
			t.Fatalf("average of %v: %v, want %v", vs, x, w)
		}
	}
}

func TestTopKKeepsTies(t *testing.T) {
	g := testGrids()[0]
	g.Func, g.Aggregates = storage.FuncLast, []storage.Aggregate{{Op: storage.AggTopK, Arg: 3}}
	series := someSeries(rand.New(rand.NewPCG(1, 1)), 500, false)
	for i := range series {
		series[i].Samples = []storage.Sample{{T: g.Start, V: float64(i % 2)}}
	}
	checkGrid(t, g, series, 4)
}

func TestBudget(t *testing.T) {
	series := someSeries(rand.New(rand.NewPCG(1, 1)), 3000, false)
	for _, agg := range []storage.Aggregate{{Op: storage.AggSum}, {Op: storage.AggQuantile, Arg: 0.5}, {Op: storage.AggTopK, Arg: 1e6}} {
		g := testGrids()[1]
		g.Func, g.Aggregates, g.Grouping = storage.FuncLast, []storage.Aggregate{agg}, []string{"serial"}
		m := newMemory(series, g, 64)
		budget := NewBudget(1<<20, "the test", nil)
		_, _, err := m.evaluate(t.Context(), g, budget)
		var e *storage.Error
		if !errors.As(err, &e) || e.Kind != storage.KindTooLarge || e.ID == "" {
			t.Fatalf("%s: %v, want a limit", agg.Op, err)
		}
		if budget.Peak() > 1<<20 {
			t.Fatalf("%s: %d bytes were taken of %d", agg.Op, budget.Peak(), 1<<20)
		}
		g.MaxGroups = 10
		_, _, err = m.evaluate(t.Context(), g, NewBudget(plenty, "the test", nil))
		if !errors.As(err, &e) || e.ID != "max-groups-per-query" {
			t.Fatalf("%s: %v, want the limit of groups", agg.Op, err)
		}
	}
}

func TestEvaluateStops(t *testing.T) {
	g := testGrids()[1]
	g.Func, g.Aggregates = storage.FuncLast, []storage.Aggregate{{Op: storage.AggSum}}
	m := newMemory(someSeries(rand.New(rand.NewPCG(1, 1)), 1000, false), g, 4)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := m.evaluate(ctx, g, NewBudget(plenty, "the test", nil)); storage.KindOf(err) != storage.KindCanceled {
		t.Fatalf("canceled: %v", err)
	}
	p := mustPlan(t, g)
	boom := errors.New("boom")
	_, err := Evaluate(t.Context(), p, p.Chunks(m.units(), DefaultCut, m.span), 1, func() Worker { return failing{m, boom} }, m)
	if !errors.Is(err, boom) {
		t.Fatalf("failing worker: %v", err)
	}
}

type failing struct {
	*memory
	err error
}

func (f failing) Chunk(ctx context.Context, c Chunk, s *Shard) error {
	if c.From > 0 {
		return f.err
	}
	return f.memory.Chunk(ctx, c, s)
}

func TestInvalidGrids(t *testing.T) {
	g := testGrids()[0]
	g.Aggregates = []storage.Aggregate{{Op: storage.AggTopK, Arg: 1}}
	for _, bad := range []storage.Grid{{}, g} {
		if _, err := NewPlan(bad, NewBudget(plenty, "the test", nil)); storage.KindOf(err) != storage.KindInvalid {
			t.Fatalf("%v: %v, want an invalid error", bad, err)
		}
	}
}
