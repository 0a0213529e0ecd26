package proctest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a process may take to become ready, and to stop.
const patience = time.Minute

// Process is a server that a test started.
type Process struct {
	URL    string
	Cmd    *exec.Cmd
	Log    *Log          // what it wrote to both outputs
	Exited chan struct{} // closed once it was waited for

	t *testing.T
}

// Log collects what a process writes.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Start runs argv with env added to this process's and waits until url+ready answers
// 200. The process is ended with the test.
func Start(t *testing.T, url, ready string, env []string, argv ...string) *Process {
	t.Helper()
	p := &Process{URL: url, Log: &Log{}, Exited: make(chan struct{}), t: t}
	p.Cmd = exec.Command(argv[0], argv[1:]...)
	p.Cmd.Env = append(os.Environ(), env...)
	p.Cmd.Stdout, p.Cmd.Stderr = p.Log, p.Log
	if err := p.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.Exited)
		_ = p.Cmd.Wait()
	}()
	t.Cleanup(func() { p.Stop(syscall.SIGTERM) })
	Eventually(t, patience, func() error {
		select {
		case <-p.Exited:
			t.Fatalf("%s ended:\n%s", argv[0], p.Log)
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

// Stop signals the process and waits for its end; it may be called again.
func (p *Process) Stop(sig syscall.Signal) {
	select {
	case <-p.Exited:
		return
	default:
	}
	_ = p.Cmd.Process.Signal(sig)
	select {
	case <-p.Exited:
	case <-time.After(patience):
		_ = p.Cmd.Process.Kill()
		<-p.Exited
		p.t.Errorf("%s did not stop on %s within %s:\n%s", p.Cmd.Path, sig, patience, p.Log)
	}
}

// Eventually repeats check until it returns nil.
func Eventually(t *testing.T, within time.Duration, check func() error) {
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

// FreeAddress returns a loopback address that nobody listened on a moment ago.
func FreeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
