//go:build e2e

package main

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/luminate/luminate/internal/proctest"
)

// TestChaosShort runs a few rounds of the chaos that are quick: kills, power cuts, a
// full disk, flipped bits, damaged archives, ClickHouse away, a jumping clock and
// hostile clients. What the machine cannot do is skipped, by name.
func TestChaosShort(t *testing.T) {
	binary, err := proctest.Build("cmd/luminate")
	if err != nil {
		t.Fatal(err)
	}
	o := chaosOptions{
		rounds: 5, cuts: 2, flips: 6, archives: 8, chCuts: 4, jumps: 30, seed: 7, binary: binary, dir: t.TempDir(), timeout: 8 * time.Minute,
		only: []string{"kill", "power", "disk", "flips", "backups", "clickhouse", "clock", "bombs"},
	}
	var notes bytes.Buffer
	r, err := runChaos(t.Context(), o, &notes)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Scenarios) != len(o.only) {
		t.Fatalf("%d scenarios ran, want %d", len(r.Scenarios), len(o.only))
	}
	for _, s := range r.Scenarios {
		t.Run(s.Name, func(t *testing.T) {
			b, err := json.MarshalIndent(s, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			switch s.Result {
			case passed:
				t.Logf("%s", b)
			case notRun:
				t.Skipf("%s", b)
			default:
				t.Errorf("%s", b)
			}
		})
	}
}
