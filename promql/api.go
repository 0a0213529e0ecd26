package promql

import (
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/gorilla/mux"
	"github.com/klauspost/compress/gzhttp"
	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/client_golang/prometheus"
	promengine "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/features"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

// minCompressed is the answer size from which gzip pays.
const minCompressed = 1024

// API serves Prometheus's query API. It is safe for concurrent use.
type API struct {
	store     storage.Store
	cfg       Config
	log       *slog.Logger
	metrics   *metrics
	parser    parser.Parser
	engine    *Engine
	queryable *Queryable
	features  features.Collector
	now       func() time.Time // replaced by tests
	compress  func(http.Handler) http.HandlerFunc
	query     http.Handler
}

// New returns the API over store. It fails on an invalid configuration.
func New(store storage.Store, cfg Config, log *slog.Logger, reg prometheus.Registerer) (*API, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	compress, err := gzhttp.NewWrapper(gzhttp.MinSize(minCompressed), gzhttp.CompressionLevel(gzip.BestSpeed))
	if err != nil {
		return nil, fmt.Errorf("build compressing handler: %w", err)
	}
	g := newGate(cfg.MaxConcurrent, cfg.MaxQueued)
	a := &API{
		store: store, cfg: cfg, log: log, now: time.Now, compress: compress,
		metrics: newMetrics(reg, g),
		parser: &boundedParser{
			Parser: parser.NewParser(parser.Options{EnableExperimentalFunctions: cfg.ExperimentalFunctions}),
			bounds: bounds{textBytes: cfg.MaxTextBytes, depth: cfg.MaxDepth, regexBytes: cfg.MaxRegexBytes},
		},
		features: features.NewRegistry(),
		queryable: NewQueryable(store, QueryableOptions{
			Tenant: tenancy.TenantOf, MaxSeries: cfg.MaxSeries, MaxSamples: cfg.maxSelected(),
		}),
	}
	opts := promengine.EngineOpts{
		Logger:                   log,
		MaxSamples:               cfg.maxPoints(),
		Timeout:                  cfg.Timeout,
		ActiveQueryTracker:       g,
		LookbackDelta:            cfg.LookbackDelta,
		NoStepSubqueryIntervalFn: func(int64) int64 { return cfg.SubqueryStep.Milliseconds() },
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		FeatureRegistry:          a.features,
		Parser:                   a.parser,
	}
	a.parser.RegisterFeatures(a.features)
	for _, name := range []string{"exclude_alerts", "label_values_match", "query_stats", "query_warnings", "time_range_labels", "time_range_series"} {
		a.features.Enable(features.API, name)
	}
	a.engine = NewEngine(opts, PlannerOptions{
		Enabled: cfg.Planner, MinSeries: cfg.PlannerMinSeries, MinSamples: cfg.PlannerMinSamples,
	})
	a.engine.memory = cfg.Memory
	a.engine.observe = func(outcome string) { a.metrics.planned.WithLabelValues(outcome).Inc() }
	a.query = a.handler(a.serveQuery)
	return a, nil
}

// Close releases the engine.
func (a *API) Close() error { return a.engine.Close() }

// ServeQuery serves /api/v1/query, GET and form POST, a path that is shared with
// the native API and therefore dispatched outside.
func (a *API) ServeQuery(w http.ResponseWriter, r *http.Request) { a.query.ServeHTTP(w, r) }

// handler wraps f into the envelope and compression.
func (a *API) handler(f func(*http.Request) (answer, *apiError)) http.Handler {
	return a.compress(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ans, apiErr := f(r)
		if ans.done != nil {
			defer ans.done()
		}
		if apiErr != nil {
			a.writeError(w, apiErr)
			return
		}
		a.writeAnswer(w, ans)
	}))
}

// Register adds every route but /api/v1/query, and the whole API again under
// /prometheus.
func (a *API) Register(r *mux.Router) {
	a.routes(r, "/api/v1")
	a.routes(r, "/prometheus/api/v1")
	r.Handle("/prometheus/api/v1/query", a.query).Methods(http.MethodGet, http.MethodPost)
	r.Handle("/federate", a.compress(http.HandlerFunc(a.serveFederate))).Methods(http.MethodGet)
	r.Handle("/prometheus/federate", a.compress(http.HandlerFunc(a.serveFederate))).Methods(http.MethodGet)
}

func (a *API) routes(r *mux.Router, prefix string) {
	both := func(path string, f func(*http.Request) (answer, *apiError)) {
		r.Handle(prefix+path, a.handler(f)).Methods(http.MethodGet, http.MethodPost)
	}
	get := func(path string, f func(*http.Request) (answer, *apiError)) {
		r.Handle(prefix+path, a.handler(f)).Methods(http.MethodGet)
	}
	both("/query_range", a.serveQueryRange)
	both("/query_exemplars", a.serveExemplars)
	both("/format_query", a.serveFormatQuery)
	both("/parse_query", a.serveParseQuery)
	both("/labels", a.serveLabelNames)
	both("/series", a.serveSeries)
	get("/label/{name}/values", a.serveLabelValues)
	get("/metadata", a.serveMetadata)
	get("/rules", a.serveRules)
	get("/alerts", a.serveAlerts)
	get("/targets", a.serveTargets)
	get("/targets/metadata", a.serveTargetMetadata)
	get("/scrape_pools", a.serveScrapePools)
	get("/alertmanagers", a.serveAlertmanagers)
	get("/notifications", a.serveNotifications)
	get("/features", a.serveFeatures)
	get("/status/buildinfo", a.serveBuildInfo)
	get("/status/runtimeinfo", a.serveRuntimeInfo)
	get("/status/flags", a.serveFlags)
	get("/status/config", a.serveConfig)
	get("/status/tsdb", a.serveTSDBStatus)
	get("/status/walreplay", a.serveWALReplay)
	r.Handle(prefix+"/admin/tsdb/delete_series", a.handler(a.serveDeleteSeries)).Methods(http.MethodPost, http.MethodPut)
}
