package tenancy

import (
	"cmp"
	"slices"
	"strings"

	"github.com/luminate/luminate/storage"
)

// cardinalityCount counts how series spread, label set by label set.
type cardinalityCount struct {
	series  uint64
	metrics map[string]uint64
	names   map[string]uint64
	values  map[string]map[string]uint64 // by name: series with the value
	asked   []string
}

func newCardinalityCount(asked []string) *cardinalityCount {
	return &cardinalityCount{
		metrics: map[string]uint64{}, names: map[string]uint64{}, values: map[string]map[string]uint64{}, asked: asked,
	}
}

// add counts one series.
func (c *cardinalityCount) add(ls storage.Labels) {
	c.series++
	c.metrics[strings.Clone(ls.Metric())]++
	for n, v := range ls.All() {
		values := c.values[n]
		if values == nil {
			values = map[string]uint64{}
			c.values[strings.Clone(n)] = values
		}
		c.names[strings.Clone(n)]++
		values[strings.Clone(v)]++
	}
}

// result cuts every list to top.
func (c *cardinalityCount) result(top int) storage.Cardinality {
	out := storage.Cardinality{
		Series: c.series, Metrics: greatest(c.metrics, top), LabelNames: greatest(c.names, top),
		TotalMetrics: uint64(len(c.metrics)), TotalLabelNames: uint64(len(c.names)),
		LabelValues: map[string][]storage.Count{}, LabelValuesTotals: map[string]uint64{},
	}
	distinct, memory, pairs := map[string]uint64{}, map[string]uint64{}, map[string]uint64{}
	for n, values := range c.values {
		distinct[n] = uint64(len(values))
		out.TotalLabelPairs += uint64(len(values))
		for v, count := range values {
			memory[n] += uint64(len(v))
			pairs[n+"="+v] = count
		}
	}
	out.LabelValueCounts, out.LabelMemoryInBytes, out.LabelPairs = greatest(distinct, top), greatest(memory, top), greatest(pairs, top)
	for _, n := range c.asked {
		out.LabelValues[n], out.LabelValuesTotals[n] = greatest(c.values[n], top), uint64(len(c.values[n]))
	}
	return out
}

// greatest lists the greatest counts first, then by name.
func greatest(m map[string]uint64, top int) []storage.Count {
	out := make([]storage.Count, 0, len(m))
	for n, c := range m {
		out = append(out, storage.Count{Name: n, Count: c})
	}
	slices.SortFunc(out, func(a, b storage.Count) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Name, b.Name))
	})
	return out[:min(top, len(out))]
}
