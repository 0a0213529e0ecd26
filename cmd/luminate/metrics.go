package main

import (
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// httpMetrics are the metrics of the HTTP surface; routes are templates, so every
// label is bounded.
type httpMetrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	inFlight prometheus.Gauge
	panics   prometheus.Counter
}

func newHTTPMetrics(reg prometheus.Registerer) *httpMetrics {
	f := promauto.With(reg)
	return &httpMetrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "luminate_http_requests_total",
			Help: "Requests answered, by method, route and status code; code 0 is a connection cut off.",
		}, []string{"method", "route", "code"}),
		seconds: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:                            "luminate_http_request_duration_seconds",
			Help:                            "Time from a request's headers to the end of its answer, by route.",
			Buckets:                         []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"method", "route"}),
		inFlight: f.NewGauge(prometheus.GaugeOpts{
			Name: "luminate_http_requests_in_flight",
			Help: "Requests being answered.",
		}),
		panics: f.NewCounter(prometheus.CounterOpts{
			Name: "luminate_http_panics_total",
			Help: "Panics in handlers that were turned into a 500.",
		}),
	}
}

func (m *httpMetrics) observe(method, route string, status int, took time.Duration, aborted bool) {
	if aborted {
		status = 0
	}
	m.requests.WithLabelValues(methodLabel(method), route, strconv.Itoa(status)).Inc()
	m.seconds.WithLabelValues(methodLabel(method), route).Observe(took.Seconds())
}

// methodLabel bounds the label: a method is whatever the caller sends.
func methodLabel(method string) string {
	switch method {
	case "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH":
		return method
	default:
		return "other"
	}
}

// registerProcess registers what describes the process itself.
func registerProcess(reg prometheus.Registerer, backend string, started time.Time) {
	reg.MustRegister(
		collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.MetricsGC, collectors.MetricsScheduler)),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	f := promauto.With(reg)
	f.NewGaugeVec(prometheus.GaugeOpts{
		Name: "luminate_build_info",
		Help: "Always 1; the labels tell the version, the Go version and the backend.",
	}, []string{"version", "goversion", "backend"}).WithLabelValues(version, runtime.Version(), backend).Set(1)
	f.NewGauge(prometheus.GaugeOpts{
		Name: "luminate_start_time_seconds",
		Help: "Unix time at which the process started to serve.",
	}).Set(float64(started.Unix()))
}
