package main

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/luminate/luminate/storage"
)

// healthTTL is how long the backend's health is cached, so that probes cannot
// load it.
const healthTTL = time.Second

// healthTimeout bounds one look at the backend, within the probes' own timeouts.
const healthTimeout = 2 * time.Second

// probes answers /livez, /readyz, /startupz and /api/v1/health. The store is set
// once recovery is finished; before, startup tells how far it has come.
type probes struct {
	started time.Time
	backend string

	draining atomic.Bool
	progress atomic.Pointer[startProgress]

	mu      sync.Mutex
	store   storage.Store
	health  storage.Health
	checked time.Time
	ready   func() error // keys loaded, and the like
}

// startProgress is the body of /startupz.
type startProgress struct {
	Phase   string `json:"phase"`
	Percent int    `json:"percent"`
}

func newProbes(backend string, now time.Time) *probes {
	p := &probes{started: now, backend: backend}
	p.progress.Store(&startProgress{Phase: "opening"})
	return p
}

// setProgress tells a phase of recovery, such as "replaying", and its percentage.
func (p *probes) setProgress(phase string, percent int) {
	p.progress.Store(&startProgress{Phase: phase, Percent: percent})
}

// serve tells that recovery is finished and st answers from now on; ready is
// asked by /readyz on top of the store's health.
func (p *probes) serve(st storage.Store, ready func() error) {
	p.mu.Lock()
	p.store, p.ready = st, ready
	p.mu.Unlock()
	p.progress.Store(&startProgress{Phase: "ready", Percent: 100})
}

// drain makes /readyz answer 503 from now on.
func (p *probes) drain() { p.draining.Store(true) }

// check returns the store's health, at most healthTTL old.
func (p *probes) check(ctx context.Context) storage.Health {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.store == nil {
		return storage.Health{Backend: p.backend, Status: storage.HealthDown, Error: "storage is starting: " + p.progress.Load().Phase}
	}
	if time.Since(p.checked) >= healthTTL {
		// The answer is shared, so that a caller who goes away must not spoil it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healthTimeout)
		defer cancel()
		p.health, p.checked = p.store.Health(ctx), time.Now()
	}
	return p.health
}

// livez answers as long as the process does; it never asks the backend.
func (p *probes) livez(w http.ResponseWriter, _ *http.Request) {
	writeText(w, http.StatusOK, "ok\n")
}

// readyz answers 200 when requests can be served: the storage is open and
// reachable, and shutdown has not begun. A read-only store is ready: it answers
// queries, and says 503 to writes itself.
func (p *probes) readyz(w http.ResponseWriter, r *http.Request) {
	if p.draining.Load() {
		writeText(w, http.StatusServiceUnavailable, "shutting down\n")
		return
	}
	h := p.check(r.Context())
	if h.Status == storage.HealthDown {
		writeText(w, http.StatusServiceUnavailable, "storage: "+h.Error+"\n")
		return
	}
	p.mu.Lock()
	ready := p.ready
	p.mu.Unlock()
	if ready != nil {
		if err := ready(); err != nil {
			writeText(w, http.StatusServiceUnavailable, err.Error()+"\n")
			return
		}
	}
	writeText(w, http.StatusOK, "ready\n")
}

// startupz tells how far recovery has come.
func (p *probes) startupz(w http.ResponseWriter, _ *http.Request) {
	status, progress := http.StatusOK, p.progress.Load()
	if progress.Phase != "ready" {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, progress)
}

// healthAnswer is the body of /api/v1/health.
type healthAnswer struct {
	Status        string        `json:"status"`
	Version       string        `json:"version"`
	UptimeSeconds int64         `json:"uptimeSeconds"`
	Storage       healthStorage `json:"storage"`
}

type healthStorage struct {
	Backend       string `json:"backend"`
	Status        string `json:"status"`
	DiskUsedBytes uint64 `json:"diskUsedBytes"`
	Error         string `json:"error"`
}

func (p *probes) healthz(w http.ResponseWriter, r *http.Request) {
	h := p.check(r.Context())
	a := healthAnswer{
		Status: string(h.Status), Version: version, UptimeSeconds: int64(time.Since(p.started).Seconds()),
		Storage: healthStorage{Backend: h.Backend, Status: string(h.Status), DiskUsedBytes: h.DiskUsedBytes, Error: h.Error},
	}
	status := http.StatusOK
	if h.Status != storage.HealthOK {
		status = http.StatusServiceUnavailable
	}
	if p.draining.Load() {
		a.Status, status = "shutting_down", http.StatusServiceUnavailable
	}
	writeJSON(w, status, a)
}

func writeText(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body))
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may have gone
}
