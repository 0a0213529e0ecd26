package promql

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

func (a *API) serveFormatQuery(r *http.Request) (answer, *apiError) {
	expr, err := a.parser.ParseExpr(r.FormValue("query"))
	if err != nil {
		return answer{}, paramError("query", err)
	}
	return value(expr.Pretty(0)), nil
}

func (a *API) serveParseQuery(r *http.Request) (answer, *apiError) {
	expr, err := a.parser.ParseExpr(r.FormValue("query"))
	if err != nil {
		return answer{}, paramError("query", err)
	}
	return value(treeOf(expr)), nil
}

// node is one node of a parsed query in the form that query builders read.
type node = map[string]any

// treeOf turns an expression into nodes; nil stays nil.
func treeOf(expr parser.Expr) any {
	switch e := expr.(type) {
	case nil:
		return nil
	case *parser.AggregateExpr:
		return node{
			"type": "aggregation", "op": e.Op.String(), "expr": treeOf(e.Expr), "param": treeOf(e.Param),
			"grouping": notNil(e.Grouping), "without": e.Without,
		}
	case *parser.BinaryExpr:
		return node{
			"type": "binaryExpr", "op": e.Op.String(), "lhs": treeOf(e.LHS), "rhs": treeOf(e.RHS),
			"matching": matchingOf(e.VectorMatching), "bool": e.ReturnBool,
		}
	case *parser.Call:
		return callOf(e)
	case *parser.MatrixSelector:
		n := selectorOf(e.VectorSelector.(*parser.VectorSelector))
		n["type"], n["range"], n["rangeExpr"] = "matrixSelector", e.Range.Milliseconds(), durationOf(e.RangeExpr)
		return n
	case *parser.SubqueryExpr:
		return node{
			"type": "subquery", "expr": treeOf(e.Expr),
			"range": e.Range.Milliseconds(), "rangeExpr": durationOf(e.RangeExpr),
			"offset": e.OriginalOffset.Milliseconds(), "offsetExpr": durationOf(e.OriginalOffsetExpr),
			"step": e.Step.Milliseconds(), "stepExpr": durationOf(e.StepExpr),
			"timestamp": e.Timestamp, "startOrEnd": startOrEndOf(e.StartOrEnd),
		}
	case *parser.DurationExpr:
		return durationOf(e)
	case *parser.NumberLiteral:
		return node{"type": "numberLiteral", "val": formatNumber(e.Val)}
	case *parser.StringLiteral:
		return node{"type": "stringLiteral", "val": e.Val}
	case *parser.ParenExpr:
		return node{"type": "parenExpr", "expr": treeOf(e.Expr)}
	case *parser.UnaryExpr:
		return node{"type": "unaryExpr", "op": e.Op.String(), "expr": treeOf(e.Expr)}
	case *parser.VectorSelector:
		return selectorOf(e)
	default:
		panic(fmt.Sprintf("promql: the parser has an expression unknown here: %T", expr))
	}
}

func callOf(e *parser.Call) node {
	args := make([]any, 0, len(e.Args))
	for _, arg := range e.Args {
		args = append(args, treeOf(arg))
	}
	return node{"type": "call", "args": args, "func": node{
		"name": e.Func.Name, "argTypes": e.Func.ArgTypes, "variadic": e.Func.Variadic, "returnType": e.Func.ReturnType,
	}}
}

func selectorOf(e *parser.VectorSelector) node {
	matchers := make([]node, 0, len(e.LabelMatchers))
	for _, m := range e.LabelMatchers {
		matchers = append(matchers, matcherOf(m))
	}
	return node{
		"type": "vectorSelector", "name": e.Name, "matchers": matchers,
		"offset": e.OriginalOffset.Milliseconds(), "offsetExpr": durationOf(e.OriginalOffsetExpr),
		"timestamp": e.Timestamp, "startOrEnd": startOrEndOf(e.StartOrEnd),
		"anchored": e.Anchored, "smoothed": e.Smoothed,
	}
}

func matcherOf(m *labels.Matcher) node {
	return node{"name": m.Name, "value": m.Value, "type": m.Type.String()}
}

func matchingOf(m *parser.VectorMatching) any {
	if m == nil {
		return nil
	}
	return node{
		"card": m.Card.String(), "labels": notNil(m.MatchingLabels), "on": m.On, "include": notNil(m.Include),
		"fillValues": map[string]*float64{"lhs": m.FillValues.LHS, "rhs": m.FillValues.RHS},
	}
}

// durationOf is treeOf for the parts of duration expressions, whose numbers tell
// whether they were written as durations. A typed nil is nil too.
func durationOf(expr parser.Expr) any {
	switch e := expr.(type) {
	case *parser.DurationExpr:
		if e == nil {
			return nil
		}
		return node{
			"type": "durationExpr", "op": e.Op.String(), "lhs": durationOf(e.LHS), "rhs": durationOf(e.RHS),
			"wrapped": e.Wrapped,
		}
	case *parser.NumberLiteral:
		if e == nil {
			return nil
		}
		return node{"type": "numberLiteral", "val": formatNumber(e.Val), "duration": e.Duration}
	default:
		return treeOf(expr)
	}
}

func formatNumber(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

func startOrEndOf(t parser.ItemType) any {
	if t == 0 {
		return nil
	}
	return t.String()
}

func notNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
