package clickhouse

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/internal/grid"
)

const (
	// fewSeries is up to how many series an evaluation names by id; where more match,
	// the metric is read as a whole, beside its roster.
	fewSeries = maxBoundIDs
	// rangeSamples is how many samples one statement of an evaluation may bring.
	rangeSamples = 1 << 21
	// firstDensity is the samples a series and millisecond that are expected of a metric
	// that was never read.
	firstDensity = 1.0 / 15_000
	// maxExtensions bounds how often an evaluation begins anew because of new series.
	maxExtensions = 3
)

// Few statements: each costs the server 10 to 15 ms and a look at the key of each row. The
// newest samples need memory by series only, so that two, one a core, suffice.
var (
	statementCut = grid.Cut{Least: 256, Most: 4}
	newestCut    = grid.Cut{Least: 256, Most: 2}
)

// Evaluate implements storage.Store. ClickHouse hands out the samples as columns, in no
// order, and the kernels that Badger uses too evaluate them here: their answer is exact
// whatever the values are, and needs no FINAL.
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
	mint, maxt := g.Bounds()
	sel, empty, err := s.plan(ctx, t, g.Matchers, mint, maxt)
	if err != nil || empty {
		return &storage.GridResult{}, err
	}
	if sel.one && !matchMetric(sel) {
		return &storage.GridResult{}, nil
	}
	if !sel.uniform() {
		return nil, unsupported("metrics have different retention")
	}
	for try := 0; ; try++ {
		e := &evaluation{s: s, g: g, sel: sel, budget: grid.NewBudget(s.cfg.MaxEvaluateBytes, "storage.clickhouse.maxEvaluateBytes", g.Hold), unknown: map[int]map[uint64]struct{}{}}
		res, err := e.run(ctx)
		e.budget.Close()
		if err != nil {
			return nil, err
		}
		// Ids that nobody knows after that are of samples whose series a delete removed.
		if len(e.unknown) == 0 || try == maxExtensions {
			return res, nil
		}
		if known, err := s.extendRosters(ctx, e); err != nil || known == 0 {
			return res, err
		}
	}
}

// matchMetric tells whether the metric that an equality names fits the other matchers
// of the name.
func matchMetric(sel selection) bool {
	return !slices.ContainsFunc(sel.matchers, func(m *storage.Matcher) bool {
		return m.Name == storage.MetricName && !m.Matches(sel.metric)
	})
}

func unsupported(why string) error {
	return storage.Errorf(storage.KindUnsupported, "evaluate", "%s", why)
}

// evaluation is one Evaluate.
type evaluation struct {
	s      *Store
	g      *storage.Grid
	sel    selection
	plan   *grid.Plan
	budget *grid.Budget

	parts  []*part
	series int // of all parts
	groups []storage.Labels

	found, samples atomic.Uint64 // series and their samples that were read

	mu      sync.Mutex
	queries []string
	unknown map[int]map[uint64]struct{} // by shard: ids that the rosters lack
}

// part is what one shard holds: the series number first and following of the evaluation
// are those of its roster.
type part struct {
	sh      *shard
	first   int
	roster  *roster
	members *members
	whole   bool     // read the metric as a whole, else by ids
	metrics []string // nil: any
	present bool     // that a series has a sample is all that has to be known
}

func (e *evaluation) run(ctx context.Context) (res *storage.GridResult, err error) {
	if e.plan, err = grid.NewPlan(*e.g, e.budget); err != nil {
		return nil, err
	}
	if err := e.load(ctx); err != nil {
		return nil, err
	}
	if e.series == 0 {
		return &storage.GridResult{Queries: e.queries}, nil
	}
	e.number()
	if err := e.s.onShards(ctx, e.checkMarkers); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	refused := make(chan error, 1)
	go func() {
		err := e.s.onShards(ctx, e.check)
		if err != nil {
			cancel(err)
		}
		refused <- err
	}()
	if res, err = e.read(ctx); err != nil {
		cancel(err)
	}
	why := <-refused
	if err != nil {
		// Whoever fails first cuts the other off, which then says that its connection was closed.
		return nil, context.Cause(ctx)
	}
	if why != nil {
		return nil, why
	}
	return res, nil
}

// read evaluates the series.
func (e *evaluation) read(ctx context.Context) (*storage.GridResult, error) {
	cut := statementCut
	if _, _, last := e.plan.LastOnly(); last {
		cut = newestCut
	}
	chunks := e.plan.Chunks((e.series+unitSeries-1)/unitSeries, cut, e.groupSpan)
	newWorker := func() grid.Worker {
		return &evaluationWorker{evaluation: e, gather: gather{budget: e.budget, limit: e.s.rangeSamples}, newest: newest{budget: e.budget}}
	}
	res, err := grid.Evaluate(ctx, e.plan, chunks, uint32(len(e.groups)), newWorker, seriesSource{e, ctx})
	if err != nil {
		return nil, err
	}
	res.Series, res.Samples, res.Queries = e.found.Load(), e.samples.Load(), e.queries
	res.Bytes = 20 * res.Samples
	return res, nil
}

// unitSeries is the number of series in a unit of work.
const unitSeries = 64

// number gives each part its place and makes groups of several shards one.
func (e *evaluation) number() {
	if len(e.parts) == 1 {
		e.groups = e.parts[0].members.labels
		return
	}
	known := map[string]uint32{}
	for _, p := range e.parts {
		own := p.members
		to := make([]uint32, len(own.labels))
		for i, l := range own.labels {
			n, ok := known[string(l)]
			if !ok {
				n = uint32(len(e.groups))
				known[string(l)] = n
				e.groups = append(e.groups, l)
			}
			to[i] = n
		}
		p.members = &members{of: make([]uint32, len(p.roster.ids))}
		for i := range p.members.of {
			if p.members.of[i] = own.group(i); p.members.of[i] != noGroup {
				p.members.of[i] = to[p.members.of[i]]
			}
		}
	}
}

// forParts calls f for the parts of the series [from, to), with positions in its roster.
func (e *evaluation) forParts(from, to int, f func(p *part, from, to int) error) error {
	for _, p := range e.parts {
		a, b := max(from, p.first), min(to, p.first+len(p.roster.ids))
		if a >= b {
			continue
		}
		if err := f(p, a-p.first, b-p.first); err != nil {
			return err
		}
	}
	return nil
}

// groupSpan returns the lowest and highest group of a unit.
func (e *evaluation) groupSpan(unit int) (lo, hi uint32) {
	lo = noGroup
	_ = e.forParts(unit*unitSeries, (unit+1)*unitSeries, func(p *part, from, to int) error {
		for i := from; i < to; i++ {
			if g := p.members.group(i); g != noGroup {
				lo, hi = min(lo, g), max(hi, g)
			}
		}
		return nil
	})
	return min(lo, hi), hi
}

// check refuses data that the reference refuses: native histograms, and start
// timestamps that the grid asks to honour. It runs beside the read.
func (e *evaluation) check(ctx context.Context, sh *shard) error {
	if any, err := e.has(ctx, sh, "evaluate/has_histograms", fragments{}, &params{}); err != nil || any {
		return cmp.Or(err, unsupported("series have native histograms"))
	}
	if !e.g.UseStartTimestamps {
		return nil
	}
	if any, err := e.has(ctx, sh, "evaluate/has_start_timestamps", fragments{}, &params{}); err != nil || any {
		return cmp.Or(err, unsupported("series have start timestamps"))
	}
	return nil
}

// checkMarkers finds out whether ids alone tell the answer.
func (e *evaluation) checkMarkers(ctx context.Context, sh *shard) error {
	if _, _, last := e.plan.LastOnly(); !last || !e.plan.CountsOnly() {
		return nil
	}
	var p params
	any, err := e.has(ctx, sh, "evaluate/has_markers", fragments{"Marker": p.u64(staleImage)}, &p)
	for _, x := range e.parts {
		if x.sh == sh {
			x.present = !any
		}
	}
	return err
}

// has tells whether a statement over the series of a shard answers a row.
func (e *evaluation) has(ctx context.Context, sh *shard, name string, f fragments, p *params) (found bool, err error) {
	i := slices.IndexFunc(e.parts, func(x *part) bool { return x.sh == sh })
	if i < 0 {
		return false, nil
	}
	f["Where"] = e.where(p, e.parts[i], 0, len(e.parts[i].roster.ids))
	err = e.s.each(ctx, sh, render(name, f), p.args, func(driver.Rows) error {
		found = true
		return nil
	})
	return found, err
}

// where is the WHERE of the samples of a part's positions.
func (e *evaluation) where(p *params, x *part, from, to int) string {
	f := rowFilter{metrics: x.metrics}
	if x.whole {
		f.keys = keyRange(p, x.roster, from, to)
	} else {
		f.ids = x.roster.ids[from:to]
		locs := slices.Clone(x.roster.locs[from:to])
		slices.Sort(locs)
		if locs = slices.Compact(locs); len(locs) <= 1000 {
			f.locs = locs
		}
	}
	return e.s.where(p, e.sel, f)
}

// note keeps a statement for explain.
func (e *evaluation) note(sql string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queries) < 16 && !slices.Contains(e.queries, sql) {
		e.queries = append(e.queries, sql)
	}
}

// count counts series and their samples and holds the answer to the grid's bounds.
func (e *evaluation) count(series, samples int) error {
	n, total := e.found.Add(uint64(series)), e.samples.Add(uint64(samples))
	if limit := e.g.MaxSeries; limit > 0 && n > uint64(limit) {
		return storage.LimitErrorf(storage.KindTooLarge, "evaluate", "max-series-per-query", "limits.maxSeriesPerQuery", "the query selects more than %d series", limit)
	}
	if limit := e.g.MaxSamples; limit > 0 && total > uint64(limit) {
		return storage.LimitErrorf(storage.KindTooLarge, "evaluate", "max-samples-per-query", "limits.maxSamplesPerQuery", "the query selects more than %d samples", limit)
	}
	return nil
}

// evaluationWorker is one goroutine of an evaluation.
type evaluationWorker struct {
	*evaluation
	gather gather
	newest newest

	series, samples int // not counted yet
}

// countTogether is how many series a worker counts at once: the counters are shared.
const countTogether = 1024

// count counts a series and its samples.
func (w *evaluationWorker) count(samples int) error {
	w.series++
	w.samples += samples
	if w.series < countTogether {
		return nil
	}
	return w.countRest()
}

func (w *evaluationWorker) countRest() error {
	series, samples := w.series, w.samples
	w.series, w.samples = 0, 0
	return w.evaluation.count(series, samples)
}

// Close implements grid.Worker.
func (w *evaluationWorker) Close() {
	w.gather.free()
	w.newest.free()
}

// Chunk implements grid.Worker.
func (w *evaluationWorker) Chunk(ctx context.Context, c grid.Chunk, s *grid.Shard) error {
	_, _, last := w.plan.LastOnly()
	err := w.forParts(c.From*unitSeries, min(w.evaluation.series, c.To*unitSeries), func(p *part, from, to int) error {
		read, n := w.positions, w.statements(p, to-from)
		if last {
			read, n = w.last, 1
			if !p.whole {
				n = (to - from + maxBoundIDs - 1) / maxBoundIDs
			}
		}
		for i := range n {
			if err := read(ctx, p, from+i*(to-from)/n, from+(i+1)*(to-from)/n, s); err != nil {
				return err
			}
		}
		return nil
	})
	return cmp.Or(err, w.countRest())
}

// statements is into how many statements the read of some series is cut, so that each is expected to have three quarters
// of the samples that it may bring.
func (w *evaluationWorker) statements(p *part, series int) int {
	density := math.Float64frombits(p.roster.density.Load())
	if density == 0 {
		density = firstDensity
	}
	samples := float64(series) * max(1, density*float64(w.sel.maxt-w.sel.mint))
	n := math.Ceil(samples / (0.75 * float64(w.gather.limit)))
	if !p.whole {
		n = max(n, math.Ceil(float64(series)/maxBoundIDs))
	}
	return int(max(1, min(n, float64(series))))
}

// last reads and evaluates some series of which the newest sample decides.
func (w *evaluationWorker) last(ctx context.Context, p *part, from, to int, s *grid.Shard) error {
	var ps params
	x := span{roster: p.roster, members: p.members, from: from, to: to, mint: w.sel.mint, maxt: w.sel.maxt}
	sql, err := w.newest.read(ctx, w.s, p.sh, x, p.present, w.where(&ps, p, from, to), &ps, func(id uint64) { w.miss(p, id) })
	if err != nil {
		return err
	}
	w.note(sql)
	w.learn(p, to-from, w.newest.rows)
	return w.newest.each(from, func(at int, v float64) error {
		if err := w.count(1); err != nil {
			return err
		}
		return s.AddLast(uint32(p.first+at), p.members.group(at), v)
	})
}

// learn remembers how many samples some series of a metric had.
func (w *evaluationWorker) learn(p *part, series, samples int) {
	if x := w.sel.maxt - w.sel.mint; p.whole && x > 0 {
		p.roster.density.Store(math.Float64bits(float64(samples) / float64(series) / float64(x)))
	}
}

// positions reads and evaluates some series; halves of them if they have too many
// samples for one statement. So memory is bounded however long the range is.
func (w *evaluationWorker) positions(ctx context.Context, p *part, from, to int, s *grid.Shard) error {
	var ps params
	x := span{roster: p.roster, members: p.members, from: from, to: to, mint: w.sel.mint, maxt: w.sel.maxt}
	sql, err := w.gather.read(ctx, w.s, p.sh, x, w.where(&ps, p, from, to), &ps, func(id uint64) { w.miss(p, id) })
	if errors.Is(err, errTooMany) {
		half := from + (to-from)/2
		if err := w.positions(ctx, p, from, half, s); err != nil {
			return err
		}
		return w.positions(ctx, p, half, to, s)
	}
	if err != nil {
		return err
	}
	w.note(sql)
	w.learn(p, to-from, len(w.gather.at))
	s.NextColumns()
	return w.gather.each(x, func(at int, ts []int64, vs []float64) error {
		if err := w.count(len(ts)); err != nil {
			return err
		}
		return s.Add(uint32(p.first+at), p.members.group(at), ts, vs)
	})
}

// miss remembers an id that a roster lacks.
func (w *evaluationWorker) miss(p *part, id uint64) {
	if !p.whole {
		return // a hash that the filter let through
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := w.unknown[p.sh.index]
	if ids == nil {
		ids = map[uint64]struct{}{}
		w.unknown[p.sh.index] = ids
	}
	ids[id] = struct{}{}
}

// seriesSource names groups and series.
type seriesSource struct {
	*evaluation
	ctx context.Context //nolint:containedctx // of the one evaluation that the source lives for
}

// GroupLabels implements grid.Source.
func (s seriesSource) GroupLabels(group uint32) (storage.Labels, error) { return s.groups[group], nil }

// SeriesLabels implements grid.Source.
func (s seriesSource) SeriesLabels(series []uint32) ([]storage.Labels, error) {
	out := make([]storage.Labels, len(series))
	for _, p := range s.parts {
		want := map[uint64][]int{}
		for i, n := range series {
			if at := int(n) - p.first; at >= 0 && at < len(p.roster.ids) {
				id := p.roster.ids[at]
				want[id] = append(want[id], i)
			}
		}
		err := s.s.labelsOf(s.ctx, p, s.sel, want, func(_ uint32, id uint64, ls storage.Labels) {
			for _, i := range want[id] {
				out[i] = ls
			}
		})
		if err != nil {
			return nil, err
		}
	}
	if slices.ContainsFunc(out, func(l storage.Labels) bool { return l == nil }) {
		return nil, storage.Errorf(storage.KindUnavailable, "evaluate", "series were deleted while they were read")
	}
	return out, nil
}
