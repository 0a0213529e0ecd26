package tenancy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/luminate/luminate/storage"
)

// LimiterConfig configures a Limiter. Start from DefaultLimiterConfig.
type LimiterConfig struct {
	// Defaults bind tenants of which the file says nothing.
	Defaults Limits
	File     string // YAML; "" = none, and then the admin API cannot change limits
	Observe  bool   // count what would be refused and refuse nothing
	Reload   time.Duration
	// Processes share a tenant's traffic: each allows its part of the rates. 0 is as
	// many as are alive, where the store is Shared, else one.
	Processes int
	// Shared is for a store that other processes write too: limits on series hold for
	// all of them together.
	Shared bool
	// Queries run at once, of all tenants; further ones wait in turn.
	Queries int
	// Poll is the time between looks at what the store knows of tenants.
	Poll time.Duration
	// MaxTenants bounds the tenants whose use is kept; those idle longest go first.
	MaxTenants int
	// OnLimited, which may be nil, is told of every request that a limit refuses as a
	// whole. It must not block.
	OnLimited func(storage.Tenant, *storage.Error)
	Now       func() time.Time
}

// DefaultLimiterConfig has no limits but those that protect the process.
func DefaultLimiterConfig() LimiterConfig {
	return LimiterConfig{
		Defaults: UnlimitedLimits(), Reload: 10 * time.Second, Queries: 20,
		Poll: 30 * time.Second, MaxTenants: 10_000, Now: time.Now,
	}
}

// Validate joins every problem.
func (c LimiterConfig) Validate() error {
	var errs []error
	for name, v := range map[string]int64{
		"reload": int64(c.Reload), "queries": int64(c.Queries),
		"poll": int64(c.Poll), "maxTenants": int64(c.MaxTenants),
	} {
		if v <= 0 {
			errs = append(errs, fmt.Errorf("limits: %s must be positive, it is %d", name, v))
		}
	}
	if c.Processes < 0 {
		errs = append(errs, fmt.Errorf("limits: processes must not be negative, it is %d", c.Processes))
	}
	if c.Now == nil {
		errs = append(errs, errors.New("limits: a clock is needed"))
	}
	return errors.Join(append(errs, c.Defaults.Validate())...)
}

// Limiter knows the limits of every tenant and how much of them is used. It is
// safe for concurrent use. Run keeps it fresh.
type Limiter struct {
	cfg     LimiterConfig
	log     *slog.Logger
	metrics *limitMetrics
	queue   *fairQueue
	set     atomic.Pointer[limitSet]
	share   *share // nil where the store is this process's alone

	reloadMu    sync.Mutex // of the files
	file, admin *watchedFile
	fileBytes   []byte
	adminBytes  []byte
	stateFile   string

	mu     sync.RWMutex
	states map[storage.Tenant]*tenantState
}

// NewLimiter reads the limits file; one that is not right is an error.
func NewLimiter(cfg LimiterConfig, log *slog.Logger, reg prometheus.Registerer) (*Limiter, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	l := &Limiter{cfg: cfg, log: log, queue: newFairQueue(cfg.Queries), states: map[storage.Tenant]*tenantState{}}
	l.metrics = newLimitMetrics(reg, l)
	l.set.Store(&limitSet{defaults: cfg.Defaults})
	if cfg.Shared {
		l.share = newShare(l)
	}
	if cfg.File == "" {
		return l, nil
	}
	l.file = &watchedFile{path: cfg.File}
	l.admin = &watchedFile{path: adminPath(cfg.File)}
	l.stateFile = cfg.File + ".usage.json"
	if err := l.reload(); err != nil {
		return nil, err
	}
	return l, l.restoreUsage()
}

// LimitsOf returns the limits that bind the tenant, for the whole of all processes.
func (l *Limiter) LimitsOf(t storage.Tenant) Limits { return l.set.Load().of(t) }

// processes is by how many a tenant's rates are divided.
func (l *Limiter) processes() int {
	switch {
	case l.cfg.Processes > 0:
		return l.cfg.Processes
	case l.share != nil:
		return int(l.share.live.Load())
	default:
		return 1
	}
}

// processesChanged divides the rates anew.
func (l *Limiter) processesChanged() {
	if l.cfg.Processes > 0 {
		return
	}
	n, now := l.processes(), l.cfg.Now()
	for _, s := range l.all() {
		s.apply(*s.limits.Load(), n, now)
	}
	l.log.Info("processes that share the limits", "processes", n)
}

// state returns the tenant's use, creating it.
func (l *Limiter) state(t storage.Tenant) *tenantState {
	l.mu.RLock()
	s := l.states[t]
	l.mu.RUnlock()
	if s != nil {
		return s
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.states[t]; s != nil {
		return s
	}
	if len(l.states) >= l.cfg.MaxTenants {
		l.evictLocked()
	}
	s = newTenantState(t, l.set.Load().of(t), l.processes(), l.cfg.Now())
	l.states[t] = s
	return s
}

// evictLocked forgets the tenant that wrote or asked longest ago.
func (l *Limiter) evictLocked() {
	var oldest *tenantState
	for _, s := range l.states {
		if oldest == nil || s.used.Load() < oldest.used.Load() {
			oldest = s
		}
	}
	if oldest != nil {
		delete(l.states, oldest.tenant)
		l.metrics.forget(oldest.tenant)
	}
}

// all returns the states at this moment.
func (l *Limiter) all() []*tenantState {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := make([]*tenantState, 0, len(l.states))
	for _, s := range l.states {
		out = append(out, s)
	}
	return out
}

// refuse counts a refusal and returns the error, or nil in mode observe.
func (l *Limiter) refuse(t storage.Tenant, e *LimitError) *LimitError {
	l.metrics.limited.WithLabelValues(t.String(), e.err.ID).Inc()
	if l.cfg.Observe {
		return nil
	}
	if l.cfg.OnLimited != nil {
		l.cfg.OnLimited(t, e.err)
	}
	return e
}

// admit is the gate's part: request rates, request bytes, a place for a query, and
// the query's time. It sets the X-RateLimit headers. release must be called.
func (l *Limiter) admit(w http.ResponseWriter, r *http.Request, id Identity, rule rule) (_ *http.Request, release func(), fail *refusal) {
	now := l.cfg.Now()
	if id.Tenant.IsZero() {
		return r, func() {}, nil
	}
	s := l.state(id.Tenant)
	s.used.Store(now.UnixNano())
	limits := s.limits.Load()
	if rule.load == loadWrite {
		e := l.admitWrite(w, r, s, limits, now)
		if e != nil {
			return nil, nil, refuseLimit(e)
		}
		return r, func() {}, nil
	}
	if e := s.queries.take(now, 1); e != nil {
		if e = l.refuse(s.tenant, e); e != nil {
			return nil, nil, refuseLimit(e)
		}
	}
	s.queries.tell(w.Header(), now)
	if rule.load == loadCheap {
		return r, func() {}, nil
	}
	done, e := l.queue.acquire(r.Context(), id.Tenant, limits.MaxConcurrentQueries, limits.MaxQueuedQueries)
	if e != nil {
		l.metrics.limited.WithLabelValues(s.tenant.String(), "query-queue").Inc()
		if l.cfg.OnLimited != nil {
			l.cfg.OnLimited(s.tenant, e.err)
		}
		return nil, nil, refuseLimit(e)
	}
	if limits.MaxQueryTime <= 0 {
		return r, done, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(limits.MaxQueryTime))
	return r.WithContext(ctx), func() { cancel(); done() }, nil
}

func (l *Limiter) admitWrite(w http.ResponseWriter, r *http.Request, s *tenantState, limits *Limits, now time.Time) *LimitError {
	if r.Method != http.MethodPost {
		return nil // a sender that looks whether the path is there
	}
	if e := s.writes.take(now, 1); e != nil {
		if e = l.refuse(s.tenant, e); e != nil {
			return e
		}
	}
	if e := s.blocked(now); e != nil { // before the body is read: a refusal must be cheap
		if e = l.refuse(s.tenant, e); e != nil {
			return e
		}
	}
	s.samples.tell(w.Header(), now)
	if limits.MaxRequestBytes > 0 {
		if r.ContentLength > limits.MaxRequestBytes {
			e := &LimitError{err: storage.LimitErrorf(storage.KindTooLarge, "write", "max-request-bytes", "limits.maxRequestBytes",
				"the request has %d bytes, at most %d are allowed", r.ContentLength, limits.MaxRequestBytes)}
			if e = l.refuse(s.tenant, e); e != nil {
				return e
			}
		} else if !l.cfg.Observe {
			r.Body = http.MaxBytesReader(w, r.Body, limits.MaxRequestBytes)
		}
	}
	return nil
}
