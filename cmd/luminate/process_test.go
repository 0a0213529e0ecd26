package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/luminate/luminate/internal/proctest"
)

func TestMain(m *testing.M) { os.Exit(proctest.Main(m)) }

func luminateBinary() (string, error) { return proctest.Build("cmd/luminate") }

func prometheusBinary() (string, error) { return proctest.Prometheus("prometheus") }

// lockedBuffer is safe for a logger and a test at a time.
type lockedBuffer = proctest.Log

// process is a server that a test started.
type process struct {
	*proctest.Process
	url    string
	cmd    *exec.Cmd
	log    *proctest.Log
	exited chan struct{}
}

// startLuminate runs the real binary over dir and waits until it is ready.
func startLuminate(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	bin, err := luminateBinary()
	if err != nil {
		t.Fatal(err)
	}
	addr := freeAddress(t)
	argv := append([]string{bin, "serve", "--server.listen", addr, "--storage.badger.dir", dir, "--log.format", "text"}, args...)
	return startProcess(t, "http://"+addr, "/readyz", nil, argv...)
}

func startProcess(t *testing.T, url, ready string, env []string, argv ...string) *process {
	t.Helper()
	p := proctest.Start(t, url, ready, env, argv...)
	return &process{Process: p, url: p.URL, cmd: p.Cmd, log: p.Log, exited: p.Exited}
}

func (p *process) stop(sig syscall.Signal) { p.Stop(sig) }

func eventually(t *testing.T, within time.Duration, check func() error) {
	t.Helper()
	proctest.Eventually(t, within, check)
}

func freeAddress(t *testing.T) string { return proctest.FreeAddress(t) }

// do sends a request and returns status and body.
func do(t *testing.T, method, url, contentType, body string, headers ...string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

// peakMemory returns a process's greatest resident size in bytes.
func peakMemory(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(b)
	if found == nil {
		t.Fatal("no VmHWM")
	}
	kib, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
