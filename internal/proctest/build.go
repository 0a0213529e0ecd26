package proctest

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// PrometheusVersion is the version of Prometheus's module that tests run; the
// Makefile names the same.
const PrometheusVersion = "v0.316.0"

// VictoriaVersion is the version of VictoriaMetrics's module: the newest release that
// Go 1.26 builds. The Makefile names the same.
const VictoriaVersion = "v1.151.0"

// programs are the binaries that a test binary has built, in a folder of their own.
var programs struct {
	mu    sync.Mutex
	dir   string
	paths map[string]string
}

// Main runs the tests of a package and returns the status to exit with: it removes
// what Build has built, and fails when goroutines are left.
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "luminate-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	programs.dir, programs.paths = dir, map[string]string{}
	code := m.Run()
	if code == 0 {
		http.DefaultClient.CloseIdleConnections()
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines are left:", err)
			code = 1
		}
	}
	return code
}

// Build builds a program of ours once and returns its path; pkg is its import path
// below the module.
func Build(pkg string) (string, error) {
	programs.mu.Lock()
	defer programs.mu.Unlock()
	if programs.dir == "" {
		return "", errors.New("TestMain does not call proctest.Main")
	}
	if path, ok := programs.paths[pkg]; ok {
		return path, nil
	}
	path := filepath.Join(programs.dir, filepath.Base(pkg))
	if out, err := exec.Command("go", "build", "-o", path, "github.com/luminate/luminate/"+pkg).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	programs.paths[pkg] = path
	return path, nil
}

// Prometheus returns a program of Prometheus's, "prometheus" or "promtool": the one
// that LUMINATE_TEST_PROMETHEUS or LUMINATE_TEST_PROMTOOL names, else the one in
// GOPATH's bin, which is built there if it is missing.
func Prometheus(name string) (string, error) {
	if p := os.Getenv("LUMINATE_TEST_" + strings.ToUpper(name)); p != "" {
		return p, nil
	}
	return installed(name, "-tags", "remove_all_sd,netgo", "github.com/prometheus/prometheus/cmd/"+name+"@"+PrometheusVersion)
}

// Victoria returns a program of VictoriaMetrics's, such as "vmagent", from the same
// place.
func Victoria(name string) (string, error) {
	return installed(name, "github.com/VictoriaMetrics/VictoriaMetrics/app/"+name+"@"+VictoriaVersion)
}

// installed returns the program in GOPATH's bin; where it is missing, go install with
// args puts it there.
func installed(name string, args ...string) (string, error) {
	programs.mu.Lock() // one build at a time
	defer programs.mu.Unlock()
	gopath, err := exec.Command("go", "env", "GOPATH").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	path := filepath.Join(strings.TrimSpace(string(gopath)), "bin", name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	cmd := exec.Command("go", append([]string{"install"}, args...)...)
	cmd.Dir = os.TempDir() // outside the module, so that its replacements do not count
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return path, nil
}
