package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"

	"github.com/gorilla/mux"
	"github.com/luminate/luminate/native"
	"github.com/luminate/luminate/promql"
	"github.com/luminate/luminate/remote"
	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// app is everything behind the listener.
type app struct {
	store  storage.Store
	promql *promql.API
	router *mux.Router
	tasks  []func(context.Context) // run until their context is done
}

// newApp opens the store and builds the handlers over it.
func newApp(ctx context.Context, cfg *Config, log *slog.Logger, reg *prometheus.Registry, p *probes) (*app, error) {
	store, err := openStore(ctx, cfg, log, reg, p)
	if err != nil {
		return nil, err
	}
	a := &app{store: store}
	if err := a.build(cfg, log, reg, p); err != nil {
		_ = store.Close()
		return nil, err
	}
	p.serve(store, nil)
	return a, nil
}

// build makes the handlers and the router.
func (a *app) build(cfg *Config, log *slog.Logger, reg *prometheus.Registry, p *probes) error {
	nativeAPI, err := native.New(a.store, nativeConfig(cfg), log, reg)
	if err != nil {
		return fmt.Errorf("native API: %w", err)
	}
	remoteAPI, err := remote.New(a.store, remoteConfig(cfg, nativeAPI.Refusals()), log, reg)
	if err != nil {
		return fmt.Errorf("remote API: %w", err)
	}
	a.promql, err = promql.New(a.store, promqlConfig(cfg), log, reg)
	if err != nil {
		return fmt.Errorf("PromQL API: %w", err)
	}
	metrics := promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg, EnableOpenMetrics: true})
	a.router = newRouter(surface{remote: remoteAPI, promql: a.promql, native: nativeAPI, probes: p, metrics: metrics},
		cfg.Server.InternalListen == "", insideLayers(log, newHTTPMetrics(reg), headerTenant(cfg))...)
	return nil
}

// start runs the background tasks; the returned function stops them and waits.
func (a *app) start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for _, task := range a.tasks {
		wg.Go(func() { task(ctx) })
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

func (a *app) close() error {
	if err := a.promql.Close(); err != nil {
		return err
	}
	return a.store.Close()
}

// headerTenant takes the tenant from the header, without authentication.
func headerTenant(cfg *Config) middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			values := r.Header.Values(cfg.Tenancy.Header)
			name := cfg.Tenancy.Default
			switch {
			case len(values) > 1:
				http.Error(w, "the header "+cfg.Tenancy.Header+" stands more than once", http.StatusBadRequest)
				return
			case len(values) == 1:
				name = values[0]
			}
			t, err := storage.ParseTenant(name)
			if err != nil {
				http.Error(w, cfg.Tenancy.Header+": "+err.Error(), http.StatusBadRequest)
				return
			}
			ctx := tenancy.NewContext(r.Context(), tenancy.Identity{Tenant: t})
			next.ServeHTTP(w, r.WithContext(ctx))
		})
	}
}
