package native

import (
	"bytes"
	"errors"
	"strconv"
)

// decodeLines reads NDJSON: one metric a line, empty lines between allowed. A
// line that is not JSON is refused alone, since the next line begins afresh.
func (d *decoder) decodeLines() error {
	for line := 1; ; line++ {
		if err := d.fillLine(); err != nil {
			return err
		}
		if d.pos >= d.end {
			d.applySource()
			return nil
		}
		if err := d.decodeLine(line); err != nil {
			return err
		}
	}
}

// fillLine makes the whole next line unread.
func (d *decoder) fillLine() error {
	if err := d.fill(minWindow); err != nil {
		return err
	}
	for !d.eof && bytes.IndexByte(d.buf[d.pos:d.end], '\n') < 0 {
		if err := d.fill(2 * (d.end - d.pos)); err != nil {
			return err
		}
	}
	return nil
}

// decodeLine takes one line with its line feed.
func (d *decoder) decodeLine(line int) error {
	next := d.end
	stop := d.end
	if i := bytes.IndexByte(d.buf[d.pos:d.end], '\n'); i >= 0 {
		stop = d.pos + i
		next = stop + 1
	}
	if len(bytes.TrimSpace(d.buf[d.pos:stop])) == 0 {
		d.pos = next
		return nil
	}
	if d.total >= d.lim.MaxMetrics {
		return tooManyMetrics(d.lim.MaxMetrics)
	}
	// The scanner sees the line alone, as a body that ends with it.
	end, eof := d.end, d.eof
	d.end, d.eof = stop, true
	d.scratch = d.scratch[:0]
	err := d.metric()
	if err == nil && (d.peek() != 0 || d.pos < d.end) {
		err = d.fail("expected the end of the line")
	}
	d.pos, d.end, d.eof = next, end, eof
	var syntax *syntaxError
	switch {
	case err == nil:
		if d.m.problem != "" {
			d.m.problem = "line " + strconv.Itoa(line) + ": " + d.m.problem
		}
		d.finish()
	case errors.As(err, &syntax):
		d.refuse(d.total, d.m.name, CodeInvalidJSON, "line "+strconv.Itoa(line)+": "+syntax.Error())
		d.total++
	default:
		return err
	}
	return nil
}
