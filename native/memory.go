package native

import (
	"context"
	"math"
	"slices"

	"github.com/luminate/luminate/storage"
	"golang.org/x/sync/semaphore"
)

// What an evaluation holds, in bytes: for each value of a group, for each sample
// of a percentile, and for each point of a range query.
const (
	cellBytes    = 16
	rankedBytes  = 8
	pointBytes   = 128
	fallbackCost = 8 // how many times a cell costs more when series are read here
)

// memoryBudget bounds what all running queries of this API may hold together.
// The zero value bounds nothing.
type memoryBudget struct {
	total int64
	free  *semaphore.Weighted
}

func newMemoryBudget(total int64) memoryBudget {
	if total == 0 {
		return memoryBudget{}
	}
	return memoryBudget{total: total, free: semaphore.NewWeighted(total)}
}

// admit reserves what the plan may hold and waits for other queries to end where
// it must. The store is asked for an estimate only where the budget has no room
// for the worst case.
func (a *API) admit(ctx context.Context, t storage.Tenant, p *plan) (release func(), err error) {
	b := a.memory
	if b.free == nil {
		return func() {}, nil
	}
	need := p.memory(nil)
	if need > b.total || !b.free.TryAcquire(need) {
		est, err := a.store.Estimate(ctx, t, storage.Selection{Matchers: p.matchers, MinT: p.start, MaxT: p.end - 1})
		if err != nil && storage.KindOf(err) != storage.KindUnsupported {
			return nil, err
		}
		if err == nil {
			need = p.memory(&est)
		}
		if need > b.total {
			return nil, overLimit("queryMemoryBytes", b.total, need,
				"the query may hold %d bytes, all queries together have %d: take a shorter range, fewer groups or no percentile", need, b.total)
		}
		if err := b.free.Acquire(ctx, need); err != nil {
			return nil, storage.Errorf(storage.KindUnavailable, "query", "other queries use the memory that this one needs (%d bytes)", need)
		}
	}
	a.metrics.memory.Add(float64(need))
	return func() {
		a.metrics.memory.Sub(float64(need))
		b.free.Release(need)
	}, nil
}

// memory is an upper bound of what the plan holds; est is nil while nothing is
// known of the series.
func (p *plan) memory(est *storage.Estimate) int64 {
	if p.kind == QueryRange {
		points := int64(p.limit)
		if est != nil {
			points = min(points, int64(est.Samples))
		}
		return max(points*pointBytes, 1)
	}
	groups := int64(p.lim.MaxEvaluated)
	if len(p.groupBy) == 0 {
		groups = 1
	} else if est != nil {
		groups = min(groups, int64(est.Series))
	}
	need := min(groups*int64(p.steps()*(len(p.aggs)+1)), int64(p.lim.MaxEvaluated)) * cellBytes
	if p.kind == QueryAggregate && slices.ContainsFunc(p.aggs, func(a aggregation) bool { return a.agg.Op == storage.AggQuantile }) {
		samples := int64(p.lim.MaxSamples)
		switch {
		case est != nil:
			samples = int64(est.Samples)
		case samples == 0:
			return math.MaxInt64 // no bound: only an estimate can tell
		}
		need += samples * rankedBytes
	}
	return max(need, 1)
}
