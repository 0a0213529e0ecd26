package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// moodyStore is a store whose health a test sets; it counts how often it is asked.
type moodyStore struct {
	*storagetest.Model
	health storage.Health
	asked  int
}

func (s *moodyStore) Health(ctx context.Context) storage.Health {
	s.asked++
	if err := ctx.Err(); err != nil {
		return storage.Health{Backend: "moody", Status: storage.HealthDown, Error: err.Error()}
	}
	return s.health
}

// probe asks a path and returns status and body.
func probe(h http.Handler, ctx context.Context, path string) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", path, nil))
	return w.Code, w.Body.String()
}

// TestProbes walks through the states of a process: starting, serving, read-only,
// storage down, keys missing, draining.
func TestProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProbes("moody", time.Now())
		store := &moodyStore{Model: storagetest.NewModel(), health: storage.Health{Backend: "moody", Status: storage.HealthOK, DiskUsedBytes: 7}}
		reg := prometheus.NewRegistry()
		cfg := DefaultConfig()
		registerHealth(reg, &cfg, p)
		h := startingHandler(p)
		var keys error
		want := func(state string, live, ready, startup, health int, up float64) {
			t.Helper()
			time.Sleep(healthTTL) // of the bubble: what was cached is too old
			for path, status := range map[string]int{
				"/livez": live, "/-/healthy": live, "/readyz": ready, "/-/ready": ready, "/startupz": startup, "/api/v1/health": health,
			} {
				if got, body := probe(h, t.Context(), path); got != status {
					t.Errorf("%s: %s answers %d %s, want %d", state, path, got, body, status)
				}
			}
			text := fmt.Sprintf("# HELP luminate_up 1 while requests are served: the storage is open and answers, and shutdown has not begun.\n# TYPE luminate_up gauge\nluminate_up %v\n", up)
			if err := testutil.GatherAndCompare(reg, strings.NewReader(text), "luminate_up"); err != nil {
				t.Errorf("%s: %v", state, err)
			}
		}
		p.setProgress("replaying", 42)
		want("starting", 200, 503, 503, 503, 0)
		if _, body := probe(h, t.Context(), "/startupz"); strings.TrimSpace(body) != `{"phase":"replaying","percent":42}` {
			t.Errorf("/startupz while starting: %s", body)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/api/v1/write", nil))
		if w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("a write while starting: %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
		}
		p.serve(store, func() error { return keys })
		want("serving", 200, 200, 200, 200, 1)
		store.health.Status = storage.HealthReadOnly
		want("read-only", 200, 200, 200, 503, 1)
		store.health.Status, store.health.Error = storage.HealthDown, "the cable is cut"
		want("down", 200, 503, 200, 503, 0)
		if _, body := probe(h, t.Context(), "/readyz"); !strings.Contains(body, "the cable is cut") {
			t.Errorf("/readyz does not say why: %s", body)
		}
		store.health.Status, store.health.Error = storage.HealthOK, ""
		keys = errors.New("no keys are loaded")
		want("without keys", 200, 503, 200, 200, 1)
		keys = nil
		want("serving again", 200, 200, 200, 200, 1)
		var a healthAnswer
		if _, body := probe(h, t.Context(), "/api/v1/health"); json.Unmarshal([]byte(body), &a) != nil || a.Status != "ok" || a.Storage.Backend != "moody" ||
			a.Storage.DiskUsedBytes != 7 || a.UptimeSeconds < 1 || a.Version != version {
			t.Errorf("/api/v1/health: %s", body)
		}
		p.drain()
		want("draining", 200, 503, 200, 503, 0)
	})
}

// TestProbesAskSeldom: however many ask, the storage is asked once a second, /livez
// never asks it, and a caller that has gone does not make it look down.
func TestProbesAskSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProbes("moody", time.Now())
		store := &moodyStore{Model: storagetest.NewModel(), health: storage.Health{Backend: "moody", Status: storage.HealthOK}}
		p.serve(store, nil)
		h := startingHandler(p)
		for range 100 {
			probe(h, t.Context(), "/livez")
		}
		if store.asked != 0 {
			t.Errorf("/livez asked the storage %d times", store.asked)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		for i := range 100 {
			for _, path := range []string{"/readyz", "/api/v1/health"} {
				if status, body := probe(h, gone, path); status != 200 {
					t.Fatalf("request %d of one who has gone: %s answers %d %s", i, path, status, body)
				}
			}
		}
		if store.asked != 1 {
			t.Errorf("within a moment the storage was asked %d times", store.asked)
		}
		time.Sleep(healthTTL)
		if probe(h, t.Context(), "/readyz"); store.asked != 2 {
			t.Errorf("after a second more it was asked %d times in all", store.asked)
		}
	})
}
