//go:build e2e

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/luminate/luminate/internal/proctest"
)

// TestCompareOnClickHouse measures the binary before an engine that compare starts, on
// a fiftieth of the million.
func TestCompareOnClickHouse(t *testing.T) {
	path, err := proctest.Build("cmd/luminate")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOBIN", filepath.Dir(path))
	if err := command(t.Context(), compareCommand(), "--peers", "luminate-clickhouse", "--scenarios", "million", "--scale", "0.02", "--repeat", "1"); err != nil {
		t.Error(err)
	}
}

// TestCompareAndGrowth runs every scenario on a fiftieth of the data, and looks for
// each figure in the report.
func TestCompareAndGrowth(t *testing.T) {
	path, err := proctest.Build("cmd/luminate")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOBIN", filepath.Dir(path))
	report := filepath.Join(t.TempDir(), "figures.json")
	if err := command(t.Context(), compareCommand(), "--peers", "luminate,luminate-auth", "--scale", "0.02", "--repeat", "1", "--json", report); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var rows []row
	if err := json.Unmarshal(text, &rows); err != nil {
		t.Fatal(err)
	}
	byScenario := map[string]int{}
	for _, r := range rows {
		byScenario[r.Scenario]++
		for _, peer := range []string{"luminate", "luminate-auth"} {
			if v, ok := r.Values[peer]; !ok || v < 0 {
				t.Errorf("%s, %s: %v of %s", r.Scenario, r.Figure, v, peer)
			}
		}
	}
	if byScenario["ingest"] < 5 || byScenario["million"] < 10 || byScenario["day"] < 1 {
		t.Errorf("figures by scenario: %v", byScenario)
	}
	for part, scale := range map[string]string{"series": "0.002", "hours": "0.01"} {
		if err := command(t.Context(), growthCommand(), "--only", part, "--scale", scale, "--repeat", "1"); err != nil {
			t.Errorf("growth by %s: %v", part, err)
		}
	}
	if err := command(t.Context(), compareCommand(), "--peers", "nobody"); err == nil {
		t.Error("an unknown peer is measured")
	}
}
