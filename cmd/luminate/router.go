package main

import (
	"log/slog"
	"mime"
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/gorilla/mux"
	"github.com/luminate/luminate/native"
	"github.com/luminate/luminate/promql"
	"github.com/luminate/luminate/remote"
)

// surface is everything that the listener serves.
type surface struct {
	remote  *remote.API
	promql  *promql.API
	native  *native.API
	probes  *probes
	metrics http.Handler // Luminate's own metrics
}

// newRouter registers every route. Shared paths are told apart by what the body
// is: remote write from native write on /api/v1/write, a PromQL form from a native
// query on /api/v1/query. inside runs around each matched handler, where the
// route is known; withInternal adds /metrics and pprof.
func newRouter(s surface, withInternal bool, inside ...middleware) *mux.Router {
	r := mux.NewRouter()
	r.UseEncodedPath() // label and metric names may hold an escaped slash
	for _, m := range inside {
		r.Use(mux.MiddlewareFunc(m))
	}
	s.remote.Register(r)
	s.promql.Register(r)
	s.native.Register(r)
	r.HandleFunc("/api/v1/write", s.serveWrite).Methods(http.MethodPost, http.MethodGet, http.MethodHead)
	r.HandleFunc("/api/v1/query", s.serveQuery).Methods(http.MethodPost, http.MethodGet)
	registerProbes(r, s.probes)
	if withInternal {
		registerInternal(r, s.metrics)
	}
	return r
}

func registerProbes(r *mux.Router, p *probes) {
	get := []string{http.MethodGet, http.MethodHead}
	r.HandleFunc("/livez", p.livez).Methods(get...)
	r.HandleFunc("/readyz", p.readyz).Methods(get...)
	r.HandleFunc("/startupz", p.startupz).Methods(get...)
	r.HandleFunc("/-/healthy", p.livez).Methods(get...)
	r.HandleFunc("/-/ready", p.readyz).Methods(get...)
	r.HandleFunc("/api/v1/health", p.healthz).Methods(get...)
}

// registerInternal adds what an operator looks at: metrics and profiles.
func registerInternal(r *mux.Router, metrics http.Handler) {
	r.Handle("/metrics", metrics).Methods(http.MethodGet)
	r.HandleFunc("/debug/pprof/", pprof.Index).Methods(http.MethodGet)
	r.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline).Methods(http.MethodGet)
	r.HandleFunc("/debug/pprof/profile", pprof.Profile).Methods(http.MethodGet)
	r.HandleFunc("/debug/pprof/symbol", pprof.Symbol).Methods(http.MethodGet, http.MethodPost)
	r.HandleFunc("/debug/pprof/trace", pprof.Trace).Methods(http.MethodGet)
	r.HandleFunc("/debug/pprof/{profile}", pprof.Index).Methods(http.MethodGet)
}

// serveWrite dispatches a write. A GET is answered by remote: senders probe the
// write URL so.
func (s surface) serveWrite(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost && !remote.IsRemoteWrite(r) {
		s.native.ServeWrite(w, r)
		return
	}
	s.remote.ServeWrite(w, r)
}

// serveQuery dispatches a query: JSON is native, everything else PromQL. A query in
// the URL is PromQL whatever the type says: vmalert posts nothing and calls it JSON.
func (s surface) serveQuery(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost && isJSON(r.Header.Get("Content-Type")) && !r.URL.Query().Has("query") {
		s.native.ServeQuery(w, r)
		return
	}
	s.promql.ServeQuery(w, r)
}

func isJSON(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && media == "application/json"
}

// isDestructive tells whether a request changes or deletes what is stored, other
// than by writing samples.
func isDestructive(r *http.Request) bool {
	return strings.Contains(r.URL.Path, "/admin/") && r.Method != http.MethodGet && r.Method != http.MethodHead
}

// outerHandler wraps the router in the layers that need no route.
func outerHandler(cfg *Config, p *probes, router http.Handler) http.Handler {
	host, _ := splitListen(cfg.Server.Listen)
	return chain(router,
		withRequestID,
		withScratch,
		closeWhileDraining(p),
		securityHeaders,
		guardBrowser(cfg.authConfigured(), isLoopback(host), isDestructive),
		corsFor(cfg.Server.CORSOrigins),
		limitBody(cfg.Server.MaxBodyBytes),
		deadline(cfg.Server.RequestTimeout),
	)
}

// insideLayers are the layers that need the route. What the guard refuses is
// observed too: a 429 or 503 must be in the metrics.
func insideLayers(log *slog.Logger, m *httpMetrics, guard middleware) []middleware {
	return []middleware{observe(log, m), guard, noteTenant}
}
