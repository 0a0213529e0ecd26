package clickhouse

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

func parseDSN(dsn string) (*clickhouse.Options, error) {
	o, err := clickhouse.ParseDSN(dsn)
	if err != nil {
		return nil, errors.New("clickhouse: the DSN is not of the form clickhouse://user@host:9000/database") // err may hold the password
	}
	if o.Protocol != clickhouse.Native {
		return nil, errors.New("clickhouse: the DSN must use the native protocol (clickhouse://, port 9000 or 9440)")
	}
	if o.Auth.Database != "" && !identifier.MatchString(o.Auth.Database) {
		return nil, fmt.Errorf("clickhouse: database name %q must match %s", o.Auth.Database, identifier)
	}
	return o, nil
}

// pool holds connections to the replicas of one shard. It is our own, over clients of
// one connection each, for three reasons: waiting ends with the context; a query is
// cancelled by closing its socket (the driver's own way closes a channel that it may
// still be sending on, and that panics); and the password file is read for each
// connection.
type pool struct {
	opts         *clickhouse.Options
	passwordFile string
	caFile       string
	free         chan *conn
	all          []*conn
	once         sync.Once
	closed       chan struct{}
}

func newPool(dsn string, cfg Config, size int) (*pool, error) {
	o, err := parseDSN(dsn)
	if err != nil {
		return nil, err
	}
	o.Compression = &clickhouse.Compression{Method: clickhouse.CompressionLZ4}
	o.DialTimeout = cfg.DialTimeout
	o.ReadTimeout = cfg.QueryTimeout + 10*time.Second // the server's own limit comes first
	o.MaxOpenConns, o.MaxIdleConns = 1, 1
	o.ConnMaxLifetime = time.Hour
	o.ConnOpenStrategy = clickhouse.ConnOpenRoundRobin
	p := &pool{opts: o, passwordFile: cfg.PasswordFile, caFile: cfg.CAFile, free: make(chan *conn, size), closed: make(chan struct{})}
	for i := range size {
		c := &conn{pool: p, first: i}
		p.all = append(p.all, c)
		p.free <- c
	}
	return p, nil
}

// get waits for a connection. The caller calls put, whatever happens.
func (p *pool) get(ctx context.Context) (*conn, error) {
	select {
	case <-p.closed:
		return nil, errStoreClosed
	default:
	}
	select {
	case c := <-p.free:
		if err := c.open(); err != nil {
			p.put(c)
			return nil, err
		}
		return c, nil
	case <-p.closed:
		return nil, errStoreClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pool) put(c *conn) { p.free <- c }

// close waits for the connections in use and closes all.
func (p *pool) close() {
	p.once.Do(func() {
		close(p.closed)
		for range p.all {
			c := <-p.free
			c.reset()
			c.resetColumns()
		}
	})
}

// conn is a client with at most one connection. Between get and put one goroutine
// uses it; interrupt may be called by any.
type conn struct {
	pool  *pool
	first int // the replica to begin with
	drv   driver.Conn
	used  bool // drv has been used, so its connection may be an old one

	columns columnReader // for large answers; its sock is guarded by mu

	mu   sync.Mutex
	sock net.Conn
}

// open makes the client if there is none.
func (c *conn) open() error {
	if c.drv != nil {
		return nil
	}
	o := *c.pool.opts
	var err error
	if o.Auth.Password, err = c.password(); err != nil {
		return err
	}
	// Each connection begins at another replica: the driver counts per client.
	n := c.first % len(o.Addr)
	o.Addr = append(append([]string(nil), o.Addr[n:]...), o.Addr[:n]...)
	o.DialContext = c.dial(o.TLS)
	drv, err := clickhouse.Open(&o)
	if err != nil {
		return err
	}
	c.drv, c.used = drv, false
	return nil
}

// password returns what the file holds now, or the DSN's.
func (c *conn) password() (string, error) {
	if c.pool.passwordFile == "" {
		return c.pool.opts.Auth.Password, nil
	}
	b, err := os.ReadFile(c.pool.passwordFile)
	if err != nil {
		return "", fmt.Errorf("read password file: %w", err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// dial returns a dial function that remembers the socket. With it the driver leaves
// TLS to us.
func (c *conn) dial(conf *tls.Config) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		return c.connect(ctx, addr, conf, func(sock net.Conn) { c.sock = sock })
	}
}

func readCAs(path string) (*x509.CertPool, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read CA file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("read CA file: %s holds no certificate in PEM", path)
	}
	return pool, nil
}

// interrupt ends whatever the connection does: the server sees the disconnect and
// stops the query.
func (c *conn) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sock != nil {
		c.sock.Close()
	}
	if c.columns.sock != nil {
		c.columns.sock.Close()
	}
}

// reset forgets the client after an error that may have broken it.
func (c *conn) reset() {
	if c.drv != nil {
		_ = c.drv.Close() // nothing waits in it
		c.drv = nil
	}
	c.mu.Lock()
	c.sock = nil
	c.mu.Unlock()
}
