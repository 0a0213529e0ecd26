//go:build e2e

package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestPartsStayFew is a minute of what `make parts` does for an hour, at a rate of
// small blocks that merges alone would not keep up with for long.
func TestPartsStayFew(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "luminate")
	if out, err := exec.Command("go", "build", "-o", binary, "../luminate").CombinedOutput(); err != nil {
		t.Fatalf("build luminate: %v\n%s", err, out)
	}
	var out bytes.Buffer
	err := runParts(t.Context(), partsOptions{
		processes: 10, duration: time.Minute, interval: 250 * time.Millisecond, samples: 100, look: 2 * time.Second, limit: 300,
		dir: t.TempDir(), binary: binary,
	}, &out)
	t.Logf("%s", out.String())
	if err != nil {
		t.Error(err)
	}
}
