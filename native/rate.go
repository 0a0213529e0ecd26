package native

import (
	"context"

	"github.com/luminate/luminate/storage"
)

// rateGrid translates a rate query: each series' own rate in the bucket, not
// extrapolated, then the aggregations over the series of a group.
func rateGrid(p *plan) storage.Grid {
	g := storage.Grid{Matchers: p.matchers, Edges: p.edges, Func: storage.FuncNativeRate, Grouping: p.groupBy}
	for _, a := range p.aggs {
		g.Aggregates = append(g.Aggregates, a.agg)
	}
	return g
}

func (a *API) rateGroups(ctx context.Context, t storage.Tenant, p *plan) ([]group, error) {
	res, err := a.evaluate(ctx, t, p, rateGrid(p))
	if err != nil {
		return nil, err
	}
	groups := make([]group, len(res.Groups))
	for i := range res.Groups {
		groups[i] = group{labels: res.Groups[i].Labels, values: res.Groups[i].Values}
	}
	return groups, nil
}
