package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"runtime"
	"strconv"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// registry takes Luminate's own metrics and gathers them. It is a
// *prometheus.Registry but for the test that lists what is registered.
type registry interface {
	prometheus.Registerer
	prometheus.Gatherer
}

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

// registerHealth registers what tells whether the process can do its work.
func registerHealth(reg prometheus.Registerer, cfg *Config, p *probes) {
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "luminate_up",
		Help: "1 while requests are served: the storage is open and answers, and shutdown has not begun.",
	}, func() float64 {
		if p.draining.Load() || p.check(context.Background()).Status == storage.HealthDown {
			return 0
		}
		return 1
	})
	for _, status := range []storage.HealthStatus{storage.HealthOK, storage.HealthReadOnly, storage.HealthDown} {
		f.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "luminate_storage_health", Help: "1 for the state that the storage is in: ok, read_only or down.",
			ConstLabels: prometheus.Labels{"status": string(status)},
		}, func() float64 {
			if p.check(context.Background()).Status == status {
				return 1
			}
			return 0
		})
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "luminate_storage_disk_used_bytes", Help: "Bytes of stored data, as the storage knows them.",
	}, func() float64 { return float64(p.check(context.Background()).DiskUsedBytes) })
	f.NewGauge(prometheus.GaugeOpts{
		Name: "luminate_http_connections_limit", Help: "Connections that the listener holds at once; further ones wait.",
	}).Set(float64(cfg.Server.MaxConnections))
	sum := sha256.Sum256([]byte(renderConfig(cfg)))
	f.NewGaugeVec(prometheus.GaugeOpts{
		Name: "luminate_config_info", Help: "Always 1; the label is a hash of the configuration in force.",
	}, []string{"sha256"}).WithLabelValues(hex.EncodeToString(sum[:8])).Set(1)
}

// registerUnclean tells whether the process before ended without an orderly
// shutdown.
func registerUnclean(reg prometheus.Registerer, unclean bool) {
	g := promauto.With(reg).NewGauge(prometheus.GaugeOpts{
		Name: "luminate_unclean_shutdown",
		Help: "1 if the process before this one ended without an orderly shutdown (kill -9, power, out of memory).",
	})
	if unclean {
		g.Set(1)
	}
}
