//go:build e2e

package main

import (
	"log/slog"
	"testing"
	"time"

	"github.com/luminate/luminate/storage/clickhouse/chtest"
	"github.com/prometheus/client_golang/prometheus"
)

// TestCanaryOnClickHouse looks for other tenants' canaries on every route, over a
// real ClickHouse.
func TestCanaryOnClickHouse(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Storage.Backend, cfg.Storage.ClickHouse.DSN = "clickhouse", chtest.DSN(t)
	store, _, err := openStore(t.Context(), &cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), newProbes("clickhouse", time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	testCanary(t, store)
}
