//go:build e2e

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// complianceModule is the remote write receiver suite of prometheus/compliance, pinned
// by the module proxy.
const complianceModule = "github.com/prometheus/compliance/remotewrite/receiver@v0.0.0-20260806071727-67b8327a2e93"

// TestRemoteWriteCompliance runs Prometheus's own compliance suite for receivers of
// remote write against the real binary. The suite is a test package whose go.mod names
// another path than it is published under, so it is run in a copy.
func TestRemoteWriteCompliance(t *testing.T) {
	lum := startLuminate(t, t.TempDir())
	dir := t.TempDir()
	suite := filepath.Join(dir, "suite")
	if err := os.CopyFS(suite, os.DirFS(downloadModule(t, complianceModule))); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("remote_write:\n  - {name: luminate, url: '%s/api/v1/write', headers: {X-Scope-OrgID: compliance}}\n", lum.url)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-json", ".")
	cmd.Dir = suite
	cmd.Env = append(os.Environ(), "PROMETHEUS_RW2_COMPLIANCE_CONFIG_FILE="+config, "GOFLAGS=-mod=mod", "GOWORK=off")
	out, err := cmd.Output()
	passed, failed := 0, 0
	text = ""
	for line := range strings.Lines(string(out)) {
		var event struct{ Action, Test, Output string }
		if json.Unmarshal([]byte(line), &event) != nil || event.Test == "" {
			continue
		}
		switch event.Action {
		case "pass":
			passed++
		case "fail":
			failed++
		case "output":
			text += event.Output
		}
	}
	t.Logf("compliance of the remote write receiver: %d passed, %d failed", passed, failed)
	if err != nil || failed > 0 || passed < 50 {
		t.Errorf("%v\n%s", err, text)
	}
}

// downloadModule returns the folder of a module in the module cache.
func downloadModule(t *testing.T, module string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module)
	cmd.Dir = os.TempDir() // outside the module
	out, err := cmd.Output()
	var answer struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &answer); err != nil || jsonErr != nil || answer.Dir == "" {
		t.Fatalf("download %s: %v %v %s", module, err, jsonErr, answer.Error)
	}
	return answer.Dir
}
