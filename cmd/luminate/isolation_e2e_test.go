//go:build e2e

package main

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/luminate/luminate/storage/clickhouse/chtest"
	"github.com/prometheus/client_golang/prometheus"
)

// isolationRounds bounds the pairs of tenants that are tried on the engine; each takes
// several deletions.
const isolationRounds = 24

// TestTenantIsolationOnClickHouse is FuzzTenantIsolation on a real ClickHouse, over its
// seeds and a fixed number of pairs of ids of which one continues the other, or differs in
// a letter's case or a sign.
func TestTenantIsolationOnClickHouse(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Storage.Backend, cfg.Storage.ClickHouse.DSN = "clickhouse", chtest.DSN(t)
	store, _, err := openStore(t.Context(), &cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), newProbes("clickhouse", time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	pairs := isolationSeeds
	r := rand.New(rand.NewPCG(5, 3))
	const letters = "aA0_.-"
	id := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = letters[r.IntN(len(letters))]
		}
		return string(b)
	}
	for len(pairs) < isolationRounds {
		x, tail := "t"+id(r.IntN(4)), id(1+r.IntN(3))
		pairs = append(pairs, [4]string{x, x + tail, tail + x, tail + "\\'%_\x00"})
	}
	for i, p := range pairs {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if !canBeStored(p[0], p[1], p[2], p[3]) {
				t.Fatalf("%q cannot be stored: nothing is tried", p)
			}
			isolated(t, store, p[0], p[1], p[2], p[3])
		})
	}
}
