package index

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"
)

// Metrics implements Reader.
func (m *Mem) Metrics(ctx context.Context, ids *roaring.Bitmap) ([]Count, error) {
	counts, err := m.countValues(ctx, nameOfName, ids)
	if err != nil {
		return nil, err
	}
	out := m.named(nameOfName, counts)
	slices.SortFunc(out, func(a, b Count) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// LabelNames implements Reader.
func (m *Mem) LabelNames(_ context.Context, ids *roaring.Bitmap) ([]string, error) {
	seen := make([]bool, m.names.len()+1)
	for i := range m.shapes {
		s := &m.shapes[i]
		if ids == nil || m.post.get(s.post).intersects(ids) {
			for _, n := range s.names {
				seen[n] = true
			}
		}
	}
	var out []string
	for n, ok := range seen {
		if ok {
			out = append(out, strings.Clone(m.names.str(&m.sym, uint32(n))))
		}
	}
	slices.Sort(out)
	return out, nil
}

// LabelValues implements Reader.
func (m *Mem) LabelValues(ctx context.Context, name string, ids *roaring.Bitmap, limit int) ([]string, error) {
	n := m.findName(name)
	if n == 0 {
		return nil, nil
	}
	x := m.label[n-1]
	var out []string
	if ids != nil && ids.GetCardinality() < uint64(x.len())*scanFactor {
		counts, err := m.countValues(ctx, n, ids)
		if err != nil {
			return nil, err
		}
		for v, c := range counts {
			if v > 0 && c > 0 {
				out = append(out, strings.Clone(x.str(&m.sym, uint32(v))))
			}
		}
		slices.Sort(out)
		if limit > 0 && len(out) > limit {
			out = out[:limit]
		}
		return out, nil
	}
	for i, v := range m.sortedValues(n) {
		if i%ctxEvery == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if ids == nil && m.posting(n, v).n > 0 || ids != nil && m.posting(n, v).intersects(ids) {
			out = append(out, strings.Clone(x.str(&m.sym, v)))
			if len(out) == limit {
				break
			}
		}
	}
	return out, nil
}

// LabelCounts implements Reader.
func (m *Mem) LabelCounts(ctx context.Context, ids *roaring.Bitmap) ([]LabelCount, error) {
	names, err := m.LabelNames(ctx, ids)
	if err != nil {
		return nil, err
	}
	out := make([]LabelCount, 0, len(names))
	for _, name := range names {
		n := m.findName(name)
		c := LabelCount{Name: name}
		counts, err := m.countValues(ctx, n, ids)
		if err != nil {
			return nil, err
		}
		for v, k := range counts {
			if v > 0 && k > 0 {
				c.Values++
				c.Series += k
				c.Bytes += uint64(len(m.label[n-1].value(&m.sym, uint32(v))))
			}
		}
		out = append(out, c)
	}
	return out, nil
}

// ValueCounts implements Reader.
func (m *Mem) ValueCounts(ctx context.Context, name string, ids *roaring.Bitmap, topN int) ([]Count, uint64, error) {
	n := m.findName(name)
	if n == 0 {
		return nil, 0, nil
	}
	counts, err := m.countValues(ctx, n, ids)
	if err != nil {
		return nil, 0, err
	}
	counts[0] = 0
	top, distinct := topCounts(func(yield func(string, uint64) bool) {
		for v, c := range counts {
			if c > 0 && !yield(m.label[n-1].str(&m.sym, uint32(v)), c) {
				return
			}
		}
	}, topN)
	return top, distinct, nil
}

// countValues counts series by value number; at 0 those without the label, exact for __name__ only.
func (m *Mem) countValues(ctx context.Context, n uint32, ids *roaring.Bitmap) ([]uint64, error) {
	counts := make([]uint64, m.label[n-1].len()+1)
	if ids == nil {
		for v := range counts {
			switch {
			case n == nameOfName:
				counts[v] = uint64(m.metrics.at(uint32(v)).series)
			case v > 0:
				counts[v] = m.posting(n, uint32(v)).n
			}
		}
		return counts, ctx.Err()
	}
	err := forEachID(ctx, ids, func(_ int, id uint32) error {
		v, ok := m.valueOf(id, n)
		if !ok {
			return unknownSeries(id)
		}
		counts[v]++
		return nil
	})
	return counts, err
}

// named turns counts by value number into counts by value, in no order, without those of none.
func (m *Mem) named(n uint32, counts []uint64) []Count {
	var out []Count
	for v, c := range counts {
		if c > 0 {
			out = append(out, Count{Name: strings.Clone(m.label[n-1].str(&m.sym, uint32(v))), Series: c})
		}
	}
	return out
}

func compareCounts(a, b Count) int {
	if a.Series != b.Series {
		return cmp.Compare(b.Series, a.Series)
	}
	return strings.Compare(a.Name, b.Name)
}

// topCounts returns the first topN counts by compareCounts (0 = all), and how many there are. It holds at most
// 2*topN+1024 of them at a time; the names are copied.
func topCounts(all func(yield func(string, uint64) bool), topN int) (top []Count, distinct uint64) {
	all(func(name string, series uint64) bool {
		distinct++
		if topN > 0 && len(top) >= 2*topN+1024 {
			slices.SortFunc(top, compareCounts)
			top = top[:topN]
		}
		top = append(top, Count{Name: name, Series: series})
		return true
	})
	slices.SortFunc(top, compareCounts)
	if topN > 0 && len(top) > topN {
		top = top[:topN]
	}
	for i := range top {
		top[i].Name = strings.Clone(top[i].Name)
	}
	return top, distinct
}
