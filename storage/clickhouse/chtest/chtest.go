package chtest

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

// The environment variables that steer the package.
const (
	EnvDSN     = "LUMINATE_TEST_CLICKHOUSE"
	EnvRequire = "LUMINATE_TEST_REQUIRE_CLICKHOUSE"
)

// startTimeout bounds waiting for a started server to answer.
const startTimeout = 60 * time.Second

// Server is a ClickHouse that answers at an address.
type Server struct {
	base  *url.URL // without a database
	proc  *process // nil when the server was already running
	fresh bool     // proc may be killed by the test
}

// shared is the one server of this test process; it ends with the process, which
// closes its standard input.
var shared struct {
	once   sync.Once
	server *Server
	err    error
}

var databases atomic.Int64

// Start returns the server that the tests of this process share.
func Start(t testing.TB) *Server {
	t.Helper()
	shared.once.Do(func() { shared.server, shared.err = find() })
	if shared.err != nil {
		giveUp(t, shared.err)
	}
	return shared.server
}

// DSN returns the address of a fresh, empty database on the shared server; it is
// dropped when the test ends.
func DSN(t testing.TB) string {
	t.Helper()
	return Start(t).Database(t)
}

// Own starts a server for this test alone, in a data folder that outlives Kill, and
// ends it with the test. LUMINATE_TEST_CLICKHOUSE is not used: nobody's server is
// killed.
func Own(t testing.TB) *Server {
	t.Helper()
	launch, err := findLauncher()
	if err != nil {
		giveUp(t, err)
	}
	p, err := startProcess(launch, t.TempDir(), false)
	if err != nil {
		t.Fatalf("chtest: start a ClickHouse of the test's own: %v", err)
	}
	s := &Server{base: baseURL(p.addr), proc: p, fresh: true}
	t.Cleanup(func() { s.proc.stop() })
	return s
}

var warnOnce sync.Once

// giveUp skips the test, or fails it where ClickHouse is required.
func giveUp(t testing.TB, err error) {
	t.Helper()
	if os.Getenv(EnvRequire) == "1" {
		t.Fatalf("chtest: %s=1 but there is no ClickHouse: %v", EnvRequire, err)
	}
	warnOnce.Do(func() {
		fmt.Fprintf(os.Stderr, "\n*** CLICKHOUSE TESTS ARE LEFT OUT: %v\n*** Set %s to a DSN, put a clickhouse binary in PATH, or install npm.\n\n", err, EnvDSN)
	})
	t.Skipf("chtest: no ClickHouse: %v", err)
}

// Database makes a fresh database and returns its DSN; it is dropped when the test
// ends.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("luminate_test_%d_%d", os.Getpid(), databases.Add(1))
	s.Exec(t, "CREATE DATABASE "+name)
	t.Cleanup(func() {
		c, err := open(s.base.String())
		if err != nil {
			return
		}
		defer c.Close()
		// A server that the test killed has no database left to drop.
		// Not SYNC: that waits until the last session which used a table is gone.
		_ = c.Exec(context.Background(), "DROP DATABASE IF EXISTS "+name)
	})
	return s.In(name)
}

// In returns the DSN of a database on this server.
func (s *Server) In(database string) string {
	u := *s.base
	u.Path = "/" + database
	return u.String()
}

// Addr returns host and port of the native protocol.
func (s *Server) Addr() string { return s.base.Host }

// Exec runs one statement over a connection of its own.
func (s *Server) Exec(t testing.TB, query string) {
	t.Helper()
	c, err := open(s.base.String())
	if err != nil {
		t.Fatalf("chtest: connect to %s: %v", s.base.Host, err)
	}
	defer c.Close()
	if err := c.Exec(context.Background(), query); err != nil {
		t.Fatalf("chtest: %s: %v", query, err)
	}
}

// Kill ends a server of the test's own at once, as kill -9 does.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	s.mine(t)
	s.proc.kill()
}

// Restart starts a killed server again: the same data folder, the same address.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.mine(t)
	if err := s.proc.start(); err != nil {
		t.Fatalf("chtest: restart: %v", err)
	}
}

// CPU returns the processor time that the server's process has used so far, 0 for a
// server that this process did not start.
func (s *Server) CPU() time.Duration {
	if s.proc == nil {
		return 0
	}
	return s.proc.cpu()
}

func (s *Server) mine(t testing.TB) {
	t.Helper()
	if !s.fresh {
		t.Fatal("chtest: only a server from Own may be killed or restarted")
	}
}

func open(dsn string) (clickhouse.Conn, error) { return openFor(dsn, 0) }

// openFor connects with a timeout for each read of an answer, 0 for the driver's own.
func openFor(dsn string, timeout time.Duration) (clickhouse.Conn, error) {
	o, err := clickhouse.ParseDSN(dsn)
	if err != nil {
		return nil, err
	}
	o.ReadTimeout = timeout
	o.MaxOpenConns, o.MaxIdleConns = 1, 1
	return clickhouse.Open(o)
}

func baseURL(addr string) *url.URL {
	return &url.URL{Scheme: "clickhouse", User: url.User("default"), Host: addr}
}

// waitUp returns once the server at base answers a query.
func waitUp(base *url.URL, alive func() error) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	c, err := open(base.String())
	if err != nil {
		return err
	}
	defer c.Close()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := c.Ping(ctx)
		if err == nil {
			return nil
		}
		if dead := alive(); dead != nil {
			return dead
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no answer from %s: %w", base.Host, err)
		case <-tick.C:
		}
	}
}

// Folder returns a folder that this server may write backups to (BACKUP … TO File) and
// the test may look into. It skips the test on a server that the test did not start.
func (s *Server) Folder(t testing.TB) string {
	t.Helper()
	if s.proc == nil {
		t.Skip("chtest: the server of " + EnvDSN + " has no folder that a test knows")
	}
	return t.TempDir()
}
