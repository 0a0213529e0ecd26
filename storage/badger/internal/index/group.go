package index

import (
	"context"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
)

// grouper is what GroupBy needs from an index.
type grouper interface {
	Reader
	columns(ctx context.Context, ids *roaring.Bitmap, names []string) ([]column, error)
}

// column holds one label's value of each series, in ascending order of id, as numbers: 0 for a missing label, equal
// numbers for equal values.
type column struct {
	cells []uint32
	bound uint32                     // above every number
	value func(number uint32) string // valid as long as the index
}

const (
	// columnCells bounds the memory of the columns that are held at once, in numbers.
	columnCells = 8 << 20
	// denseCells is up to which number of combinations groups are found in an array instead of a map.
	denseCells = 1 << 20
)

// groupSeries answers GroupBy: the groups are refined by one label after the other.
func groupSeries(ctx context.Context, x grouper, ids *roaring.Bitmap, names []string, without bool) (Groups, error) {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	if without {
		all, err := x.LabelNames(ctx, ids)
		if err != nil {
			return Groups{}, err
		}
		names = slices.DeleteFunc(all, func(n string) bool {
			_, drop := slices.BinarySearch(names, n)
			return drop || n == metricName
		})
	}
	n := int(ids.GetCardinality())
	of := make([]uint32, n)
	groups := uint32(min(n, 1))
	batch := max(1, columnCells/max(1, n))
	for rest := names; len(rest) > 0; {
		k := min(batch, len(rest))
		cols, err := x.columns(ctx, ids, rest[:k])
		if err != nil {
			return Groups{}, err
		}
		for c := range cols {
			groups = refine(of, groups, cols[c].cells, cols[c].bound)
		}
		rest = rest[k:]
	}
	return nameGroups(ctx, x, ids, names, of, groups)
}

// refine splits the groups by a column; groups stay numbered in order of their first series.
func refine(of []uint32, groups uint32, col []uint32, bound uint32) uint32 {
	next := uint32(0)
	if uint64(groups)*uint64(bound) <= denseCells {
		seen := make([]uint32, uint64(groups)*uint64(bound)) // group + 1
		for i, g := range of {
			e := &seen[uint64(g)*uint64(bound)+uint64(col[i])]
			if *e == 0 {
				next++
				*e = next
			}
			of[i] = *e - 1
		}
		return next
	}
	seen := make(map[uint64]uint32, min(len(of), 1<<16))
	for i, g := range of {
		key := uint64(g)<<32 | uint64(col[i])
		e, ok := seen[key]
		if !ok {
			e = next
			seen[key] = e
			next++
		}
		of[i] = e
	}
	return next
}

// nameGroups takes each group's labels from its first series.
func nameGroups(ctx context.Context, x Reader, ids *roaring.Bitmap, names []string, of []uint32, groups uint32) (Groups, error) {
	first := make([]uint32, 0, groups) // ascending, since groups are numbered in order of their first series
	err := forEachID(ctx, ids, func(i int, id uint32) error {
		if int(of[i]) == len(first) {
			first = append(first, id)
		}
		return nil
	})
	if err != nil {
		return Groups{}, err
	}
	reps := roaring.New()
	reps.AddMany(first)
	out := Groups{Of: of, Labels: make([][]byte, 0, groups)}
	err = x.ForEach(ctx, reps, func(_ uint32, _ Hash128, labels []byte) error {
		var own []byte
		for len(labels) > 0 {
			name, rest, _ := cutBytes(labels)
			value, rest, _ := cutBytes(rest)
			labels = rest
			if _, ok := slices.BinarySearch(names, viewString(name)); ok {
				own = appendLabel(own, name, value)
			}
		}
		out.Labels = append(out.Labels, own)
		return nil
	})
	return out, err
}

// GroupBy implements Reader.
func (m *Mem) GroupBy(ctx context.Context, ids *roaring.Bitmap, names []string, without bool) (Groups, error) {
	if ids == nil {
		ids = m.allBitmap()
	}
	return groupSeries(ctx, m, ids, names, without)
}

func (m *Mem) columns(ctx context.Context, ids *roaring.Bitmap, names []string) ([]column, error) {
	cols := make([]column, len(names))
	positions := make([][]int32, len(names)) // by shape
	for c, name := range names {
		cols[c] = column{cells: make([]uint32, ids.GetCardinality()), bound: 1}
		no := m.findName(name)
		if no != 0 {
			cols[c].bound = m.label[no-1].len() + 1
			cols[c].value = func(v uint32) string { return m.label[no-1].str(&m.sym, v) }
		}
		positions[c] = make([]int32, len(m.shapes))
		for s := range m.shapes {
			positions[c][s] = int32(m.shapes[s].position(no))
		}
	}
	err := forEachID(ctx, ids, func(i int, id uint32) error {
		if !m.has(id) {
			return unknownSeries(id)
		}
		first := *m.records.at(id) - 1
		shapeNo := *m.values.at(first)
		for c := range cols {
			if p := positions[c][shapeNo]; p >= 0 {
				cols[c].cells[i] = *m.values.at(first + 1 + uint32(p))
			}
		}
		return nil
	})
	return cols, err
}
