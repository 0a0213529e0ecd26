package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/gorilla/mux"
	"github.com/luminate/luminate/native"
	"github.com/luminate/luminate/promql"
	"github.com/luminate/luminate/remote"
	"github.com/luminate/luminate/storage"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// app is everything behind the listener.
type app struct {
	store  storage.Store
	done   func() error // after an orderly close
	promql *promql.API
	router *mux.Router
	tasks  []func(context.Context) // run until their context is done
}

// newApp opens the store and builds the handlers over it.
func newApp(ctx context.Context, cfg *Config, log *slog.Logger, reg registry, p *probes) (*app, error) {
	store, done, err := openStore(ctx, cfg, log, reg, p)
	if err != nil {
		return nil, err
	}
	g, err := newGuards(cfg, store, log, reg)
	if err != nil {
		return nil, errors.Join(err, (&app{store: store, done: done}).close())
	}
	a := &app{store: g.wrap(store), done: done, tasks: g.tasks(store)}
	if cfg.Metrics.SelfScrape {
		a.tasks = append(a.tasks, selfScrape(cfg, store, reg, log))
	}
	if cfg.Metrics.CensusInterval > 0 {
		c := newCensus(reg)
		a.tasks = append(a.tasks, func(ctx context.Context) { c.run(ctx, store, cfg.Metrics.CensusInterval, log) })
	}
	registerHealth(reg, cfg, p)
	registerCertificate(reg, cfg.Server.WebConfigFile)
	if err := a.build(cfg, g, log, reg, p); err != nil {
		return nil, errors.Join(err, a.close())
	}
	p.serve(store, g.gate.Ready)
	return a, nil
}

// build makes the handlers and the router, and refuses a route without a scope.
func (a *app) build(cfg *Config, g *guards, log *slog.Logger, reg registry, p *probes) error {
	nativeAPI, err := native.New(a.store, nativeConfig(cfg, g), log, reg)
	if err != nil {
		return fmt.Errorf("native API: %w", err)
	}
	remoteAPI, err := remote.New(a.store, remoteConfig(cfg, g, nativeAPI.Refusals()), log, reg)
	if err != nil {
		return fmt.Errorf("remote API: %w", err)
	}
	a.promql, err = promql.New(a.store, promqlConfig(cfg, g), log, reg)
	if err != nil {
		return fmt.Errorf("PromQL API: %w", err)
	}
	metrics := promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg, EnableOpenMetrics: true})
	a.router = newRouter(surface{remote: remoteAPI, promql: a.promql, native: nativeAPI, probes: p, metrics: metrics},
		cfg.Server.InternalListen == "", insideLayers(log, newHTTPMetrics(reg), g.gate.Middleware)...)
	return g.gate.Check(a.router)
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

// close closes what newApp opened. The store is closed whatever the engine says:
// it has data to write out. Only an orderly end removes the mark of a running one.
func (a *app) close() error {
	var err error
	if a.promql != nil {
		err = a.promql.Close()
	}
	if cerr := a.store.Close(); cerr != nil {
		return errors.Join(err, cerr)
	}
	return errors.Join(err, a.done())
}
