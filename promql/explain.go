package promql

import (
	"context"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/luminate/luminate/storage"
)

// partCost is what evaluating a part cost.
type partCost struct {
	Series, Samples, Bytes uint64
	Groups                 int
	Queries                []string
	Duration               time.Duration
}

// selectionCost is what reading a selector's samples cost.
type selectionCost struct {
	selector        string
	series, samples uint64
	duration        time.Duration
}

// explanation is the plan of a query, as explain=1 shows it.
type explanation struct {
	Planner    bool              `json:"planner"` // false if it was switched off
	Parts      []explainedPart   `json:"parts"`
	Selections []explainedSelect `json:"selections"`
	TotalMs    float64           `json:"totalMs"` // of execution
}

type explainedPart struct {
	Expr       string   `json:"expr"`
	Pushed     bool     `json:"pushed"`
	Reason     string   `json:"reason,omitempty"`     // why it was not pushed
	SharedWith string   `json:"sharedWith,omitempty"` // the part whose evaluation answered this one too
	Function   string   `json:"function,omitempty"`
	Aggregate  string   `json:"aggregate,omitempty"`
	Series     uint64   `json:"series"`
	Samples    uint64   `json:"samples"`
	Bytes      uint64   `json:"bytes"`
	Groups     int      `json:"groups"`
	DurationMs float64  `json:"durationMs"`
	Queries    []string `json:"queries,omitempty"` // what a database was sent
}

type explainedSelect struct {
	Selector   string  `json:"selector"`
	Series     uint64  `json:"series"`
	Samples    uint64  `json:"samples"`
	DurationMs float64 `json:"durationMs"`
}

func inMilliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// explain tells what became of the query's parts; took is the time of execution.
func (r *planRun) explain(took time.Duration) explanation {
	out := explanation{
		Planner: r.queryable != nil, Parts: []explainedPart{}, Selections: []explainedSelect{}, TotalMs: inMilliseconds(took),
	}
	for _, p := range r.parts {
		x := explainedPart{
			Expr: p.text, Pushed: p.result != nil, Reason: p.reason, SharedWith: p.shares, Series: p.cost.Series, Samples: p.cost.Samples,
			Bytes: p.cost.Bytes, Groups: p.cost.Groups, DurationMs: inMilliseconds(p.cost.Duration), Queries: p.cost.Queries,
		}
		if p.grid != nil {
			x.Function, x.Aggregate = p.grid.Func.String(), p.grid.Aggregates[0].Op.String()
		}
		out.Parts = append(out.Parts, x)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.selections {
		out.Selections = append(out.Selections, explainedSelect{s.selector, s.series, s.samples, inMilliseconds(s.duration)})
	}
	return out
}

// noteSelection records a selection of the query that ctx belongs to.
func noteSelection(ctx context.Context, s storage.Selection, found []series, took time.Duration) {
	run := runOf(ctx)
	if run == nil {
		return
	}
	c := selectionCost{selector: (&parser.VectorSelector{LabelMatchers: s.Matchers}).String(), series: uint64(len(found)), duration: took}
	for i := range found {
		c.samples += uint64(len(found[i].data.Samples) + len(found[i].data.Histograms))
	}
	run.mu.Lock()
	defer run.mu.Unlock()
	run.selections = append(run.selections, c)
}
