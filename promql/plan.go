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
	"github.com/luminate/luminate/tenancy"
)

// syntheticPrefix begins the metric names of synthetic selectors. No query can
// have it: it is not UTF-8.
const syntheticPrefix = "\xffgrid-"

// planRun is the plan of one query and, once it ran, its results.
type planRun struct {
	queryable *Queryable
	expr      parser.Expr // the tree, rewritten where parts were pushed
	parts     []*part
	synthetic map[string]synthetic       // by the selector's metric name
	memory    *tenancy.MemoryReservation // released when the query is closed

	mu         sync.Mutex // guards selections
	selections []selectionCost
}

// grids returns the parts that may be pushed.
func (r *planRun) grids() []*part {
	return slices.DeleteFunc(slices.Clone(r.parts), func(p *part) bool { return p.grid == nil || p.small })
}

// pushed tells whether any part was.
func (r *planRun) pushed() bool {
	return slices.ContainsFunc(r.parts, func(p *part) bool { return p.result != nil })
}

// evaluate asks the store for every grid that is worth it, equal ones once, and
// rewrites the tree. A grid that the store cannot do, or only beyond its bounds, is
// left to the engine.
func (r *planRun) evaluate(ctx context.Context, e *Engine) error {
	r.synthetic = map[string]synthetic{}
	for _, shared := range r.share(r.grids()) {
		err := r.evaluateShared(ctx, e, shared)
		if len(shared) > 1 && err != nil && storage.KindOf(err) == storage.KindUnsupported {
			// One of several aggregates may be what the store cannot do.
			err = nil
			for i := range shared {
				if err = r.evaluateShared(ctx, e, shared[i:i+1]); err != nil && !leftToEngine(err) {
					break
				}
				err = nil
			}
		}
		if err != nil && !leftToEngine(err) {
			return fmt.Errorf("evaluate %s: %w", shared[0].text, err)
		}
	}
	return nil
}

// leftToEngine tells whether an error of the store says that the engine may do it.
func leftToEngine(err error) bool {
	kind := storage.KindOf(err)
	return kind == storage.KindUnsupported || kind == storage.KindTooLarge
}

// evaluateShared evaluates parts that differ in their aggregates alone, in one pass.
// The first of them bears the cost.
func (r *planRun) evaluateShared(ctx context.Context, e *Engine, parts []*part) error {
	begin := time.Now()
	first := parts[0]
	grid, column := unite(parts)
	steps := grid.Steps()
	grid.MaxSeries = r.queryable.opts.MaxSeries
	if e.opts.MaxSamples > 0 {
		grid.MaxGroups = max(1, e.opts.MaxSamples/steps)
	}
	if r.memory.Counts() {
		grid.Hold = r.memory.Use
	}
	res, err := r.queryable.store.Evaluate(ctx, r.queryable.opts.Tenant(ctx), grid)
	if err == nil {
		err = r.memory.Use(int64(len(res.Groups)*len(grid.Aggregates)) * int64(groupBytes+pointBytes*steps))
	}
	first.cost.Duration = time.Since(begin)
	if err != nil {
		for _, p := range parts {
			p.reason = err.Error()
			e.observe(storage.KindOf(err).String())
		}
		return err
	}
	first.cost.Series, first.cost.Samples, first.cost.Bytes, first.cost.Queries = res.Series, res.Samples, res.Bytes, res.Queries
	made := map[sharedSeries][]series{}
	for i, p := range parts {
		p.result, p.reason, p.cost.Groups = res, "", len(res.Groups)
		if i > 0 {
			p.shares = first.text
		}
		key := sharedSeries{column[i], p.topk && !keepsName(grid.Func)}
		if made[key] == nil {
			made[key] = syntheticSeries(&grid, res, key)
		}
		name := fmt.Sprintf("%s%d", syntheticPrefix, len(r.synthetic))
		r.synthetic[name] = synthetic{made[key], p.annotations()}
		p.replace(syntheticSelector(name, p.at))
		e.observe("pushed")
	}
	return nil
}

// groupBytes is what a group of a result holds beside its values and points.
const groupBytes = 256

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

// sharedSeries tells synthetic series of one evaluation apart.
type sharedSeries struct {
	aggregate int  // of the grid
	dropNames bool // the engine's function below would drop them
}

// syntheticSeries turns the groups of a result into series with exactly one
// sample at each step: a staleness marker where there is no value, so that the
// engine's lookback cannot reach an older one.
func syntheticSeries(g *storage.Grid, res *storage.GridResult, key sharedSeries) []series {
	steps := g.Steps()
	out := make([]series, 0, len(res.Groups))
	samples := make([]storage.Sample, len(res.Groups)*steps)
	var b labels.ScratchBuilder
	for _, group := range res.Groups {
		own := samples[:steps:steps]
		samples = samples[steps:]
		for i, v := range group.Values[key.aggregate] {
			own[i] = storage.Sample{T: g.Time(i), V: v}
		}
		ls := group.Labels.PrometheusInto(&b)
		if key.dropNames {
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
