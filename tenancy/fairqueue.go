package tenancy

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/luminate/luminate/storage"
)

// maxQueuedInAll bounds the queries that wait, of all tenants together.
const maxQueuedInAll = 4096

// fairQueue hands a number of places to queries. Tenants that wait are served in
// turn, so that one with a hundred queries waiting does not hold up another with
// one. It is safe for concurrent use.
type fairQueue struct {
	mu       sync.Mutex
	capacity int
	inUse    int
	queued   int
	tenants  map[storage.Tenant]*queueTenant
	turn     []*queueTenant // those with waiters, the next to be served first
}

type queueTenant struct {
	tenant  storage.Tenant
	inUse   int
	maximum int // places at once, 0 = no bound but the capacity
	waiters []chan struct{}
}

func newFairQueue(capacity int) *fairQueue {
	return &fairQueue{capacity: capacity, tenants: map[storage.Tenant]*queueTenant{}}
}

// acquire waits for a place and returns what gives it back. A full queue of the
// tenant is the tenant's fault (KindLimited), a full process ours.
func (q *fairQueue) acquire(ctx context.Context, t storage.Tenant, maximum, maxQueued int) (release func(), err *LimitError) {
	q.mu.Lock()
	qt := q.tenants[t]
	if qt == nil {
		qt = &queueTenant{tenant: t}
		q.tenants[t] = qt
	}
	qt.maximum = maximum
	release = func() { q.release(qt) }
	if len(qt.waiters) == 0 && q.mayRunLocked(qt) {
		q.startLocked(qt)
		q.mu.Unlock()
		return release, nil
	}
	if err := q.refuseLocked(qt, maxQueued); err != nil {
		q.forgetLocked(qt)
		q.mu.Unlock()
		return nil, err
	}
	place := make(chan struct{})
	qt.waiters = append(qt.waiters, place)
	q.queued++
	if len(qt.waiters) == 1 {
		q.turn = append(q.turn, qt)
	}
	q.mu.Unlock()
	select {
	case <-place:
		return release, nil
	case <-ctx.Done():
		return nil, q.giveUp(ctx, qt, place)
	}
}

func (q *fairQueue) refuseLocked(qt *queueTenant, maxQueued int) *LimitError {
	switch {
	case maxQueued > 0 && len(qt.waiters) >= maxQueued:
		return &LimitError{Retry: time.Second, err: storage.LimitErrorf(storage.KindLimited, "query queue", "max-queued-queries", "limits.maxQueuedQueries",
			"%d queries of the tenant run and %d wait", qt.inUse, len(qt.waiters))}
	case q.queued >= maxQueuedInAll:
		return &LimitError{Retry: 5 * time.Second, err: storage.Errorf(storage.KindUnavailable, "query queue", "%d queries wait", q.queued)}
	default:
		return nil
	}
}

// giveUp leaves the queue; the place may have come at the same moment, and then
// goes to the next.
func (q *fairQueue) giveUp(ctx context.Context, qt *queueTenant, place chan struct{}) *LimitError {
	q.mu.Lock()
	i := slices.Index(qt.waiters, place)
	if i < 0 {
		q.mu.Unlock()
		q.release(qt)
	} else {
		qt.waiters = slices.Delete(qt.waiters, i, i+1)
		q.queued--
		if len(qt.waiters) == 0 {
			q.turn = slices.DeleteFunc(q.turn, func(x *queueTenant) bool { return x == qt })
		}
		q.forgetLocked(qt)
		q.mu.Unlock()
	}
	kind := storage.KindOf(storage.ContextError(ctx, "query queue"))
	return &LimitError{Retry: 5 * time.Second, err: storage.Errorf(kind, "query queue", "the query waited for a place: %w", context.Cause(ctx))}
}

func (q *fairQueue) mayRunLocked(qt *queueTenant) bool {
	return q.inUse < q.capacity && (qt.maximum <= 0 || qt.inUse < qt.maximum)
}

func (q *fairQueue) startLocked(qt *queueTenant) {
	q.inUse++
	qt.inUse++
}

func (q *fairQueue) release(qt *queueTenant) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.inUse--
	qt.inUse--
	q.dispatchLocked()
	q.forgetLocked(qt)
}

// dispatchLocked serves one waiter of each tenant in turn while places are free.
func (q *fairQueue) dispatchLocked() {
	for q.inUse < q.capacity {
		i := slices.IndexFunc(q.turn, q.mayRunLocked)
		if i < 0 {
			return
		}
		qt := q.turn[i]
		q.turn = slices.Delete(q.turn, i, i+1)
		place := qt.waiters[0]
		qt.waiters = qt.waiters[1:]
		q.queued--
		q.startLocked(qt)
		close(place)
		if len(qt.waiters) > 0 {
			q.turn = append(q.turn, qt)
		}
	}
}

// forgetLocked keeps the map as small as the tenants in it are busy.
func (q *fairQueue) forgetLocked(qt *queueTenant) {
	if qt.inUse == 0 && len(qt.waiters) == 0 && q.tenants[qt.tenant] == qt {
		delete(q.tenants, qt.tenant)
	}
}

// of tells how many places a tenant has and how many of its queries wait.
func (q *fairQueue) of(t storage.Tenant) (inUse, queued int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if qt := q.tenants[t]; qt != nil {
		return qt.inUse, len(qt.waiters)
	}
	return 0, 0
}

// load tells how many places are taken.
func (q *fairQueue) load() (inUse, queued int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.inUse, q.queued
}
