package native

import (
	"context"
	"slices"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

// What an evaluation holds, in bytes: for a series that is selected, for each value
// of a group, for each sample of a percentile, and for each point of a range query.
const (
	selectedBytes = 32
	cellBytes     = 16
	rankedBytes   = 24
	pointBytes    = 128
	// expectedCells bounds what is reserved ahead for the values of groups: how many
	// there will be is not known, and what comes on top is reserved as it comes.
	expectedCells = 1 << 16
)

// admit reserves what the plan is estimated to hold, and waits for other queries to
// end where it must. What the evaluation takes beyond it is reserved as it is taken.
func (a *API) admit(ctx context.Context, t storage.Tenant, p *plan) (*tenancy.MemoryReservation, error) {
	r := a.cfg.Memory.Begin(t)
	if !r.Counts() {
		return r, nil
	}
	est, err := a.store.Estimate(ctx, t, storage.Selection{Matchers: p.matchers, MinT: p.start, MaxT: p.end - 1})
	if err != nil && storage.KindOf(err) != storage.KindUnsupported {
		return r, err
	}
	err = r.Await(ctx, p.memory(est))
	if err == nil && p.kind == QueryRange {
		err = r.Use(p.memory(est))
	}
	return r, err
}

// memory estimates what the plan holds at a time.
func (p *plan) memory(est storage.Estimate) int64 {
	if p.kind == QueryRange {
		return min(int64(p.limit), int64(est.Samples)) * pointBytes
	}
	groups := int64(1)
	if len(p.groupBy) > 0 {
		groups = int64(est.Series)
	}
	need := int64(est.Series)*selectedBytes + min(groups*int64(p.steps()*(len(p.aggs)+1)), expectedCells)*cellBytes
	if p.kind == QueryAggregate && slices.ContainsFunc(p.aggs, func(a aggregation) bool { return a.agg.Op == storage.AggQuantile }) {
		need += int64(est.Samples) * rankedBytes
	}
	return need
}
