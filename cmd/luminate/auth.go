package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/luminate/luminate/native"
	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger"
	"github.com/luminate/luminate/tenancy"
	"github.com/prometheus/client_golang/prometheus"
)

// guards are what stands before the handlers and around the store.
type guards struct {
	verifier *tenancy.Verifier // nil without authentication
	limiter  *tenancy.Limiter
	gate     *tenancy.Gate
	refusals *native.Refusals     // what tenants are shown of their refusals
	memory   *tenancy.QueryMemory // of everything that reads
	auth     bool
}

// newGuards reads keys, revocations and limits for what stands before the store.
func newGuards(cfg *Config, store storage.Store, log *slog.Logger, reg prometheus.Registerer) (*guards, error) {
	g := &guards{auth: cfg.authConfigured(), refusals: native.NewRefusals(), memory: queryMemory(cfg, reg)}
	limits := limiterConfig(cfg)
	if db, ok := store.(*badger.DB); ok {
		limits.SeriesSeed = db.SeriesSeed() // a batch's series are hashed once
	}
	limits.OnLimited = func(t storage.Tenant, e *storage.Error) {
		g.refusals.Record(t, native.Refusal{
			Time: time.Now(), Source: e.Op, Reason: e.Kind.String(), Message: e.Error(), Limit: e.ID, Setting: e.Setting,
		})
	}
	var err error
	if g.limiter, err = tenancy.NewLimiter(limits, log, reg); err != nil {
		return nil, err
	}
	if a := cfg.Auth; a.JWTSecret != "" || a.JWTSecretFile != "" || a.JWTPublicKeyFile != "" || a.JWKSURL != "" {
		if g.verifier, err = tenancy.NewVerifier(verifierConfig(cfg), log, reg); err != nil {
			return nil, fmt.Errorf("authentication: %w", err)
		}
	}
	g.gate, err = tenancy.NewGate(gateConfig(cfg), g.verifier, g.limiter, log, reg)
	return g, err
}

// wrap puts the guards around the store.
func (g *guards) wrap(store storage.Store) storage.Store {
	return tenancy.Wrap(store, tenancy.WrapConfig{Authenticated: g.auth, Limiter: g.limiter})
}

// tasks keep keys, revocations, limits and counts fresh; store is the bare one.
func (g *guards) tasks(store storage.Store) []func(context.Context) {
	tasks := []func(context.Context){func(ctx context.Context) { _ = g.limiter.Run(ctx, store) }}
	if g.verifier != nil {
		tasks = append(tasks, func(ctx context.Context) { _ = g.verifier.Run(ctx) })
	}
	return tasks
}

func verifierConfig(cfg *Config) tenancy.AuthConfig {
	c := tenancy.DefaultAuthConfig()
	a := cfg.Auth
	c.Secret, c.SecretFile, c.PublicKeyFile, c.KeySetURL = a.JWTSecret, a.JWTSecretFile, a.JWTPublicKeyFile, a.JWKSURL
	c.Issuer, c.Audience, c.Leeway, c.RevokedFile = a.Issuer, a.Audience, a.Leeway, a.RevokedFile
	return c
}

func gateConfig(cfg *Config) tenancy.GateConfig {
	c := tenancy.DefaultGateConfig()
	host, _ := splitListen(cfg.Server.Listen)
	c.Header, c.DefaultTenant = cfg.Tenancy.Header, cfg.Tenancy.Default
	c.ListedOnly, c.Tenants = cfg.Tenancy.Create == "listed", cfg.Tenancy.Tenants
	c.OpenInternals, c.AuthRequired = isLoopback(host), cfg.authConfigured()
	return c
}

// limiterConfig has the limits of a tenant: those of one large Prometheus with
// authentication, none without.
func limiterConfig(cfg *Config) tenancy.LimiterConfig {
	c := tenancy.DefaultLimiterConfig()
	if cfg.authConfigured() {
		c.Defaults = tenancy.DefaultLimits()
		c.Defaults.MaxQueryTime = tenancy.Duration(max(cfg.Query.Timeout, time.Second))
		c.Defaults.MaxConcurrentQueries = cfg.Query.MaxConcurrent
	}
	c.File, c.Observe, c.Reload = cfg.Limits.File, cfg.Limits.Mode == "observe", cfg.Limits.Reload
	c.Processes, c.Queries = cfg.Limits.Processes, cfg.Query.MaxConcurrent
	c.Shared = cfg.Storage.Backend == "clickhouse"
	return c
}
