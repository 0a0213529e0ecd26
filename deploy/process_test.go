package deploy

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

// binDir holds the binaries that tests build, for the life of the test binary.
var binDir string

func TestMain(m *testing.M) {
	code := 0
	dir, err := os.MkdirTemp("", "luminate-deploy-")
	if err != nil {
		panic(err)
	}
	binDir = dir
	defer func() { os.Exit(code) }()
	defer os.RemoveAll(dir)
	if code = m.Run(); code == 0 {
		http.DefaultClient.CloseIdleConnections()
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines are left:", err)
			code = 1
		}
	}
}

// binary builds a program of ours once.
func binary(t *testing.T, name string) string {
	t.Helper()
	path, err := binaries[name]()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var binaries = map[string]func() (string, error){
	"luminate":       sync.OnceValues(func() (string, error) { return buildProgram("luminate") }),
	"luminate-bench": sync.OnceValues(func() (string, error) { return buildProgram("luminate-bench") }),
}

func buildProgram(name string) (string, error) {
	path := filepath.Join(binDir, name)
	if out, err := exec.Command("go", "build", "-o", path, "../cmd/"+name).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", name, err, out)
	}
	return path, nil
}

// process is a server that a test started.
type process struct {
	t      *testing.T
	url    string
	cmd    *exec.Cmd
	log    lockedBuffer
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

// startLuminate runs the real server and waits until it is ready.
func startLuminate(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	addr := freeAddress(t)
	argv := append([]string{binary(t, "luminate"), "serve", "--server.listen", addr,
		"--storage.badger.dir", filepath.Join(t.TempDir(), "data"), "--log.format", "text"}, args...)
	return startProcess(t, "http://"+addr, "/readyz", env, argv...)
}

// startProcess runs argv and waits until ready answers 200; the process ends with
// the test.
func startProcess(t *testing.T, url, ready string, env []string, argv ...string) *process {
	t.Helper()
	p := &process{t: t, url: url, exited: make(chan struct{})}
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(p.stop)
	eventually(t, time.Minute, func() error {
		select {
		case <-p.exited:
			t.Fatalf("%s ended:\n%s", argv[0], p.log.String())
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

// stop ends the process in order; it may be called twice.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(time.Minute):
		_ = p.cmd.Process.Kill()
		<-p.exited
		p.t.Errorf("%s did not stop within a minute:\n%s", p.cmd.Path, p.log.String())
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

// do sends a request; headers are pairs of name and value.
func do(ctx context.Context, method, url string, body []byte, headers ...string) (status int, answer string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, strings.TrimSpace(string(b)), err
}
