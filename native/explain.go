package native

import (
	"fmt"
	"strings"
	"time"

	"github.com/luminate/luminate/storage"
)

// Explain tells how a query was answered.
type Explain struct {
	Selector string        `json:"selector"` // PromQL form of what names the series
	Start    int64         `json:"start"`    // ms, included
	End      int64         `json:"end"`      // ms, excluded
	Buckets  int           `json:"buckets"`
	Parts    []ExplainPart `json:"parts"`
	// PromQL says the same in PromQL, nil where there is no such thing; Note says
	// why, or what differs.
	PromQL *ExplainPromQL `json:"promql"`
	Note   string         `json:"note,omitempty"`
}

// ExplainPart is one call of the storage.
type ExplainPart struct {
	Call       string   `json:"call"` // "evaluate", or "select" where series were read
	Function   string   `json:"function,omitempty"`
	Aggregates []string `json:"aggregates,omitempty"`
	GroupBy    []string `json:"groupBy,omitempty"`
	Steps      int      `json:"steps,omitempty"`
	Fallback   string   `json:"fallback,omitempty"` // why the backend did not evaluate
	Groups     int      `json:"groups,omitempty"`
	Series     uint64   `json:"series"`
	Samples    uint64   `json:"samples"`
	Bytes      uint64   `json:"bytes,omitempty"`
	DurationMs float64  `json:"durationMs"`
	Queries    []string `json:"queries,omitempty"` // statements sent to a database
}

// ExplainPromQL is a PromQL query: instant at Time, or over a range where Step is
// set. Times are Unix seconds.
type ExplainPromQL struct {
	Query string   `json:"query"`
	Time  *float64 `json:"time,omitempty"`
	Start *float64 `json:"start,omitempty"`
	End   *float64 `json:"end,omitempty"`
	Step  string   `json:"step,omitempty"`
}

func newExplain(p *plan) *Explain {
	e := &Explain{
		Selector: storage.FormatSelector(p.matchers), Start: p.start, End: p.end, Buckets: p.steps(), Parts: []ExplainPart{},
	}
	e.PromQL, e.Note = p.promQL(e.Selector)
	return e
}

// addGrid notes an evaluation; e may be nil.
func (e *Explain) addGrid(g *storage.Grid, res *storage.GridResult, fallback string, d time.Duration) {
	if e == nil {
		return
	}
	part := ExplainPart{
		Call: "evaluate", Function: g.Func.String(), GroupBy: g.Grouping, Steps: g.Steps(), Fallback: fallback,
		Groups: len(res.Groups), Series: res.Series, Samples: res.Samples, Bytes: res.Bytes,
		DurationMs: millis(d), Queries: res.Queries,
	}
	if fallback != "" {
		part.Call = "select"
	}
	for _, a := range g.Aggregates {
		name := a.Op.String()
		if a.Op == storage.AggQuantile {
			name = fmt.Sprintf("quantile(%v)", a.Arg)
		}
		part.Aggregates = append(part.Aggregates, name)
	}
	e.Parts = append(e.Parts, part)
}

// addSelect notes a reading of series; e may be nil.
func (e *Explain) addSelect(series, samples uint64, d time.Duration) {
	if e == nil {
		return
	}
	e.Parts = append(e.Parts, ExplainPart{Call: "select", Series: series, Samples: samples, DurationMs: millis(d)})
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// promQL says the plan in PromQL, or why it cannot be said.
func (p *plan) promQL(selector string) (*ExplainPromQL, string) {
	if p.kind == QueryRange {
		at := float64(p.end-1) / 1000
		return &ExplainPromQL{Query: selector + "[" + span(p.end-p.start) + "]", Time: &at},
			"limit and order are the native query's own"
	}
	if p.kind == QueryRate {
		return nil, "native rate is not extrapolated and counts the step from the sample before the bucket: PromQL's nearest is " +
			by(p.groupBy, "sum") + "(rate(" + selector + "[" + p.window() + "]))"
	}
	if len(p.aggs) > 1 {
		return nil, "several aggregations in one pass have no PromQL: ask for one at a time to see its own"
	}
	expr, note := p.aggregatePromQL(selector)
	if expr == "" {
		return nil, note
	}
	return p.promQLTimes(expr)
}

// aggregatePromQL combines the samples of each series, then the series: only
// aggregations for which that equals combining all samples at once have one.
func (p *plan) aggregatePromQL(selector string) (expr, note string) {
	over := func(outer, inner string) string {
		return by(p.groupBy, outer) + "(" + inner + "_over_time(" + selector + "[" + p.window() + "]))"
	}
	switch a := p.aggs[0]; {
	case a.integral:
		return "", "PromQL has no integral"
	case a.agg.Op == storage.AggAvg:
		return over("sum", "sum") + " / " + over("sum", "count"), ""
	case a.agg.Op == storage.AggSum:
		return over("sum", "sum"), ""
	case a.agg.Op == storage.AggCount:
		return over("sum", "count"), ""
	case a.agg.Op == storage.AggMin:
		return over("min", "min"), ""
	case a.agg.Op == storage.AggMax:
		return over("max", "max"), ""
	default:
		return "", "PromQL has no " + a.name + " over the samples of several series at once"
	}
}

// promQLTimes adds the times: a native bucket [s, e) is PromQL's window that ends
// one millisecond before e.
func (p *plan) promQLTimes(expr string) (*ExplainPromQL, string) {
	last := float64(p.end-1) / 1000
	if p.interval == nil {
		return &ExplainPromQL{Query: expr, Time: &last}, ""
	}
	if p.interval.fixed == 0 && p.interval.loc != time.UTC || p.interval.months > 0 {
		return nil, "PromQL's steps are all of one length, calendar buckets are not"
	}
	width := p.interval.next(p.labels[0]) - p.labels[0]
	first := float64(p.labels[0]+width-1) / 1000
	final := float64(p.labels[len(p.labels)-1]+width-1) / 1000
	note := "PromQL labels each window by its end, the native query by its start"
	if p.labels[0] != p.start || p.edges[len(p.edges)-1]+1 != p.labels[len(p.labels)-1]+width {
		note += "; the range does not begin and end with a bucket, so the native first and last bucket hold only what is in the range"
	}
	return &ExplainPromQL{Query: expr, Start: &first, End: &final, Step: span(width)}, note
}

// window is the PromQL range of one bucket.
func (p *plan) window() string {
	if p.interval == nil {
		return span(p.end - p.start)
	}
	return span(p.interval.next(p.labels[0]) - p.labels[0])
}

func by(labels []string, op string) string {
	if len(labels) == 0 {
		return op
	}
	quoted := make([]string, len(labels))
	for i, l := range labels {
		quoted[i] = l
		if badName(l, len(l), "") != "" && l != storage.MetricName {
			quoted[i] = fmt.Sprintf("%q", l)
		}
	}
	return op + " by (" + strings.Join(quoted, ", ") + ") "
}
