package native

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	accepted, adjusted prometheus.Counter
	refused            *prometheus.CounterVec
	errors             *prometheus.CounterVec
	queries            *prometheus.HistogramVec
	fallbacks          prometheus.Counter
	lastBackup         prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		accepted: f.NewCounter(prometheus.CounterOpts{
			Name: "luminate_native_accepted_metrics_total", Help: "Metrics stored by native writes.",
		}),
		adjusted: f.NewCounter(prometheus.CounterOpts{
			Name: "luminate_native_adjusted_metrics_total",
			Help: "Metrics of native writes moved to a free millisecond of their series.",
		}),
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "luminate_native_refused_metrics_total", Help: "Metrics refused by native writes, by code.",
		}, []string{"code"}),
		errors: f.NewCounterVec(prometheus.CounterOpts{
			Name: "luminate_native_errors_total", Help: "Requests of the native API answered with an error, by code.",
		}, []string{"code"}),
		queries: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "luminate_native_query_duration_seconds",
			Help:    "Time to answer native queries that succeeded, by query type.",
			Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 5, 10, 30},
		}, []string{"type"}),
		fallbacks: f.NewCounter(prometheus.CounterOpts{
			Name: "luminate_native_evaluate_fallbacks_total",
			Help: "Evaluations that the backend could not do exactly and that ran over selected series instead.",
		}),
		lastBackup: f.NewGauge(prometheus.GaugeOpts{
			Name: "luminate_native_last_backup_timestamp_seconds",
			Help: "When this process last sent a whole backup, Unix time; 0 if it has sent none.",
		}),
	}
}
