package chtest

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"
)

// launcher says how to start a server whose data is in dir, on addr. A temporary one
// removes dir when it ends, where it can.
type launcher func(dir, addr string, temporary bool) (*exec.Cmd, error)

// find returns the server that this process' tests share.
func find() (*Server, error) {
	if dsn := os.Getenv(EnvDSN); dsn != "" {
		u, err := url.Parse(dsn)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", EnvDSN, err)
		}
		if err := waitUp(u, func() error { return nil }); err != nil {
			return nil, fmt.Errorf("%s: %w", EnvDSN, err)
		}
		return &Server{base: u}, nil
	}
	launch, err := findLauncher()
	if err != nil {
		return nil, err
	}
	sweep()
	dir, err := os.MkdirTemp("", "luminate-clickhouse-")
	if err != nil {
		return nil, err
	}
	p, err := startProcess(launch, dir, true)
	if err != nil {
		return nil, err
	}
	return &Server{base: baseURL(p.addr), proc: p}, nil
}

// sweep removes the folders of shared servers whose did not remove them: killed, or
// an installed one.
func sweep() {
	old, _ := filepath.Glob(filepath.Join(os.TempDir(), "luminate-clickhouse-*"))
	for _, dir := range old {
		if fi, err := os.Stat(dir); err == nil && time.Since(fi.ModTime()) > 6*time.Hour {
			_ = os.RemoveAll(dir) // another process may be sweeping too
		}
	}
}

// findLauncher prefers an installed ClickHouse to the engine as a library.
func findLauncher() (launcher, error) {
	if bin, err := exec.LookPath("clickhouse"); err == nil {
		return func(dir, addr string, _ bool) (*exec.Cmd, error) { return serverCommand(bin, dir, addr) }, nil
	}
	l, err := libraryLauncher()
	if err != nil {
		return nil, fmt.Errorf("no clickhouse binary in PATH, and no engine: %w", err)
	}
	return l, nil
}

// libraryLauncher starts the engine as a library, with further arguments of chserver.
func libraryLauncher(extra ...string) (launcher, error) {
	if runtime.GOOS != "linux" {
		return nil, fmt.Errorf("the engine as a library is for linux, this is %s", runtime.GOOS)
	}
	lib, err := fetchEngine()
	if err != nil {
		return nil, err
	}
	bin, err := buildServer()
	if err != nil {
		return nil, err
	}
	return func(dir, addr string, temporary bool) (*exec.Cmd, error) {
		cmd := exec.Command(bin, "-lib", lib, "-listen", addr, "-path", filepath.Join(dir, "data"))
		cmd.Args = append(cmd.Args, extra...)
		if temporary {
			cmd.Args = append(cmd.Args, "-remove", dir)
		}
		// An empty working folder: the engine loads a config.xml that it finds there.
		cmd.Dir = filepath.Join(dir, "cwd")
		return cmd, os.MkdirAll(cmd.Dir, 0o700)
	}, nil
}

const serverConfig = `<clickhouse>
 <logger><level>warning</level><console>1</console></logger>
 <listen_host>127.0.0.1</listen_host><tcp_port>%s</tcp_port>
 <path>%s/data/</path><tmp_path>%s/tmp/</tmp_path>
 <users><default><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></default></users>
 <profiles><default/></profiles><quotas><default/></quotas>
 <mark_cache_size>268435456</mark_cache_size>
 <backups><allowed_path>/</allowed_path></backups>
</clickhouse>
`

// serverCommand starts an installed ClickHouse server with a configuration of its own.
func serverCommand(bin, dir, addr string) (*exec.Cmd, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "config.xml")
	if err := os.WriteFile(conf, fmt.Appendf(nil, serverConfig, port, dir, dir), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(bin, "server", "--config-file", conf)
	cmd.Dir = dir
	return cmd, nil
}

// freeAddr returns a loopback address on which nothing listens now.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), errors.Join(l.Close())
}
