//go:build e2e

package remote

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/luminate/luminate/internal/proctest"
)

// TestPromtoolPush pushes a file of metrics with the real promtool.
func TestPromtoolPush(t *testing.T) {
	s := newStack(t)
	file := filepath.Join(t.TempDir(), "metrics.txt")
	text := "# TYPE jobs_total counter\njobs_total{queue=\"mail\"} 7\n# TYPE depth gauge\ndepth 3.5\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool, err := proctest.Prometheus("promtool")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), promtool, "push", "metrics", "--label", "job=promtool", s.serve(), file)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "SUCCESS") {
		t.Fatalf("%v\n%s", err, out)
	}
	want := []string{`{__name__="depth", job="promtool"} 3.5`, `{__name__="jobs_total", job="promtool", queue="mail"} 7`}
	if got := s.storedText(); !slices.Equal(got, want) {
		t.Errorf("stored %q", got)
	}
}
