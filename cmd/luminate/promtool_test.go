package main

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/luminate/luminate/internal/proctest"
)

// TestPromtoolChecks: the real promtool finds the server healthy and ready, and
// nothing to complain of in its metrics.
func TestPromtoolChecks(t *testing.T) {
	bin, err := proctest.Prometheus("promtool")
	if err != nil {
		t.Fatal(err)
	}
	lum := startLuminate(t, t.TempDir())
	for _, what := range []string{"healthy", "ready"} {
		out, err := exec.CommandContext(t.Context(), bin, "check", what, "--url="+lum.url).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "SUCCESS") {
			t.Errorf("promtool check %s: %v\n%s", what, err, out)
		}
	}
	_, metrics, _ := do(t, "GET", lum.url+"/metrics", "", "")
	check := exec.CommandContext(t.Context(), bin, "check", "metrics")
	check.Stdin = bytes.NewReader([]byte(metrics))
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}
