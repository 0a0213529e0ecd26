package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	rungroup "github.com/oklog/run"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/exporter-toolkit/web"
	"github.com/rs/cors"
	"github.com/spf13/cobra"
	"golang.org/x/net/netutil"
)

func serveCommand(env []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, warnings, err := loadConfig(cmd.Flags(), env)
			if err != nil {
				return err
			}
			log := newLogger(cfg.Log, os.Stderr)
			for _, w := range warnings {
				log.Warn(w)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			// A second signal ends the process at once.
			context.AfterFunc(ctx, stop)
			return serve(ctx, &cfg, log, nil)
		},
	}
	addConfigFlags(cmd.Flags())
	return cmd
}

// serve runs the server until ctx is done, then drains it. bound, if not nil,
// gets the address of the listener once it accepts connections; startup probes
// are answered from then on, everything else after recovery.
func serve(ctx context.Context, cfg *Config, log *slog.Logger, bound func(net.Addr)) error {
	started := time.Now()
	reg := prometheus.NewRegistry()
	registerProcess(reg, cfg.Storage.Backend, started)
	p := newProbes(cfg.Storage.Backend, started)

	ln, err := net.Listen("tcp", cfg.Server.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if bound != nil {
		bound(ln.Addr())
	}
	front := newSwitch(startingHandler(p))
	srv := newServer(cfg, front, log)
	srv.BaseContext = func(net.Listener) context.Context { return context.WithoutCancel(ctx) }

	// A group ends all its actors when the first returns. The listener's returns only
	// once the app has drained: http.Server.Serve returns as soon as Shutdown begins,
	// and closing the server then would cut the requests that Shutdown waits for.
	drained := make(chan struct{})
	var g rungroup.Group
	addServer(&g, srv, netutil.LimitListener(ln, cfg.Server.MaxConnections), cfg, log, drained)
	if cfg.Server.InternalListen != "" {
		if err := addInternal(&g, cfg, p, promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg, EnableOpenMetrics: true}), log); err != nil {
			_ = ln.Close()
			return err
		}
	}
	appCtx, cancelApp := context.WithCancel(context.WithoutCancel(ctx))
	var appErr error // of the app whoever else ended the group: a store that does not close is no orderly end
	g.Add(func() error {
		defer close(drained)
		appErr = runApp(appCtx, ctx, cfg, log, reg, p, front, srv)
		return appErr
	}, func(error) { cancelApp() })
	log.Info("luminate starts", "version", version, "listen", ln.Addr().String(), "backend", cfg.Storage.Backend, "tenants", tenantMode(cfg))
	if host, _, err := net.SplitHostPort(cfg.Server.Listen); err == nil && cfg.exposed(host) {
		log.Warn("authentication is off and server.allowUnauthenticated is set: whoever reaches the port can read, write and delete", "listen", ln.Addr().String())
	}
	err = g.Run()
	if errors.Is(err, errDrained) {
		err = nil
	}
	if !errors.Is(appErr, errDrained) && !errors.Is(err, appErr) {
		err = errors.Join(err, appErr)
	}
	if err == nil {
		log.Info("luminate stopped", "duration", time.Since(started))
	}
	return err
}

// errDrained ends the run group after an orderly shutdown.
var errDrained = errors.New("drained")

// runApp opens the store, builds the handlers, serves until stop is done, and
// then shuts down in order: readiness off, wait, listener closed, requests
// finished, store closed.
func runApp(ctx, stop context.Context, cfg *Config, log *slog.Logger, reg *prometheus.Registry, p *probes, front *handlerSwitch, srv *http.Server) error {
	app, err := newApp(ctx, cfg, log, reg, p)
	if err != nil {
		return err
	}
	front.set(outerHandler(cfg, p, app.router))
	log.Info("luminate is ready", "listen", cfg.Server.Listen, "backend", cfg.Storage.Backend, "tenants", tenantMode(cfg))
	background := app.start(ctx)
	select {
	case <-stop.Done():
	case <-ctx.Done():
	}
	p.drain()
	log.Info("luminate shuts down", "delay", cfg.Server.DrainDelay)
	wait(ctx, cfg.Server.DrainDelay)
	shutdown, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Server.ShutdownTimeout)
	defer cancel()
	if err = srv.Shutdown(shutdown); err != nil {
		err = fmt.Errorf("requests still in flight after %s: %w", cfg.Server.ShutdownTimeout, err)
		_ = srv.Close() // cancels what is in flight, before the store closes under it
	}
	background()
	if cerr := app.close(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("close storage: %w", cerr))
	}
	if err != nil {
		return err
	}
	return errDrained
}

// wait returns after d, or earlier when ctx is done.
func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func newServer(cfg *Config, h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: cfg.Server.ReadHeaderTimeout,
		ReadTimeout:       cfg.Server.ReadTimeout,
		IdleTimeout:       cfg.Server.IdleTimeout,
		MaxHeaderBytes:    cfg.Server.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// addServer serves ln, with TLS as the web configuration says; once srv is shut
// down it waits for drained.
func addServer(g *rungroup.Group, srv *http.Server, ln net.Listener, cfg *Config, log *slog.Logger, drained <-chan struct{}) {
	g.Add(func() error {
		listen, systemd := []string{cfg.Server.Listen}, false
		err := web.Serve(ln, srv, &web.FlagConfig{
			WebListenAddresses: &listen, WebSystemdSocket: &systemd, WebConfigFile: &cfg.Server.WebConfigFile,
		}, log)
		if errors.Is(err, http.ErrServerClosed) {
			<-drained
			return errDrained
		}
		return err
	}, func(error) { _ = srv.Close() })
}

// addInternal serves metrics, pprof and probes on their own listener.
func addInternal(g *rungroup.Group, cfg *Config, p *probes, metrics http.Handler, log *slog.Logger) error {
	ln, err := net.Listen("tcp", cfg.Server.InternalListen)
	if err != nil {
		return fmt.Errorf("listen on server.internalListen: %w", err)
	}
	srv := newServer(cfg, internalHandler(p, metrics), log)
	g.Add(func() error {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return errDrained
	}, func(error) { _ = srv.Close() })
	log.Info("internal listener", "listen", ln.Addr().String())
	return nil
}

func corsFor(origins []string) middleware {
	if len(origins) == 0 {
		return func(next http.Handler) http.Handler { return next }
	}
	c := cors.New(cors.Options{
		AllowedOrigins: origins, AllowedMethods: []string{"GET", "POST", "PUT", "DELETE"},
		AllowedHeaders: []string{"Authorization", "Content-Type", "Content-Encoding", "X-Scope-OrgID"}, MaxAge: 600,
	})
	return c.Handler
}

func splitListen(listen string) (host, port string) {
	host, port, _ = net.SplitHostPort(listen)
	return host, port
}

func tenantMode(cfg *Config) string {
	if cfg.authConfigured() {
		return "from the token, header " + cfg.Tenancy.Header + " chooses among its tenants"
	}
	return "header " + cfg.Tenancy.Header + ", else " + cfg.Tenancy.Default + ", no authentication"
}
