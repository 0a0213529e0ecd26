package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// soakRemembers is how many of the newest writes a soak reads back: a day of one a
// second, so that a test of years keeps its size.
const soakRemembers = 86_400

// tally is what a soak tells of itself.
type tally struct {
	writes, checks prometheus.Counter
	failures       *prometheus.CounterVec
}

func newTally(reg prometheus.Registerer) *tally {
	f := promauto.With(reg)
	v := &tally{
		writes: f.NewCounter(prometheus.CounterOpts{
			Name: "luminate_soak_writes_total", Help: "Writes of the continuous test that were acknowledged.",
		}),
		checks: f.NewCounter(prometheus.CounterOpts{
			Name: "luminate_soak_checks_total", Help: "Values that the continuous test read back and found right.",
		}),
		failures: f.NewCounterVec(prometheus.CounterOpts{
			Name: "luminate_soak_failures_total",
			Help: "Failures of the continuous test: a value is wrong or missing, or the server did not serve (unavailable).",
		}, []string{"reason"}),
	}
	// All from the beginning: what comes into being at 1 has no increase.
	for _, reason := range []string{"wrong", "missing", "unavailable"} {
		v.failures.WithLabelValues(reason)
	}
	return v
}

// falseRead is an answer that does not agree with what was written.
type falseRead struct{ reason, text string }

func (e *falseRead) Error() string { return e.text }

// goesOn counts a failure, and tells whether the soak goes on in spite of it.
func (o soakOptions) goesOn(ctx context.Context, err error) bool {
	if o.listen == "" || ctx.Err() != nil {
		return false
	}
	reason := "unavailable"
	var e *falseRead
	if errors.As(err, &e) {
		reason = e.reason
	}
	o.tally.failures.WithLabelValues(reason).Inc()
	fmt.Fprintln(os.Stderr, "FAIL:", err)
	return true
}

// serveMetrics serves reg on an address until stop is called.
func serveMetrics(addr string, reg *prometheus.Registry) (stop func(), err error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.Serve(ln) // ends with Close
	}()
	return func() {
		_ = srv.Close()
		<-ended
	}, nil
}
