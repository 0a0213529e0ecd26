//go:build linux

package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/luminate/luminate/storage/clickhouse/chtest/internal/engine"
)

var errGone = errors.New("client gone")

// guarded runs f while watching the client for Cancel and disconnect, which kill the query with this marker.
func (c *session) guarded(marker string, f func() error) (err error, canceled bool) {
	done, ended := make(chan struct{}), make(chan bool)
	go func() {
		b, err := c.br.Peek(1)
		var ne net.Error
		if err == nil && b[0] != 3 || errors.As(err, &ne) && ne.Timeout() {
			ended <- false
			return
		}
		for {
			c.rootMu.Lock()
			// The query may have ended by itself; then there is nothing to kill.
			_, _, _ = c.root.Query("KILL QUERY WHERE startsWith(query, "+quoteStr(marker)+") ASYNC", "TSV")
			c.rootMu.Unlock()
			select {
			case <-done:
				ended <- true
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	err = f()
	close(done)
	c.nc.SetReadDeadline(time.Unix(1, 0))
	canceled = <-ended
	c.nc.SetReadDeadline(time.Time{})
	if canceled {
		if b, e := c.br.Peek(1); e != nil {
			return errGone, true
		} else if b[0] == 3 {
			c.br.Discard(1)
		}
	}
	return err, canceled
}

// query answers one Query packet: external tables, settings, the statement.
func (c *session) query() error {
	var q query
	if err := q.decode(c.pr, c.rev); err != nil {
		return err
	}
	c.Log.Debug("query", "peer", c.nc.RemoteAddr().String(), "body", q.body, "settings", len(q.settings), "params", q.params)
	temps, err := c.externals(q.compression)
	if err == nil {
		err = c.statement(q)
	}
	for _, t := range temps {
		_ = c.exec("DROP TEMPORARY TABLE IF EXISTS `" + t + "`") // the session may be gone
	}
	var fatal *fatalErr
	switch {
	case errors.Is(err, errGone):
		return io.EOF
	case errors.As(err, &fatal):
		c.exception(fatal.error)
		return errors.Join(err, c.flush())
	case err != nil:
		c.exception(err)
	default:
		proto.ServerCodeEndOfStream.Encode(&c.buf)
	}
	return c.flush()
}

// statement runs the query's text: an INSERT that brings its rows, or anything else.
func (c *session) statement(q query) error {
	if in, ok := parseInsert(q.body); ok {
		return c.insert(in, q.settings, q.compression)
	}
	if err := c.settings(q.settings); err != nil {
		return err
	}
	kind := keyword(q.body)
	if mayChange(kind) {
		defer c.changes.Add(1)
	}
	body := stripFormat(q.body)
	if kind == "INSERT" {
		body = q.body
	}
	var params []engine.Param
	for _, p := range q.params {
		params = append(params, engine.Param{Name: p.Key, Value: unquoteDump(p.Value)})
	}
	err := c.run(body, params, q.compression)
	if err == nil && kind == "SET" {
		c.sets = append(c.sets, q.body)
	}
	return err
}

// mayChange tells whether a statement may change a table, or which one a name means.
func mayChange(kind string) bool {
	switch kind {
	case "SELECT", "WITH", "(", "FROM", "INSERT", "SET", "SHOW", "DESC", "DESCRIBE", "EXISTS", "EXPLAIN", "KILL":
		return false
	}
	return true
}

// externals reads the external tables that follow a query, ended by an empty block.
func (c *session) externals(compressed bool) (names []string, err error) {
	for {
		n, e := c.pr.UVarInt()
		if e != nil {
			return names, errGone
		}
		if n == 3 {
			continue
		}
		if n != 2 && n != 7 { // 7: an initiator's scalars, shaped like data
			return names, &fatalErr{fmt.Errorf("packet %d after a query", n)}
		}
		name, cols, rows, e := c.dataBlock(compressed)
		if e != nil {
			return names, &fatalErr{e}
		}
		if len(cols) == 0 && rows == 0 {
			return names, err
		}
		if n == 2 && err == nil {
			err = c.external(name, cols, rows)
			names = append(names, name)
		}
	}
}

// fatalErr ends the connection: the position in the stream is lost.
type fatalErr struct{ error }

func (c *session) marker() string { return fmt.Sprintf("/*shim:%d*/ ", c.seq.Add(1)) }

// run executes a statement and streams its blocks.
func (c *session) run(body string, params []engine.Param, comp bool) error {
	begin := time.Now()
	m := c.marker()
	out := blockSender{c: c, comp: comp}
	err, canceled := c.guarded(m, func() error {
		switch keyword(body) { // the streaming call takes nothing but a SELECT
		case "SELECT", "WITH", "(", "FROM":
			err := c.eng.Stream(m+body, "Native", params, out.chunk)
			if err == nil || !strings.Contains(err.Error(), "Streaming query is not supported") {
				return err
			}
		}
		b, st, err := c.eng.Query(m+body, "Native", params...)
		if err != nil {
			return err
		}
		return out.chunk(b, st)
	})
	if canceled && !errors.Is(err, errGone) {
		return nil // the client expects EndOfStream after its Cancel
	}
	if err != nil {
		return err
	}
	if out.blocks == 0 { // a stream of no rows has no header either
		cols, err := c.header(body, params)
		if err != nil {
			return err
		}
		if len(cols) > 0 {
			if err := c.sendBlock(headerBlock(cols, c.rev), comp); err != nil {
				return err
			}
			out.blocks = 1
		}
	}
	proto.Profile{Rows: out.total.Rows, Blocks: uint64(out.blocks), Bytes: out.total.Bytes}.EncodeAware(&c.buf, c.rev)
	c.progress(out.total, begin)
	return nil
}

// blockSender sends the engine's blocks on, in the client's revision.
type blockSender struct {
	c      *session
	comp   bool
	blocks int
	total  engine.Stats
}

func (o *blockSender) chunk(b []byte, st engine.Stats) error {
	c := o.c
	r := bytes.NewReader(b)
	for r.Len() > 0 {
		c.w.out, c.w.src = c.w.out[:0], r
		if _, _, err := c.w.block(0, c.rev); err != nil {
			if c.rev >= customSerialization {
				return err
			}
			c.w.out = append(c.w.out[:0], b...) // nothing to insert: pass on as it is
			r.Reset(nil)
		}
		if err := c.sendBlock(c.w.out, o.comp); err != nil {
			return err
		}
		o.blocks++
	}
	o.total.Rows += st.Rows
	o.total.Bytes += st.Bytes
	o.total.ReadRows += st.ReadRows
	o.total.ReadBytes += st.ReadBytes
	o.total.WrittenRows += st.WrittenRows
	o.total.WrittenBytes += st.WrittenBytes
	return nil
}

func (c *session) progress(t engine.Stats, begin time.Time) {
	c.buf.PutUVarInt(3)
	proto.Progress{Rows: t.ReadRows, Bytes: t.ReadBytes, TotalRows: t.ReadRows, WroteRows: t.WrittenRows, WroteBytes: t.WrittenBytes,
		ElapsedNs: uint64(time.Since(begin))}.EncodeAware(&c.buf, c.rev)
}

// header finds the columns of a statement that returned no block.
func (c *session) header(body string, params []engine.Param) ([]Column, error) {
	switch keyword(body) {
	case "SELECT", "WITH", "(", "FROM":
		if out, err := c.describe("("+body+"\n)", params); err == nil {
			return toColumns(out), nil
		}
	case "SHOW", "DESC", "DESCRIBE", "EXISTS", "EXPLAIN", "CHECK":
	default:
		return nil, nil
	}
	b, _, err := c.eng.Query(body, "JSONCompactStringsEachRowWithNamesAndTypes", params...)
	if err != nil {
		return nil, err
	}
	l := jsonRows(b)
	if len(l) < 2 {
		return nil, nil
	}
	var out []Column
	for i, n := range l[0] {
		out = append(out, Column{n, l[1][i]})
	}
	return out, nil
}

// describe returns rows of name, type, default kind. Types must come on one line.
func (c *session) describe(what string, params []engine.Param) ([][]string, error) {
	b, _, err := c.eng.Query("DESCRIBE TABLE "+what+" SETTINGS print_pretty_type_names = 0, describe_compact_output = 0", "JSONCompactStringsEachRow", params...)
	return jsonRows(b), err
}

func jsonRows(b []byte) (out [][]string) {
	for d := json.NewDecoder(bytes.NewReader(b)); ; {
		var r []string
		if d.Decode(&r) != nil {
			return out
		}
		out = append(out, r)
	}
}

func toColumns(rows [][]string) (out []Column) {
	for _, r := range rows {
		out = append(out, Column{r[0], r[1]})
	}
	return out
}
