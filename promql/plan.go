package promql

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/luminate/luminate/storage"
)

// syntheticPrefix begins the metric names of synthetic selectors. No query can
// have it: it is not UTF-8.
const syntheticPrefix = "\xffgrid-"

// planRun is the plan of one query and, once it ran, its results.
type planRun struct {
	queryable *Queryable
	expr      parser.Expr // the tree, rewritten where parts were pushed
	parts     []*part
	synthetic map[string]synthetic // by the selector's metric name
	memory    reservation          // released when the query is closed

	mu         sync.Mutex // guards selections
	selections []selectionCost
}

// grids returns the parts that may be pushed.
func (r *planRun) grids() []*part {
	return slices.DeleteFunc(slices.Clone(r.parts), func(p *part) bool { return p.grid == nil })
}

// pushed tells whether any part was.
func (r *planRun) pushed() bool {
	return slices.ContainsFunc(r.parts, func(p *part) bool { return p.result != nil })
}

// evaluate asks the store for every grid that is worth it and rewrites the tree. A
// grid that the store cannot do, or only beyond its bounds, is left to the engine.
func (r *planRun) evaluate(ctx context.Context, e *Engine) error {
	r.synthetic = map[string]synthetic{}
	for _, p := range r.grids() {
		begin := time.Now()
		err := r.evaluatePart(ctx, p, e)
		p.cost.Duration = time.Since(begin)
		switch kind := storage.KindOf(err); {
		case err == nil:
		case kind == storage.KindUnsupported, kind == storage.KindTooLarge:
			p.reason = err.Error()
			e.observe(kind.String())
		default:
			return fmt.Errorf("evaluate %s: %w", p.text, err)
		}
	}
	return nil
}

func (r *planRun) evaluatePart(ctx context.Context, p *part, e *Engine) error {
	q, tenant := r.queryable, r.queryable.opts.Tenant(ctx)
	est, err := q.store.Estimate(ctx, tenant, p.grid.Selection())
	switch {
	case storage.KindOf(err) == storage.KindUnsupported: // then nobody knows, and pushing is safe
	case err != nil:
		return err
	case est.Series < e.plan.MinSeries && est.Samples < e.plan.MinSamples:
		p.reason = fmt.Sprintf("small: about %d series and %d samples", est.Series, est.Samples)
		e.observe("small")
		return nil
	}
	steps := p.grid.Steps()
	p.grid.MaxSeries = q.opts.MaxSeries
	if e.opts.MaxSamples > 0 {
		p.grid.MaxGroups = max(1, e.opts.MaxSamples/steps)
	}
	res, err := q.store.Evaluate(ctx, tenant, *p.grid)
	if err != nil {
		return err
	}
	if err := r.memory.use(int64(len(res.Groups)) * int64(seriesBytes+sampleBytes*steps)); err != nil {
		return err
	}
	p.result = res
	p.cost.Series, p.cost.Samples, p.cost.Bytes = res.Series, res.Samples, res.Bytes
	p.cost.Groups, p.cost.Queries = len(res.Groups), res.Queries
	name := fmt.Sprintf("%s%d", syntheticPrefix, len(r.synthetic))
	r.synthetic[name] = synthetic{syntheticSeries(p, steps), p.annotations()}
	p.replace(syntheticSelector(name, p.at))
	e.observe("pushed")
	return nil
}

// synthetic is what a synthetic selector selects. Its annotations reach the engine
// as warnings of the storage, so they are merged in the order of evaluation.
type synthetic struct {
	series      []series
	annotations annotations.Annotations
}

// annotations are what the engine would say about the part that was replaced: that
// rate and increase may be given no counter, once any series has a result.
func (p *part) annotations() annotations.Annotations {
	if f := p.grid.Func; f != storage.FuncRate && f != storage.FuncIncrease || len(p.result.Groups) == 0 {
		return nil
	}
	metric, _ := storage.MetricOf(p.grid.Matchers)
	for _, suffix := range []string{"_total", "_sum", "_count", "_bucket"} {
		if strings.HasSuffix(metric, suffix) {
			return nil
		}
	}
	arg := unwrap(p.call.Args[0])
	return annotations.New().Add(annotations.NewPossibleNonCounterInfo(metric, arg.PositionRange()))
}

// count adds what the store read for pushed parts to the query's statistics.
func (r *planRun) count(st *stats.QuerySamples) {
	for _, p := range r.parts {
		if p.result != nil {
			st.TotalSeries += int64(p.cost.Series)
			st.SamplesRead += int64(p.cost.Samples)
		}
	}
}

// syntheticSelector selects the results of a part, at the part's position.
func syntheticSelector(name string, at parser.Expr) *parser.VectorSelector {
	return &parser.VectorSelector{
		LabelMatchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, storage.MetricName, name)},
		PosRange:      at.PositionRange(),
	}
}

// syntheticSeries turns the groups of a result into series with exactly one
// sample at each step: a staleness marker where there is no value, so that the
// engine's lookback cannot reach an older one.
func syntheticSeries(p *part, steps int) []series {
	out := make([]series, 0, len(p.result.Groups))
	samples := make([]storage.Sample, len(p.result.Groups)*steps)
	var b labels.ScratchBuilder
	for _, g := range p.result.Groups {
		own := samples[:steps:steps]
		samples = samples[steps:]
		for i, v := range g.Values[0] {
			own[i] = storage.Sample{T: p.grid.Time(i), V: v}
		}
		ls := g.Labels.PrometheusInto(&b)
		if p.topk && !keepsName(p.grid.Func) {
			ls = ls.DropReserved(isMetadataLabel)
		}
		out = append(out, series{labels: ls, data: storage.Series{Samples: own}})
	}
	return out
}

// syntheticSet answers a synthetic selector.
func syntheticSet(ctx context.Context, ms []*labels.Matcher) (promstorage.SeriesSet, bool) {
	if len(ms) != 1 || ms[0].Name != storage.MetricName || !strings.HasPrefix(ms[0].Value, syntheticPrefix) {
		return nil, false
	}
	run := runOf(ctx)
	if run == nil {
		return nil, false
	}
	found, ok := run.synthetic[ms[0].Value]
	return &seriesSet{series: found.series, warnings: found.annotations}, ok
}
