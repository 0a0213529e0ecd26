package promql

import (
	"context"
	"math"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/luminate/luminate/storage"
)

// What a query holds beside what it reads, in bytes: a point of the engine's, and
// what an evaluation in the storage takes for a series, and for a value that a
// quantile collects.
const (
	pointBytes     = 16
	pushedBytes    = 32
	collectedBytes = 24
)

// admit reserves the memory that the query is estimated to need before it reads
// anything, and waits for it. It also decides which parts are worth to be pushed,
// which takes the same estimates.
func (q *plannedQuery) admit(ctx context.Context) error {
	run, tenant := q.run, q.over.opts.Tenant(ctx)
	expr := run.expr
	if expr == nil {
		if eval, ok := q.Query.Statement().(*parser.EvalStmt); ok {
			expr = eval.Expr
		}
	}
	need := int64(0)
	pushed := map[*parser.VectorSelector]bool{}
	for _, p := range run.grids() {
		if err := p.estimate(ctx, q.over.store, tenant); err != nil {
			return err
		}
		if p.worthPushing(q.engine) {
			pushed[p.selector] = true
			need = saturated(need, p.need())
		}
	}
	if !run.memory.Counts() {
		return nil
	}
	for _, x := range q.rng.reads(expr) {
		if pushed[x.vs] {
			continue
		}
		est, err := q.over.store.Estimate(ctx, tenant, x.selection)
		if storage.KindOf(err) == storage.KindUnsupported && err != nil {
			continue // it will grow as it reads
		}
		if err != nil {
			return err
		}
		need = saturated(need, saturated(int64(min(est.Bytes, math.MaxInt64)), product(est.Series, x.points, pointBytes)))
	}
	return run.memory.Await(ctx, need)
}

// saturated adds what is not negative.
func saturated(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// product multiplies what is not negative, up to what an int64 holds.
func product(series uint64, points, bytes int64) int64 {
	if f := float64(series) * float64(points) * float64(bytes); f >= math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(series) * points * bytes
}

// need estimates what the storage holds while it evaluates the part.
func (p *part) need() int64 {
	n := product(p.est.Series, 1, pushedBytes)
	if p.grid.Aggregates[0].Op == storage.AggQuantile {
		n = saturated(n, product(p.est.Series, int64(p.grid.Steps()), collectedBytes))
	}
	return n
}

// read is what the engine will select: about, for it counts by its own rules.
type read struct {
	vs        *parser.VectorSelector
	selection storage.Selection
	points    int64 // of each series that the engine makes
}

// reads lists the selectors of a query with the ranges that they are selected for.
func (g *gridRange) reads(expr parser.Expr) []read {
	var out []read
	if expr == nil || !g.ok {
		return nil
	}
	parser.Inspect(expr, func(n parser.Node, path []parser.Node) error {
		if vs, ok := n.(*parser.VectorSelector); ok {
			if r := g.read(vs, path); r.selection.MinT <= r.selection.MaxT {
				out = append(out, r)
			}
		}
		return nil
	})
	return out
}

func (g *gridRange) read(vs *parser.VectorSelector, path []parser.Node) read {
	start, end, step, window := g.start, g.end, g.step, g.lookback
	for _, n := range path {
		switch n := n.(type) {
		case *parser.MatrixSelector:
			window = n.Range.Milliseconds()
		case *parser.SubqueryExpr:
			if n.Timestamp != nil {
				start, end = *n.Timestamp, *n.Timestamp
			}
			start -= n.OriginalOffset.Milliseconds() + n.Range.Milliseconds()
			end -= n.OriginalOffset.Milliseconds()
			if step = n.Step.Milliseconds(); step == 0 {
				step = g.subqueryStep
			}
		}
	}
	if vs.Timestamp != nil {
		start, end = *vs.Timestamp, *vs.Timestamp
	}
	start, end = start-vs.OriginalOffset.Milliseconds(), end-vs.OriginalOffset.Milliseconds()
	r := read{vs: vs, selection: storage.Selection{Matchers: vs.LabelMatchers, MinT: start - window + 1, MaxT: end}, points: 1}
	if step > 0 {
		r.points += max(0, end-start) / step
	}
	return r
}
