//go:build e2e

package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/luminate/luminate/internal/proctest"
)

// TestPartsStayFew is a minute of what `make parts` does for an hour, at a rate of
// small blocks that merges alone would not keep up with for long.
func TestPartsStayFew(t *testing.T) {
	binary, err := proctest.Build("cmd/luminate")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = runParts(t.Context(), partsOptions{
		processes: 10, duration: time.Minute, interval: 250 * time.Millisecond, samples: 100, look: 2 * time.Second, limit: 300,
		dir: t.TempDir(), binary: binary,
	}, &out)
	t.Logf("%s", out.String())
	if err != nil {
		t.Error(err)
	}
}
