//go:build e2e && long

package conformance_test

import (
	"testing"

	"github.com/luminate/luminate/promql/conformance"
)

// TestClickHousePlanned runs the scripts with everything pushed into ClickHouse.
// It takes as long as TestClickHouse again: `make e2e-long`.
func TestClickHousePlanned(t *testing.T) { conformance.RunPlanned(t, openClickHouse(t)) }
