package promql

import (
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/luminate/luminate/storage"
)

// part is an aggregation of a query: a grid to push, or why it is none.
type part struct {
	text    string
	reason  string // why it is not pushed, "" if it is or was not tried yet
	grid    *storage.Grid
	replace func(parser.Expr) // puts a synthetic selector where the pushed part was
	at      parser.Expr       // what is replaced: its position is kept
	call    *parser.Call      // nil for an instant selector
	topk    bool
	result  *storage.GridResult // nil until evaluated
	shares  string              // the text of the part that it shared an evaluation with
	cost    partCost

	selector  *parser.VectorSelector
	est       storage.Estimate
	estimated bool
	small     bool // by the estimate: left to the engine
}

// pushable are the functions over a range that a Grid has.
var pushable = map[string]storage.Func{
	"rate": storage.FuncRate, "increase": storage.FuncIncrease, "delta": storage.FuncDelta,
	"irate": storage.FuncIrate, "idelta": storage.FuncIdelta,
	"avg_over_time": storage.FuncAvgOverTime, "sum_over_time": storage.FuncSumOverTime,
	"count_over_time": storage.FuncCountOverTime, "min_over_time": storage.FuncMinOverTime,
	"max_over_time": storage.FuncMaxOverTime, "quantile_over_time": storage.FuncQuantileOverTime,
	"stddev_over_time": storage.FuncStddevOverTime, "stdvar_over_time": storage.FuncStdvarOverTime,
	"last_over_time": storage.FuncLastOverTime, "first_over_time": storage.FuncFirstOverTime,
	"present_over_time": storage.FuncPresentOverTime, "changes": storage.FuncChanges, "resets": storage.FuncResets,
}

// readsStartTimestamps are the functions for which the engine heeds them.
var readsStartTimestamps = map[storage.Func]bool{
	storage.FuncRate: true, storage.FuncIncrease: true, storage.FuncIrate: true, storage.FuncResets: true,
}

var aggregates = map[parser.ItemType]storage.AggOp{
	parser.SUM: storage.AggSum, parser.AVG: storage.AggAvg, parser.COUNT: storage.AggCount, parser.MIN: storage.AggMin,
	parser.MAX: storage.AggMax, parser.QUANTILE: storage.AggQuantile, parser.STDDEV: storage.AggStddev,
	parser.STDVAR: storage.AggStdvar, parser.GROUP: storage.AggGroup, parser.TOPK: storage.AggTopK, parser.BOTTOMK: storage.AggBottomK,
}

// metadataLabels are the labels that name-dropping functions and `without` drop.
var metadataLabels = []string{storage.MetricName, "__type__", "__unit__"}

// keepsName tells whether the engine leaves the metric's name after f.
func keepsName(f storage.Func) bool {
	return f == storage.FuncLast || f == storage.FuncLastOverTime || f == storage.FuncFirstOverTime
}

// find walks the query's tree and lists its aggregations.
func (r *planRun) find(g gridRange) {
	if usesInfo(r.expr) { // info() reads the selectors below it
		return
	}
	r.walk(r.expr, func(e parser.Expr) { r.expr = e }, g)
}

func usesInfo(expr parser.Expr) bool {
	found := false
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if c, ok := n.(*parser.Call); ok && c.Func.Name == "info" {
			found = true
		}
		return nil
	})
	return found
}

// walk looks for grids in e; put replaces e in its parent.
func (r *planRun) walk(e parser.Expr, put func(parser.Expr), g gridRange) {
	switch e := e.(type) {
	case *parser.AggregateExpr:
		p := &part{text: e.String(), at: e, replace: put}
		p.reason = p.build(e, g)
		r.parts = append(r.parts, p)
		if p.reason != "" {
			r.walk(e.Expr, func(x parser.Expr) { e.Expr = x }, g)
			if e.Param != nil {
				r.walk(e.Param, func(x parser.Expr) { e.Param = x }, g)
			}
		}
	case *parser.BinaryExpr:
		r.walk(e.LHS, func(x parser.Expr) { e.LHS = x }, g)
		r.walk(e.RHS, func(x parser.Expr) { e.RHS = x }, g)
	case *parser.Call:
		for i := range e.Args {
			r.walk(e.Args[i], func(x parser.Expr) { e.Args[i] = x }, g)
		}
	case *parser.ParenExpr:
		r.walk(e.Expr, func(x parser.Expr) { e.Expr = x }, g)
	case *parser.UnaryExpr:
		r.walk(e.Expr, func(x parser.Expr) { e.Expr = x }, g)
	case *parser.SubqueryExpr:
		r.noteSubquery(e)
	}
}

// noteSubquery lists the aggregations inside of a subquery as not pushed: it runs
// at steps of its own.
func (r *planRun) noteSubquery(e *parser.SubqueryExpr) {
	parser.Inspect(e.Expr, func(n parser.Node, _ []parser.Node) error {
		if a, ok := n.(*parser.AggregateExpr); ok {
			r.parts = append(r.parts, &part{text: a.String(), reason: "inside a subquery"})
		}
		return nil
	})
}

// build makes the grid of an aggregation, or tells why there is none.
func (p *part) build(e *parser.AggregateExpr, g gridRange) string {
	op, ok := aggregates[e.Op]
	if !ok {
		return fmt.Sprintf("%s is not evaluated by the storage", e.Op)
	}
	if !g.ok {
		return "the time range cannot be told in milliseconds"
	}
	agg := storage.Aggregate{Op: op}
	if e.Param != nil {
		if agg.Arg, ok = constant(e.Param); !ok {
			return "the parameter is not a constant"
		}
	}
	if reason := checkArg(agg); reason != "" {
		return reason
	}
	grid := &storage.Grid{
		Start: g.start, End: g.end, Step: g.step, Aggregates: []storage.Aggregate{agg},
		Grouping: slices.Clone(e.Grouping), Without: e.Without,
	}
	if reason := p.inner(grid, unwrap(e.Expr), g); reason != "" {
		return reason
	}
	grid.UseStartTimestamps = g.useStartTimestamps && readsStartTimestamps[grid.Func]
	if p.topk = op == storage.AggTopK || op == storage.AggBottomK; p.topk {
		p.at, p.replace = e.Expr, func(x parser.Expr) { e.Expr = x }
		if g.delayedNames && !keepsName(grid.Func) {
			return "names are removed later"
		}
	}
	switch {
	case e.Without:
		grid.Grouping = append(grid.Grouping, metadataLabels...)
	case !keepsName(grid.Func) && slices.ContainsFunc(grid.Grouping, isMetadataLabel):
		return "groups by a label that the function drops"
	}
	p.grid = grid
	return ""
}

func isMetadataLabel(name string) bool { return slices.Contains(metadataLabels, name) }

// within tells whether v is in [lo, hi]; NaN is in none.
func within(v, lo, hi float64) bool { return v >= lo && v <= hi }

// checkArg refuses the parameters that the engine warns about or fails on.
func checkArg(agg storage.Aggregate) string {
	switch agg.Op {
	case storage.AggTopK, storage.AggBottomK:
		if !within(agg.Arg, 1, 1<<62) {
			return "k is out of range"
		}
	case storage.AggQuantile:
		if !within(agg.Arg, 0, 1) {
			return "the quantile is out of range"
		}
	}
	return ""
}

// inner fills in what is aggregated: an instant selector or a function of a range.
func (p *part) inner(grid *storage.Grid, e parser.Expr, g gridRange) string {
	if vs, ok := e.(*parser.VectorSelector); ok {
		grid.Func, grid.Window, p.selector = storage.FuncLast, g.lookback, vs
		return selector(grid, vs)
	}
	c, ok := e.(*parser.Call)
	if !ok {
		return "aggregates neither a selector nor a function of a range"
	}
	f, ok := pushable[c.Func.Name]
	if !ok {
		return fmt.Sprintf("%s is not evaluated by the storage", c.Func.Name)
	}
	grid.Func, p.call = f, c
	if f == storage.FuncQuantileOverTime {
		if grid.FuncArg, ok = constant(c.Args[0]); !ok || !within(grid.FuncArg, 0, 1) {
			return "the quantile is not a constant in range"
		}
	}
	ms, ok := unwrap(c.Args[len(c.Args)-1]).(*parser.MatrixSelector)
	if !ok {
		return fmt.Sprintf("%s of a subquery", c.Func.Name)
	}
	if ms.RangeExpr != nil {
		return "the range is an expression"
	}
	if grid.Window = ms.Range.Milliseconds(); grid.Window <= 0 {
		return "the range is shorter than a millisecond"
	}
	p.selector = ms.VectorSelector.(*parser.VectorSelector)
	return selector(grid, p.selector)
}

// selector fills in matchers and offset.
func selector(grid *storage.Grid, vs *parser.VectorSelector) string {
	switch {
	case vs.Timestamp != nil || vs.StartOrEnd != 0:
		return "the selector has an @ modifier"
	case vs.OriginalOffsetExpr != nil:
		return "the offset is an expression"
	case vs.Anchored || vs.Smoothed:
		return "the selector is anchored or smoothed"
	}
	if _, ok := storage.MetricOf(vs.LabelMatchers); !ok {
		return "the selector names no metric"
	}
	grid.Matchers, grid.Offset = vs.LabelMatchers, vs.OriginalOffset.Milliseconds()
	return ""
}

func unwrap(e parser.Expr) parser.Expr {
	for {
		p, ok := e.(*parser.ParenExpr)
		if !ok {
			return e
		}
		e = p.Expr
	}
}

// constant returns the value of a number, in parentheses or with a sign.
func constant(e parser.Expr) (float64, bool) {
	switch e := unwrap(e).(type) {
	case *parser.NumberLiteral:
		return e.Val, true
	case *parser.UnaryExpr:
		v, ok := constant(e.Expr)
		if e.Op == parser.SUB {
			v = -v
		}
		return v, ok
	default:
		return 0, false
	}
}
