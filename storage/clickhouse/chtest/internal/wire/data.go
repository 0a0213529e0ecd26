//go:build linux

package wire

import (
	"fmt"

	"github.com/ClickHouse/ch-go/proto"
)

// dataBlock reads the body of a client's Data packet into c.w.out, as revision-0 Native.
func (c *session) dataBlock(compressed bool) (name string, cols []Column, rows int, err error) {
	if name, err = c.pr.Str(); err != nil {
		return
	}
	c.w.out, c.w.src = c.w.out[:0], c.br
	if compressed {
		c.w.src = c.dec
	}
	for { // block info
		f, err := c.w.uvarint()
		if err != nil {
			return "", nil, 0, err
		}
		if f == 0 {
			break
		}
		n := map[uint64]int{1: 1, 2: 4}[f]
		if n == 0 {
			return "", nil, 0, fmt.Errorf("block info field %d", f)
		}
		if _, err := c.w.take(n); err != nil {
			return "", nil, 0, err
		}
	}
	c.w.out = c.w.out[:0]
	cols, rows, err = c.w.block(c.rev, 0)
	return
}

// sendBlock writes one Data packet; body has no block info.
func (c *session) sendBlock(body []byte, compressed bool) error {
	proto.ServerCodeData.Encode(&c.buf)
	c.buf.PutString("")
	info := proto.Buffer{}
	proto.BlockInfo{BucketNum: -1}.Encode(&info)
	if !compressed {
		c.buf.Buf = append(append(c.buf.Buf, info.Buf...), body...)
		return c.flush()
	}
	body = append(info.Buf, body...)
	for len(body) > 0 {
		n := min(len(body), 1<<20)
		if err := c.cw.Compress(body[:n]); err != nil {
			return err
		}
		c.buf.Buf = append(c.buf.Buf, c.cw.Data...)
		body = body[n:]
	}
	return c.flush()
}
