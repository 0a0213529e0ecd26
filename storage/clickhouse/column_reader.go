package clickhouse

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// protocolRevision is the newest that hands every column out in its plain form;
// clickhouse-go announces the same.
const protocolRevision = 54460

// columnReader is a client for answers of millions of rows. It decodes a column at a
// time into slices; clickhouse-go's Rows would convert row by row. Like conn it never
// sees a context that can end: interrupt closes its socket.
type columnReader struct {
	client *ch.Client
	sock   net.Conn
	used   bool
	born   time.Time
}

// columns runs a reading statement whose columns are result's and calls block for each
// block of rows; result's slices are valid until block returns. An error of block ends
// the statement on the server.
func (s *Store) columns(ctx context.Context, sh *shard, sql string, args []any, result proto.Results, block func(rows int) error) error {
	params, err := columnParams(args)
	if err != nil {
		return err
	}
	c, err := sh.read.get(ctx)
	if err != nil {
		return err
	}
	defer sh.read.put(c)
	// A server that went silent does not hold the connection for ever.
	ctx, cancel := context.WithTimeout(ctx, s.cfg.QueryTimeout+10*time.Second)
	defer cancel()
	stop := context.AfterFunc(ctx, c.interrupt)
	defer stop()
	began, rows := time.Now(), 0
	query := ch.Query{
		Body: sql, Parameters: params, Settings: columnSettings(s.readSettings(ctx)), Result: result,
		OnResult: func(_ context.Context, b proto.Block) error {
			rows += b.Rows
			if b.Rows == 0 {
				return nil
			}
			if err := block(b.Rows); err != nil {
				return &blockError{err}
			}
			return nil
		},
	}
	err = c.doColumns(ctx, query, &rows)
	outcome := "ok"
	var own *blockError
	switch {
	case errors.As(err, &own):
		err = own.error
	case err != nil:
		outcome = "error"
	}
	s.metrics.querySeconds.WithLabelValues(outcome).Observe(time.Since(began).Seconds())
	return err
}

// blockError is an error of the caller, not of the connection.
type blockError struct{ error }

// doColumns runs a query, and once more over a new connection if an old one turns out
// to be broken before any row came.
func (c *conn) doColumns(ctx context.Context, q ch.Query, rows *int) error {
	used := c.columns.used
	for {
		err := c.openColumns(ctx)
		if err == nil {
			c.columns.used = true
			err = c.columns.client.Do(context.WithoutCancel(ctx), q)
		}
		if err == nil {
			return nil
		}
		var ex *ch.Exception
		if errors.As(err, &ex) {
			return &clickhouse.Exception{Code: int32(ex.Code), Name: ex.Name, Message: ex.Message}
		}
		c.resetColumns()
		var own *blockError
		if !used || *rows > 0 || errors.As(err, &own) || ctx.Err() != nil {
			return err
		}
		used = false
	}
}

// openColumns connects to one of the replicas if there is no connection.
func (c *conn) openColumns(ctx context.Context) error {
	o := c.pool.opts
	if c.columns.client != nil {
		if time.Since(c.columns.born) < o.ConnMaxLifetime {
			return nil
		}
		c.resetColumns()
	}
	password, err := c.password()
	if err != nil {
		return err
	}
	var errs []error
	for i := range o.Addr {
		addr := o.Addr[(c.first+i)%len(o.Addr)]
		client, err := c.dialColumns(ctx, addr, o, password)
		if err == nil {
			c.columns.client, c.columns.used, c.columns.born = client, false, time.Now()
			return nil
		}
		var ex *ch.Exception
		if errors.As(err, &ex) {
			return err // it answered
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

func (c *conn) dialColumns(ctx context.Context, addr string, o *clickhouse.Options, password string) (*ch.Client, error) {
	sock, err := c.connect(ctx, addr, o.TLS, func(sock net.Conn) { c.columns.sock = sock })
	if err != nil {
		return nil, err
	}
	compression := ch.CompressionLZ4
	if isLoopback(sock.RemoteAddr()) {
		compression = ch.CompressionDisabled // it costs more than the bytes that it saves
	}
	client, err := ch.Connect(ctx, sock, ch.Options{
		Database: o.Auth.Database, User: o.Auth.Username, Password: password, Compression: compression,
		ReadTimeout: ch.NoTimeout, HandshakeTimeout: c.pool.opts.DialTimeout, ProtocolVersion: protocolRevision, ClientName: "luminate",
	})
	if err != nil {
		sock.Close()
	}
	return client, err
}

func isLoopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}

func (c *conn) resetColumns() {
	if c.columns.client != nil {
		_ = c.columns.client.Close() // it may be closed already
		c.columns.client = nil
	}
	c.mu.Lock()
	c.columns.sock = nil
	c.mu.Unlock()
}

// connect dials a replica and tells keep, under the lock, its socket, so that
// interrupt can close it.
func (c *conn) connect(ctx context.Context, addr string, conf *tls.Config, keep func(net.Conn)) (net.Conn, error) {
	d := net.Dialer{Timeout: c.pool.opts.DialTimeout, KeepAlive: 30 * time.Second}
	sock, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if conf != nil {
		own := conf.Clone()
		if c.pool.caFile != "" {
			if own.RootCAs, err = readCAs(c.pool.caFile); err != nil {
				sock.Close()
				return nil, err
			}
		}
		if own.ServerName == "" {
			own.ServerName, _, _ = net.SplitHostPort(addr)
		}
		tc := tls.Client(sock, own)
		if err := tc.HandshakeContext(ctx); err != nil {
			sock.Close()
			return nil, err
		}
		sock = tc
	}
	c.mu.Lock()
	keep(sock)
	c.mu.Unlock()
	return sock, nil
}

func columnSettings(set clickhouse.Settings) []ch.Setting {
	out := make([]ch.Setting, 0, len(set))
	for k, v := range set {
		out = append(out, ch.Setting{Key: k, Value: fmt.Sprint(v), Important: true})
	}
	// Parts from before schema 3 have statistics; loading them cost twice the rest of a
	// selective statement. A server that does not know the setting ignores it.
	return append(out, ch.Setting{Key: "use_statistics", Value: "0"})
}

// columnParams writes a statement's values as the server reads them: the text of the
// type, escaped as in a TSV file, as the dump of a string.
func columnParams(args []any) ([]proto.Parameter, error) {
	out := make([]proto.Parameter, 0, len(args))
	for _, a := range args {
		named, ok := a.(driver.NamedValue)
		if !ok {
			return nil, fmt.Errorf("clickhouse: parameter of type %T", a)
		}
		text, err := paramText(named.Value)
		if err != nil {
			return nil, err
		}
		out = append(out, proto.Parameter{Key: named.Name, Value: "'" + escapeText.Replace(text) + "'"})
	}
	return out, nil
}

// escapeText escapes what has a meaning in quoted strings and in TSV.
var escapeText = strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`, "\r", `\r`, "\t", `\t`, "\x00", `\0`)

func paramText(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return tsvText.Replace(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case uint32:
		return strconv.FormatUint(uint64(v), 10), nil
	case uint64:
		return strconv.FormatUint(v, 10), nil
	case []string:
		return listText(v, func(b []byte, s string) []byte {
			return append(append(append(b, '\''), escapeText.Replace(s)...), '\'')
		}), nil
	case []uint64:
		return listText(v, func(b []byte, n uint64) []byte { return strconv.AppendUint(b, n, 10) }), nil
	case []uint32:
		return listText(v, func(b []byte, n uint32) []byte { return strconv.AppendUint(b, uint64(n), 10) }), nil
	default:
		return "", fmt.Errorf("clickhouse: parameter of type %T", v)
	}
}

// tsvText escapes a string that stands for itself.
var tsvText = strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`, "\t", `\t`, "\x00", `\0`)

func listText[T any](vs []T, add func([]byte, T) []byte) string {
	b := slices.Grow([]byte{'['}, 12*len(vs))
	for i, v := range vs {
		if i > 0 {
			b = append(b, ',')
		}
		b = add(b, v)
	}
	return string(append(b, ']'))
}
