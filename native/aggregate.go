package native

import (
	"context"

	"github.com/luminate/luminate/storage"
)

// aggregateGrids translates an aggregate query: one grid that hands all samples
// of a bucket to the aggregations, the count of samples the last of them, and one
// more for the integral, which is a matter of each series before the group.
func aggregateGrids(p *plan) (samples storage.Grid, integral *storage.Grid) {
	samples = storage.Grid{Matchers: p.matchers, Edges: p.edges, Func: storage.FuncNone, Grouping: p.groupBy}
	for _, a := range p.aggs {
		if !a.integral {
			samples.Aggregates = append(samples.Aggregates, a.agg)
			continue
		}
		g := samples
		g.Func, g.Aggregates = storage.FuncIntegral, []storage.Aggregate{a.agg}
		integral = &g
	}
	samples.Aggregates = append(samples.Aggregates, storage.Aggregate{Op: storage.AggCount})
	return samples, integral
}

func (a *API) aggregateGroups(ctx context.Context, t storage.Tenant, p *plan) ([]group, error) {
	grid, integral := aggregateGrids(p)
	res, err := a.evaluate(ctx, t, p, grid)
	if err != nil {
		return nil, err
	}
	areas := map[string][]float64{}
	if integral != nil {
		more, err := a.evaluate(ctx, t, p, *integral)
		if err != nil {
			return nil, err
		}
		for i := range more.Groups {
			areas[string(more.Groups[i].Labels)] = more.Groups[i].Values[0]
		}
	}
	groups := make([]group, len(res.Groups))
	for i := range res.Groups {
		r := &res.Groups[i]
		last := len(r.Values) - 1
		g := group{labels: r.Labels, counts: r.Values[last], values: make([][]float64, 0, len(p.aggs))}
		next := 0
		for _, x := range p.aggs {
			if !x.integral {
				g.values = append(g.values, r.Values[next])
				next++
				continue
			}
			area := areas[string(r.Labels)]
			if area == nil { // written between the two evaluations
				area = absent(p.steps())
			}
			g.values = append(g.values, area)
		}
		groups[i] = g
	}
	return groups, nil
}

func absent(n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = storage.Absent
	}
	return out
}
