package badger

import (
	"context"
	"math/bits"
	"sync/atomic"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger/internal/block"
	"github.com/luminate/luminate/storage/badger/internal/index"
	"github.com/luminate/luminate/storage/internal/grid"
)

// Evaluate implements storage.Store. It reads a group of 64 series at a time, on all
// cores, and evaluates the columns where they were decoded.
func (db *DB) Evaluate(ctx context.Context, t storage.Tenant, g storage.Grid) (*storage.GridResult, error) {
	if err := db.enter(ctx, "evaluate", t); err != nil {
		return nil, err
	}
	defer db.leave()
	budget := grid.NewBudget(db.cfg.MaxEvaluateBytes, "storage.badger.maxEvaluateBytes", g.Hold)
	defer budget.Close()
	plan, err := grid.NewPlan(g, budget)
	if err != nil {
		return nil, err
	}
	tn := db.lookupTenant(t)
	if tn == nil {
		return &storage.GridResult{}, nil
	}
	x := db.newSelection(tn, g.Selection())
	e := &evaluation{db: db, g: &g, plan: plan, budget: budget, x: x}
	var res *storage.GridResult
	switch len(x.parts) {
	case 0:
		return &storage.GridResult{}, nil
	case 1:
		res, err = e.day(ctx, x.parts[0])
	default:
		res, err = e.days(ctx)
	}
	if err != nil {
		return nil, internal("evaluate", err)
	}
	res.Series, res.Samples, res.Bytes = e.series.Load(), e.samples.Load(), e.bytes.Load()
	return res, nil
}

// evaluation is one Evaluate at work.
type evaluation struct {
	db     *DB
	g      *storage.Grid
	plan   *grid.Plan
	budget *grid.Budget
	x      *selection // for its partitions and the retention

	series, samples, bytes atomic.Uint64
}

// unit is the wanted series of one group, the first of which has number first among
// all that were selected.
type unit struct {
	group uint32
	first uint32
	want  uint64
}

// number returns the number of the series in a slot.
func (u *unit) number(slot int) uint32 {
	return u.first + uint32(bits.OnesCount64(u.want&(1<<slot-1)))
}

// unitBytes is the memory of a unit, selectedBytes that of a selected series: its
// group, and a column of the index while groups are made.
const (
	unitBytes     = 16
	selectedBytes = 8
)

// groups returns the group of each selected series of a partition and the labels of
// the groups; no numbers if there is one group only.
func (e *evaluation) groups(ctx context.Context, r index.Reader, ids *roaring.Bitmap) (index.Groups, error) {
	if len(e.g.Grouping) == 0 && !e.g.Without {
		return index.Groups{Labels: [][]byte{nil}}, nil
	}
	if err := e.budget.Take(int64(ids.GetCardinality()) * selectedBytes); err != nil {
		return index.Groups{}, err
	}
	return r.GroupBy(ctx, ids, e.g.Grouping, e.g.Without)
}

// dayEvaluation evaluates the series of one partition.
type dayEvaluation struct {
	*evaluation
	p      *partition
	units  []unit
	groups index.Groups
}

func (e *evaluation) day(ctx context.Context, p *partition) (*storage.GridResult, error) {
	d := &dayEvaluation{evaluation: e, p: p}
	err := e.db.withIndex(ctx, p, func(r index.Reader) error {
		ids, err := r.Select(ctx, e.g.Matchers...)
		if err != nil {
			return err
		}
		if d.groups, err = e.groups(ctx, r, ids); err != nil {
			return err
		}
		d.units, err = e.unitsOf(ids)
		return err
	})
	if err != nil {
		if ctxErr := storage.ContextError(ctx, "evaluate"); ctxErr != nil {
			return nil, ctxErr
		}
		return nil, err
	}
	chunks := e.plan.Chunks(len(d.units), grid.DefaultCut, d.span)
	newWorker := func() grid.Worker { return &dayWorker{dayEvaluation: d, scan: e.db.newScan(p)} }
	return grid.Evaluate(ctx, e.plan, chunks, uint32(len(d.groups.Labels)), newWorker, d)
}

func (e *evaluation) unitsOf(ids *roaring.Bitmap) ([]unit, error) {
	n := ids.GetCardinality()/block.GroupSize + 1
	var units []unit
	first := uint32(0)
	err := forEachGroup(ids, func(group uint32, want uint64) error {
		if len(units) == cap(units) {
			size := max(int(n), 2*cap(units))
			if err := e.budget.Take(int64(size) * unitBytes); err != nil {
				return err
			}
			units = append(make([]unit, 0, size), units...)
		}
		units = append(units, unit{group: group, first: first, want: want})
		first += uint32(bits.OnesCount64(want))
		return nil
	})
	return units, err
}

func (d *dayEvaluation) span(i int) (lo, hi uint32) {
	u := &d.units[i]
	return spanOf(d.groups.Of, u.first, bits.OnesCount64(u.want))
}

// spanOf returns the lowest and highest group of some neighbouring series.
func spanOf(of []uint32, first uint32, n int) (lo, hi uint32) {
	if len(of) == 0 {
		return 0, 0
	}
	lo = ^uint32(0)
	for _, g := range of[first : int(first)+n] {
		lo, hi = min(lo, g), max(hi, g)
	}
	return lo, hi
}

// groupAt returns a series' group.
func groupAt(of []uint32, series uint32) uint32 {
	if len(of) == 0 {
		return 0
	}
	return of[series]
}

// GroupLabels implements grid.Source.
func (d *dayEvaluation) GroupLabels(group uint32) (storage.Labels, error) {
	return d.groups.Labels[group], nil
}

// SeriesLabels implements grid.Source: series are known by their numbers in the
// partition.
func (d *dayEvaluation) SeriesLabels(series []uint32) ([]storage.Labels, error) {
	return eachSeries(series, func(id uint32) (storage.Labels, error) { return d.db.labelsOf(d.p, id) })
}

func eachSeries(series []uint32, labels func(uint32) (storage.Labels, error)) ([]storage.Labels, error) {
	out := make([]storage.Labels, len(series))
	for i, id := range series {
		ls, err := labels(id)
		if err != nil {
			return nil, err
		}
		out[i] = ls
	}
	return out, nil
}

func (db *DB) labelsOf(p *partition, id uint32) (ls storage.Labels, err error) {
	err = db.withIndex(context.Background(), p, func(r index.Reader) error {
		ls, err = r.AppendLabels(nil, id)
		return err
	})
	return ls, err
}

// dayWorker is one goroutine of a dayEvaluation.
type dayWorker struct {
	*dayEvaluation
	scan *scan
	last lastSamples
}

// Close implements grid.Worker.
func (w *dayWorker) Close() { w.scan.close() }

// Chunk implements grid.Worker.
func (w *dayWorker) Chunk(ctx context.Context, c grid.Chunk, s *grid.Shard) error {
	after, upto, lastOnly := w.plan.LastOnly()
	for i := c.From; i < c.To; i++ {
		if err := storage.ContextError(ctx, "evaluate"); err != nil {
			return err
		}
		u := &w.units[i]
		mint, err := w.x.mint(ctx, w.p, u.group)
		if err != nil {
			return err
		}
		if lastOnly && w.scan.readLast(&w.last, u.group, u.want, max(mint, after+1), upto, w.g.UseStartTimestamps) {
			err = w.addLast(u, s)
		} else {
			err = w.addGroup(u, mint, s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// addLast adds the newest samples of a group.
func (w *dayWorker) addLast(u *unit, s *grid.Shard) error {
	for m := w.last.mask; m != 0; m &= m - 1 {
		slot := bits.TrailingZeros64(m)
		if err := s.AddLast(u.group*block.GroupSize+uint32(slot), groupAt(w.groups.Of, u.number(slot)), w.last.vs[slot]); err != nil {
			return err
		}
	}
	n := bits.OnesCount64(w.last.mask)
	return w.count(n, n, 0)
}

// addGroup reads a group and evaluates its series in place.
func (w *dayWorker) addGroup(u *unit, mint int64, s *grid.Shard) error {
	g, err := w.scan.group(u.group, u.want, mint, w.x.s.MaxT)
	if err != nil || g.mask == 0 {
		return err
	}
	if err := w.supported(g); err != nil {
		return err
	}
	s.NextColumns()
	samples := 0
	for m := g.mask; m != 0; m &= m - 1 {
		slot := bits.TrailingZeros64(m)
		samples += len(g.ts[slot])
		err := s.Add(u.group*block.GroupSize+uint32(slot), groupAt(w.groups.Of, u.number(slot)), g.ts[slot], g.vs[slot])
		if err != nil {
			return err
		}
	}
	return w.count(bits.OnesCount64(g.mask), samples, g.bytes)
}

// supported refuses what only the engine above can evaluate.
func (e *evaluation) supported(g *groupColumns) error {
	for m := g.mask; m != 0; m &= m - 1 {
		slot := bits.TrailingZeros64(m)
		if len(g.hists[slot]) > 0 {
			return storage.Errorf(storage.KindUnsupported, "evaluate", "a selected series has native histograms")
		}
		if e.g.UseStartTimestamps && hasStart(g.sts[slot]) {
			return storage.Errorf(storage.KindUnsupported, "evaluate", "a selected series has start timestamps")
		}
	}
	return nil
}

// count adds what was read, and holds it against the limits.
func (e *evaluation) count(series, samples int, bytes uint64) error {
	e.bytes.Add(bytes)
	return e.limit(e.series.Add(uint64(series)), e.samples.Add(uint64(samples)))
}

func (e *evaluation) limit(series, samples uint64) error {
	if n := e.g.MaxSeries; n > 0 && series > uint64(n) {
		return storage.LimitErrorf(storage.KindTooLarge, "evaluate", "max-series-per-query", "limits.maxSeriesPerQuery",
			"the query selects more than %d series", n)
	}
	if n := e.g.MaxSamples; n > 0 && samples > uint64(n) {
		return storage.LimitErrorf(storage.KindTooLarge, "evaluate", "max-samples-per-query", "limits.maxSamplesPerQuery",
			"the query selects more than %d samples", n)
	}
	return nil
}
