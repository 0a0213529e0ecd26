package tenancy

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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
	// SeriesSeed is of the hashes by which series are counted: that of the store where
	// it hashes series too, so that it is done once. It is a secret from senders. With
	// Shared there is none.
	SeriesSeed uint64
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
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails
	return LimiterConfig{
		SeriesSeed: binary.LittleEndian.Uint64(seed[:]), Defaults: UnlimitedLimits(), Reload: 10 * time.Second, Queries: 20,
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

// seriesSeed is the same for all processes that count together.
func (l *Limiter) seriesSeed() uint64 {
	if l.share != nil {
		return 0
	}
	return l.cfg.SeriesSeed
}

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

// Met counts a request that a limit of the tenant refused, or would have refused in mode
// observe, outside of this package.
func (l *Limiter) Met(t storage.Tenant, e *storage.Error) {
	_ = l.refuse(t, &LimitError{err: e}) // counted; the caller answers by itself
}

// Observes tells whether limits are counted and refuse nothing.
func (l *Limiter) Observes() bool { return l.cfg.Observe }

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
	if l.cfg.Observe {
		return l.admitObserved(r, s, limits, now)
	}
	done, e := l.queue.acquire(r.Context(), id.Tenant, limits.MaxConcurrentQueries, limits.MaxQueuedQueries)
	if e != nil {
		return nil, nil, refuseLimit(l.refuseQueued(s, e))
	}
	if limits.MaxQueryTime <= 0 {
		return r, done, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(limits.MaxQueryTime))
	return r.WithContext(ctx), func() { cancel(); done() }, nil
}

// admitObserved gives a query a place of the process, which is bounded all the same,
// and counts what the tenant's own bounds would have refused.
func (l *Limiter) admitObserved(r *http.Request, s *tenantState, limits *Limits, now time.Time) (_ *http.Request, release func(), fail *refusal) {
	// Those run here that would wait if the limit were enforced.
	if running, queued := l.queue.of(s.tenant); limits.MaxConcurrentQueries > 0 && limits.MaxQueuedQueries > 0 &&
		running+queued >= limits.MaxConcurrentQueries+limits.MaxQueuedQueries {
		l.Met(s.tenant, storage.LimitErrorf(storage.KindLimited, "query queue", "max-queued-queries", "limits.maxQueuedQueries", "%d queries wait", queued))
	}
	done, e := l.queue.acquire(r.Context(), s.tenant, 0, 0)
	if e != nil {
		return nil, nil, refuseLimit(l.refuseQueued(s, e))
	}
	return r, func() {
		done()
		if most := time.Duration(limits.MaxQueryTime); most > 0 && l.cfg.Now().Sub(now) > most {
			l.Met(s.tenant, storage.LimitErrorf(storage.KindTimeout, "query", "max-query-time", "limits.maxQueryTime", "the query took more than %s", most))
		}
	}, nil
}

// refuseQueued counts a query for which there was no place.
func (l *Limiter) refuseQueued(s *tenantState, e *LimitError) *LimitError {
	id := e.err.ID
	if id == "" {
		id = "query-queue" // full, or the caller's time was up
	}
	l.metrics.limited.WithLabelValues(s.tenant.String(), id).Inc()
	if l.cfg.OnLimited != nil {
		l.cfg.OnLimited(s.tenant, e.err)
	}
	return e
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
	if limits.MaxRequestBytes <= 0 {
		return nil
	}
	if r.ContentLength > limits.MaxRequestBytes {
		return l.refuse(s.tenant, bodyOver(limits.MaxRequestBytes))
	}
	r.Body = &countedBody{ReadCloser: r.Body, left: limits.MaxRequestBytes, over: func() error {
		if e := l.refuse(s.tenant, bodyOver(limits.MaxRequestBytes)); e != nil {
			return e
		}
		return nil
	}}
	return nil
}

func bodyOver(most int64) *LimitError {
	return &LimitError{err: storage.LimitErrorf(storage.KindTooLarge, "write", "max-request-bytes", "limits.maxRequestBytes",
		"the request has more than %d bytes", most)}
}

// countedBody ends a body that is longer than it may be, its length not being told
// before, with the error that over returns; nil lets it pass.
type countedBody struct {
	io.ReadCloser
	left int64
	over func() error
}

// Read implements io.Reader.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.over == nil {
		return n, err
	}
	if b.left -= int64(n); b.left < 0 {
		over := b.over()
		b.over = nil
		if over != nil {
			b.over = func() error { return over } // counted once, an error for ever
			return max(0, n+int(b.left)), over
		}
	}
	return n, err
}
