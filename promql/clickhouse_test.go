//go:build e2e

package promql

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/luminate/luminate/storage/clickhouse"
	"github.com/luminate/luminate/storage/clickhouse/chtest"
)

// TestPlannedIsUnplannedOnClickHouse is TestPlannedIsUnplanned for SQL.
func TestPlannedIsUnplannedOnClickHouse(t *testing.T) {
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
	runDifferential(t, s, nil, 0, 200)
}
