//go:build e2e

package promql

import "testing"

// TestPlannedIsUnplannedOnClickHouse is TestPlannedIsUnplanned for SQL.
func TestPlannedIsUnplannedOnClickHouse(t *testing.T) {
	runDifferential(t, openClickHouse(t), nil, 0, 200)
}
