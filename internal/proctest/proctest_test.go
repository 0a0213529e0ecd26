package proctest

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// TestBuildStartStop builds a program of ours once, runs it, and ends it twice.
func TestBuildStartStop(t *testing.T) {
	path, err := Build("cmd/luminate")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Build("cmd/luminate"); err != nil || again != path {
		t.Errorf("built again as %s, %v", again, err)
	}
	if _, err := Build("cmd/absent"); err == nil {
		t.Error("a program that is not there was built")
	}
	addr := FreeAddress(t)
	p := Start(t, "http://"+addr, "/livez", nil, path, "serve", "--server.listen", addr, "--storage.badger.dir", t.TempDir())
	p.Stop(syscall.SIGTERM)
	p.Stop(syscall.SIGTERM)
	if code := p.Cmd.ProcessState.ExitCode(); code != 0 || !strings.Contains(p.Log.String(), "luminate starts") {
		t.Errorf("status %d, log:\n%s", code, p.Log)
	}
}

func TestEventuallyTriesAgain(t *testing.T) {
	n := 0
	Eventually(t, time.Minute, func() error {
		if n++; n < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	if n != 3 {
		t.Errorf("%d tries", n)
	}
}

func TestPrometheusOfTheEnvironment(t *testing.T) {
	t.Setenv("LUMINATE_TEST_PROMTOOL", "/x/promtool")
	if p, err := Prometheus("promtool"); err != nil || p != "/x/promtool" {
		t.Errorf("%s, %v", p, err)
	}
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil || !strings.Contains(string(makefile), "PROM_VERSION := "+PrometheusVersion+"\n") {
		t.Errorf("the Makefile installs another version than %s (%v)", PrometheusVersion, err)
	}
	if !strings.Contains(string(makefile), "VICTORIA_VERSION := "+VictoriaVersion+"\n") {
		t.Errorf("the Makefile installs another version than %s", VictoriaVersion)
	}
}
