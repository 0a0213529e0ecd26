package chtest

import (
	"context"
	"fmt"
	"os"
	"time"
)

// Launch returns a server for a program that is no test, such as a benchmark: the one
// of LUMINATE_TEST_CLICKHOUSE, else a process of its own whose data is in dir. The
// caller stops it. It must run inside the module, whose sources chserver is built from.
func Launch(dir string) (*Server, error) {
	if os.Getenv(EnvDSN) != "" {
		return find()
	}
	launch, err := findLauncher()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	p, err := startProcess(launch, dir, false)
	if err != nil {
		return nil, fmt.Errorf("start a ClickHouse: %w", err)
	}
	return &Server{base: baseURL(p.addr), proc: p, fresh: true}, nil
}

// Stop ends a server from Launch in order; one that was running before goes on.
func (s *Server) Stop() {
	if s.proc != nil {
		s.proc.stop()
	}
}

// Create makes a database, anew if there is one, and returns its DSN.
func (s *Server) Create(ctx context.Context, database string) (string, error) {
	c, err := open(s.base.String())
	if err != nil {
		return "", err
	}
	defer c.Close()
	for _, stmt := range []string{"DROP DATABASE IF EXISTS ", "CREATE DATABASE "} {
		if err := c.Exec(ctx, stmt+database); err != nil {
			return "", fmt.Errorf("%s%s: %w", stmt, database, err)
		}
	}
	return s.In(database), nil
}

// Number runs a query in a database and returns its one value, a Float64.
func (s *Server) Number(ctx context.Context, database, query string) (v float64, err error) {
	c, err := open(s.In(database))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.QueryRow(ctx, query).Scan(&v); err != nil {
		return 0, fmt.Errorf("%s: %w", query, err)
	}
	return v, nil
}

// Run runs one statement in a database. timeout is the driver's for one answer.
func (s *Server) Run(ctx context.Context, database, statement string, timeout time.Duration) error {
	c, err := openFor(s.In(database), timeout)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Exec(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

// PID is the server's process, 0 for a server that this process did not start.
func (s *Server) PID() int {
	if s.proc == nil || s.proc.cmd == nil {
		return 0
	}
	return s.proc.cmd.Process.Pid
}
