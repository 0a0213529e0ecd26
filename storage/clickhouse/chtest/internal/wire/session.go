//go:build linux

package wire

import (
	"bufio"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/ClickHouse/ch-go/proto"

	"github.com/luminate/luminate/storage/clickhouse/chtest/internal/engine"
)

// session is one client's connection with an engine session of its own, so that
// SET and temporary tables are the client's alone.
type session struct {
	*Server
	nc      net.Conn
	br      *bufio.Reader
	pr      *proto.Reader
	dec     *bufio.Reader // decompressed
	buf     proto.Buffer
	cw      *compress.Writer
	rev     int
	eng     *engine.Conn
	applied map[string]string // settings of the last query, still set in the engine session
	sets    []string          // the client's own SET statements
	w       walker

	columns   map[string][]Column // of INSERTs, as of columnsAt
	columnsAt int64
}

func (s *Server) serve(nc net.Conn) error {
	c := &session{Server: s, nc: nc, br: bufio.NewReaderSize(nc, 1<<18), applied: map[string]string{}, columnsAt: -1}
	c.pr = proto.NewReader(c.br) // shares br: it is a bufio.Reader of enough size
	c.dec = bufio.NewReaderSize(compress.NewReader(c.br), 1<<18)
	c.cw = compress.NewWriter(compress.LevelZero, compress.LZ4)
	var err error
	if c.eng, err = engine.Connect(s.EngineArgs...); err != nil {
		return err
	}
	defer c.eng.Close()
	if ok, err := c.handshake(); err != nil || !ok {
		return err
	}
	for {
		n, err := c.pr.UVarInt()
		if err != nil {
			return err
		}
		switch n {
		case 1:
			err = c.query()
		case 3: // cancel, too late
		case 4:
			proto.ServerCodePong.Encode(&c.buf)
			err = c.flush()
		case 5:
			err = c.tablesStatus()
		default:
			err = fmt.Errorf("client packet %d", n)
		}
		if err != nil {
			return err
		}
	}
}

// handshake greets the client; ok is false when the client was answered with an
// exception.
func (c *session) handshake() (ok bool, err error) {
	if n, err := c.pr.UVarInt(); err != nil || n != uint64(proto.ClientCodeHello) {
		return false, fmt.Errorf("no hello: %d %w", n, err)
	}
	var hello proto.ClientHello
	if err := hello.Decode(c.pr); err != nil {
		return false, err
	}
	c.rev = min(hello.ProtocolVersion, c.Revision)
	if c.Check != nil && !c.Check(hello.User, hello.Password) {
		c.exception(fmt.Errorf("Code: 516. DB::Exception: %s: Authentication failed: password is incorrect, or there is no user with such name. (AUTHENTICATION_FAILED)", hello.User))
		return false, c.flush()
	}
	// Without implicit_select=0 the engine reads a bare expression as a SELECT.
	err = c.exec("SET implicit_select = 0, allow_introspection_functions = 0, output_format_native_write_json_as_string = 1")
	if err == nil && hello.Database != "" && hello.Database != "default" {
		err = c.exec("USE `" + strings.ReplaceAll(hello.Database, "`", "\\`") + "`")
	}
	if err != nil {
		c.exception(err)
		return false, c.flush()
	}
	h := proto.ServerHello{
		Name: "ClickHouse", Major: c.version[0], Minor: c.version[1], Patch: c.version[2],
		Revision: c.Revision, Timezone: c.tz, DisplayName: "chserver",
	}
	h.EncodeAware(&c.buf, c.rev)
	if err := c.flush(); err != nil {
		return false, err
	}
	if proto.FeatureAddendum.In(c.rev) {
		if _, err := c.pr.Str(); err != nil { // quota key
			return false, err
		}
	}
	return true, nil
}

func (c *session) flush() error {
	_, err := c.nc.Write(c.buf.Buf)
	c.buf.Reset()
	return err
}

func (c *session) exec(q string) error { _, _, err := c.eng.Query(q, "TSV"); return err }

var errRe = regexp.MustCompile(`(?s)^(?:Code: (\d+)\. )(.*?)(?: \(version [^)]*\))?(?: \(([A-Z0-9_]+)\))?\s*$`)

// exception encodes an engine error ("Code: N. DB::Exception: text. (NAME)") as the server would.
func (c *session) exception(err error) {
	code, msg := 1002, err.Error()
	for m := errRe.FindStringSubmatch(msg); m != nil; m = errRe.FindStringSubmatch(msg) {
		code, _ = strconv.Atoi(m[1])
		msg = m[2]
		if i := strings.Index(msg, "DB::Exception: Code: "); i == 0 {
			msg = msg[len("DB::Exception: "):]
		}
	}
	proto.ServerCodeException.Encode(&c.buf)
	e := proto.Exception{Code: proto.Error(code), Name: "DB::Exception", Message: msg}
	e.EncodeAware(&c.buf, c.rev)
}

func (c *session) tablesStatus() error {
	n, err := c.pr.UVarInt()
	if err != nil {
		return err
	}
	c.buf.PutUVarInt(9)
	c.buf.PutUVarInt(n)
	for ; n > 0; n-- {
		db, err := c.pr.Str()
		if err != nil {
			return err
		}
		tbl, err := c.pr.Str()
		if err != nil {
			return err
		}
		c.buf.PutString(db)
		c.buf.PutString(tbl)
		c.buf.PutBool(false) // not replicated
	}
	return c.flush()
}

// settings makes the engine session's settings those of this query.
func (c *session) settings(list []proto.Setting) error {
	want := map[string]string{}
	important := map[string]bool{}
	for _, s := range list {
		v := s.Value
		if s.Custom {
			v = unquoteDump(v)
		}
		want[s.Key], important[s.Key] = v, s.Important
	}
	restore := false
	for k := range c.applied {
		if _, ok := want[k]; !ok {
			if err := c.exec("SET `" + k + "` = DEFAULT"); err != nil {
				return err
			}
			delete(c.applied, k)
			restore = true
		}
	}
	if restore {
		for _, q := range c.sets {
			if err := c.exec(q); err != nil {
				return err
			}
		}
	}
	for k, v := range want {
		if old, ok := c.applied[k]; ok && old == v {
			continue
		}
		if err := c.exec("SET `" + k + "` = " + quoteStr(v)); err != nil {
			if !important[k] && strings.HasPrefix(err.Error(), "Code: 115.") {
				continue // an unknown setting that the client marks as unimportant
			}
			return err
		}
		c.applied[k] = v
	}
	return nil
}
