package tenancy

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/luminate/luminate/storage"
)

// tenantState is what is known of one tenant's use in this process.
type tenantState struct {
	tenant storage.Tenant
	limits atomic.Pointer[Limits]
	used   atomic.Int64 // when it last wrote or asked, Unix nanoseconds

	samples, writes, queries *bucket
	blockedUntil             atomic.Int64 // Unix nanoseconds: until then no sample would pass

	accepted atomic.Uint64 // samples and histograms since the process began
	bytes    atomic.Uint64 // stored, as the store last told
	newest   atomic.Int64  // greatest timestamp sent, Unix milliseconds; 0 before the first
	active   atomic.Uint64 // series with a sample today, as the store last told

	mu     sync.Mutex
	series *seriesSet // nil until series must be known
	// Where processes share the store: what they agree on, what a failed exchange left
	// untold and of which generation that is, and when the day's sketch was last told.
	agreed   *agreement
	unsent   []metricSeries
	unsentOf int64
	sketched time.Time
	day      int64  // of today
	today    int64  // samples of the UTC day
	lastTik  uint64 // accepted at the last tick
	lastAt   time.Time
	perSec   float64         // samples/s between the last two ticks
	warned   map[string]bool // limits over the warning mark
}

func newTenantState(t storage.Tenant, limits Limits, processes int, now time.Time) *tenantState {
	s := &tenantState{
		tenant: t, warned: map[string]bool{}, lastAt: now,
		samples: newBucket("write", "samples-per-second", "limits.samplesPerSecond", "samples"),
		writes:  newBucket("write", "write-requests-per-second", "limits.writeRequestsPerSecond", "write requests"),
		queries: newBucket("query", "query-requests-per-second", "limits.queryRequestsPerSecond", "queries"),
	}
	s.apply(limits, processes, now)
	s.used.Store(now.UnixNano())
	return s
}

// apply puts new limits into force. Buckets keep what they hold.
func (s *tenantState) apply(limits Limits, processes int, now time.Time) {
	n := float64(max(1, processes))
	s.samples.set(limits.SamplesPerSecond/n, limits.samplesBurst(), now)
	s.writes.set(limits.WriteRequestsPerSecond/n, burstOr(limits.WriteRequestBurst, limits.WriteRequestsPerSecond), now)
	s.queries.set(limits.QueryRequestsPerSecond/n, burstOr(limits.QueryRequestBurst, limits.QueryRequestsPerSecond), now)
	s.limits.Store(&limits)
	s.blockedUntil.Store(0)
	if !limits.tracksSeries() {
		s.mu.Lock()
		s.series, s.agreed, s.unsent = nil, nil, nil
		s.mu.Unlock()
	}
}

// blocked refuses while a batch that was refused for its rate would be refused
// again. A longer wait is not believed: the clock may have been set back.
func (s *tenantState) blocked(now time.Time) *LimitError {
	until := s.blockedUntil.Load()
	if wait := time.Duration(until - now.UnixNano()); until != 0 && wait > 0 && wait < time.Minute {
		return s.samples.refusal(now, wait)
	}
	return nil
}

// bucket is a token bucket with a name; without a limiter there is no bound.
type bucket struct {
	op, id, setting, what string
	limiter               atomic.Pointer[rate.Limiter]
}

func newBucket(op, id, setting, what string) *bucket {
	return &bucket{op: op, id: id, setting: setting, what: what}
}

// set changes rate and burst; 0 removes the bound. A new bucket begins full.
func (b *bucket) set(perSecond float64, burst int, now time.Time) {
	lim := b.limiter.Load()
	switch {
	case perSecond == 0:
		b.limiter.Store(nil)
	case lim == nil:
		b.limiter.Store(rate.NewLimiter(rate.Limit(perSecond), burst))
	default:
		lim.SetLimitAt(now, rate.Limit(perSecond))
		lim.SetBurstAt(now, burst)
	}
}

// take takes n tokens, or tells when they will be there.
func (b *bucket) take(now time.Time, n int) *LimitError {
	lim := b.limiter.Load()
	if lim == nil || n == 0 {
		return nil
	}
	if burst := lim.Burst(); n > burst {
		return &LimitError{err: storage.LimitErrorf(storage.KindTooLarge, b.op, b.id+"-burst", b.setting+" (and its burst)",
			"a request of %d %s is more than the burst of %d: send smaller requests", n, b.what, burst)}
	}
	r := lim.ReserveN(now, n)
	wait := r.DelayFrom(now)
	if wait <= 0 {
		return nil
	}
	r.CancelAt(now)
	return b.refusal(now, wait)
}

// refusal is the error of who came too early.
func (b *bucket) refusal(now time.Time, wait time.Duration) *LimitError {
	limit, remaining, reset := b.status(now)
	return &LimitError{
		Retry: wait, Limit: limit, Remaining: remaining, Reset: reset,
		err: storage.LimitErrorf(storage.KindLimited, b.op, b.id, b.setting, "over %d %s each second, %d are left now", limit, b.what, remaining),
	}
}

// status returns the rate, the tokens left, and the time until the bucket is full;
// zeros without a bound.
func (b *bucket) status(now time.Time) (limit, remaining int64, reset time.Duration) {
	lim := b.limiter.Load()
	if lim == nil {
		return 0, 0, 0
	}
	perSecond, burst := float64(lim.Limit()), float64(lim.Burst())
	tokens := max(0, min(lim.TokensAt(now), burst))
	return max(1, int64(perSecond)), int64(tokens), time.Duration((burst - tokens) / perSecond * float64(time.Second))
}

// tell sets the X-RateLimit headers, if there is a rate.
func (b *bucket) tell(h http.Header, now time.Time) {
	if limit, remaining, reset := b.status(now); limit > 0 {
		setRateHeaders(h, limit, remaining, reset)
	}
}
