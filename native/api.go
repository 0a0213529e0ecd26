package native

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/mux"
	"github.com/klauspost/compress/gzhttp"
	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/luminate/luminate/storage"
)

// API is the native JSON API over a store. Its methods are safe for concurrent
// use.
type API struct {
	store    storage.Store
	cfg      Config
	log      *slog.Logger
	metrics  *metrics
	refusals *Refusals
	started  time.Time
	clock    func() time.Time
	writers  sync.Pool // of *writer
	// compressed answers queries, with gzip or zstd where the client takes it.
	compressed http.Handler
}

// minCompressed is the answer size from which compression pays.
const minCompressed = 1024

// New returns an API over store. Handlers take the tenant from the request's
// context (package tenancy) and pass that context to the store.
func New(store storage.Store, cfg Config, log *slog.Logger, reg prometheus.Registerer) (*API, error) {
	if store == nil || log == nil {
		return nil, errors.New("native: a store and a logger are needed")
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	a := &API{
		store: store, cfg: cfg, log: log, metrics: newMetrics(reg), refusals: cfg.Refusals,
		started: time.Now(), clock: time.Now,
		writers: sync.Pool{New: func() any { return new(writer) }},
	}
	compress, err := gzhttp.NewWrapper(gzhttp.MinSize(minCompressed), gzhttp.CompressionLevel(gzip.BestSpeed))
	if err != nil {
		return nil, fmt.Errorf("native: build the compressing handler: %w", err)
	}
	a.compressed = compress(http.HandlerFunc(a.queryHandler))
	if a.refusals == nil {
		a.refusals = NewRefusals()
	}
	return a, nil
}

// Refusals returns the ring of refusals that the API feeds and shows, for other
// write protocols to feed too.
func (a *API) Refusals() *Refusals { return a.refusals }

// handler is a handler that leaves its errors to the API's one mapping.
type handler func(w http.ResponseWriter, r *http.Request) error

type route struct {
	method, path string
	handler      handler
}

// routes lists the routes that are this API's alone.
func (a *API) routes() []route {
	const get, post, del, put = http.MethodGet, http.MethodPost, http.MethodDelete, http.MethodPut
	return []route{
		{get, "/", a.servePage},
		{get, "/api/v1/openapi.yaml", a.serveOpenAPI},
		{get, "/api/v1/whoami", a.serveWhoami},
		{get, "/api/v1/refused", a.serveRefused},
		{get, "/api/v1/metrics", a.serveMetrics},
		{get, "/api/v1/metrics/{name}/dimensions", a.serveDimensions},
		{get, "/api/v1/metrics/{name}/dimensions/{key}/values", a.serveValues},
		{get, "/api/v1/cardinality/metrics", a.serveCardinalityMetrics},
		{get, "/api/v1/cardinality/label_names", a.serveCardinalityNames},
		{get, "/api/v1/cardinality/label_values", a.serveCardinalityValues},
		{get, "/api/v1/cardinality/active_series", a.serveActiveSeries},
		{get, "/api/v1/admin/retention", a.serveRetention},
		{post, "/api/v1/admin/retention", a.serveSetRetention},
		{del, "/api/v1/admin/retention", a.serveRemoveRetention},
		{get, "/api/v1/admin/tenants", a.serveTenants},
		{del, "/api/v1/admin/tenants/{tenant}", a.serveDeleteTenant},
		{del, "/api/v1/admin/metrics/{name}", a.serveDeleteMetric},
		{get, "/api/v1/admin/deletes/{id}", a.serveDeleteStatus},
		{post, "/api/v1/admin/cleanup", a.serveCleanup},
		{post, "/api/v1/admin/backup", a.serveBackup},
		{get, "/api/v1/admin/limits/{tenant}", a.serveLimits},
		{put, "/api/v1/admin/limits/{tenant}", a.serveSetLimits},
	}
}

// Register adds the routes that are this API's alone; ServeWrite and ServeQuery
// share their paths with others and are dispatched by the program.
func (a *API) Register(r *mux.Router) {
	for _, x := range a.routes() {
		r.HandleFunc(x.path, func(w http.ResponseWriter, req *http.Request) {
			if err := x.handler(w, req); err != nil {
				a.fail(w, req, err, surfaceQuery)
			}
		}).Methods(x.method)
	}
}
