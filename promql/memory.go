package promql

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/luminate/luminate/storage"
)

// Sizes of what a query holds, in bytes: a sample, and the overhead of a series
// beside its labels. A histogram counts as so many samples.
const (
	sampleBytes      = 16
	seriesBytes      = 256
	histogramSamples = 24
)

// growBytes is the least that a reservation grows by, so that small series do not
// each take the lock.
const growBytes = 1 << 20

// memoryBudget bounds the bytes that all running queries hold together, those of
// one tenant, and those of one query. What is counted is what was read; the engine
// bounds its own results by MaxSamples.
type memoryBudget struct {
	total, perTenant, perQuery int64
	free                       *semaphore.Weighted

	mu      sync.Mutex
	used    int64
	tenants map[storage.Tenant]int64
}

func newMemoryBudget(total, perTenant, perQuery int64) *memoryBudget {
	unlimited := func(v int64) int64 {
		if v == 0 {
			return math.MaxInt64
		}
		return v
	}
	b := &memoryBudget{total: unlimited(total), perTenant: unlimited(perTenant), perQuery: unlimited(perQuery), tenants: map[storage.Tenant]int64{}}
	b.free = semaphore.NewWeighted(b.total)
	return b
}

// busy tells whether more than half of the budget is in use: then a query
// estimates what it needs and waits for it, instead of growing until it fails.
func (b *memoryBudget) busy() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used > b.total/2
}

// inUse returns the bytes reserved now.
func (b *memoryBudget) inUse() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// add books n bytes (negative to give back) to the tenant. It refuses to let the
// tenant pass its share.
func (b *memoryBudget) add(t storage.Tenant, n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > 0 && b.tenants[t] > b.perTenant-n {
		return storage.LimitErrorf(storage.KindLimited, "query", "max-query-memory-per-tenant", "query.tenantMemoryBytes",
			"the tenant's running queries hold %d bytes already", b.tenants[t])
	}
	b.used += n
	if b.tenants[t] += n; b.tenants[t] == 0 {
		delete(b.tenants, t)
	}
	return nil
}

// reservation is what one query holds of the budget. The zero value of budget nil
// counts nothing. It is not safe for concurrent use: a query selects one selector
// after the other.
type reservation struct {
	budget *memoryBudget
	tenant storage.Tenant
	held   int64 // reserved
	used   int64 // of it, needed
}

// await reserves n bytes ahead, waiting for other queries to end, but no more than
// one query may have. A query that holds something does not wait, lest two wait
// for each other.
func (r *reservation) await(ctx context.Context, n int64) error {
	if r.budget == nil || r.held > 0 {
		return nil
	}
	if n = min(n, r.budget.perQuery, r.budget.perTenant, r.budget.total); n <= 0 {
		return nil
	}
	if err := r.budget.free.Acquire(ctx, n); err != nil {
		return storage.ContextError(ctx, "wait for query memory")
	}
	return r.book(n)
}

func (r *reservation) book(n int64) error {
	if err := r.budget.add(r.tenant, n); err != nil {
		r.budget.free.Release(n)
		return err
	}
	r.held += n
	return nil
}

// use counts n more bytes as needed and reserves more if they do not fit.
func (r *reservation) use(n int64) error {
	if r.budget == nil {
		return nil
	}
	if r.used += n; r.used <= r.held {
		return nil
	}
	b := r.budget
	if r.used > b.perQuery {
		return storage.LimitErrorf(storage.KindTooLarge, "query", "max-query-memory", "query.memoryBytes",
			"the query reads more than %d bytes into memory", b.perQuery)
	}
	grow := min(max(growBytes, r.used-r.held), b.perQuery-r.held)
	if !b.free.TryAcquire(grow) {
		return storage.LimitErrorf(storage.KindUnavailable, "query", "max-memory", "query.memoryBytes",
			"running queries hold all of the %d bytes", b.total)
	}
	return r.book(grow)
}

// release gives everything back; it may be called more than once.
func (r *reservation) release() {
	if r.budget == nil || r.held == 0 {
		return
	}
	n := r.held
	r.held, r.used = 0, 0
	_ = r.budget.add(r.tenant, -n) // giving back is never refused
	r.budget.free.Release(n)
}

// sizeOf estimates the bytes that a series holds.
func sizeOf(s *storage.Series) int64 {
	return seriesBytes + int64(2*len(s.Labels)) +
		sampleBytes*int64(len(s.Samples)+histogramSamples*len(s.Histograms)) + int64(8*len(s.STs))
}

// processMemory returns the bytes that the process may use: the least of Go's own
// limit, the control group's, and the machine's; 0 if none is known.
func processMemory() int64 {
	limit := debug.SetMemoryLimit(-1)
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if b, err := os.ReadFile(path); err == nil {
			if v, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && v > 0 {
				limit = min(limit, v)
			}
		}
	}
	if v := machineMemory(); v > 0 {
		limit = min(limit, v)
	}
	if limit == math.MaxInt64 {
		return 0
	}
	return limit
}

// machineMemory reads the machine's memory where /proc tells it, else 0.
func machineMemory() int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}
