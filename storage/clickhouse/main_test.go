package clickhouse_test

import (
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/clickhouse"
	"github.com/luminate/luminate/storage/clickhouse/chtest"
	"github.com/luminate/luminate/storage/storagetest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Toxiproxy leaves the pipes of connections that it cut off.
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/stream.(*ChanWriter).Write"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).write"),
	)
}

// testConfig is the default with a flush age that makes single appends quick.
func testConfig(dsns ...string) clickhouse.Config {
	c := clickhouse.DefaultConfig()
	c.Shards = dsns
	c.FlushAge = time.Millisecond
	c.ReadConns, c.WriteConns = 4, 2
	return c
}

func open(t testing.TB, cfg clickhouse.Config) *clickhouse.Store {
	t.Helper()
	s, err := clickhouse.Open(t.Context(), cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	chtest.Start(t)
	configs := map[storage.Store]clickhouse.Config{}
	storagetest.Run(t, func(t testing.TB) storage.Store {
		cfg := testConfig(chtest.DSN(t))
		if os.Getenv(chtest.EnvDSN) == "" { // a server of our own may write here
			cfg.BackupTo = "File('" + t.TempDir() + "')"
		}
		s := open(t, cfg)
		configs[s] = cfg
		return s
	}, storagetest.Options{
		Reopen: func(t testing.TB, s storage.Store) storage.Store {
			if err := s.Close(); err != nil {
				t.Fatalf("close: %v", err)
			}
			again := open(t, configs[s])
			configs[again] = configs[s]
			return again
		},
		RandomOps: 25,
	})
}

func BenchmarkStore(b *testing.B) {
	chtest.Start(b)
	storagetest.Bench(b, func(b testing.TB) storage.Store { return open(b, testConfig(chtest.DSN(b))) })
}
