package remote

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	requests    *prometheus.CounterVec // by protocol and status code
	samples     *prometheus.CounterVec // stored, by protocol and type
	refused     *prometheus.CounterVec // by reason
	bodyBytes   *prometheus.CounterVec // compressed, by protocol
	reads       prometheus.Gauge
	readSamples prometheus.Counter
	otlpWarns   *prometheus.CounterVec // by the translator's category
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "luminate_remote_requests_total",
			Help: "Requests answered, by protocol and HTTP status code.",
		}, []string{"protocol", "code"}),
		samples: f.NewCounterVec(prometheus.CounterOpts{
			Name: "luminate_remote_written_total",
			Help: "Elements written, by protocol and type (sample, histogram, exemplar).",
		}, []string{"protocol", "type"}),
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "luminate_remote_refused_total",
			Help: "Samples, histograms and exemplars refused, by reason.",
		}, []string{"reason"}),
		bodyBytes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "luminate_remote_body_bytes_total",
			Help: "Bytes of request bodies as they came, by protocol.",
		}, []string{"protocol"}),
		reads: f.NewGauge(prometheus.GaugeOpts{
			Name: "luminate_remote_reads_in_flight",
			Help: "Remote read requests served or waiting.",
		}),
		readSamples: f.NewCounter(prometheus.CounterOpts{
			Name: "luminate_remote_read_samples_total",
			Help: "Samples sent in answers to remote read.",
		}),
		otlpWarns: f.NewCounterVec(prometheus.CounterOpts{
			Name: "luminate_remote_otlp_warnings_total",
			Help: "Warnings of the translation of OTLP metrics, by category.",
		}, []string{"category"}),
	}
}
