package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// startTimeout is how long a server may take until it is ready.
const startTimeout = 2 * time.Minute

// server is a process under measurement.
type server struct {
	name  string
	url   string
	dir   string
	ready string // path that answers 200 once it serves
	// settle is a path that makes what was written visible to queries; empty where it is.
	settle string
	argv   []string
	token  string // that it demands, "" for none
	// engine is the database that the process keeps its data in, nil if it is its own.
	engine *engine

	cmd   *exec.Cmd
	log   *os.File
	ended chan error // gets what Wait returned
}

// start runs the process and waits until it is ready; it returns how long that
// took.
func (s *server) start(ctx context.Context) (time.Duration, error) {
	log, err := os.OpenFile(filepath.Join(s.dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	s.log = log
	s.cmd = exec.Command(s.argv[0], s.argv[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	begin := time.Now()
	if err := s.cmd.Start(); err != nil {
		return 0, fmt.Errorf("start %s: %w", s.name, err)
	}
	s.ended = make(chan error, 1)
	go func(cmd *exec.Cmd, ended chan<- error) { ended <- cmd.Wait() }(s.cmd, s.ended)
	for time.Since(begin) < startTimeout {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case err := <-s.ended:
			return 0, fmt.Errorf("%s ended at its start (%w), see %s", s.name, err, log.Name())
		default:
		}
		resp, err := http.Get(s.url + s.ready)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return time.Since(begin), nil
			}
		}
		wait(ctx, 10*time.Millisecond)
	}
	return 0, fmt.Errorf("%s was not ready after %s, see %s", s.name, startTimeout, log.Name())
}

// stop ends the process with sig and waits for it.
func (s *server) stop(sig syscall.Signal) error {
	defer s.log.Close()
	if err := s.cmd.Process.Signal(sig); err != nil {
		return err
	}
	err := <-s.ended
	s.ended <- err // for alive
	var exit *exec.ExitError
	if errors.As(err, &exit) && (sig == syscall.SIGKILL || exit.ExitCode() >= 0) {
		return nil
	}
	return err
}

// usage is what a process has used so far.
type usage struct {
	cpu           time.Duration // user and system
	peakRSS, anon int64         // bytes: VmHWM and RssAnon
}

func (s *server) usage() (usage, error) { return usageOf(s.cmd.Process.Pid) }

// usages is the process' usage and its engine's.
func (s *server) usages() (own, engine usage, err error) {
	if own, err = s.usage(); err != nil || s.engine == nil {
		return own, engine, err
	}
	engine, err = s.engine.usage()
	return own, engine, err
}

// usageOf reads /proc.
func usageOf(pid int) (usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, err
	}
	// The command may hold spaces: fields count from the closing bracket. utime and
	// stime are fields 14 and 15 of proc(5), in ticks of a hundredth of a second.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return usage{}, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	u := usage{cpu: time.Duration(user+system) * 10 * time.Millisecond}
	u.peakRSS, u.anon = statusBytes(pid, "VmHWM:"), statusBytes(pid, "RssAnon:")
	return u, errors.Join(err1, err2)
}

func statusBytes(pid int, field string) int64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if rest, ok := strings.CutPrefix(sc.Text(), field); ok {
			kib, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
			return kib << 10
		}
	}
	return 0
}

// diskBytes sums the allocated bytes under dir, log files of write-ahead logs
// apart.
func diskBytes(dir string) (data, wal int64, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		size := info.Size()
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			size = min(size, st.Blocks*512)
		}
		rel, _ := filepath.Rel(dir, path)
		if strings.Contains(rel, "wal") || strings.Contains(rel, "snap") {
			wal += size
		} else if rel != "server.log" {
			data += size
		}
		return nil
	})
	return data, wal, err
}

// freePort returns a loopback address that is free now.
func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
