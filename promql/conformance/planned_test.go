//go:build e2e

package conformance_test

import (
	"testing"

	"github.com/luminate/luminate/promql/conformance"
)

func TestModelPlanned(t *testing.T) {
	t.Parallel()
	conformance.RunPlanned(t, newModel)
}

func TestBadgerPlanned(t *testing.T) {
	t.Parallel()
	conformance.RunPlanned(t, newBadger)
}
