package promql

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	promengine "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/luminate/luminate/tenancy"
)

// PlannerOptions say when an Engine pushes parts of queries into the storage.
type PlannerOptions struct {
	// Enabled is false for an engine that only ever selects.
	Enabled bool
	// MinSeries and MinSamples are the estimated sizes of a selection from either of
	// which on it is pushed.
	MinSeries, MinSamples uint64
}

// Engine is Prometheus's engine with the planner before it. Over a Queryable it
// finds the aggregations that the store can evaluate by itself, lets it, and gives
// the engine their results; everything else, and every other queryable, runs as
// the engine runs it. It is safe for concurrent use.
type Engine struct {
	engine  *promengine.Engine
	parser  *preparedParser
	opts    promengine.EngineOpts
	plan    PlannerOptions
	observe func(outcome string)
	memory  *tenancy.QueryMemory // nil: nothing is counted
}

var _ promengine.QueryEngine = (*Engine)(nil)

// NewEngine builds an Engine. opts.Parser may be nil for the default one.
func NewEngine(opts promengine.EngineOpts, plan PlannerOptions) *Engine {
	if opts.Parser == nil {
		opts.Parser = parser.NewParser(parser.Options{})
	}
	p := &preparedParser{Parser: opts.Parser}
	opts.Parser = p
	return &Engine{engine: promengine.NewEngine(opts), parser: p, opts: opts, plan: plan, observe: func(string) {}}
}

// Close releases the engine.
func (e *Engine) Close() error { return e.engine.Close() }

// NewInstantQuery implements promengine.QueryEngine.
func (e *Engine) NewInstantQuery(ctx context.Context, q promstorage.Queryable, opts promengine.QueryOpts, qs string, ts time.Time) (promengine.Query, error) {
	build := func(ctx context.Context, text string) (promengine.Query, error) {
		return e.engine.NewInstantQuery(ctx, q, opts, text, ts)
	}
	return e.newQuery(ctx, q, build, e.gridRange(opts, ts, ts, 0), qs)
}

// NewRangeQuery implements promengine.QueryEngine.
func (e *Engine) NewRangeQuery(ctx context.Context, q promstorage.Queryable, opts promengine.QueryOpts, qs string, start, end time.Time, step time.Duration) (promengine.Query, error) {
	build := func(ctx context.Context, text string) (promengine.Query, error) {
		return e.engine.NewRangeQuery(ctx, q, opts, text, start, end, step)
	}
	return e.newQuery(ctx, q, build, e.gridRange(opts, start, end, step), qs)
}

// buildQuery builds a query of a text; it may wait for a slot while it parses.
type buildQuery func(ctx context.Context, text string) (promengine.Query, error)

// newQuery builds the plain query first, so that every error is the engine's own.
func (e *Engine) newQuery(ctx context.Context, q promstorage.Queryable, build buildQuery, r gridRange, qs string) (promengine.Query, error) {
	plain, err := build(ctx, qs)
	if err != nil {
		return nil, err
	}
	run := &planRun{}
	out := &plannedQuery{Query: plain, engine: e, run: run, build: build, rng: r}
	if b, ok := q.(interface{ base() *Queryable }); ok {
		out.over = b.base()
	}
	if out.over == nil || !e.plan.Enabled || plannerOff(ctx) {
		return out, nil
	}
	run.queryable = out.over
	if out.direct = run.directSelector(plain.Statement(), r); out.direct != nil {
		return out, nil
	}
	if run.expr, err = e.parser.Parser.ParseExpr(qs); err != nil { // it was parsed a moment ago
		return nil, fmt.Errorf("parse query again: %w", err)
	}
	run.find(r)
	return out, nil
}

// gridRange is what every Grid of a query has in common.
type gridRange struct {
	start, end, step   int64 // step 0 for an instant query
	lookback           int64
	subqueryStep       int64 // of subqueries that name none
	useStartTimestamps bool
	delayedNames       bool
	ok                 bool // false where milliseconds cannot express it
}

// firstNano and lastNano bound the times that fit int64 nanoseconds, in which the
// engine counts.
var firstNano, lastNano = time.Unix(0, -1<<63), time.Unix(0, 1<<63-1)

func (e *Engine) gridRange(opts promengine.QueryOpts, start, end time.Time, step time.Duration) gridRange {
	lookback, useST := e.opts.LookbackDelta, e.opts.UseStartTimestamps
	if lookback == 0 {
		lookback = 5 * time.Minute // the engine's default
	}
	if opts != nil {
		if d := opts.LookbackDelta(); d > 0 {
			lookback = d
		}
		if b := opts.UseStartTimestamps(); b != nil {
			useST = *b
		}
	}
	subqueryStep := time.Minute.Milliseconds()
	if f := e.opts.NoStepSubqueryIntervalFn; f != nil {
		subqueryStep = f(0)
	}
	return gridRange{
		subqueryStep: subqueryStep,
		start:        milliseconds(start), end: milliseconds(end), step: step.Milliseconds(), lookback: lookback.Milliseconds(),
		useStartTimestamps: useST, delayedNames: e.opts.EnableDelayedNameRemoval,
		ok: start.After(firstNano) && end.Before(lastNano) && lookback >= time.Millisecond && (step == 0 || step >= time.Millisecond),
	}
}

// plannedQuery is a query that is planned when it runs: the storage is asked only
// then, under the engine's own bounds of concurrency and time. The embedded Query
// is the plain one, and what it was replaced by once it ran.
type plannedQuery struct {
	promengine.Query
	engine  *Engine
	over    *Queryable // nil over another queryable
	run     *planRun
	build   buildQuery
	rng     gridRange
	direct  *parser.VectorSelector // the whole query, nil if it is more
	mu      sync.Mutex             // guards planned and cancel
	cancel  context.CancelFunc
	planned promengine.Query // nil if nothing was pushed
}

// Exec implements promengine.Query.
func (q *plannedQuery) Exec(ctx context.Context) *promengine.Result {
	ctx, cancel := context.WithTimeout(withRun(ctx, q.run), q.engine.opts.Timeout)
	defer cancel()
	q.mu.Lock()
	q.cancel = cancel
	q.mu.Unlock()
	if q.over == nil {
		return q.Query.Exec(ctx)
	}
	// First the slot, then the memory: who holds memory never waits for a slot.
	if tracker := q.engine.opts.ActiveQueryTracker; tracker != nil {
		queue, _ := q.Query.Stats().Timers.GetSpanTimer(ctx, stats.ExecQueueTime)
		slot, err := tracker.Insert(ctx, q.String())
		queue.Finish()
		if err != nil {
			return &promengine.Result{Err: err}
		}
		defer tracker.Delete(slot)
		ctx = withSlot(ctx)
	}
	q.run.memory = q.engine.memory.Begin(q.over.opts.Tenant(ctx))
	if err := q.admit(ctx); err != nil {
		return &promengine.Result{Err: err}
	}
	if q.direct != nil {
		if res := q.execDirect(ctx); res != nil {
			return res
		}
	}
	if len(q.run.grids()) == 0 {
		return q.Query.Exec(ctx)
	}
	if err := q.run.evaluate(ctx, q.engine); err != nil {
		return &promengine.Result{Err: err}
	}
	if !q.run.pushed() {
		return q.Query.Exec(ctx)
	}
	planned, err := q.engine.parser.prepare(ctx, q.run.expr, q.build)
	if err != nil {
		return &promengine.Result{Err: fmt.Errorf("build planned query: %w", err)}
	}
	q.mu.Lock()
	q.planned = planned
	q.mu.Unlock()
	res := planned.Exec(ctx)
	q.run.count(planned.Stats().Samples)
	return res
}

// Close implements promengine.Query.
func (q *plannedQuery) Close() {
	q.Query.Close()
	if q.planned != nil {
		q.planned.Close()
	}
	q.run.memory.Release()
}

// Stats implements promengine.Query.
func (q *plannedQuery) Stats() *stats.Statistics {
	if q.planned != nil {
		return q.planned.Stats()
	}
	return q.Query.Stats()
}

// Cancel implements promengine.Query.
func (q *plannedQuery) Cancel() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.cancel != nil {
		q.cancel()
	}
}

// preparedParser is a parser that knows some trees already. The engine takes a
// tree from its parser alone; so a rewritten one is handed over under a text that
// no query can have.
type preparedParser struct {
	parser.Parser
	next  atomic.Uint64
	trees sync.Map // text → parser.Expr
}

// ParseExpr implements parser.Parser.
func (p *preparedParser) ParseExpr(text string) (parser.Expr, error) {
	if expr, ok := p.trees.Load(text); ok {
		return expr.(parser.Expr), nil
	}
	return p.Parser.ParseExpr(text)
}

// prepare builds a query of expr.
func (p *preparedParser) prepare(ctx context.Context, expr parser.Expr, build buildQuery) (promengine.Query, error) {
	text := fmt.Sprintf("\xffplan-%d", p.next.Add(1))
	p.trees.Store(text, expr)
	defer p.trees.Delete(text)
	return build(ctx, text)
}

type contextKey uint8

const (
	runKey contextKey = iota
	slotKey
	offKey
)

func withRun(ctx context.Context, r *planRun) context.Context {
	return context.WithValue(ctx, runKey, r)
}

func runOf(ctx context.Context) *planRun {
	r, _ := ctx.Value(runKey).(*planRun)
	return r
}

// reservationOf returns the memory of ctx's query, nil where ctx belongs to none.
func reservationOf(ctx context.Context) *tenancy.MemoryReservation {
	if r := runOf(ctx); r != nil {
		return r.memory
	}
	return nil
}

// withSlot marks ctx as holding a slot of the gate already.
func withSlot(ctx context.Context) context.Context { return context.WithValue(ctx, slotKey, true) }

func holdsSlot(ctx context.Context) bool { return ctx.Value(slotKey) != nil }

// withoutPlanner makes queries that are built with ctx run plainly.
func withoutPlanner(ctx context.Context) context.Context {
	return context.WithValue(ctx, offKey, true)
}

func plannerOff(ctx context.Context) bool { return ctx.Value(offKey) != nil }
