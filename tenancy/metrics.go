package tenancy

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/luminate/luminate/storage"
)

// authMetrics tell of keys and tokens.
type authMetrics struct {
	reloadOK   *prometheus.GaugeVec
	reloadTime *prometheus.GaugeVec
}

func newAuthMetrics(reg prometheus.Registerer, v *Verifier) *authMetrics {
	f := promauto.With(reg)
	if reg != nil {
		reg.MustRegister(&expiryCollector{verifier: v, desc: prometheus.NewDesc("luminate_auth_token_expires_seconds",
			"Seconds until the token that expires first among the tenant's tokens of the last hour expires; negative once it has. Tenant * is tokens of several tenants.",
			[]string{"tenant"}, nil)})
	}
	return &authMetrics{
		reloadOK: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "luminate_auth_last_reload_successful",
			Help: "Whether the last look at a source of keys or revocations succeeded (1); if not, the old content holds.",
		}, []string{"source"}),
		reloadTime: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "luminate_auth_last_reload_success_timestamp_seconds",
			Help: "When a source of keys or revocations was last read without error.",
		}, []string{"source"}),
	}
}

func (m *authMetrics) reloaded(source string, ok bool, now time.Time) {
	value := 0.0
	if ok {
		value = 1
		m.reloadTime.WithLabelValues(source).Set(float64(now.UnixMilli()) / 1000)
	}
	m.reloadOK.WithLabelValues(source).Set(value)
}

// expiryCollector tells when tokens expire, at the time of a scrape. The label is
// bounded by the number of remembered tokens.
type expiryCollector struct {
	verifier *Verifier
	desc     *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *expiryCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect implements prometheus.Collector.
func (c *expiryCollector) Collect(ch chan<- prometheus.Metric) {
	for tenant, left := range c.verifier.soonestExpiries() {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, left.Seconds(), tenant)
	}
}

// gateMetrics tell of what the gate refused.
type gateMetrics struct{ refused *prometheus.CounterVec }

func newGateMetrics(reg prometheus.Registerer) *gateMetrics {
	return &gateMetrics{refused: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
		Name: "luminate_tenancy_refused_requests_total",
		Help: "Requests refused before their handler, by reason: auth_… is a token, tenant a header, scope a right, else the id of a limit.",
	}, []string{"reason"})}
}

// limitMetrics tell of limits and their use. The tenant label is bounded by
// LimiterConfig.MaxTenants: series of a tenant that is forgotten go with it.
type limitMetrics struct {
	limited       *prometheus.CounterVec
	refused       *prometheus.CounterVec
	usage         *prometheus.GaugeVec
	queriesInUse  prometheus.Gauge
	queriesQueued prometheus.Gauge
	reloadOK      prometheus.Gauge
	reloadTime    prometheus.Gauge
	hash          prometheus.Gauge
	processes     prometheus.Gauge
	exchangeTime  prometheus.Gauge
	exchangeFails prometheus.Counter
}

func newLimitMetrics(reg prometheus.Registerer, l *Limiter) *limitMetrics {
	f := promauto.With(reg)
	m := &limitMetrics{
		limited: f.NewCounterVec(prometheus.CounterOpts{
			Name: "luminate_tenancy_limited_total",
			Help: "Requests, or series of a write, that a limit refused, or would have refused in mode observe.",
		}, []string{"tenant", "limit"}),
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "luminate_tenancy_refused_samples_total",
			Help: "Samples, or whole series, of accepted requests that were not stored, by tenant and reason.",
		}, []string{"tenant", "reason"}),
		usage: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "luminate_tenancy_limit_usage_ratio",
			Help: "How much of a limit is used, 0 to 1.",
		}, []string{"tenant", "limit"}),
		queriesInUse: f.NewGauge(prometheus.GaugeOpts{
			Name: "luminate_tenancy_queries_in_use",
			Help: "Places for queries that are taken.",
		}),
		queriesQueued: f.NewGauge(prometheus.GaugeOpts{
			Name: "luminate_tenancy_queries_queued",
			Help: "Queries that wait for a place.",
		}),
		reloadOK: f.NewGauge(prometheus.GaugeOpts{
			Name: "luminate_tenancy_limits_last_reload_successful",
			Help: "Whether the last look at the limits file succeeded (1); if not, the old limits hold.",
		}),
		reloadTime: f.NewGauge(prometheus.GaugeOpts{
			Name: "luminate_tenancy_limits_last_reload_success_timestamp_seconds",
			Help: "When the limits file was last read without error.",
		}),
		hash: f.NewGauge(prometheus.GaugeOpts{
			Name: "luminate_tenancy_limits_hash",
			Help: "Hash of the limits in force; equal on all processes that have the same.",
		}),
	}
	m.processes = f.NewGauge(prometheus.GaugeOpts{
		Name: "luminate_tenancy_processes",
		Help: "Processes on the same store that are alive, this one among them; rates are divided by them unless limits.processes says by how many.",
	})
	m.processes.Set(1)
	m.exchangeTime = f.NewGauge(prometheus.GaugeOpts{
		Name: "luminate_tenancy_exchange_last_success_timestamp_seconds",
		Help: "When this process last exchanged with the others what tenants use; while that is over 10 s ago, limits on series are each process's own. 0 where the store has one process.",
	})
	m.exchangeFails = f.NewCounter(prometheus.CounterOpts{
		Name: "luminate_tenancy_exchange_failures_total",
		Help: "Exchanges with the other processes that failed.",
	})
	f.NewGauge(prometheus.GaugeOpts{
		Name: "luminate_tenancy_queries_capacity",
		Help: "Places for queries.",
	}).Set(float64(l.cfg.Queries))
	m.reloadOK.Set(1)
	if reg != nil {
		reg.MustRegister(&useCollector{
			limiter: l,
			accepted: prometheus.NewDesc("luminate_tenancy_accepted_samples_total",
				"Samples and histograms stored for the tenant by this process.", []string{"tenant"}, nil),
			newest: prometheus.NewDesc("luminate_tenancy_newest_sample_timestamp_seconds",
				"Greatest timestamp that the tenant has sent to this process; far ahead of the clock it tells of a sender's wrong clock.", []string{"tenant"}, nil),
			active: prometheus.NewDesc("luminate_tenancy_active_series",
				"Series of the tenant with a sample in the last 30 to 60 minutes, of all processes; only where a limit on series is set.", []string{"tenant"}, nil),
			created: prometheus.NewDesc("luminate_tenancy_new_series_total",
				"Series of the tenant that this process let in because they were not active; only where a limit on series is set.", []string{"tenant"}, nil),
		})
	}
	return m
}

func (m *limitMetrics) reloaded(ok bool, hash uint64, now time.Time) {
	m.reloadOK.Set(0)
	if ok {
		m.reloadOK.Set(1)
		m.reloadTime.Set(float64(now.UnixMilli()) / 1000)
		m.hash.Set(float64(hash))
	}
}

// exchanged tells of an exchange with the other processes.
func (m *limitMetrics) exchanged(err error, live int, now time.Time) {
	m.processes.Set(float64(live))
	if err != nil {
		m.exchangeFails.Inc()
		return
	}
	m.exchangeTime.Set(float64(now.UnixMilli()) / 1000)
}

// notStored counts the refusals of one append.
func (m *limitMetrics) notStored(t storage.Tenant, refused []storage.Refusal) {
	byReason := map[storage.RefusalReason]int{}
	for i := range refused {
		byReason[refused[i].Reason]++
	}
	for reason, n := range byReason {
		m.refused.WithLabelValues(t.String(), string(reason)).Add(float64(n))
	}
}

// useCollector tells what tenants wrote, at the time of a scrape. The label is
// bounded by LimiterConfig.MaxTenants.
type useCollector struct {
	limiter                           *Limiter
	accepted, newest, active, created *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *useCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.accepted
	ch <- c.newest
	ch <- c.active
	ch <- c.created
}

// Collect implements prometheus.Collector.
func (c *useCollector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.limiter.all() {
		tenant := s.tenant.String()
		ch <- prometheus.MustNewConstMetric(c.accepted, prometheus.CounterValue, float64(s.accepted.Load()), tenant)
		if ms := s.newest.Load(); ms != 0 {
			ch <- prometheus.MustNewConstMetric(c.newest, prometheus.GaugeValue, float64(ms)/1000, tenant)
		}
		s.mu.Lock()
		series := s.series
		var active int
		var created uint64
		if series != nil {
			active, created = series.len(), series.admitted
		}
		s.mu.Unlock()
		if series != nil {
			ch <- prometheus.MustNewConstMetric(c.active, prometheus.GaugeValue, float64(active), tenant)
			ch <- prometheus.MustNewConstMetric(c.created, prometheus.CounterValue, float64(created), tenant)
		}
	}
}

func (m *limitMetrics) forget(t storage.Tenant) {
	m.limited.DeletePartialMatch(prometheus.Labels{"tenant": t.String()})
	m.refused.DeletePartialMatch(prometheus.Labels{"tenant": t.String()})
	m.usage.DeletePartialMatch(prometheus.Labels{"tenant": t.String()})
}
