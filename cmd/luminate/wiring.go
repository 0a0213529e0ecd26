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
	"github.com/luminate/luminate/storage/clickhouse"
	"github.com/luminate/luminate/tenancy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/otlptranslator"
)

// openStore opens the configured backend; p is told of the progress. done is
// called after the store was closed without an error.
func openStore(ctx context.Context, cfg *Config, log *slog.Logger, reg prometheus.Registerer, p *probes) (store storage.Store, done func() error, err error) {
	switch cfg.Storage.Backend {
	case "badger":
		p.setProgress("opening", 0)
		return openBadger(cfg, log, reg)
	case "clickhouse":
		p.setProgress("connecting", 0)
		db, err := clickhouse.Open(ctx, clickhouseConfig(cfg), log, reg)
		if err != nil {
			return nil, nil, fmt.Errorf("open storage: %w", err)
		}
		return db, func() error { return nil }, nil
	default:
		return nil, nil, fmt.Errorf("storage.backend: %q is not built in", cfg.Storage.Backend)
	}
}

func openBadger(cfg *Config, log *slog.Logger, reg prometheus.Registerer) (storage.Store, func() error, error) {
	dir := cfg.Storage.Badger.Dir
	db, err := badger.Open(badgerConfig(cfg), log, reg)
	if err != nil {
		return nil, nil, fmt.Errorf("open storage in %s: %w", dir, err)
	}
	unclean, done, err := markRunning(dir)
	if err != nil {
		_ = db.Close()
		return nil, nil, err
	}
	if unclean {
		log.Warn("the process before this one ended without an orderly shutdown; the log was read again")
	}
	registerUnclean(reg, unclean)
	return db, done, nil
}

func badgerConfig(cfg *Config) badger.Config {
	b, c := cfg.Storage.Badger, badger.DefaultConfig()
	c.Dir, c.WALSync, c.RetentionDays = b.Dir, b.WALSync, b.RetentionDays
	c.MaxBytes, c.MinFreeBytes, c.HeadMaxBytes = b.MaxBytes, b.MinFreeBytes, b.HeadMaxBytes
	c.SnapshotInterval, c.FutureLimit, c.MaxEvaluateBytes = b.SnapshotInterval, b.FutureLimit, b.MaxEvaluateBytes
	c.DiscoveryCacheBytes = b.DiscoveryCacheBytes
	return c
}

func clickhouseConfig(cfg *Config) clickhouse.Config {
	from, c := cfg.Storage.ClickHouse, clickhouse.DefaultConfig()
	c.DSN, c.Shards, c.PasswordFile, c.Cluster = from.DSN, from.Shards, from.PasswordFile, from.Cluster
	c.MigrateSchema, c.FsyncInserts, c.RetentionDays = from.MigrateSchema, from.FsyncInserts, from.RetentionDays
	c.FlushRows, c.FlushAge, c.BackupTo, c.CAFile = from.FlushRows, from.FlushAge, from.BackupTo, from.CAFile
	c.DiscoveryCacheBytes, c.DiscoveryCacheAge = from.DiscoveryCacheBytes, from.DiscoveryCacheAge
	c.MaxEvaluateBytes, c.MaxRosterBytes = from.MaxEvaluateBytes, from.MaxRosterBytes
	c.MaxBufferedRows, c.QueryTimeout, c.MaxSelectedSeries = from.MaxBufferedRows, from.QueryTimeout, from.MaxSelectedSeries
	c.MaxQueryMemory, c.MaxRowsToRead, c.MaxResultRows = from.MaxQueryMemory, from.MaxRowsToRead, from.MaxResultRows
	return c
}

func nativeConfig(cfg *Config, g *guards) native.Config {
	c, l := native.DefaultConfig(), g.limiter
	c.Refusals = g.refusals
	c.Version, c.Backend, c.TenantMode = version, cfg.Storage.Backend, tenantMode(cfg)
	c.AdminEnable, c.Memory = cfg.Admin.Enable, g.memory
	c.WriteLimitsOf, c.QueryLimitsOf, c.Limits = nativeWriteLimits(l, c.Write), nativeQueryLimits(l, c.Query), l
	c.WatchedOf, c.WatchedWriteOf, c.OnLimited = watchedQueryLimits(l, c.Query), watchedWriteLimits(l, c.Write), l.Met
	return c
}

func remoteConfig(cfg *Config, g *guards, refusals *native.Refusals) remote.Config {
	c, l := remote.DefaultConfig(), g.limiter
	c.Memory = g.memory
	c.MaxBodyBytes, c.MaxDecodedBytes, c.MaxInFlightBytes = cfg.Server.MaxBodyBytes, cfg.Write.MaxDecodedBytes, cfg.Write.MaxInFlightBytes
	c.Read.MaxRegexBytes = cfg.Query.MaxRegexBytes
	c.Read.Concurrency, c.Read.MaxSamples, c.Read.StartTimestamps = cfg.Query.ReadGate, cfg.Query.ReadSamples, cfg.Query.ReadStartTimestamps
	c.OTLP.TranslationStrategy = otlptranslator.TranslationStrategyOption(cfg.OTLP.TranslationStrategy)
	c.OTLP.PromoteResourceAttributes = cfg.OTLP.PromoteAttributes
	c.OTLP.PromoteScopeMetadata = cfg.OTLP.PromoteScope
	c.Limits, c.OnLimited = shapeLimits(l), l.Met
	c.OnRefused = func(t storage.Tenant, r remote.Refused) {
		refusals.Record(t, native.Refusal{Time: time.Now(), Source: r.Source, Series: r.Series, Reason: string(r.Reason), Message: r.Message})
	}
	return c
}

// queryMemory is the one budget of everything that reads: by default half of what the
// process may use, one query at most half of that.
func queryMemory(cfg *Config, reg prometheus.Registerer) *tenancy.QueryMemory {
	total := cfg.Query.MemoryBytes
	if total == 0 {
		total = tenancy.ProcessMemory() / 2
	}
	return tenancy.NewQueryMemory(tenancy.QueryMemoryLimits{
		Total: total, PerTenant: cfg.Query.TenantMemoryBytes, PerQuery: total / 2,
	}, reg)
}

func promqlConfig(cfg *Config, g *guards) promql.Config {
	c := promql.DefaultConfig()
	c.Memory = g.memory
	c.Timeout, c.MaxConcurrent, c.LookbackDelta = cfg.Query.Timeout, cfg.Query.MaxConcurrent, cfg.Query.Lookback
	c.MaxSamples, c.MaxSeries, c.Planner = cfg.Query.MaxSamples, cfg.Query.MaxSeries, cfg.Query.Planner
	c.MaxQueued, c.MaxResultSeries = cfg.Query.MaxQueued, cfg.Query.MaxResultSeries
	c.MaxTextBytes, c.MaxDepth, c.MaxRegexBytes = cfg.Query.MaxTextBytes, cfg.Query.MaxDepth, cfg.Query.MaxRegexBytes
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
