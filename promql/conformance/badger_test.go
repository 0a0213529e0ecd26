package conformance_test

import (
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/luminate/luminate/promql/conformance"
	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger"
)

// newBadger opens an empty store that keeps samples of any time.
func newBadger(t testing.TB) storage.Store {
	t.Helper()
	cfg := badger.DefaultConfig()
	cfg.Dir = t.TempDir()
	cfg.RetentionDays = 0
	cfg.FutureLimit = 0
	cfg.MinFreeBytes = 0
	db, err := badger.Open(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return db
}

func TestBadger(t *testing.T) {
	t.Parallel() // it waits for the disk most of the time
	conformance.Run(t, newBadger)
}
