package badger

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"math/bits"
	"slices"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger/internal/block"
	"github.com/luminate/luminate/storage/badger/internal/index"
	"github.com/luminate/luminate/storage/internal/lookup"
)

// liveIDs returns the matching series of a partition that have samples on its day:
// the index tells, but where deletes or retention hid something the samples are
// looked at.
func (db *DB) liveIDs(ctx context.Context, p *partition, s storage.Selection, c clock) (*roaring.Bitmap, error) {
	ids, err := db.selectIDs(ctx, p, s.Matchers)
	if err != nil || ids.IsEmpty() {
		return ids, err
	}
	suspects, err := db.suspects(ctx, p, ids, c)
	if err != nil {
		return nil, internal("select", err)
	}
	if suspects.IsEmpty() {
		return ids, nil
	}
	x := &selection{db: db, tn: p.tenant, s: s, clock: c}
	sc := db.newScan(p)
	defer sc.close()
	err = forEachGroup(suspects, func(n uint32, want uint64) error {
		if err := storage.ContextError(ctx, "select"); err != nil {
			return err
		}
		mint, err := x.mint(ctx, p, n)
		if err != nil {
			return err
		}
		g, err := sc.group(n, want, mint, s.MaxT)
		if err != nil {
			return err
		}
		for slot := range uint32(block.GroupSize) {
			if want>>slot&1 != 0 && g.mask>>slot&1 == 0 {
				ids.Remove(n*block.GroupSize + slot)
			}
		}
		return nil
	})
	if err != nil {
		return nil, internal("select", err)
	}
	return ids, nil
}

// suspects returns those of ids that may have no visible samples: the targets of
// deletes, and the metrics whose retention ends within or after the day.
func (db *DB) suspects(ctx context.Context, p *partition, ids *roaring.Bitmap, c clock) (*roaring.Bitmap, error) {
	out := roaring.New()
	for _, t := range *p.tombstones.Load() {
		out.Or(t.ids)
	}
	out.And(ids)
	if !c.perMetric() {
		if c.cutoff("") > p.mint() {
			return ids.Clone(), nil
		}
		return out, nil
	}
	err := db.withIndex(ctx, p, func(r index.Reader) error {
		return forEachGroup(ids, func(n uint32, want uint64) error {
			metric, err := r.MetricName(n)
			if err != nil || c.cutoff(metric) <= p.mint() {
				return err
			}
			for slot := range uint32(block.GroupSize) {
				if want>>slot&1 != 0 {
					out.Add(n*block.GroupSize + slot)
				}
			}
			return nil
		})
	})
	return out, err
}

// discover calls fn with the index and the live series of each day of the selection.
func (db *DB) discover(ctx context.Context, op string, t storage.Tenant, s storage.Selection, fn func(r index.Reader, ids *roaring.Bitmap) error) error {
	if err := db.enter(ctx, op, t); err != nil {
		return err
	}
	defer db.leave()
	if err := s.Validate(); err != nil {
		return err
	}
	tn := db.lookupTenant(t)
	if tn == nil {
		return nil
	}
	x := db.newSelection(tn, s)
	for _, p := range x.parts {
		ids, err := db.liveIDs(ctx, p, s, x.clock)
		if err != nil {
			return err
		}
		if ids.IsEmpty() {
			continue
		}
		if err := db.withIndex(ctx, p, func(r index.Reader) error { return fn(r, ids) }); err != nil {
			if ctxErr := storage.ContextError(ctx, op); ctxErr != nil {
				return ctxErr
			}
			return internal(op, err)
		}
	}
	return nil
}

// SelectLabels implements storage.Store, with the precision of a day.
func (db *DB) SelectLabels(ctx context.Context, t storage.Tenant, s storage.Selection) iter.Seq2[storage.Labels, error] {
	return func(yield func(storage.Labels, error) bool) {
		found, err := db.lookUp(ctx, t, lookUp{op: "select labels", s: s}, func(r index.Reader, ids *roaring.Bitmap) (a lookup.Answer, err error) {
			err = r.ForEach(ctx, ids, func(_ uint32, _ index.Hash128, ls []byte) error {
				a.Series = append(a.Series, storage.Labels(ls).Clone())
				return nil
			})
			slices.SortFunc(a.Series, storage.CompareLabels)
			return a, err
		})
		if err != nil {
			yield(nil, err)
			return
		}
		all := found.Series
		if s.Limit > 0 && len(all) > s.Limit {
			all = all[:s.Limit]
		}
		if s.MaxSeries > 0 && len(all) > s.MaxSeries {
			yield(nil, storage.LimitErrorf(storage.KindTooLarge, "select labels", "max-series-per-query", "limits.maxSeriesPerQuery",
				"the query selects %d series, more than %d", len(all), s.MaxSeries))
			return
		}
		for _, ls := range all {
			if !yield(ls.Clone(), nil) { // the cache's own stay as they are
				return
			}
		}
	}
}

// LabelNames implements storage.Store.
func (db *DB) LabelNames(ctx context.Context, t storage.Tenant, s storage.Selection) ([]string, error) {
	return db.listValues(ctx, t, lookUp{op: "label names", s: s}, func(r index.Reader, ids *roaring.Bitmap) (a lookup.Answer, err error) {
		a.Values, err = r.LabelNames(ctx, ids)
		return a, err
	})
}

// LabelValues implements storage.Store.
func (db *DB) LabelValues(ctx context.Context, t storage.Tenant, name string, s storage.Selection) ([]string, error) {
	return db.listValues(ctx, t, lookUp{op: "label values", label: name, s: s}, func(r index.Reader, ids *roaring.Bitmap) (a lookup.Answer, err error) {
		a.Values, err = r.LabelValues(ctx, name, ids, s.Limit)
		return a, err
	})
}

// listValues answers with a list of the caller's own.
func (db *DB) listValues(ctx context.Context, t storage.Tenant, q lookUp, list listFunc) ([]string, error) {
	found, err := db.lookUp(ctx, t, q, list)
	if err != nil {
		return nil, err
	}
	out := found.Values
	if q.s.Limit > 0 && len(out) > q.s.Limit {
		out = out[:q.s.Limit]
	}
	return slices.Clone(out), nil
}

// Cardinality implements storage.Store. Over one day the index counts; over several,
// a series is counted once though each day has it.
func (db *DB) Cardinality(ctx context.Context, t storage.Tenant, q storage.CardinalityQuery) (storage.Cardinality, error) {
	q.Selection.Limit = 0
	top := q.TopN
	if top <= 0 {
		top = 10
	}
	if q.MetricsOnly && dayOfBounded(q.Selection.MinT) == dayOfBounded(q.Selection.MaxT) {
		return db.countMetrics(ctx, t, q.Selection, top)
	}
	n := newCounts()
	seen := map[index.Hash128]struct{}{}
	err := db.discover(ctx, "cardinality", t, q.Selection, func(r index.Reader, ids *roaring.Bitmap) error {
		return r.ForEach(ctx, ids, func(_ uint32, h index.Hash128, ls []byte) error {
			if _, dup := seen[h]; dup {
				return nil
			}
			seen[h] = struct{}{}
			n.add(storage.Labels(ls))
			return nil
		})
	})
	if err != nil {
		return storage.Cardinality{}, err
	}
	return n.result(uint64(len(seen)), q.LabelNames, top), nil
}

// countMetrics counts the series of each metric on one day. A group of 64 series is of
// one metric, so no series is looked at by itself.
func (db *DB) countMetrics(ctx context.Context, t storage.Tenant, s storage.Selection, top int) (storage.Cardinality, error) {
	var out storage.Cardinality
	metrics := map[string]uint64{}
	err := db.discover(ctx, "cardinality", t, s, func(r index.Reader, ids *roaring.Bitmap) error {
		return forEachGroup(ids, func(group uint32, want uint64) error {
			metric, err := r.MetricName(group)
			if err != nil {
				return err
			}
			if _, known := metrics[metric]; !known {
				metric = strings.Clone(metric) // it may be the index's memory
			}
			n := uint64(bits.OnesCount64(want))
			metrics[metric] += n
			out.Series += n
			return nil
		})
	})
	if err != nil {
		return storage.Cardinality{}, err
	}
	delete(metrics, "") // series without a name
	out.Metrics, out.TotalMetrics = topCounts(metrics, top), uint64(len(metrics))
	return out, nil
}

// counts are series by label name and value.
type counts struct {
	labels map[string]*labelCounts
}

type labelCounts struct {
	series uint64
	values map[string]*uint64
}

func newCounts() *counts { return &counts{labels: map[string]*labelCounts{}} }

// add counts a series. Keys are copied: assigning to a map would keep the string it
// is given, whose memory is reused.
func (c *counts) add(ls storage.Labels) {
	for name, value := range ls.All() {
		l := c.labels[name]
		if l == nil {
			l = &labelCounts{values: map[string]*uint64{}}
			c.labels[strings.Clone(name)] = l
		}
		l.series++
		if n := l.values[value]; n != nil {
			*n++
			continue
		}
		one := uint64(1)
		l.values[strings.Clone(value)] = &one
	}
}

// of returns the series by value of a label.
func (c *counts) of(name string) map[string]uint64 {
	out := map[string]uint64{}
	if l := c.labels[name]; l != nil {
		for v, n := range l.values {
			out[v] = *n
		}
	}
	return out
}

func (c *counts) result(series uint64, labels []string, top int) storage.Cardinality {
	names, distinct, bytes, pairs := map[string]uint64{}, map[string]uint64{}, map[string]uint64{}, map[string]uint64{}
	out := storage.Cardinality{Series: series, LabelValues: map[string][]storage.Count{}, LabelValuesTotals: map[string]uint64{}}
	for name, l := range c.labels {
		names[name] = l.series
		distinct[name] = uint64(len(l.values))
		out.TotalLabelPairs += uint64(len(l.values))
		for v := range l.values {
			bytes[name] += uint64(len(v))
		}
		for _, x := range topCounts(c.of(name), top) { // no other value can be among the first pairs
			pairs[name+"="+x.Name] = x.Count
		}
	}
	metrics := c.of(storage.MetricName)
	out.Metrics, out.TotalMetrics = topCounts(metrics, top), uint64(len(metrics))
	out.LabelNames, out.TotalLabelNames = topCounts(names, top), uint64(len(names))
	out.LabelValueCounts, out.LabelPairs = topCounts(distinct, top), topCounts(pairs, top)
	out.LabelMemoryInBytes = topCounts(bytes, top)
	for _, name := range labels {
		values := c.of(name)
		out.LabelValues[name] = topCounts(values, top)
		out.LabelValuesTotals[name] = uint64(len(values))
	}
	return out
}

func topCounts(m map[string]uint64, n int) []storage.Count {
	out := make([]storage.Count, 0, len(m))
	for k, v := range m {
		out = append(out, storage.Count{Name: k, Count: v})
	}
	slices.SortFunc(out, func(a, b storage.Count) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Name, b.Name))
	})
	return out[:min(n, len(out))]
}

// Metadata implements storage.Store.
func (db *DB) Metadata(ctx context.Context, t storage.Tenant, q storage.MetadataQuery) ([]storage.Metadata, error) {
	if err := db.enter(ctx, "metadata", t); err != nil {
		return nil, err
	}
	defer db.leave()
	tn := db.lookupTenant(t)
	if tn == nil {
		return nil, nil
	}
	tn.mu.RLock()
	defer tn.mu.RUnlock()
	if q.Metric != "" {
		if m, ok := tn.metadata[q.Metric]; ok {
			return []storage.Metadata{m}, nil
		}
		return nil, nil
	}
	var out []storage.Metadata
	for _, name := range slices.Sorted(maps.Keys(tn.metadata)) {
		if q.Limit > 0 && len(out) >= q.Limit {
			break
		}
		out = append(out, tn.metadata[name])
	}
	return out, nil
}
