package promql

import (
	"context"
	"fmt"
	"slices"

	"github.com/luminate/luminate/storage"
)

// estimate asks the store how large the part's selection is. Where nobody knows,
// pushing is safe.
func (p *part) estimate(ctx context.Context, store storage.Store, t storage.Tenant) error {
	est, err := store.Estimate(ctx, t, p.grid.Selection())
	switch {
	case err == nil:
		p.est, p.estimated = est, true
	case storage.KindOf(err) != storage.KindUnsupported:
		return fmt.Errorf("evaluate %s: %w", p.text, err)
	}
	return nil
}

// worthPushing tells whether the part is large enough; else it is the engine's.
func (p *part) worthPushing(e *Engine) bool {
	if p.estimated && p.est.Series < e.plan.MinSeries && p.est.Samples < e.plan.MinSamples {
		p.reason = fmt.Sprintf("small: about %d series and %d samples", p.est.Series, p.est.Samples)
		p.small = true
		e.observe("small")
		return false
	}
	return true
}

// share puts parts together that one pass over the series can answer: those of
// equal grids but for the aggregates. topk and bottomk stand alone in a grid, so they
// share with their like only.
func (r *planRun) share(parts []*part) [][]*part {
	var out [][]*part
	at := map[string]int{}
	for _, p := range parts {
		key := p.passKey()
		i, ok := at[key]
		if !ok {
			i = len(out)
			at[key] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], p)
	}
	return out
}

// passKey is equal for parts that can share a pass.
func (p *part) passKey() string {
	g := p.grid
	matchers := make([]string, len(g.Matchers))
	for i, m := range g.Matchers {
		matchers[i] = m.String()
	}
	slices.Sort(matchers)
	names := slices.Compact(slices.Sorted(slices.Values(g.Grouping)))
	alone := ""
	if p.topk {
		alone = fmt.Sprint(g.Aggregates)
	}
	return fmt.Sprintf("%q %q %t %d/%d/%d %d %d %d(%x) %t %s", slices.Compact(matchers), names, g.Without,
		g.Start, g.End, g.Step, g.Window, g.Offset, g.Func, g.FuncArg, g.UseStartTimestamps, alone)
}

// unite returns the grid of parts that share a pass, and for each part which of its
// aggregates is its own.
func unite(parts []*part) (g storage.Grid, column []int) {
	g = *parts[0].grid
	g.Aggregates = nil
	for _, p := range parts {
		agg := p.grid.Aggregates[0]
		i := slices.Index(g.Aggregates, agg)
		if i < 0 {
			i = len(g.Aggregates)
			g.Aggregates = append(g.Aggregates, agg)
		}
		column = append(column, i)
	}
	return g, column
}
