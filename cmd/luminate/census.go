package main

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/prometheus/client_golang/prometheus"
)

// What a census tells of at most, so that its own series are few: the tenants with
// most series, and of the first of them the metrics with most series.
const (
	censusTenants       = 1000
	censusMetricTenants = 20
	censusMetrics       = 10
)

// census counts tenants' series from time to time and tells the last count at a
// scrape: counting may read a whole index, a scrape must not.
type census struct {
	last                                                     atomic.Pointer[censusCount]
	tenants, series, bytes, lastWrite, metrics, at, duration *prometheus.Desc
}

// censusCount is one count. It is not changed once it is stored.
type censusCount struct {
	tenants  int
	largest  []storage.TenantStats
	metrics  map[string][]storage.Count // by tenant
	at       time.Time
	duration time.Duration
}

func newCensus(reg prometheus.Registerer) *census {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("luminate_"+name, help, labels, nil)
	}
	c := &census{
		tenants:   d("tenants", "Tenants that have data."),
		series:    d("tenant_active_series", "Series of the tenant with a sample on the current UTC day, for the 1000 tenants that have most.", "tenant"),
		bytes:     d("tenant_stored_bytes", "Bytes that the tenant's data takes, as far as the storage knows.", "tenant"),
		lastWrite: d("tenant_last_write_timestamp_seconds", "When the tenant last wrote, Unix time.", "tenant"),
		metrics:   d("tenant_metric_series", "Series of a metric on the current UTC day: the 10 largest metrics of the 20 largest tenants.", "tenant", "metric"),
		at:        d("census_timestamp_seconds", "When tenants and series were last counted, Unix time."),
		duration:  d("census_duration_seconds", "How long the last count of tenants and series took."),
	}
	reg.MustRegister(c)
	return c
}

// Describe implements prometheus.Collector.
func (c *census) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.tenants, c.series, c.bytes, c.lastWrite, c.metrics, c.at, c.duration} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *census) Collect(ch chan<- prometheus.Metric) {
	n := c.last.Load()
	if n == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(c.tenants, float64(n.tenants))
	gauge(c.at, float64(n.at.UnixMilli())/1000)
	gauge(c.duration, n.duration.Seconds())
	for _, t := range n.largest {
		gauge(c.series, float64(t.ActiveSeries), t.Tenant)
		gauge(c.bytes, float64(t.Bytes), t.Tenant)
		if !t.LastWrite.IsZero() {
			gauge(c.lastWrite, float64(t.LastWrite.UnixMilli())/1000, t.Tenant)
		}
	}
	for tenant, metrics := range n.metrics {
		for _, m := range metrics {
			gauge(c.metrics, float64(m.Count), tenant, m.Name)
		}
	}
}

// run counts now and then every interval until ctx is done.
func (c *census) run(ctx context.Context, store storage.Store, interval time.Duration, log *slog.Logger) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		n, err := takeCensus(ctx, store, time.Now())
		switch {
		case err == nil:
			c.last.Store(n)
		case ctx.Err() == nil:
			log.Warn("count tenants and series", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func takeCensus(ctx context.Context, store storage.Store, now time.Time) (*censusCount, error) {
	all, err := store.Tenants(ctx)
	if err != nil {
		return nil, err
	}
	n := &censusCount{tenants: len(all), at: now, metrics: map[string][]storage.Count{}}
	slices.SortFunc(all, func(a, b storage.TenantStats) int {
		return cmp.Or(cmp.Compare(b.ActiveSeries, a.ActiveSeries), cmp.Compare(a.Tenant, b.Tenant))
	})
	n.largest = all[:min(len(all), censusTenants)]
	day := now.UTC().Truncate(24 * time.Hour)
	for _, t := range n.largest[:min(len(n.largest), censusMetricTenants)] {
		tenant, err := storage.ParseTenant(t.Tenant)
		if err != nil {
			return nil, err
		}
		count, err := store.Cardinality(ctx, tenant, storage.CardinalityQuery{
			Selection: storage.Selection{MinT: day.UnixMilli(), MaxT: now.UnixMilli()}, TopN: censusMetrics, MetricsOnly: true,
		})
		if err != nil {
			return nil, err
		}
		n.metrics[t.Tenant] = count.Metrics
	}
	n.duration = time.Since(now)
	return n, nil
}
