package index

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"
)

// GroupBy implements Reader.
func (p *Packed) GroupBy(ctx context.Context, ids *roaring.Bitmap, names []string, without bool) (Groups, error) {
	ids, err := p.orAll(ctx, ids)
	if err != nil {
		return Groups{}, err
	}
	return groupSeries(ctx, p, ids, names, without)
}

// interner numbers the values of one label as they come.
type interner struct {
	numbers map[string]uint32
	values  []string
	known   []uint32 // number of each value of the present record, 0 = not yet asked
}

func (n *interner) number(l *recordLabel, cell int) uint32 {
	k := &n.known[cell-1]
	if *k != 0 {
		return *k
	}
	v := l.value(cell - 1)
	no, ok := n.numbers[string(v)]
	if !ok {
		s := string(v)
		n.values = append(n.values, s)
		no = uint32(len(n.values))
		n.numbers[s] = no
	}
	*k = no
	return no
}

func (p *Packed) columns(ctx context.Context, ids *roaring.Bitmap, names []string) ([]column, error) {
	cols, in := make([]column, len(names)), make([]interner, len(names))
	for c := range cols {
		cols[c].cells = make([]uint32, ids.GetCardinality())
		in[c].numbers = map[string]uint32{}
	}
	err := p.eachCell(ctx, ids, names, func(c cellAt) {
		n := &in[c.name]
		if c.fresh && c.label != nil {
			n.known = slices.Grow(n.known[:0], c.label.values())[:c.label.values()]
			clear(n.known)
		}
		if c.cell > 0 {
			cols[c.name].cells[c.i] = n.number(c.label, c.cell)
		}
	})
	for c := range cols {
		values := in[c].values
		cols[c].bound = uint32(len(values)) + 1
		cols[c].value = func(v uint32) string { return values[v-1] }
	}
	return cols, err
}

// Metrics implements Reader.
func (p *Packed) Metrics(ctx context.Context, ids *roaring.Bitmap) ([]Count, error) {
	dir := p.dir
	counts := make([]uint64, len(dir.metrics))
	if ids == nil {
		for i := range dir.metrics {
			counts[i] = dir.metrics[i].series
		}
	} else if err := forEachID(ctx, ids, func(_ int, id uint32) error {
		if _, err := dir.metric(id / GroupSize); err != nil {
			return err
		}
		counts[dir.of[id/GroupSize]-1]++
		return nil
	}); err != nil {
		return nil, err
	}
	var out []Count
	for i, c := range counts {
		if c > 0 {
			out = append(out, Count{Name: dir.metrics[i].name, Series: c})
		}
	}
	return out, nil // metrics stand in the order of their names
}

// fewIDs is up to how many series decoding their records is preferred to reading a label's postings.
const fewIDs = 4 * RecordIDs

// LabelNames implements Reader.
func (p *Packed) LabelNames(ctx context.Context, ids *roaring.Bitmap) ([]string, error) {
	has := func(i int) (bool, error) { return p.names[i].series > 0, nil }
	switch {
	case ids == nil:
	case ids.GetCardinality() <= fewIDs:
		seen, err := p.namesOf(ctx, ids)
		if err != nil {
			return nil, err
		}
		has = func(i int) (bool, error) { return seen[string(p.names[i].name)], nil }
	default:
		has = func(i int) (bool, error) {
			lacking, err := p.posting(ctx, uint32(i), nil)
			return lacking.countIn(ids) < ids.GetCardinality(), err
		}
	}
	var out []string
	for i := 1; i < len(p.names); i++ {
		ok, err := has(i)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, string(p.names[i].name))
		}
	}
	return out, nil
}

// namesOf collects the label names of series from their records.
func (p *Packed) namesOf(ctx context.Context, ids *roaring.Bitmap) (map[string]bool, error) {
	seen := map[string]bool{}
	err := p.eachSeries(ctx, ids, func(_ int, _ uint32, r *seriesRecord, slot int) error {
		for i := range r.names {
			if l := &r.names[i]; !seen[string(l.name)] && l.cell(slot) > 0 {
				seen[string(l.name)] = true
			}
		}
		return nil
	})
	return seen, err
}

// LabelValues implements Reader.
func (p *Packed) LabelValues(ctx context.Context, name string, ids *roaring.Bitmap, limit int) ([]string, error) {
	_, n := p.name(name)
	if n == nil {
		return nil, nil
	}
	var out []string
	if ids != nil && ids.GetCardinality()*scanFactor < n.values {
		cols, err := p.columns(ctx, ids, []string{name})
		if err != nil {
			return nil, err
		}
		for v := uint32(1); v < cols[0].bound; v++ {
			out = append(out, cols[0].value(v))
		}
		slices.Sort(out)
		if limit > 0 && len(out) > limit {
			out = out[:limit]
		}
		return out, nil
	}
	err := p.scanValues(ctx, name, "", func(value string, get func() (posting, error)) error {
		if len(out) > 0 && out[len(out)-1] == value {
			return nil
		}
		if ids != nil {
			x, err := get()
			if err != nil || !x.intersects(ids) {
				return err
			}
		}
		out = append(out, strings.Clone(value))
		if len(out) == limit {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return out, err
}

// LabelCounts implements Reader.
func (p *Packed) LabelCounts(ctx context.Context, ids *roaring.Bitmap) ([]LabelCount, error) {
	var out []LabelCount
	if ids == nil {
		for _, n := range p.names[1:] {
			if n.series > 0 {
				out = append(out, LabelCount{Name: string(n.name), Series: n.series, Values: n.values, Bytes: n.bytes})
			}
		}
		return out, nil
	}
	names, err := p.LabelNames(ctx, ids)
	if err != nil {
		return nil, err
	}
	for batch := max(1, columnCells/max(1, int(ids.GetCardinality()))); len(names) > 0; {
		k := min(batch, len(names))
		cols, err := p.columns(ctx, ids, names[:k])
		if err != nil {
			return nil, err
		}
		for c := range cols {
			lc := LabelCount{Name: names[c]}
			for v := uint32(1); v < cols[c].bound; v++ {
				lc.Values++
				lc.Bytes += uint64(len(cols[c].value(v)))
			}
			for _, v := range cols[c].cells {
				if v > 0 {
					lc.Series++
				}
			}
			out = append(out, lc)
		}
		names = names[k:]
	}
	return out, nil
}

// ValueCounts implements Reader.
func (p *Packed) ValueCounts(ctx context.Context, name string, ids *roaring.Bitmap, topN int) ([]Count, uint64, error) {
	no, n := p.name(name)
	if n == nil {
		return nil, 0, nil
	}
	var err error
	all := func(yield func(string, uint64) bool) {
		var value []byte
		var sum uint64
		err = p.eachEntry(ctx, no, nil, func(_ []byte, e *packedEntry) error {
			if len(e.value) == 0 {
				return nil
			}
			if !bytes.Equal(value, e.value) {
				if sum > 0 {
					yield(string(value), sum)
				}
				value, sum = append(value[:0], e.value...), 0
			}
			sum += e.n
			return nil
		})
		if sum > 0 {
			yield(string(value), sum)
		}
	}
	if ids != nil {
		cols, cerr := p.columns(ctx, ids, []string{name})
		if cerr != nil {
			return nil, 0, cerr
		}
		counts := make([]uint64, cols[0].bound)
		for _, v := range cols[0].cells {
			counts[v]++
		}
		all = func(yield func(string, uint64) bool) {
			for v := uint32(1); v < cols[0].bound; v++ {
				yield(cols[0].value(v), counts[v])
			}
		}
	}
	top, distinct := topCounts(all, topN)
	return top, distinct, err
}
