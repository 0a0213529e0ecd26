package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// peer knows how to run one kind of server with an empty folder.
type peer struct {
	name string
	make func(dir, addr string) (*server, error)
	// clickhouse peers have other targets, and their data is in the engine.
	clickhouse bool
}

// peersOf finds the servers to measure.
func peersOf(o compareOptions) ([]peer, error) {
	var peers []peer
	for name := range strings.SplitSeq(o.peers, ",") {
		var p peer
		var err error
		switch name {
		case "luminate":
			p, err = luminatePeer(o.luminate)
		case authName:
			p, err = authPeer(o.luminate)
		case clickhouseName:
			p, err = clickhousePeer(o.luminate)
		case "prometheus":
			p, err = prometheusPeer()
		case "victoriametrics":
			p, err = victoriaPeer()
		default:
			err = fmt.Errorf("unknown peer %q", name)
		}
		if err != nil {
			return nil, err
		}
		peers = append(peers, p)
	}
	return peers, nil
}

// luminatePeer runs the luminate beside this binary, or of PATH.
func luminatePeer(extra []string) (peer, error) {
	path, err := findBinary("luminate")
	if err != nil {
		return peer{}, err
	}
	return peer{name: "luminate", make: func(dir, addr string) (*server, error) {
		argv := append([]string{path, "serve", "--server.listen", addr, "--storage.badger.dir", filepath.Join(dir, "data"), "--log.format", "text"}, extra...)
		return &server{name: "luminate", url: "http://" + addr, dir: dir, ready: "/readyz", argv: argv}, nil
	}}, nil
}

// prometheusPeer runs the Prometheus of PATH or GOBIN as a remote write receiver.
func prometheusPeer() (peer, error) {
	path, err := findBinary("prometheus")
	if err != nil {
		return peer{}, err
	}
	return peer{name: "prometheus", make: func(dir, addr string) (*server, error) {
		cfg := filepath.Join(dir, "prometheus.yml")
		if err := os.WriteFile(cfg, []byte("global:\n  scrape_interval: 15s\n"), 0o600); err != nil {
			return nil, err
		}
		return &server{name: "prometheus", url: "http://" + addr, dir: dir, ready: "/-/ready", argv: []string{
			path, "--config.file", cfg, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", addr,
			"--web.enable-remote-write-receiver", "--query.max-samples=500000000", "--log.level=warn",
		}}, nil
	}}, nil
}

// victoriaPeer runs a single-node VictoriaMetrics if its binary is at hand.
func victoriaPeer() (peer, error) {
	path, err := findBinary("victoria-metrics")
	if err != nil {
		return peer{}, err
	}
	return peer{name: "victoriametrics", make: func(dir, addr string) (*server, error) {
		return &server{name: "victoriametrics", url: "http://" + addr, dir: dir, ready: "/health", settle: "/internal/force_flush", argv: []string{
			path, "-storageDataPath", filepath.Join(dir, "data"), "-httpListenAddr", addr, "-retentionPeriod=1y",
			"-search.latencyOffset=0s", // else the newest 30 s are not shown
		}}, nil
	}}, nil
}

// findBinary looks beside this binary, in PATH and in Go's own bin folders.
func findBinary(name string) (string, error) {
	self, _ := os.Executable()
	home, _ := os.UserHomeDir()
	for _, dir := range []string{filepath.Dir(self), os.Getenv("GOBIN"), filepath.Join(os.Getenv("GOPATH"), "bin"), filepath.Join(home, "go", "bin")} {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); dir != "" && err == nil && !st.IsDir() {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is not beside luminate-bench, in PATH or in Go's bin folder: %w", name, err)
	}
	return path, nil
}
