package clickhouse

import (
	"context"
	"math"
	"slices"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/luminate/luminate/storage"
)

// Bounds of one Evaluate; beyond them the caller's Select is no worse.
const (
	maxOverlap  = 20         // windows that one sample may lie in
	maxHeld     = 20_000_000 // values held until all have come
	maxRecalled = 20_000     // series that are read again because of values that are not finite
)

// Images that the statements compare with.
var (
	staleImage  = storage.ValueImage(storage.StaleNaN)
	negInfImage = storage.ValueImage(math.Inf(-1))
	posInfImage = storage.ValueImage(math.Inf(1))
)

// gridSettings allow the grid functions, which are experimental in the versions that
// have them. A server without them answers unknown function: unsupported.
var gridSettings = clickhouse.Settings{"allow_experimental_time_series_aggregate_functions": 1}

// Evaluate implements storage.Store. ClickHouse reduces each series to one value for
// each step; labels are joined and groups aggregated here, by the reference's own
// accumulators, or for one step of many series on the server too. Series whose values are not all finite are read and evaluated by the
// reference, because NaN and infinities are where a database's functions differ.
func (s *Store) Evaluate(ctx context.Context, t storage.Tenant, g storage.Grid) (*storage.GridResult, error) {
	if err := s.enter(ctx, "evaluate", t); err != nil {
		return nil, err
	}
	if err := g.Validate(); err != nil {
		return nil, err
	}
	res, err := s.evaluate(ctx, t, &g)
	result := "answered"
	if err != nil {
		err = translate(ctx, "evaluate", err)
		result = storage.KindOf(err).String()
	}
	s.metrics.evaluated.WithLabelValues(result).Inc()
	return res, err
}

func (s *Store) evaluate(ctx context.Context, t storage.Tenant, g *storage.Grid) (*storage.GridResult, error) {
	e := &evaluation{s: s, g: g, steps: g.Steps(), res: &storage.GridResult{}}
	if err := e.supported(); err != nil {
		return nil, err
	}
	mint, maxt := g.Bounds()
	var empty bool
	var err error
	if e.sel, empty, err = s.plan(ctx, t, g.Matchers, mint, maxt); err != nil || empty {
		return e.res, err
	}
	if !e.sel.uniform() {
		return nil, unsupported("metrics have different retention")
	}
	if e.pushable() {
		many, err := e.many(ctx)
		if err != nil {
			return nil, err
		}
		if many {
			return e.push(ctx)
		}
	}
	if err := e.loadGroups(ctx); err != nil || len(e.rows) == 0 {
		return e.res, err
	}
	for i, sh := range s.shards {
		f := s.filterFor(e.sel, e.rows, i, true)
		if f.none {
			continue
		}
		if err := e.check(ctx, sh, f); err != nil {
			return nil, err
		}
		if err := e.reduce(ctx, sh, f); err != nil {
			return nil, err
		}
	}
	if err := e.recall(ctx); err != nil {
		return nil, err
	}
	return e.result()
}

func unsupported(why string) error {
	return storage.Errorf(storage.KindUnsupported, "evaluate", "%s", why)
}

// evaluation is one Evaluate.
type evaluation struct {
	s     *Store
	g     *storage.Grid
	sel   selection
	steps int

	rows   []seriesRow // labels are those of the group, or the series' own if ordered
	index  map[uint64]int
	groups []*group
	of     []int        // row to group
	held   []float64    // [row × steps], where values must wait for order or for dirty rows
	dirty  map[int]bool // rows with values that are not finite
	seen   []bool
	res    *storage.GridResult
}

// group is a group of the answer.
type group struct {
	labels storage.Labels
	accs   [][]storage.Accumulator // [aggregate][step]
	whole  []partial               // FuncNone: [step]
}

// ordered tells whether the order of additions shows in the answer: Welford's variance
// and the ranking, which needs the series' labels.
func (e *evaluation) ordered() bool {
	return slices.ContainsFunc(e.g.Aggregates, func(a storage.Aggregate) bool {
		switch a.Op {
		case storage.AggStddev, storage.AggStdvar, storage.AggTopK, storage.AggBottomK:
			return true
		default:
			return false
		}
	})
}

// waits tells whether a series' values come in several rows, of which a later one may
// show that the series has to be read again.
func (e *evaluation) waits() bool {
	switch e.g.Func {
	case storage.FuncSumOverTime, storage.FuncAvgOverTime, storage.FuncIntegral, storage.FuncNativeRate:
		return true
	default:
		return false
	}
}

// supported refuses what the statements cannot do exactly.
func (e *evaluation) supported() error {
	g := e.g
	switch g.Func {
	case storage.FuncQuantileOverTime, storage.FuncStddevOverTime, storage.FuncStdvarOverTime, storage.FuncChanges, storage.FuncResets:
		return unsupported(g.Func.String() + " needs the samples themselves")
	case storage.FuncNone:
		for _, a := range g.Aggregates {
			switch a.Op {
			case storage.AggQuantile, storage.AggStddev, storage.AggStdvar, storage.AggTopK, storage.AggBottomK:
				return unsupported(a.Op.String() + " of samples needs the samples themselves")
			}
		}
	case storage.FuncIntegral, storage.FuncNativeRate:
		if e.overlap() > 1 {
			return unsupported(g.Func.String() + " over overlapping windows")
		}
	case storage.FuncRate, storage.FuncIncrease, storage.FuncDelta, storage.FuncIrate, storage.FuncIdelta:
		if len(g.Edges) > 0 {
			return unsupported(g.Func.String() + " over uneven windows")
		}
		return nil // the grid functions take any overlap
	}
	if e.overlap() > maxOverlap {
		return unsupported("too many overlapping windows")
	}
	return nil
}

// overlap is how many windows a sample can lie in.
func (e *evaluation) overlap() int64 {
	if len(e.g.Edges) > 0 || e.steps == 1 {
		return 1
	}
	return (e.g.Window + e.g.Step - 1) / e.g.Step
}

// add takes the value of a series at a step.
func (e *evaluation) add(row, step int, v float64) {
	if storage.IsStale(v) {
		return
	}
	if e.held != nil {
		e.held[row*e.steps+step] = v
		return
	}
	e.groups[e.of[row]].add(e.g, e.steps, step, 0, v)
}

func (gr *group) add(g *storage.Grid, steps, step int, t int64, v float64) {
	if gr.accs == nil {
		gr.accs = make([][]storage.Accumulator, len(g.Aggregates))
		for a := range gr.accs {
			gr.accs[a] = make([]storage.Accumulator, steps)
		}
	}
	for a, agg := range g.Aggregates {
		gr.accs[a][step].Add(agg.Op, t, v)
	}
}

func absentValues(n int) []float64 {
	vs := make([]float64, n)
	for i := range vs {
		vs[i] = storage.Absent
	}
	return vs
}

// see counts a series and its samples.
func (e *evaluation) see(row int, samples uint64) error {
	if !e.seen[row] {
		e.seen[row] = true
		e.res.Series++
	}
	return e.count(samples)
}

// count counts samples and holds the answer to the grid's bounds.
func (e *evaluation) count(samples uint64) error {
	e.res.Samples += samples
	if limit := e.g.MaxSeries; limit > 0 && e.res.Series > uint64(limit) {
		return storage.LimitErrorf(storage.KindTooLarge, "evaluate", "max-series-per-query", "limits.maxSeriesPerQuery", "the query selects more than %d series", limit)
	}
	if limit := e.g.MaxSamples; limit > 0 && e.res.Samples > uint64(limit) {
		return storage.LimitErrorf(storage.KindTooLarge, "evaluate", "max-samples-per-query", "limits.maxSamplesPerQuery", "the query selects more than %d samples", limit)
	}
	return nil
}

// recall evaluates the dirty series by the reference.
func (e *evaluation) recall(ctx context.Context) error {
	if len(e.dirty) == 0 {
		return nil
	}
	if len(e.dirty) > maxRecalled {
		return unsupported("too many series have values that are not finite")
	}
	if e.g.Func == storage.FuncNone {
		return unsupported("samples that are not finite")
	}
	rows := make([]seriesRow, 0, len(e.dirty))
	for i := range e.rows {
		if !e.dirty[i] {
			continue
		}
		rows = append(rows, e.rows[i])
		if e.held != nil { // what came before the value that is not finite
			copy(e.held[i*e.steps:(i+1)*e.steps], absentValues(e.steps))
		}
	}
	r := &reader{s: e.s, sel: e.sel, emit: func(row seriesRow, x storage.Series) bool {
		e.reference(e.index[row.id], x.Samples)
		return true
	}}
	return r.run(ctx, rows, false)
}

// reference evaluates one series' steps as storage.EvaluateSeries does.
func (e *evaluation) reference(row int, samples []storage.Sample) {
	if e.g.Func != storage.FuncLast {
		samples = slices.DeleteFunc(samples, func(x storage.Sample) bool { return storage.IsStale(x.V) })
	}
	lo, hi := 0, 0
	for i := range e.steps {
		after, upto := e.g.WindowAt(i)
		for hi < len(samples) && samples[hi].T <= upto {
			hi++
		}
		for lo < hi && samples[lo].T <= after {
			lo++
		}
		if lo == hi {
			continue
		}
		var prev *storage.Sample
		if lo > 0 && samples[lo].T-samples[lo-1].T <= storage.NativeRateLookback {
			prev = &samples[lo-1]
		}
		if v, ok := storage.EvalWindow(e.g.Func, e.g.FuncArg, samples[lo:hi], after, upto, prev); ok {
			e.add(row, i, v)
		}
	}
}

// result puts the groups together.
func (e *evaluation) result() (*storage.GridResult, error) {
	op := e.g.Aggregates[0].Op
	if e.held != nil {
		if op == storage.AggTopK || op == storage.AggBottomK {
			return e.topResult(), nil
		}
		for i, v := range e.held {
			if !storage.IsStale(v) {
				e.groups[e.of[i/e.steps]].add(e.g, e.steps, i%e.steps, 0, v)
			}
		}
	}
	for _, gr := range e.groups {
		if gr.whole != nil {
			e.res.Groups = append(e.res.Groups, gr.fromPartials(e.g, e.steps))
			continue
		}
		if gr.accs == nil {
			continue
		}
		out := storage.GridGroup{Labels: gr.labels, Values: make([][]float64, len(e.g.Aggregates))}
		for a, agg := range e.g.Aggregates {
			out.Values[a] = make([]float64, e.steps)
			for i := range e.steps {
				out.Values[a][i] = gr.accs[a][i].Value(agg)
			}
		}
		e.res.Groups = append(e.res.Groups, out)
	}
	storage.SortGroups(e.res.Groups)
	return e.res, e.checkGroups(len(e.res.Groups))
}

func (e *evaluation) checkGroups(n int) error {
	if limit := e.g.MaxGroups; limit > 0 && n > limit {
		return storage.LimitErrorf(storage.KindTooLarge, "evaluate", "max-groups-per-query", "limits.maxGroupsPerQuery", "the query makes more than %d groups", limit)
	}
	return nil
}

// topResult answers topk and bottomk: series, not groups.
func (e *evaluation) topResult() *storage.GridResult {
	byGroup := make([][]storage.GridGroup, len(e.groups))
	for row, r := range e.rows {
		if vs := e.held[row*e.steps : (row+1)*e.steps]; slices.ContainsFunc(vs, func(v float64) bool { return !storage.IsStale(v) }) {
			byGroup[e.of[row]] = append(byGroup[e.of[row]], storage.GridGroup{Labels: r.labels, Values: [][]float64{vs}})
		}
	}
	for _, series := range byGroup {
		e.res.Groups = append(e.res.Groups, storage.PreselectTopK(series, e.steps, e.g.Aggregates[0])...)
	}
	storage.SortGroups(e.res.Groups)
	return e.res
}
