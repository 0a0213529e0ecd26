//go:build e2e

package conformance_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/luminate/luminate/promql/conformance"
	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/clickhouse"
	"github.com/luminate/luminate/storage/clickhouse/chtest"
)

// kept is a store that outlives the tests that close it.
type kept struct{ storage.Store }

func (kept) Close() error { return nil }

// openClickHouse returns a function that hands out one store in a database of its
// own: tenants keep the tests apart, and creating tables for each would take most
// of the time.
func openClickHouse(t *testing.T) func(testing.TB) storage.Store {
	t.Helper()
	cfg := clickhouse.DefaultConfig()
	cfg.Shards = []string{chtest.DSN(t)}
	cfg.RetentionDays, cfg.FutureLimit = 0, 0
	cfg.FlushAge = time.Millisecond // a single append need not wait for company
	cfg.ReadConns, cfg.WriteConns = 4, 2
	s, err := clickhouse.Open(t.Context(), cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return func(testing.TB) storage.Store { return kept{s} }
}

func TestClickHouse(t *testing.T) { conformance.Run(t, openClickHouse(t)) }
