package badger

import (
	"log/slog"
	"os"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashChildEnv); dir != "" {
		os.Exit(crashChild(dir))
	}
	goleak.VerifyTestMain(m,
		// glog, which Badger's dependencies import, flushes for ever.
		goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
		// opencensus, of the same origin, starts its worker on import.
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"),
	)
}

// testConfig keeps nothing waiting and does not care how full the disk is.
func testConfig(dir string) Config {
	cfg := DefaultConfig()
	cfg.Dir = dir
	cfg.MinFreeBytes = 0
	return cfg
}

func openTest(t testing.TB, cfg Config) *DB {
	t.Helper()
	db, err := Open(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return db
}

func reopenTest(t testing.TB, s storage.Store) storage.Store {
	t.Helper()
	cfg := s.(*DB).cfg
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	return openTest(t, cfg)
}

func TestConformance(t *testing.T) {
	storagetest.Run(t, func(t testing.TB) storage.Store {
		return openTest(t, testConfig(t.TempDir()))
	}, storagetest.Options{Reopen: reopenTest})
}

func BenchmarkStore(b *testing.B) {
	storagetest.Bench(b, func(b testing.TB) storage.Store { return openTest(b, testConfig(b.TempDir())) })
}
