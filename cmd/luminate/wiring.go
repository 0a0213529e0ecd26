package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/luminate/luminate/native"
	"github.com/luminate/luminate/promql"
	"github.com/luminate/luminate/remote"
	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/otlptranslator"
)

// openStore opens the configured backend; p is told of the progress.
func openStore(_ context.Context, cfg *Config, log *slog.Logger, reg prometheus.Registerer, p *probes) (storage.Store, error) {
	switch cfg.Storage.Backend {
	case "badger":
		p.setProgress("opening", 0)
		return openBadger(cfg, log, reg)
	default:
		return nil, fmt.Errorf("storage.backend: %q is not built in", cfg.Storage.Backend)
	}
}

func openBadger(cfg *Config, log *slog.Logger, reg prometheus.Registerer) (storage.Store, error) {
	b := cfg.Storage.Badger
	c := badger.DefaultConfig()
	c.Dir, c.WALSync, c.RetentionDays = b.Dir, b.WALSync, b.RetentionDays
	c.MaxBytes, c.MinFreeBytes, c.HeadMaxBytes = b.MaxBytes, b.MinFreeBytes, b.HeadMaxBytes
	c.SnapshotInterval, c.FutureLimit = b.SnapshotInterval, b.FutureLimit
	db, err := badger.Open(c, log.With("backend", "badger"), reg)
	if err != nil {
		return nil, fmt.Errorf("open storage in %s: %w", b.Dir, err)
	}
	return db, nil
}

func nativeConfig(cfg *Config) native.Config {
	c := native.DefaultConfig()
	c.Version, c.Backend, c.TenantMode = version, cfg.Storage.Backend, tenantMode(cfg)
	c.AdminEnable = cfg.Admin.Enable
	return c
}

func remoteConfig(cfg *Config, refusals *native.Refusals) remote.Config {
	c := remote.DefaultConfig()
	c.MaxBodyBytes, c.MaxDecodedBytes = cfg.Server.MaxBodyBytes, cfg.Write.MaxDecodedBytes
	c.Read.Concurrency, c.Read.MaxSamples = cfg.Query.ReadGate, cfg.Query.ReadSamples
	c.OTLP.TranslationStrategy = otlptranslator.TranslationStrategyOption(cfg.OTLP.TranslationStrategy)
	c.OTLP.PromoteResourceAttributes = cfg.OTLP.PromoteAttributes
	c.OTLP.PromoteScopeMetadata = cfg.OTLP.PromoteScope
	c.OnRefused = func(t storage.Tenant, r remote.Refused) {
		refusals.Record(t, native.Refusal{Time: time.Now(), Source: "remote_write", Reason: string(r.Reason), Message: r.Message})
	}
	return c
}

func promqlConfig(cfg *Config) promql.Config {
	c := promql.DefaultConfig()
	c.Timeout, c.MaxConcurrent, c.LookbackDelta = cfg.Query.Timeout, cfg.Query.MaxConcurrent, cfg.Query.Lookback
	c.MaxSamples, c.MaxSeries, c.Planner = cfg.Query.MaxSamples, cfg.Query.MaxSeries, cfg.Query.Planner
	c.Info = promql.Info{
		Version: version, Started: time.Now(), Retention: fmt.Sprintf("%dd", retentionDays(cfg)),
		Flags: flagValues(cfg), ConfigYAML: func() string { return renderConfig(cfg) },
		AdminEnabled: func() bool { return cfg.Admin.Enable || cfg.authConfigured() },
	}
	return c
}

func retentionDays(cfg *Config) int {
	if cfg.Storage.Backend == "clickhouse" {
		return cfg.Storage.ClickHouse.RetentionDays
	}
	return cfg.Storage.Badger.RetentionDays
}
