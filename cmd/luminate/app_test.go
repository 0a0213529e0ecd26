package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/luminate/luminate/storage"
)

// TestFailedStartLeavesNoMark: a start that was refused because of a limits file
// ended in order, and the next one must not tell of a crash.
func TestFailedStartLeavesNoMark(t *testing.T) {
	dir := t.TempDir()
	limits := filepath.Join(t.TempDir(), "limits.yaml")
	if err := os.WriteFile(limits, []byte("tenants: [nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Server.Listen, cfg.Storage.Badger.Dir, cfg.Limits.File = "127.0.0.1:0", dir, limits
	if err := serve(t.Context(), &cfg, slog.New(slog.DiscardHandler), nil); err == nil || !strings.Contains(err.Error(), limits) {
		t.Fatalf("serve with a broken limits file: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, runningFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mark of a running process is left: %v", err)
	}
}

// TestExposedListenerWarns: a listener that everybody may use is written out in the
// configuration, and told in the log at every start.
func TestExposedListenerWarns(t *testing.T) {
	f := func(listen string, secret string, want bool) {
		t.Helper()
		var out bytes.Buffer
		cfg := DefaultConfig()
		cfg.Server.Listen, cfg.Server.AllowUnauthenticated, cfg.Auth.JWTSecret = listen, true, secret
		cfg.Server.DrainDelay, cfg.Storage.Badger.Dir = 0, t.TempDir()
		stopped, stop := context.WithCancel(t.Context())
		stop() // it starts, and drains at once
		if err := serve(stopped, &cfg, slog.New(slog.NewTextHandler(&out, nil)), nil); err != nil {
			t.Fatalf("%s: %v", listen, err)
		}
		if got := strings.Contains(out.String(), "level=WARN msg=\"authentication is off"); got != want {
			t.Errorf("%s: warned is %t, want %t:\n%s", listen, got, want, &out)
		}
	}
	f("0.0.0.0:0", "", true)
	f(":0", "", true)
	f("127.0.0.1:0", "", false)
	f("0.0.0.0:0", strings.Repeat("s", 32), false)
}

// closingStore is a store whose Close fails.
type closingStore struct {
	storage.Store
	err error
}

func (s closingStore) Close() error { return s.err }

func TestCloseKeepsTheMarkOfAStoreThatDidNotClose(t *testing.T) {
	want := errors.New("disk is full")
	a := &app{store: closingStore{err: want}, done: func() error { t.Error("the mark is removed"); return nil }}
	if err := a.close(); !errors.Is(err, want) {
		t.Errorf("close: %v", err)
	}
}

// contextStore is healthy as long as its caller waits.
type contextStore struct{ storage.Store }

func (contextStore) Health(ctx context.Context) storage.Health {
	if err := ctx.Err(); err != nil {
		return storage.Health{Status: storage.HealthDown, Error: err.Error()}
	}
	return storage.Health{Status: storage.HealthOK}
}

// TestCallerWhoLeavesDoesNotSpoilHealth: a probe that gives up early must not make
// the cached answer "down" for those who ask next.
func TestCallerWhoLeavesDoesNotSpoilHealth(t *testing.T) {
	p := newProbes("badger", time.Now())
	p.serve(contextStore{}, nil)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, ctx := range []context.Context{gone, t.Context()} {
		w := httptest.NewRecorder()
		p.readyz(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/readyz", nil))
		if w.Code != http.StatusOK {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}
