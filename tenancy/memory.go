package tenancy

import (
	"context"
	"errors"
	"math"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/luminate/luminate/storage"
)

// QueryMemoryLimits bound what running queries hold, in bytes; 0 is no bound.
type QueryMemoryLimits struct {
	Total     int64 // all queries of the process
	PerTenant int64 // those of one tenant
	PerQuery  int64 // one query
}

// growBytes is the least that a reservation grows by, so that small series do not
// each take the lock.
const growBytes = 1 << 20

// QueryMemory is the one budget of memory that PromQL, native queries and remote
// read reserve from before they hold what they read. Nil counts nothing. It is safe
// for concurrent use.
type QueryMemory struct {
	limits  QueryMemoryLimits
	refused *prometheus.CounterVec

	mu      sync.Mutex
	used    int64
	tenants map[storage.Tenant]int64
	waiting []*memoryWaiter // in order of arrival
}

// memoryWaiter is a query that waits for others to end.
type memoryWaiter struct {
	tenant  storage.Tenant
	n       int64
	granted chan struct{} // closed once n is booked
}

// NewQueryMemory returns an empty budget; reg may be nil.
func NewQueryMemory(limits QueryMemoryLimits, reg prometheus.Registerer) *QueryMemory {
	unlimited := func(v *int64) {
		if *v <= 0 {
			*v = math.MaxInt64
		}
	}
	capacity := float64(max(0, limits.Total))
	unlimited(&limits.Total)
	unlimited(&limits.PerTenant)
	unlimited(&limits.PerQuery)
	m := &QueryMemory{limits: limits, tenants: map[storage.Tenant]int64{}}
	f := promauto.With(reg)
	f.NewGauge(prometheus.GaugeOpts{
		Name: "luminate_query_memory_capacity_bytes", Help: "Memory that all running queries together may reserve, 0 for no bound.",
	}).Set(capacity)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "luminate_query_memory_reserved_bytes", Help: "Memory that running queries have reserved: PromQL, native and remote read together.",
	}, func() float64 { return float64(m.Reserved()) })
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "luminate_query_memory_waiting", Help: "Queries that wait for the memory that others hold.",
	}, func() float64 {
		m.mu.Lock()
		defer m.mu.Unlock()
		return float64(len(m.waiting))
	})
	m.refused = f.NewCounterVec(prometheus.CounterOpts{
		Name: "luminate_query_memory_refused_total",
		Help: "Queries refused for want of memory, by whose bound was met: query, tenant, process, or deadline for those that waited in vain.",
	}, []string{"bound"})
	for _, bound := range []string{"query", "tenant", "process", "deadline"} {
		m.refused.WithLabelValues(bound) // 0 is there before the first, so that rate() sees it
	}
	return m
}

// Limits returns the bounds, math.MaxInt64 for none.
func (m *QueryMemory) Limits() QueryMemoryLimits {
	if m == nil {
		return QueryMemoryLimits{math.MaxInt64, math.MaxInt64, math.MaxInt64}
	}
	return m.limits
}

// Reserved returns the bytes that are reserved now.
func (m *QueryMemory) Reserved() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used
}

// Begin returns the reservation of one query, which holds nothing yet. Release must
// be called when the query's answer is out.
func (m *QueryMemory) Begin(t storage.Tenant) *MemoryReservation {
	return &MemoryReservation{memory: m, tenant: t}
}

func (m *QueryMemory) fitsLocked(t storage.Tenant, n int64) bool {
	return n <= m.limits.Total-m.used && n <= m.limits.PerTenant-m.tenants[t]
}

func (m *QueryMemory) bookLocked(t storage.Tenant, n int64) {
	m.used += n
	if m.tenants[t] += n; m.tenants[t] == 0 {
		delete(m.tenants, t)
	}
}

// grantLocked lets those go on for whom there is room now. Nobody overtakes another
// for the process's memory; a tenant that waits for its own share holds up no other.
func (m *QueryMemory) grantLocked() {
	rest := m.waiting[:0]
	full := false
	for _, w := range m.waiting {
		switch {
		case !full && m.fitsLocked(w.tenant, w.n):
			m.bookLocked(w.tenant, w.n)
			close(w.granted)
			continue
		case w.n > m.limits.Total-m.used:
			full = true
		}
		rest = append(rest, w)
	}
	clear(m.waiting[len(rest):])
	m.waiting = rest
}

// wait books n bytes once they are free; what it returns tells why it could not.
func (m *QueryMemory) wait(ctx context.Context, t storage.Tenant, n int64) error {
	m.mu.Lock()
	if len(m.waiting) == 0 && m.fitsLocked(t, n) {
		m.bookLocked(t, n)
		m.mu.Unlock()
		return nil
	}
	w := &memoryWaiter{tenant: t, n: n, granted: make(chan struct{})}
	m.waiting = append(m.waiting, w)
	m.grantLocked()
	m.mu.Unlock()
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.Index(m.waiting, w)
	if i < 0 { // granted a moment ago
		m.bookLocked(t, -n)
		m.grantLocked()
		return m.gaveUp(ctx)
	}
	m.waiting = slices.Delete(m.waiting, i, i+1)
	m.grantLocked()
	return m.gaveUp(ctx)
}

func (m *QueryMemory) gaveUp(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		m.refused.WithLabelValues("deadline").Inc()
		return storage.LimitErrorf(storage.KindUnavailable, "query", "max-memory", "query.memoryBytes",
			"the query waited until its deadline for the memory that other queries hold")
	}
	return storage.ContextError(ctx, "wait for query memory")
}

// grow books need bytes more for a query that holds some already, or up to want of
// them where there is room. It never waits, lest two wait for each other.
func (m *QueryMemory) grow(t storage.Tenant, need, want int64) (booked int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case need > m.limits.PerTenant-m.tenants[t]:
		m.refused.WithLabelValues("tenant").Inc()
		return 0, storage.LimitErrorf(storage.KindLimited, "query", "max-query-memory-per-tenant", "query.tenantMemoryBytes",
			"the tenant's running queries hold %d bytes already", m.tenants[t])
	case need > m.limits.Total-m.used:
		m.refused.WithLabelValues("process").Inc()
		return 0, storage.LimitErrorf(storage.KindUnavailable, "query", "max-memory", "query.memoryBytes",
			"running queries hold all of the %d bytes", m.limits.Total)
	}
	booked = max(need, min(want, m.limits.PerTenant-m.tenants[t], m.limits.Total-m.used))
	m.bookLocked(t, booked)
	return booked, nil
}

// MemoryReservation is what one query holds. Methods are safe for concurrent use,
// and a nil or zero one counts nothing.
type MemoryReservation struct {
	memory *QueryMemory
	tenant storage.Tenant

	mu   sync.Mutex
	held int64 // reserved
	used int64 // of it, in use
}

// Counts tells whether anything is counted: without, nothing need be estimated.
func (r *MemoryReservation) Counts() bool { return r != nil && r.memory != nil }

// Await reserves n bytes before the query runs, an estimate; it waits for other
// queries to end, until ctx does. An estimate is no measure: beyond what one query
// may have it waits for that much, and reading tells. A query that holds something
// does not wait.
func (r *MemoryReservation) Await(ctx context.Context, n int64) error {
	if !r.Counts() {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &r.memory.limits
	if n = min(n, l.PerQuery, l.PerTenant, l.Total); r.held > 0 || n <= 0 {
		return nil
	}
	if err := r.memory.wait(ctx, r.tenant, n); err != nil {
		return err
	}
	r.held = n
	return nil
}

// Use counts n bytes more as in use, or fewer if n is negative, and reserves more
// where they do not fit.
func (r *MemoryReservation) Use(n int64) error {
	if !r.Counts() {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.used += n; r.used <= r.held {
		return nil
	}
	most := r.memory.limits.PerQuery
	if r.used > most {
		r.memory.refused.WithLabelValues("query").Inc()
		return storage.LimitErrorf(storage.KindTooLarge, "query", "max-query-memory", "query.memoryBytes",
			"the query needs more than the %d bytes of memory that one query may hold", most)
	}
	booked, err := r.memory.grow(r.tenant, r.used-r.held, min(growBytes, most-r.held))
	r.held += booked
	return err
}

// Held returns the bytes that are reserved.
func (r *MemoryReservation) Held() int64 {
	if !r.Counts() {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held
}

// Release gives everything back; it may be called more than once.
func (r *MemoryReservation) Release() {
	if !r.Counts() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.held
	if r.held, r.used = 0, 0; n == 0 {
		return
	}
	m := r.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bookLocked(r.tenant, -n)
	m.grantLocked()
}

// ProcessMemory returns the bytes that the process may use: the least of Go's own
// limit, the control group's, and the machine's; 0 if none is known.
func ProcessMemory() int64 {
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
