package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/util/fmtutil"
)

// selfScrape stores Luminate's own metrics in itself, with the labels that a
// Prometheus would give them, until ctx is done.
func selfScrape(cfg *Config, store storage.Store, reg prometheus.Gatherer, log *slog.Logger) func(context.Context) {
	return func(ctx context.Context) {
		tenant, err := storage.ParseTenant(cfg.Metrics.SelfScrapeTenant)
		if err != nil {
			log.Error("self scrape is off", "err", err)
			return
		}
		ctx = tenancy.NewContext(ctx, tenancy.Identity{
			Tenant: tenant, Subject: "self-scrape", Scopes: []tenancy.Scope{tenancy.ScopeWrite}, Authenticated: true,
		})
		labels := map[string]string{"job": "luminate", "instance": cfg.Server.Listen}
		tick := time.NewTicker(cfg.Metrics.SelfScrapeInterval)
		defer tick.Stop()
		for {
			if err := scrapeOnce(ctx, tenant, store, reg, labels, time.Now()); err != nil && ctx.Err() == nil {
				log.Warn("self scrape", "err", err)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}
}

// scrapeOnce gathers once and appends what it found at time now.
func scrapeOnce(ctx context.Context, tenant storage.Tenant, store storage.Store, reg prometheus.Gatherer, labels map[string]string, now time.Time) error {
	families, err := reg.Gather()
	if err != nil {
		return fmt.Errorf("gather: %w", err)
	}
	byName := make(map[string]*dto.MetricFamily, len(families))
	for _, f := range families {
		byName[f.GetName()] = f
	}
	req, err := fmtutil.MetricFamiliesToWriteRequest(byName, labels)
	if err != nil {
		return fmt.Errorf("convert: %w", err)
	}
	var b storage.Batch
	var builder storage.LabelsBuilder
	for _, ts := range req.Timeseries {
		builder.Reset()
		for _, l := range ts.Labels {
			builder.Add(l.Name, l.Value)
		}
		if b.Labels, err = builder.AppendTo(b.Labels); err != nil {
			return err
		}
		for _, s := range ts.Samples {
			b.AddSample(now.UnixMilli(), 0, s.Value)
		}
		b.EndSeries()
	}
	for _, f := range families {
		b.Metadata = append(b.Metadata, storage.Metadata{Metric: f.GetName(), Type: metricType(f.GetType()), Help: f.GetHelp(), Unit: f.GetUnit()})
	}
	res, err := store.Append(ctx, tenant, &b)
	if err == nil && len(res.Refused) > 0 {
		err = fmt.Errorf("%d of %d samples were refused: %s", len(res.Refused), len(b.Samples), res.Refused[0].Message)
	}
	return err
}

func metricType(t dto.MetricType) storage.MetricType {
	switch t {
	case dto.MetricType_COUNTER:
		return "counter"
	case dto.MetricType_GAUGE:
		return "gauge"
	case dto.MetricType_HISTOGRAM:
		return "histogram"
	case dto.MetricType_GAUGE_HISTOGRAM:
		return "gaugehistogram"
	case dto.MetricType_SUMMARY:
		return "summary"
	default:
		return "unknown"
	}
}
