package storagetest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/luminate/luminate/storage"
)

// LabelNames implements storage.Store.
func (m *Model) LabelNames(ctx context.Context, t storage.Tenant, q storage.Selection) ([]string, error) {
	limit := q.Limit
	q.Limit = 0
	all, err := m.selectAll(ctx, "label names", t, q)
	set := map[string]bool{}
	for _, s := range all {
		for n := range s.Labels.All() {
			set[n] = true
		}
	}
	return firstSorted(set, limit), err
}

// LabelValues implements storage.Store.
func (m *Model) LabelValues(ctx context.Context, t storage.Tenant, name string, q storage.Selection) ([]string, error) {
	limit := q.Limit
	q.Limit = 0
	all, err := m.selectAll(ctx, "label values", t, q)
	set := map[string]bool{}
	for _, s := range all {
		if v := s.Labels.Get(name); v != "" {
			set[v] = true
		}
	}
	return firstSorted(set, limit), err
}

func firstSorted(set map[string]bool, limit int) []string {
	out := slices.Sorted(maps.Keys(set))
	if limit > 0 && len(out) > limit {
		out = out[:limit]
	}
	return out
}

// Metadata implements storage.Store.
func (m *Model) Metadata(ctx context.Context, t storage.Tenant, q storage.MetadataQuery) ([]storage.Metadata, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.enter(ctx, "metadata", t); err != nil {
		return nil, err
	}
	var out []storage.Metadata
	if d := m.tenants[t.String()]; d != nil {
		for _, name := range slices.Sorted(maps.Keys(d.metadata)) {
			if (q.Metric == "" || q.Metric == name) && (q.Limit == 0 || len(out) < q.Limit) {
				out = append(out, d.metadata[name])
			}
		}
	}
	return out, nil
}

// Exemplars implements storage.Store.
func (m *Model) Exemplars(ctx context.Context, t storage.Tenant, q storage.ExemplarQuery) ([]storage.ExemplarSeries, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.enter(ctx, "exemplars", t); err != nil {
		return nil, err
	}
	d := m.tenants[t.String()]
	if d == nil {
		return nil, nil
	}
	var out []storage.ExemplarSeries
	for _, s := range d.series {
		matches := func(ms []*storage.Matcher) bool { return storage.Matches(s.labels, ms) }
		if !slices.ContainsFunc(q.Selectors, matches) {
			continue
		}
		x := storage.ExemplarSeries{Labels: s.labels.Clone()}
		for _, e := range s.exemplars {
			if e.T >= q.MinT && e.T <= q.MaxT {
				x.Exemplars = append(x.Exemplars, e)
			}
		}
		if len(x.Exemplars) > 0 {
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b storage.ExemplarSeries) int { return storage.CompareLabels(a.Labels, b.Labels) })
	return limitExemplars(out, q.Limit), nil
}

func limitExemplars(in []storage.ExemplarSeries, limit int) []storage.ExemplarSeries {
	if limit <= 0 {
		return in
	}
	for i := range in {
		if len(in[i].Exemplars) >= limit {
			in[i].Exemplars = in[i].Exemplars[:limit]
			return in[:i+1]
		}
		limit -= len(in[i].Exemplars)
	}
	return in
}

// Cardinality implements storage.Store.
func (m *Model) Cardinality(ctx context.Context, t storage.Tenant, q storage.CardinalityQuery) (storage.Cardinality, error) {
	sel := q.Selection
	sel.Limit = 0
	all, err := m.selectAll(ctx, "cardinality", t, sel)
	if err != nil {
		return storage.Cardinality{}, err
	}
	metrics, names, pairs := map[string]uint64{}, map[string]uint64{}, map[string]uint64{}
	values := map[string]map[string]uint64{}
	for _, s := range all {
		for n, v := range s.Labels.All() {
			n, v = strings.Clone(n), strings.Clone(v)
			if n == storage.MetricName {
				metrics[v]++
			}
			names[n]++
			pairs[n+"="+v]++
			if values[n] == nil {
				values[n] = map[string]uint64{}
			}
			values[n][v]++
		}
	}
	distinct, bytes := map[string]uint64{}, map[string]uint64{}
	for n, vs := range values {
		distinct[n] = uint64(len(vs))
		for v := range vs {
			bytes[n] += uint64(len(v))
		}
	}
	top := q.TopN
	if top == 0 {
		top = 10
	}
	c := storage.Cardinality{
		Series: uint64(len(all)), Metrics: topCounts(metrics, top), LabelNames: topCounts(names, top),
		LabelValueCounts: topCounts(distinct, top), LabelPairs: topCounts(pairs, top),
		LabelValues: map[string][]storage.Count{}, LabelValuesTotals: map[string]uint64{},
		TotalMetrics: uint64(len(metrics)), TotalLabelNames: uint64(len(names)), TotalLabelPairs: uint64(len(pairs)),
		LabelMemoryInBytes: topCounts(bytes, top),
	}
	for _, n := range q.LabelNames {
		c.LabelValues[n] = topCounts(values[n], top)
		c.LabelValuesTotals[n] = uint64(len(values[n]))
	}
	return c, nil
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
