package native

import (
	"cmp"
	"container/heap"
	"math"
	"slices"

	promlabels "github.com/prometheus/prometheus/model/labels"

	"github.com/luminate/luminate/storage"
)

// topGroups returns the first limit groups in the asked order (all for limit 0),
// and whether that left some out. It keeps a heap of limit groups instead of
// sorting all. The values that rank are those of the first step.
func topGroups(groups []group, o ordering, limit int) ([]group, bool) {
	h := groupHeap{o: o}
	if limit <= 0 || limit >= len(groups) {
		h.groups = groups
		slices.SortFunc(h.groups, h.compare)
		return h.groups, false
	}
	h.groups = make([]group, 0, limit)
	for _, g := range groups {
		if len(h.groups) < limit {
			heap.Push(&h, g)
		} else if h.compare(g, h.groups[0]) < 0 {
			h.groups[0] = g
			heap.Fix(&h, 0)
		}
	}
	slices.SortFunc(h.groups, h.compare)
	return h.groups, true
}

// groupHeap has the group that comes last in the order on top.
type groupHeap struct {
	groups []group
	o      ordering
}

// compare is the order of groups: NaN and absent values come last whatever the
// direction, and equal ones follow their keys.
func (h *groupHeap) compare(a, b group) int {
	byKey := storage.CompareLabels(a.labels, b.labels)
	var x, y float64
	switch h.o.by {
	case orderValue:
		x, y = a.values[h.o.agg][0], b.values[h.o.agg][0]
	case orderCount:
		x, y = float64(a.total()), float64(b.total())
	default:
		if h.o.desc {
			return -byKey
		}
		return byKey
	}
	switch xn, yn := math.IsNaN(x), math.IsNaN(y); {
	case xn && yn:
		return byKey
	case xn:
		return 1
	case yn:
		return -1
	case h.o.desc:
		x, y = y, x
	}
	return cmp.Or(cmp.Compare(x, y), byKey)
}

func (h *groupHeap) Len() int           { return len(h.groups) }
func (h *groupHeap) Less(i, j int) bool { return h.compare(h.groups[i], h.groups[j]) > 0 }
func (h *groupHeap) Swap(i, j int)      { h.groups[i], h.groups[j] = h.groups[j], h.groups[i] }
func (h *groupHeap) Push(x any)         { h.groups = append(h.groups, x.(group)) }
func (h *groupHeap) Pop() any {
	x := h.groups[len(h.groups)-1]
	h.groups = h.groups[:len(h.groups)-1]
	return x
}

// narrow adds matchers that the series of these groups fulfil and few others: for
// each dimension the set of its values.
func narrow(ms []*storage.Matcher, groupBy []string, groups []group) []*storage.Matcher {
	out := slices.Clone(ms)
	for _, name := range groupBy {
		values := make([]string, 0, len(groups))
		for i := range groups {
			values = append(values, groups[i].labels.Get(name))
		}
		slices.Sort(values)
		m, err := promlabels.NewMatcher(promlabels.MatchRegexp, name, alternatives(slices.Compact(values)))
		if err != nil {
			continue // the set is too large for one expression: read more, pick later
		}
		out = append(out, m)
	}
	return out
}

// pick returns those of groups that are in best, in best's order.
func pick(groups, best []group) []group {
	at := make(map[string]int, len(groups))
	for i := range groups {
		at[string(groups[i].labels)] = i
	}
	out := make([]group, 0, len(best))
	for i := range best {
		if j, ok := at[string(best[i].labels)]; ok {
			out = append(out, groups[j])
		}
	}
	return out
}
