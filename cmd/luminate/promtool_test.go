package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// promtoolBinary finds the promtool that `make promtool` installs.
func promtoolBinary(t *testing.T) string {
	t.Helper()
	if p, err := exec.LookPath("promtool"); err == nil {
		return p
	}
	gopath, err := exec.Command("go", "env", "GOPATH").Output()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(strings.TrimSpace(string(gopath)), "bin", "promtool")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	cmd := exec.Command("go", "install", "-tags", "remove_all_sd,netgo", "github.com/prometheus/prometheus/cmd/promtool@v0.316.0")
	cmd.Dir = binDir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build promtool: %v\n%s", err, out)
	}
	return path
}

// TestPromtoolChecks: the real promtool finds the server healthy and ready, and
// nothing to complain of in its metrics.
func TestPromtoolChecks(t *testing.T) {
	bin := promtoolBinary(t)
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
