package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	code := 0
	dir, err := os.MkdirTemp("", "luminate-test-")
	if err != nil {
		panic(err)
	}
	binDir = dir
	defer func() { os.Exit(code) }()
	defer os.RemoveAll(dir)
	if code = m.Run(); code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines are left:", err)
			code = 1
		}
	}
}

// binDir holds the binaries that tests build, for the life of the test binary.
var binDir string

var luminateBinary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binDir, "luminate")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// prometheusBinary finds or builds the real Prometheus that `make prometheus`
// installs.
var prometheusBinary = sync.OnceValues(func() (string, error) {
	if p := os.Getenv("LUMINATE_TEST_PROMETHEUS"); p != "" {
		return p, nil
	}
	gopath, err := exec.Command("go", "env", "GOPATH").Output()
	if err != nil {
		return "", err
	}
	path := filepath.Join(strings.TrimSpace(string(gopath)), "bin", "prometheus")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	cmd := exec.Command("go", "install", "-tags", "remove_all_sd,netgo", "github.com/prometheus/prometheus/cmd/prometheus@v0.316.0")
	cmd.Dir = binDir // outside the module, so that its replacements do not count
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build Prometheus: %w\n%s", err, out)
	}
	return path, nil
})

// process is a server that a test started.
type process struct {
	t      *testing.T
	url    string
	cmd    *exec.Cmd
	log    *lockedBuffer
	exited chan struct{}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
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

// startProcess runs argv and waits until ready answers 200; the process ends with
// the test.
func startProcess(t *testing.T, url, ready string, env []string, argv ...string) *process {
	t.Helper()
	p := &process{t: t, url: url, log: &lockedBuffer{}, exited: make(chan struct{})}
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() { p.stop(syscall.SIGTERM) })
	eventually(t, time.Minute, func() error {
		select {
		case <-p.exited:
			t.Fatalf("%s ended:\n%s", argv[0], p.log)
		default:
		}
		resp, err := http.Get(url + ready)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("not ready: %s", resp.Status)
		}
		return nil
	})
	return p
}

// stop signals the process and waits for its end; it may be called twice.
func (p *process) stop(sig syscall.Signal) {
	select {
	case <-p.exited:
		return
	default:
	}
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.exited:
	case <-time.After(time.Minute):
		_ = p.cmd.Process.Kill()
		<-p.exited
		p.t.Errorf("%s did not stop on %s within a minute:\n%s", p.cmd.Path, sig, p.log)
	}
}

// eventually repeats check until it returns nil.
func eventually(t *testing.T, within time.Duration, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("after %s: %v", within, err)
		case <-tick.C:
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

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
