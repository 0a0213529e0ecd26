package native

import (
	"context"
	"time"

	"github.com/luminate/luminate/storage"
)

// evaluate answers a grid by the store, or over selected series where the store
// cannot do it exactly.
func (a *API) evaluate(ctx context.Context, t storage.Tenant, p *plan, g storage.Grid) (*storage.GridResult, error) {
	cells := g.Steps() * len(g.Aggregates)
	g.MaxSeries, g.MaxSamples = p.lim.MaxSeries, p.lim.MaxSamples
	g.MaxGroups, g.Hold = max(1, p.lim.MaxEvaluated/cells), p.reserved.Use
	begin := time.Now()
	res, err := a.store.Evaluate(ctx, t, g)
	reason := ""
	if storage.KindOf(err) == storage.KindUnsupported && err != nil {
		reason = err.Error()
		a.metrics.fallbacks.Inc()
		res, err = storage.EvaluateSeries(ctx, a.store.Select(ctx, t, g.Selection()), g)
	}
	if err != nil {
		return nil, err
	}
	if err := p.reserved.Use(int64(len(res.Groups)*cells) * cellBytes); err != nil {
		return nil, err
	}
	p.explain.addGrid(&g, res, reason, time.Since(begin))
	return res, nil
}

// group is one group of a result: aggs[i][step] of the plan's aggregations.
type group struct {
	labels storage.Labels
	values [][]float64
	counts []float64 // samples at each step, nil for rate
}

// total counts the group's samples.
func (g *group) total() uint64 {
	var n float64
	for _, c := range g.counts {
		if !storage.IsStale(c) {
			n += c
		}
	}
	return uint64(n)
}

// rows evaluates an aggregate or rate query.
func (a *API) rows(ctx context.Context, t storage.Tenant, p *plan) ([]Row, bool, error) {
	groups, truncated, err := a.selectGroups(ctx, t, p)
	if err != nil {
		return nil, false, err
	}
	if len(groups) > p.lim.MaxGroups {
		return nil, false, overLimit("maxGroups", p.lim.MaxGroups, len(groups),
			"the query returns %d groups, at most %d are allowed: set limit, or group by less", len(groups), p.lim.MaxGroups)
	}
	rows := make([]Row, len(groups))
	for i := range groups {
		rows[i] = p.row(&groups[i])
	}
	return rows, truncated, nil
}

// selectGroups evaluates the groups to return, in order.
func (a *API) selectGroups(ctx context.Context, t storage.Tenant, p *plan) ([]group, bool, error) {
	if p.interval == nil {
		groups, err := a.groups(ctx, t, p)
		if err != nil {
			return nil, false, err
		}
		best, truncated := topGroups(groups, p.order, p.limit)
		return best, truncated, nil
	}
	if p.limit == 0 && p.order.by == orderKey {
		groups, err := a.groups(ctx, t, p)
		if err != nil {
			return nil, false, err
		}
		best, _ := topGroups(groups, p.order, 0)
		return best, false, nil
	}
	// Groups are ranked by their values over the whole range; only the best are
	// then evaluated bucket by bucket.
	ranked, err := a.groups(ctx, t, p.wholeRange())
	if err != nil {
		return nil, false, err
	}
	best, truncated := topGroups(ranked, p.order, p.limit)
	if len(best) > p.lim.MaxGroups || len(best) == 0 {
		return best, truncated, nil
	}
	fine := *p
	if len(best) < len(ranked) {
		fine.matchers = narrow(p.matchers, p.groupBy, best)
	}
	groups, err := a.groups(ctx, t, &fine)
	if err != nil {
		return nil, false, err
	}
	return pick(groups, best), truncated, nil
}

// groups evaluates every group of the plan.
func (a *API) groups(ctx context.Context, t storage.Tenant, p *plan) ([]group, error) {
	if p.kind == QueryRate {
		return a.rateGroups(ctx, t, p)
	}
	return a.aggregateGroups(ctx, t, p)
}

// row renders a group.
func (p *plan) row(g *group) Row {
	r := Row{GroupKey: map[string]string{}}
	for _, name := range p.groupBy {
		r.GroupKey[name] = "" // a series without the dimension
	}
	for n, v := range g.labels.All() {
		r.GroupKey[n] = v
	}
	if g.counts != nil {
		n := g.total()
		r.Count = &n
	}
	if p.interval != nil {
		r.Points = p.points(g)
		return r
	}
	v := Value(g.values[0][0])
	r.Value = &v
	if p.named {
		r.Values = make(map[string]Value, len(p.aggs))
		for i, a := range p.aggs {
			r.Values[a.name] = Value(g.values[i][0])
		}
	}
	return r
}

// points renders the buckets of a group.
func (p *plan) points(g *group) []Point {
	out := make([]Point, 0, len(p.labels))
	for i, t := range p.labels {
		x := Point{T: t, Values: make([]Value, len(g.values))}
		some := false
		for a := range g.values {
			v := g.values[a][i]
			if storage.IsStale(v) {
				if p.fill == FillZero {
					v = 0
				}
			} else {
				some = true
			}
			x.Values[a] = Value(v)
		}
		if some || p.fill != FillNone {
			out = append(out, x)
		}
	}
	return out
}
