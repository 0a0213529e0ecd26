package promql

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are the package's own numbers about queries.
type metrics struct {
	queries  *prometheus.CounterVec   // by endpoint and outcome
	duration *prometheus.HistogramVec // by endpoint
	samples  prometheus.Counter
	planned  *prometheus.CounterVec // by outcome
}

func newMetrics(reg prometheus.Registerer, g *gate) *metrics {
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "luminate_promql_queries_running",
		Help: "PromQL queries that run now.",
	}, func() float64 { return float64(len(g.running)) })
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "luminate_promql_queries_waiting",
		Help: "PromQL queries that wait for a slot.",
	}, func() float64 { return float64(max(0, len(g.waiting)-len(g.running))) })
	f.NewGauge(prometheus.GaugeOpts{
		Name: "luminate_promql_queries_capacity",
		Help: "PromQL queries that may run at once.",
	}).Set(float64(cap(g.running)))
	return &metrics{
		queries: f.NewCounterVec(prometheus.CounterOpts{
			Name: "luminate_promql_queries_total",
			Help: "PromQL queries, by endpoint and error type (none for success).",
		}, []string{"endpoint", "error"}),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "luminate_promql_query_duration_seconds",
			Help:    "Time from the request to the result of a PromQL query, waiting included.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
		}, []string{"endpoint"}),
		samples: f.NewCounter(prometheus.CounterOpts{
			Name: "luminate_promql_samples_read_total",
			Help: "Samples that the PromQL engine read from storage.",
		}),
		planned: f.NewCounterVec(prometheus.CounterOpts{
			Name: "luminate_promql_pushed_total",
			Help: "Parts of queries that the planner considered, by outcome.",
		}, []string{"outcome"}),
	}
}
