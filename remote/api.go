package remote

import (
	"errors"
	"log/slog"
	"net/http"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/luminate/luminate/storage"
)

// API serves the remote protocols over a Store. Its methods are safe for
// concurrent use. Handlers take the tenant from the request's context.
type API struct {
	store    storage.Store
	cfg      Config
	log      *slog.Logger
	metrics  *metrics
	inFlight *semaphore.Weighted // decompressed bytes of writes under way
	readGate chan struct{}       // one token for each read under way
}

// New builds the API. The config must be valid.
func New(store storage.Store, cfg Config, log *slog.Logger, reg prometheus.Registerer) (*API, error) {
	if store == nil || log == nil {
		return nil, errors.New("remote: store and logger are required")
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &API{
		store:    store,
		cfg:      cfg,
		log:      log,
		metrics:  newMetrics(reg),
		inFlight: semaphore.NewWeighted(cfg.MaxInFlightBytes),
		readGate: make(chan struct{}, cfg.Read.Concurrency),
	}, nil
}

// Register adds the routes that are this package's alone. /api/v1/write is shared
// with the native API: the caller dispatches it by IsRemoteWrite to ServeWrite.
func (a *API) Register(r *mux.Router) {
	for _, path := range []string{"/api/v1/push", "/api/prom/push"} {
		r.HandleFunc(path, a.ServeWrite).Methods(http.MethodPost, http.MethodGet, http.MethodHead)
	}
	// Mimir serves remote read below its Prometheus prefix.
	for _, path := range []string{"/api/v1/read", "/prometheus/api/v1/read"} {
		r.HandleFunc(path, a.ServeRead).Methods(http.MethodPost)
	}
	for _, path := range []string{"/api/v1/otlp/v1/metrics", "/otlp/v1/metrics"} {
		r.HandleFunc(path, a.ServeOTLP).Methods(http.MethodPost)
	}
}
