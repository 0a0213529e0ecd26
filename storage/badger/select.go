package badger

import (
	"context"
	"errors"
	"iter"
	"math/bits"
	"slices"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger/internal/block"
	"github.com/luminate/luminate/storage/badger/internal/index"
)

// isOpen tells whether the partition's index is in memory.
func (p *partition) isOpen() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.idx != nil
}

// withIndex calls fn with the partition's index, which it must not keep.
func (db *DB) withIndex(ctx context.Context, p *partition, fn func(index.Reader) error) error {
	p.mu.RLock()
	if p.idx != nil {
		defer p.mu.RUnlock()
		return fn(p.idx)
	}
	p.mu.RUnlock()
	r, done, err := db.packedIndex(ctx, p)
	if err != nil {
		return err
	}
	defer done()
	return fn(r)
}

// selectIDs returns the series of a partition that match; an empty set for none.
func (db *DB) selectIDs(ctx context.Context, p *partition, ms []*storage.Matcher) (ids *roaring.Bitmap, err error) {
	err = db.withIndex(ctx, p, func(r index.Reader) error {
		ids, err = r.Select(ctx, ms...)
		return err
	})
	if err != nil {
		if ctxErr := storage.ContextError(ctx, "select"); ctxErr != nil {
			return nil, ctxErr
		}
		return nil, internal("select", err)
	}
	return ids, nil
}

// eachID calls fn for the series of the group that have samples.
func (g *groupColumns) eachID(fn func(id uint32) error) error {
	for m := g.mask; m != 0; m &= m - 1 {
		if err := fn(g.group*block.GroupSize + uint32(bits.TrailingZeros64(m))); err != nil {
			return err
		}
	}
	return nil
}

// selection is one Select at work.
type selection struct {
	db     *DB
	tn     *tenant
	s      storage.Selection
	clock  clock
	parts  []*partition
	series int
	count  int
	held   int64 // told to s.Hold
}

func (db *DB) newSelection(tn *tenant, s storage.Selection) *selection {
	c := db.clock(tn)
	x := &selection{db: db, tn: tn, s: s, clock: c}
	if !c.perMetric() {
		s.MinT = max(s.MinT, c.cutoff(""))
	}
	if s.MinT <= s.MaxT {
		x.parts = tn.partitions(max(s.MinT, c.first), s.MaxT)
	}
	return x
}

// Select implements storage.Store.
func (db *DB) Select(ctx context.Context, t storage.Tenant, s storage.Selection) iter.Seq2[storage.Series, error] {
	return func(yield func(storage.Series, error) bool) {
		if err := db.enter(ctx, "select", t); err != nil {
			yield(storage.Series{}, err)
			return
		}
		defer db.leave()
		err := s.Validate()
		if err != nil {
			yield(storage.Series{}, err)
			return
		}
		tn := db.lookupTenant(t)
		if tn == nil {
			return
		}
		x := db.newSelection(tn, s)
		defer func() { _ = x.hold(-x.held) }() // what was not yielded
		switch {
		case !s.Unsorted:
			err = x.sorted(ctx, yield)
		case len(x.parts) <= 1:
			err = x.stream(ctx, yield)
		default:
			err = x.byMetric(ctx, yield)
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(storage.Series{}, internal("select", err))
		}
	}
}

// errStop ends a scan whose receiver wants no more.
var errStop = errors.New("stop")

// stream yields series group by group as they are read, from one partition.
func (x *selection) stream(ctx context.Context, yield func(storage.Series, error) bool) error {
	for _, p := range x.parts {
		ids, err := x.db.selectIDs(ctx, p, x.s.Matchers)
		if err != nil {
			return err
		}
		err = x.scan(ctx, p, ids, func(ss []storage.Series) error {
			for _, s := range ss {
				if x.s.Limit > 0 && x.series >= x.s.Limit {
					return errStop
				}
				if err := x.add(s, true); err != nil {
					return err
				}
				if !yield(s, nil) {
					return errStop
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// add counts a series against the limits.
func (x *selection) add(s storage.Series, isNew bool) error {
	if isNew {
		x.series++
	}
	x.count += s.Len()
	if x.s.MaxSeries > 0 && x.series > x.s.MaxSeries {
		return storage.LimitErrorf(storage.KindTooLarge, "select", "max-series-per-query", "limits.maxSeriesPerQuery",
			"the query selects more than %d series", x.s.MaxSeries)
	}
	if x.s.MaxSamples > 0 && x.count > x.s.MaxSamples {
		return storage.LimitErrorf(storage.KindTooLarge, "select", "max-samples-per-query", "limits.maxSamplesPerQuery",
			"the query selects more than %d samples", x.s.MaxSamples)
	}
	return nil
}

// sorted reads everything, joins the days of each series and yields in order of
// labels.
func (x *selection) sorted(ctx context.Context, yield func(storage.Series, error) bool) error {
	ids := make([]*roaring.Bitmap, len(x.parts))
	for i, p := range x.parts {
		var err error
		if ids[i], err = x.db.selectIDs(ctx, p, x.s.Matchers); err != nil {
			return err
		}
	}
	limits := x.s
	if x.s.Limit > 0 { // the limits count what is yielded
		x.s.MaxSeries, x.s.MaxSamples = 0, 0
	}
	all, err := x.join(ctx, ids)
	if err != nil {
		return err
	}
	x.s = limits
	slices.SortFunc(all, func(a, b storage.Series) int { return storage.CompareLabels(a.Labels, b.Labels) })
	if x.s.Limit > 0 && len(all) > x.s.Limit {
		all = all[:x.s.Limit]
	}
	return x.yieldAll(ctx, all, yield)
}

// hold tells of memory that is taken, or with a negative number given back.
func (x *selection) hold(n int64) error {
	if x.s.Hold == nil || n == 0 {
		return nil
	}
	x.held += n
	return x.s.Hold(n)
}

func (x *selection) yieldAll(ctx context.Context, all []storage.Series, yield func(storage.Series, error) bool) error {
	for i, s := range all {
		if i%1024 == 0 {
			if err := storage.ContextError(ctx, "select"); err != nil {
				return err
			}
		}
		if err := x.hold(-s.Bytes()); err != nil {
			return err
		}
		if !yield(s, nil) {
			return errStop
		}
	}
	return nil
}

// byMetric reads several days metric by metric, so that no more than one metric's
// series are held at a time.
func (x *selection) byMetric(ctx context.Context, yield func(storage.Series, error) bool) error {
	metrics := map[string][]*roaring.Bitmap{} // ids for each of x.parts
	for i, p := range x.parts {
		ids, err := x.db.selectIDs(ctx, p, x.s.Matchers)
		if err != nil {
			return err
		}
		err = x.db.withIndex(ctx, p, func(r index.Reader) error {
			return forEachGroup(ids, func(n uint32, want uint64) error {
				name, err := r.MetricName(n)
				if err != nil {
					return err
				}
				of := metrics[name]
				if of == nil {
					of = make([]*roaring.Bitmap, len(x.parts))
					metrics[strings.Clone(name)] = of
				}
				if of[i] == nil {
					of[i] = roaring.New()
				}
				for m := want; m != 0; m &= m - 1 {
					of[i].Add(n*block.GroupSize + uint32(bits.TrailingZeros64(m)))
				}
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
	if x.s.Limit > 0 { // the limits count what is yielded
		x.s.MaxSeries, x.s.MaxSamples = 0, 0
	}
	yielded := 0
	for _, ids := range metrics {
		all, err := x.join(ctx, ids)
		if err != nil {
			return err
		}
		if x.s.Limit > 0 && yielded+len(all) > x.s.Limit {
			all = all[:x.s.Limit-yielded]
		}
		yielded += len(all)
		if err := x.yieldAll(ctx, all, yield); err != nil {
			return err
		}
		if x.s.Limit > 0 && yielded == x.s.Limit {
			return nil
		}
	}
	return nil
}

// join reads the series of ids, which has a set for each of x.parts, and joins the
// days of each series.
func (x *selection) join(ctx context.Context, ids []*roaring.Bitmap) ([]storage.Series, error) {
	var all []storage.Series
	var at map[string]int
	if len(ids) > 1 {
		at = map[string]int{}
	}
	for i, p := range x.parts {
		if ids[i] == nil {
			continue
		}
		err := x.scan(ctx, p, ids[i], func(ss []storage.Series) error {
			for _, s := range ss {
				i, known := at[string(s.Labels)]
				if err := x.add(s, !known); err != nil {
					return err
				}
				if known {
					before := all[i].Bytes()
					all[i] = joinDays(all[i], s)
					if err := x.hold(all[i].Bytes() - before); err != nil {
						return err
					}
					continue
				}
				if err := x.hold(s.Bytes()); err != nil {
					return err
				}
				if at != nil {
					at[string(s.Labels)] = len(all)
				}
				all = append(all, s)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// joinDays appends the samples of a later day.
func joinDays(a, b storage.Series) storage.Series {
	if b.STs != nil && a.STs == nil {
		a.STs = make([]int64, len(a.Samples))
	}
	if a.STs != nil {
		if b.STs == nil {
			b.STs = make([]int64, len(b.Samples))
		}
		a.STs = append(a.STs, b.STs...)
	}
	a.Samples = append(a.Samples, b.Samples...)
	a.Histograms = append(a.Histograms, b.Histograms...)
	a.Chunks = append(a.Chunks, b.Chunks...)
	return a
}

// scan reads series of one partition, a group at a time.
func (x *selection) scan(ctx context.Context, p *partition, ids *roaring.Bitmap, fn func([]storage.Series) error) error {
	s := x.db.newScan(p)
	s.keepChunks = x.s.Chunks
	defer s.close()
	return forEachGroup(ids, func(n uint32, want uint64) error {
		if err := storage.ContextError(ctx, "select"); err != nil {
			return err
		}
		mint, err := x.mint(ctx, p, n)
		if err != nil {
			return err
		}
		g, err := s.group(n, want, mint, x.s.MaxT)
		if err != nil || g.mask == 0 {
			return err
		}
		ss, err := s.series(ctx, g)
		if err != nil {
			return err
		}
		return fn(ss)
	})
}

// mint is the selection's, moved up by the retention of the group's metric.
func (x *selection) mint(ctx context.Context, p *partition, n uint32) (mint int64, err error) {
	metric := ""
	if x.clock.perMetric() {
		err = x.db.withIndex(ctx, p, func(r index.Reader) error {
			metric, err = r.MetricName(n)
			return err
		})
	}
	return max(x.s.MinT, x.clock.cutoff(metric)), err
}

// series copies the columns of a group into series of their own; the list is valid
// until the next call.
func (s *scan) series(ctx context.Context, g *groupColumns) ([]storage.Series, error) {
	out := s.list[:0]
	err := s.db.withIndex(ctx, s.p, func(r index.Reader) error {
		return g.eachID(func(id uint32) (err error) {
			s.labels, err = r.AppendLabels(s.labels[:0], id)
			out = append(out, storage.Series{Labels: slices.Clone(s.labels)})
			return err
		})
	})
	s.list = out
	if err != nil {
		return nil, err
	}
	i := 0
	for m := g.mask; m != 0; m &= m - 1 {
		slot := bits.TrailingZeros64(m)
		x := &out[i]
		i++
		if n := len(g.ts[slot]); n > 0 {
			x.Samples = make([]storage.Sample, n)
			vs := g.vs[slot][:n]
			for k, t := range g.ts[slot] {
				x.Samples[k] = storage.Sample{T: t, V: vs[k]}
			}
			if hasStart(g.sts[slot]) {
				x.STs = slices.Clone(g.sts[slot])
			}
		}
		x.Histograms = slices.Clone(g.hists[slot])
		x.Chunks = slices.Clone(g.chunks[slot])
	}
	return out, nil
}

func hasStart(sts []int64) bool {
	for _, st := range sts {
		if st != 0 {
			return true
		}
	}
	return false
}
