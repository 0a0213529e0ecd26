//go:build linux

package wire

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/luminate/luminate/storage/clickhouse/chtest/internal/engine"
)

// external makes a temporary table of one external data block.
func (c *session) external(name string, cols []Column, rows int) error {
	var d []string
	for _, col := range cols {
		d = append(d, "`"+col.Name+"` "+col.Type)
	}
	if err := c.exec("CREATE TEMPORARY TABLE IF NOT EXISTS `" + name + "` (" + strings.Join(d, ", ") + ") ENGINE = Memory"); err != nil || rows == 0 {
		return err
	}
	f := c.TmpDir + "/" + strings.Trim(c.marker(), "/* ") + ".native"
	if err := os.WriteFile(f, c.w.out, 0o600); err != nil {
		return err
	}
	defer os.Remove(f)
	return c.exec("INSERT INTO `" + name + "` FROM INFILE " + quoteStr(f) + " FORMAT Native")
}

// insert answers an INSERT with the table's header, takes the client's blocks and
// runs it. The rows go through a file: inline Native data breaks at a newline byte.
// The query's settings stand in the statement, which costs nothing, where SET costs a
// statement for each; a server reads them from the packet.
func (c *session) insert(in insert, list []proto.Setting, comp bool) error {
	if err := c.settings(nil); err != nil {
		return err
	}
	cols, err := c.insertColumns(in)
	if err != nil {
		return err
	}
	if err := c.sendBlock(headerBlock(cols, c.rev), comp); err != nil {
		return err
	}
	path := c.TmpDir + "/chserver-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(c.seq.Add(1), 10) + ".native"
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return &fatalErr{err}
	}
	defer os.Remove(path)
	defer f.Close()
	rows, err := c.receive(f, comp)
	if cap(c.w.out) > 64<<20 {
		c.w.out = nil
	}
	if err != nil || rows == 0 {
		return err
	}
	m := c.marker()
	text := func(settings string) string {
		q := m + "INSERT INTO " + in.target
		if in.cols != "" {
			q += " (" + in.cols + ")"
		}
		return q + " FROM INFILE " + quoteStr(path) + " " + settings + " FORMAT Native"
	}
	begin := time.Now()
	var st engine.Stats
	err, canceled := c.guarded(m, func() (err error) {
		_, st, err = c.eng.Query(text(inStatement(in.settings, list)), "Native")
		if err == nil || !strings.HasPrefix(err.Error(), "Code: 115.") {
			return err
		}
		if err := c.settings(list); err != nil { // one is unknown: it may be unimportant
			return err
		}
		_, st, err = c.eng.Query(text(in.settings), "Native")
		return err
	})
	if canceled && !errors.Is(err, errGone) {
		return nil
	}
	if err == nil {
		st.ReadRows, st.ReadBytes = st.WrittenRows, st.WrittenBytes
		c.progress(st, begin)
	}
	return err
}

// inStatement adds the packet's settings to the statement's own clause, which wins.
func inStatement(clause string, list []proto.Setting) string {
	var b strings.Builder
	for _, s := range list {
		if b.Len() == 0 {
			b.WriteString("SETTINGS ")
		} else {
			b.WriteString(", ")
		}
		v := s.Value
		if s.Custom {
			v = unquoteDump(v)
		}
		b.WriteString("`" + s.Key + "` = " + quoteStr(v))
	}
	own := strings.TrimSpace(clause)
	if own == "" {
		return b.String()
	}
	if b.Len() == 0 {
		return own
	}
	return b.String() + ", " + strings.TrimSpace(own[len("SETTINGS"):])
}

// insertColumns returns the columns that an INSERT expects, remembered until any
// session changes a table.
func (c *session) insertColumns(in insert) ([]Column, error) {
	key := in.target + "\x00" + in.cols
	if gen := c.changes.Load(); gen != c.columnsAt {
		c.columns, c.columnsAt = map[string][]Column{}, gen
	}
	if cols, ok := c.columns[key]; ok {
		return cols, nil
	}
	cols, err := c.findColumns(in)
	if err == nil {
		c.columns[key] = cols
	}
	return cols, err
}

func (c *session) findColumns(in insert) (cols []Column, err error) {
	list, plain := names(in.cols)
	if !plain {
		return c.header("SELECT "+in.cols+" FROM "+in.target, nil)
	}
	desc, err := c.describe(in.target, nil)
	if err != nil {
		return nil, err
	}
	byName := map[string]string{}
	for _, f := range desc {
		byName[f[0]] = f[1]
		if in.cols == "" && (f[2] == "" || f[2] == "DEFAULT") {
			cols = append(cols, Column{f[0], f[1]})
		}
	}
	for _, n := range list {
		t, ok := byName[n]
		if !ok {
			return nil, fmt.Errorf("Code: 16. DB::Exception: No such column %s in table %s. (NO_SUCH_COLUMN_IN_TABLE)", n, in.target)
		}
		cols = append(cols, Column{n, t})
	}
	return cols, nil
}

// receive writes the client's blocks to f until the empty one that ends them. A
// client that cancels gives no rows.
func (c *session) receive(f *os.File, comp bool) (rows int, err error) {
	for {
		n, err := c.pr.UVarInt()
		if err != nil {
			return 0, errGone
		}
		if n == 3 {
			return 0, nil
		}
		if n != 2 {
			return 0, &fatalErr{fmt.Errorf("packet %d in INSERT data", n)}
		}
		_, bc, br, err := c.dataBlock(comp)
		if err != nil {
			return 0, &fatalErr{err}
		}
		if len(bc) == 0 {
			return rows, nil
		}
		if rows += br; br > 0 {
			if _, err := f.Write(c.w.out); err != nil {
				return 0, &fatalErr{err}
			}
		}
	}
}
