package promql

import (
	"context"

	promengine "github.com/prometheus/prometheus/promql"

	"github.com/luminate/luminate/storage"
)

// gate bounds the queries that run and those that wait. It is the engine's query
// tracker, so the time of waiting is in the query's statistics.
type gate struct {
	running chan struct{} // a token for each running query
	waiting chan struct{} // a token for each running or waiting query
}

var _ promengine.QueryTracker = (*gate)(nil)

func newGate(concurrent, queued int) *gate {
	return &gate{
		running: make(chan struct{}, concurrent),
		waiting: make(chan struct{}, concurrent+queued),
	}
}

// GetMaxConcurrent implements promengine.QueryTracker.
func (g *gate) GetMaxConcurrent() int { return cap(g.running) }

// heldSlot is Insert's answer where ctx holds a slot already; Delete leaves it.
const heldSlot = -1

// Insert waits for a slot until ctx is done. With a full queue it fails at once
// with KindUnavailable.
func (g *gate) Insert(ctx context.Context, _ string) (int, error) {
	if holdsSlot(ctx) {
		return heldSlot, nil
	}
	select {
	case g.waiting <- struct{}{}:
	default:
		return 0, storage.LimitErrorf(storage.KindUnavailable, "query", "max-queued-queries", "query.maxQueued",
			"%d queries run or wait already", cap(g.waiting))
	}
	select {
	case g.running <- struct{}{}:
		return 0, nil
	case <-ctx.Done():
		<-g.waiting
		return 0, storage.ContextError(ctx, "query queue")
	}
}

// Delete frees the slot of a query.
func (g *gate) Delete(slot int) {
	if slot == heldSlot {
		return
	}
	<-g.running
	<-g.waiting
}

// Close implements promengine.QueryTracker; there is nothing to release.
func (g *gate) Close() error { return nil }
