package promql

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	promengine "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/luminate/luminate/storage"
)

// executing is how the engine names what it was doing in the errors of a query.
const executing = "query execution"

// directSelector returns the selector of a range query that is nothing else. Its
// answer is the newest sample before each step, which is found without asking every
// series at every step, as the engine does.
func (r *planRun) directSelector(stmt parser.Statement, g gridRange) *parser.VectorSelector {
	eval, ok := stmt.(*parser.EvalStmt)
	if !ok {
		return nil
	}
	vs, ok := unwrap(eval.Expr).(*parser.VectorSelector)
	if !ok || g.step == 0 || !g.ok || vs.Timestamp != nil || vs.StartOrEnd != 0 || vs.OriginalOffsetExpr != nil || vs.Anchored || vs.Smoothed {
		return nil
	}
	r.parts = append(r.parts, &part{text: vs.String(), reason: "a selector alone: its samples are read and laid on the steps"})
	return vs
}

// execDirect answers a range query of one selector, with the engine's own errors
// and statistics. It returns nil where the answer has histograms: those are the
// engine's matter.
func (q *plannedQuery) execDirect(ctx context.Context) *promengine.Result {
	st := q.Query.Stats()
	total, ctx := st.Timers.GetSpanTimer(ctx, stats.ExecTotalTime)
	defer total.Finish()
	eval, ctx := st.Timers.GetSpanTimer(ctx, stats.EvalTotalTime)
	defer eval.Finish()
	r := q.rng
	offset := q.direct.OriginalOffset.Milliseconds()
	selector := querier{Queryable: q.over, mint: r.start - offset - r.lookback + 1, maxt: r.end - offset}
	sel := selector.selection(nil, q.direct.LabelMatchers)
	sel.Unsorted = true
	found, err := selector.loadSeries(ctx, sel, q.rng.steps())
	if err != nil {
		return &promengine.Result{Err: fmt.Errorf("expanding series: %w", err)}
	}
	if slices.ContainsFunc(found, func(s series) bool { return len(s.data.Histograms) > 0 }) {
		return nil
	}
	st.Samples.IncrementSeries(int64(len(found)))
	st.Samples.InitStepTracking(r.start, r.end, r.step)
	mat, err := q.stepsOf(ctx, found, offset, st.Samples)
	if err != nil {
		return &promengine.Result{Err: err}
	}
	sorting, _ := st.Timers.GetSpanTimer(ctx, stats.ResultSortTime)
	slices.SortFunc(mat, func(a, b promengine.Series) int { return labels.Compare(a.Metric, b.Metric) })
	sorting.Finish()
	return &promengine.Result{Value: mat}
}

// stepsOf gives each series its newest sample at each step.
func (q *plannedQuery) stepsOf(ctx context.Context, found []series, offset int64, st *stats.QuerySamples) (promengine.Matrix, error) {
	mat := make(promengine.Matrix, 0, len(found))
	points := 0
	for i := range found {
		if err := ctx.Err(); err != nil {
			return nil, queryError(err)
		}
		s := &found[i]
		floats := q.rng.pointsOf(s.data.Samples, offset)
		if len(floats) == 0 {
			continue
		}
		if points += len(floats); points > q.engine.opts.MaxSamples {
			return nil, promengine.ErrTooManySamples(executing)
		}
		if st.StepTrackingEnabled() {
			for _, p := range floats {
				step := int((p.T - q.rng.start) / q.rng.step)
				st.IncrementSamplesAtStep(step, 1)
				st.IncrementSamplesReadAtStep(step, 1)
			}
		} else {
			st.TotalSamples += int64(len(floats))
			st.SamplesRead += int64(len(floats))
		}
		mat = append(mat, promengine.Series{Metric: s.labels, Floats: floats})
	}
	st.UpdatePeak(points)
	return mat, nil
}

// queryError is how the engine tells of a context that has ended.
func queryError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return promengine.ErrQueryTimeout(executing)
	}
	return promengine.ErrQueryCanceled(executing)
}

// pointsOf returns the points of an instant selector's series: at each step the
// newest sample, unless it is older than the lookback or a staleness marker.
func (g *gridRange) pointsOf(samples []storage.Sample, offset int64) []promengine.FPoint {
	if len(samples) == 0 {
		return nil
	}
	last := g.start + (g.end-g.start)/g.step*g.step
	first := g.stepFrom(samples[0].T + offset)
	end := min(last, samples[len(samples)-1].T+offset+g.lookback-1)
	if first > end {
		return nil
	}
	out := make([]promengine.FPoint, 0, (end-first)/g.step+1)
	for i, s := range samples {
		// The sample is the newest for the steps in [from, upto].
		from, upto := g.stepFrom(s.T+offset), min(last, s.T+offset+g.lookback-1)
		if i+1 < len(samples) {
			upto = min(upto, samples[i+1].T+offset-1)
		}
		if storage.IsStale(s.V) {
			continue
		}
		for t := from; t <= upto; t += g.step {
			out = append(out, promengine.FPoint{T: t, F: s.V})
		}
	}
	return out
}

// steps counts the steps; an instant query has one.
func (g *gridRange) steps() int64 {
	if g.step <= 0 {
		return 1
	}
	return (g.end-g.start)/g.step + 1
}

// stepFrom returns the first step at or after t.
func (g *gridRange) stepFrom(t int64) int64 {
	if t <= g.start {
		return g.start
	}
	return g.start + (t-g.start+g.step-1)/g.step*g.step
}
