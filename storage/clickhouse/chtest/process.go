package chtest

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// process is a started server. Its methods are not safe for concurrent use.
type process struct {
	launch launcher
	dir    string
	temp   bool
	addr   string
	base   *url.URL // how to reach it
	cmd    *exec.Cmd
	stdin  io.Closer // its end tells chserver that the parent is gone
	spent  time.Duration
}

func startProcess(launch launcher, dir string, temporary bool) (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	p := &process{launch: launch, dir: dir, temp: temporary, addr: addr, base: baseURL(addr)}
	return p, p.start()
}

// start runs the server and waits until it answers. Standard streams are files, so
// that os/exec starts no goroutine for them.
func (p *process) start() error {
	cmd, err := p.launch(p.dir, p.addr, p.temp)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(p.dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r, log, log
	if err := cmd.Start(); err != nil {
		w.Close()
		return err
	}
	p.cmd, p.stdin = cmd, w
	if err := waitUp(p.base, p.alive); err != nil {
		p.kill()
		tail, _ := os.ReadFile(filepath.Join(p.dir, "server.log"))
		return fmt.Errorf("%w; its log ends: %s", err, tail[max(0, len(tail)-2000):])
	}
	return nil
}

// alive tells whether the process still runs: a zombie does not.
func (p *process) alive() error {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/stat")
	if os.IsNotExist(err) {
		return nil // no /proc here: waiting times out instead
	}
	if i := strings.LastIndexByte(string(stat), ')'); err == nil && i > 0 && strings.HasPrefix(string(stat[i:]), ") Z") {
		return fmt.Errorf("the server ended while starting")
	}
	return err
}

func (p *process) kill() {
	if p.cmd == nil {
		return
	}
	p.spent = p.cpu()
	_ = p.cmd.Process.Kill() // it may have ended by itself
	p.wait()
}

// stop lets the server shut down in order.
func (p *process) stop() {
	if p.cmd == nil {
		return
	}
	p.spent = p.cpu()
	_ = p.stdin.Close()
	_ = p.cmd.Process.Signal(os.Interrupt)
	limit := time.AfterFunc(20*time.Second, func() { _ = p.cmd.Process.Kill() })
	p.wait()
	limit.Stop()
}

func (p *process) wait() {
	_ = p.cmd.Wait() // killed: the exit status says nothing new
	_ = p.stdin.Close()
	p.cmd = nil
}

// cpu is user plus system time, from /proc; earlier incarnations included.
func (p *process) cpu() time.Duration {
	if p.cmd == nil {
		return p.spent
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/stat")
	if err != nil {
		return p.spent
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(f) < 13 {
		return p.spent
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return p.spent + time.Duration(user+system)*10*time.Millisecond // USER_HZ is 100
}
