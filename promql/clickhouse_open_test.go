package promql

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/luminate/luminate/storage/clickhouse"
	"github.com/luminate/luminate/storage/clickhouse/chtest"
)

// openClickHouse returns a store in a database of its own.
func openClickHouse(t testing.TB) *clickhouse.Store {
	t.Helper()
	cfg := clickhouse.DefaultConfig()
	cfg.Shards = []string{chtest.DSN(t)}
	cfg.RetentionDays = 0
	cfg.FlushAge = time.Millisecond
	s, err := clickhouse.Open(t.Context(), cfg, discardLog(), prometheus.NewRegistry())
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// FuzzPlannerOnClickHouse is FuzzPlanner for SQL; each input is a database.
func FuzzPlannerOnClickHouse(f *testing.F) {
	f.Add(uint64(100))
	f.Fuzz(func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 13))
		d := newDifferential(t, openClickHouse(t), rng, nil)
		for range 15 {
			d.check(t, rng)
		}
	})
}
