package deploy

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/luminate/luminate/internal/proctest"
)

func TestMain(m *testing.M) { os.Exit(proctest.Main(m)) }

// binary builds a program of ours once.
func binary(t *testing.T, name string) string {
	t.Helper()
	path, err := proctest.Build("cmd/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// process is a server that a test started.
type process struct {
	*proctest.Process
	url string
	log *proctest.Log
}

// startLuminate runs the real server and waits until it is ready.
func startLuminate(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	addr := freeAddress(t)
	argv := append([]string{binary(t, "luminate"), "serve", "--server.listen", addr,
		"--storage.badger.dir", filepath.Join(t.TempDir(), "data"), "--log.format", "text"}, args...)
	return startProcess(t, "http://"+addr, "/readyz", env, argv...)
}

func startProcess(t *testing.T, url, ready string, env []string, argv ...string) *process {
	t.Helper()
	p := proctest.Start(t, url, ready, env, argv...)
	return &process{Process: p, url: p.URL, log: p.Log}
}

func eventually(t *testing.T, within time.Duration, check func() error) {
	t.Helper()
	proctest.Eventually(t, within, check)
}

func freeAddress(t *testing.T) string { return proctest.FreeAddress(t) }

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
