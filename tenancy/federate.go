package tenancy

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/luminate/luminate/storage"
)

// TenantLabel is the label that tells, in the answer of a read over several
// tenants, which one a series is of. A matcher on it chooses among them.
const TenantLabel = "__tenant_id__"

// federated returns the tenants of a read over several, nil for one.
func federated(id Identity, t storage.Tenant) []storage.Tenant {
	if len(id.Federated) < 2 || t != id.Tenant {
		return nil
	}
	return id.Federated
}

// split takes the matchers on the tenant label out and returns the tenants that
// they choose.
func split(tenants []storage.Tenant, ms []*storage.Matcher) ([]storage.Tenant, []*storage.Matcher) {
	var rest []*storage.Matcher
	for _, m := range ms {
		if m.Name != TenantLabel {
			rest = append(rest, m)
			continue
		}
		var chosen []storage.Tenant
		for _, t := range tenants {
			if m.Matches(t.String()) {
				chosen = append(chosen, t)
			}
		}
		tenants = chosen
	}
	return tenants, rest
}

// withTenant returns the labels with the tenant's label; one that was stored under
// that name gives way.
func withTenant(ls storage.Labels, t storage.Tenant) storage.Labels {
	out := make([]byte, 0, len(ls)+len(TenantLabel)+len(t.String())+4)
	done := false
	for n, v := range ls.All() {
		if !done && n >= TenantLabel {
			out = storage.AppendLabel(out, TenantLabel, t.String())
			done = true
		}
		if n != TenantLabel {
			out = storage.AppendLabel(out, n, v)
		}
	}
	if !done {
		out = storage.AppendLabel(out, TenantLabel, t.String())
	}
	return out
}

// selectFederated yields the series of all tenants. The added label can change the
// order within a tenant, so an ordered answer is collected and sorted; the limits
// of the selection bound what it holds, over all tenants together.
func (s *guarded) selectFederated(ctx context.Context, tenants []storage.Tenant, q storage.Selection) iter.Seq2[storage.Series, error] {
	tenants, q.Matchers = split(tenants, q.Matchers)
	limit := q.Limit
	each := func(yield func(storage.Series, error) bool) {
		series, samples := 0, 0
		for _, t := range tenants {
			for x, err := range s.next.Select(ctx, t, q) {
				if err != nil {
					yield(storage.Series{}, err)
					return
				}
				series++
				samples += x.Len()
				if err := overSelection(q, series, samples); err != nil {
					yield(storage.Series{}, err)
					return
				}
				x.Labels = withTenant(x.Labels, t)
				if err := hold(q, x.Bytes()); err != nil {
					yield(storage.Series{}, err)
					return
				}
				if !yield(x, nil) {
					return
				}
			}
		}
	}
	if q.Unsorted {
		return take(each, limit)
	}
	all := sorted(each, func(x storage.Series) storage.Labels { return x.Labels })
	return take(func(yield func(storage.Series, error) bool) {
		for x, err := range all {
			if err == nil {
				_ = hold(q, -x.Bytes()) // giving back is never refused
			}
			if !yield(x, err) {
				return
			}
		}
	}, limit)
}

// hold tells the receiver of what is held until it is in order.
func hold(q storage.Selection, n int64) error {
	if q.Hold == nil || q.Unsorted {
		return nil
	}
	return q.Hold(n)
}

func overSelection(q storage.Selection, series, samples int) error {
	switch {
	case q.MaxSeries > 0 && series > q.MaxSeries:
		return storage.LimitErrorf(storage.KindTooLarge, "select", "max-series-per-query", "limits.maxSeriesPerQuery", "the query selects more than %d series of all tenants", q.MaxSeries)
	case q.MaxSamples > 0 && samples > q.MaxSamples:
		return storage.LimitErrorf(storage.KindTooLarge, "select", "max-samples-per-query", "limits.maxSamplesPerQuery", "the query selects more than %d samples of all tenants", q.MaxSamples)
	default:
		return nil
	}
}

// sorted collects a sequence and yields it by labels.
func sorted[T any](seq iter.Seq2[T, error], labels func(T) storage.Labels) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var all []T
		for x, err := range seq {
			if err != nil {
				yield(x, err)
				return
			}
			all = append(all, x)
		}
		slices.SortFunc(all, func(a, b T) int { return storage.CompareLabels(labels(a), labels(b)) })
		for _, x := range all {
			if !yield(x, nil) {
				return
			}
		}
	}
}

// take ends a sequence after n elements, 0 = never.
func take[T any](seq iter.Seq2[T, error], n int) iter.Seq2[T, error] {
	if n <= 0 {
		return seq
	}
	return func(yield func(T, error) bool) {
		left := n
		for x, err := range seq {
			if !yield(x, err) || err != nil {
				return
			}
			if left--; left == 0 {
				return
			}
		}
	}
}

func (s *guarded) labelsFederated(ctx context.Context, tenants []storage.Tenant, q storage.Selection) iter.Seq2[storage.Labels, error] {
	tenants, q.Matchers = split(tenants, q.Matchers)
	each := func(yield func(storage.Labels, error) bool) {
		for _, t := range tenants {
			for ls, err := range s.next.SelectLabels(ctx, t, q) {
				if err != nil {
					yield(nil, err)
					return
				}
				if !yield(withTenant(ls, t), nil) {
					return
				}
			}
		}
	}
	if q.Unsorted {
		return take(each, q.Limit)
	}
	return take(sorted(each, func(ls storage.Labels) storage.Labels { return ls }), q.Limit)
}

func (s *guarded) estimateFederated(ctx context.Context, tenants []storage.Tenant, q storage.Selection) (storage.Estimate, error) {
	tenants, q.Matchers = split(tenants, q.Matchers)
	var sum storage.Estimate
	for _, t := range tenants {
		e, err := s.next.Estimate(ctx, t, q)
		if err != nil {
			return storage.Estimate{}, err
		}
		sum.Series, sum.Samples, sum.Bytes = sum.Series+e.Series, sum.Samples+e.Samples, sum.Bytes+e.Bytes
	}
	return sum, nil
}

// union collects strings of every tenant, sorted and cut.
func union(tenants []storage.Tenant, limit int, list func(storage.Tenant) ([]string, error)) ([]string, error) {
	set := map[string]struct{}{}
	for _, t := range tenants {
		found, err := list(t)
		if err != nil {
			return nil, err
		}
		for _, v := range found {
			set[v] = struct{}{}
		}
	}
	out := slices.Sorted(maps.Keys(set))
	if limit > 0 && len(out) > limit {
		out = out[:limit]
	}
	return out, nil
}

func (s *guarded) namesFederated(ctx context.Context, tenants []storage.Tenant, q storage.Selection) ([]string, error) {
	tenants, q.Matchers = split(tenants, q.Matchers)
	return union(tenants, q.Limit, func(t storage.Tenant) ([]string, error) {
		names, err := s.next.LabelNames(ctx, t, q)
		if len(names) > 0 {
			names = append(names, TenantLabel)
		}
		return names, err
	})
}

func (s *guarded) valuesFederated(ctx context.Context, tenants []storage.Tenant, name string, q storage.Selection) ([]string, error) {
	tenants, q.Matchers = split(tenants, q.Matchers)
	if name != TenantLabel {
		return union(tenants, q.Limit, func(t storage.Tenant) ([]string, error) { return s.next.LabelValues(ctx, t, name, q) })
	}
	one := q
	one.Limit = 1
	return union(tenants, q.Limit, func(t storage.Tenant) ([]string, error) {
		for _, err := range s.next.SelectLabels(ctx, t, one) {
			return []string{t.String()}, err
		}
		return nil, nil
	})
}

func (s *guarded) exemplarsFederated(ctx context.Context, tenants []storage.Tenant, q storage.ExemplarQuery) ([]storage.ExemplarSeries, error) {
	var out []storage.ExemplarSeries
	for _, t := range tenants {
		one := q
		one.Selectors = nil
		for _, ms := range q.Selectors {
			if chosen, rest := split([]storage.Tenant{t}, ms); len(chosen) > 0 {
				one.Selectors = append(one.Selectors, rest)
			}
		}
		if len(one.Selectors) == 0 {
			continue
		}
		found, err := s.next.Exemplars(ctx, t, one)
		if err != nil {
			return nil, err
		}
		for _, x := range found {
			x.Labels = withTenant(x.Labels, t)
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b storage.ExemplarSeries) int { return storage.CompareLabels(a.Labels, b.Labels) })
	if q.Limit <= 0 {
		return out, nil
	}
	left := q.Limit
	for i := range out {
		if len(out[i].Exemplars) >= left {
			out[i].Exemplars = out[i].Exemplars[:left]
			return out[:i+1], nil
		}
		left -= len(out[i].Exemplars)
	}
	return out, nil
}

func (s *guarded) metadataFederated(ctx context.Context, tenants []storage.Tenant, id Identity, q storage.MetadataQuery) ([]storage.Metadata, error) {
	var out []storage.Metadata
	for _, t := range tenants {
		found, err := s.metadataOf(ctx, t, id, q)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	slices.SortStableFunc(out, func(a, b storage.Metadata) int { return strings.Compare(a.Metric, b.Metric) })
	out = slices.Compact(out)
	if q.LimitPerMetric > 0 {
		out = perMetric(out, q.LimitPerMetric)
	}
	if q.Limit > 0 {
		metrics := 0
		for i := range out {
			if i == 0 || out[i].Metric != out[i-1].Metric {
				if metrics++; metrics > q.Limit {
					return out[:i], nil
				}
			}
		}
	}
	return out, nil
}

func perMetric(in []storage.Metadata, limit int) []storage.Metadata {
	out, n := in[:0], 0
	for i, m := range in {
		if i == 0 || m.Metric != out[len(out)-1].Metric {
			n = 0
		}
		if n++; n <= limit {
			out = append(out, m)
		}
	}
	return out
}

// cardinalityFederated counts from the labels themselves: lists that were cut for
// each tenant cannot be added up.
func (s *guarded) cardinalityFederated(ctx context.Context, tenants []storage.Tenant, q storage.CardinalityQuery) (storage.Cardinality, error) {
	c := newCardinalityCount(q.LabelNames)
	sel := q.Selection
	sel.Limit, sel.Unsorted = 0, true
	for ls, err := range s.labelsFederated(ctx, tenants, sel) {
		if err != nil {
			return storage.Cardinality{}, err
		}
		c.add(ls)
	}
	return c.result(cmp.Or(q.TopN, 10)), nil
}
