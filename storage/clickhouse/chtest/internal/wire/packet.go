//go:build linux

package wire

import (
	"fmt"

	"github.com/ClickHouse/ch-go/proto"
)

type query struct {
	id, body    string
	stage       uint64
	compression bool
	settings    []proto.Setting
	params      []proto.Setting
	secondary   bool
}

// fields reads the fields of a packet; after the first error it yields zero values.
type fields struct {
	r   *proto.Reader
	err error
}

func (f *fields) str() (s string) {
	if f.err == nil {
		s, f.err = f.r.Str()
	}
	return s
}

func (f *fields) num() (n uint64) {
	if f.err == nil {
		n, f.err = f.r.UVarInt()
	}
	return n
}

func (f *fields) raw(n int) (b []byte) {
	if f.err == nil {
		b, f.err = f.r.ReadRaw(n)
	}
	if len(b) < n {
		b = make([]byte, n)
	}
	return b[:n]
}

func (f *fields) pairs() (out []proto.Setting) {
	for f.err == nil {
		k := f.str()
		if k == "" {
			break
		}
		flags := f.num()
		out = append(out, proto.Setting{Key: k, Value: f.str(), Important: flags&1 != 0, Custom: flags&2 != 0})
	}
	return out
}

// decode reads a Query packet's body. ch-go's own decoder refuses the interfaces
// (LOCAL is 6) that an engine gives when it is itself the client.
func (q *query) decode(r *proto.Reader, rev int) error {
	f := &fields{r: r}
	q.id = f.str()
	kind := f.raw(1)[0]
	q.secondary = kind == 2
	if kind != 0 {
		f.clientInfo(rev)
	}
	q.settings = f.pairs()
	if rev >= 54441 {
		f.str() // interserver secret
	}
	q.stage = f.num()
	q.compression = f.num() == 1
	q.body = f.str()
	if rev >= 54459 {
		q.params = f.pairs()
	}
	if f.err != nil {
		return fmt.Errorf("query packet: %w", f.err)
	}
	return nil
}

// clientInfo reads over what the client says of itself.
func (f *fields) clientInfo(rev int) {
	f.str() // initial user
	f.str() // initial query id
	f.str() // initial address
	if rev >= 54449 {
		f.raw(8)
	}
	iface := f.raw(1)[0]
	switch iface {
	case 1: // TCP
		f.str()
		f.str()
		f.str()
		f.num()
		f.num()
		f.num()
	case 2: // HTTP
		f.raw(1)
		f.str()
		if rev >= 54443 {
			f.str()
		}
		if rev >= 54447 {
			f.str()
		}
	}
	f.str() // quota key
	if rev >= 54448 {
		f.num() // distributed depth
	}
	if iface == 1 {
		f.num() // patch
	}
	if rev >= 54442 && f.raw(1)[0] == 1 {
		f.raw(24)
		f.str()
		f.raw(1)
	}
	if rev >= 54453 {
		f.num()
		f.num()
		f.num()
	}
}
