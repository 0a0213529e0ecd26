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

// decode reads a Query packet's body. ch-go's own decoder refuses the interfaces
// (LOCAL is 6) that an engine gives when it is itself the client.
func (q *query) decode(r *proto.Reader, rev int) (err error) {
	str := func() (s string) {
		if err == nil {
			s, err = r.Str()
		}
		return
	}
	num := func() (n uint64) {
		if err == nil {
			n, err = r.UVarInt()
		}
		return
	}
	raw := func(n int) (b []byte) {
		if err == nil {
			b, err = r.ReadRaw(n)
		}
		if len(b) < n {
			b = make([]byte, n)
		}
		return b[:n]
	}
	q.id = str()
	kind := raw(1)[0]
	q.secondary = kind == 2
	if kind != 0 {
		str() // initial user
		str() // initial query id
		str() // initial address
		if rev >= 54449 {
			raw(8)
		}
		iface := raw(1)[0]
		switch iface {
		case 1: // TCP
			str()
			str()
			str()
			num()
			num()
			num()
		case 2: // HTTP
			raw(1)
			str()
			if rev >= 54443 {
				str()
			}
			if rev >= 54447 {
				str()
			}
		}
		str() // quota key
		if rev >= 54448 {
			num() // distributed depth
		}
		if iface == 1 {
			num() // patch
		}
		if rev >= 54442 && raw(1)[0] == 1 {
			raw(24)
			str()
			raw(1)
		}
		if rev >= 54453 {
			num()
			num()
			num()
		}
	}
	pairs := func() (out []proto.Setting) {
		for err == nil {
			k := str()
			if k == "" {
				break
			}
			f := num()
			out = append(out, proto.Setting{Key: k, Value: str(), Important: f&1 != 0, Custom: f&2 != 0})
		}
		return
	}
	q.settings = pairs()
	if rev >= 54441 {
		str() // interserver secret
	}
	q.stage = num()
	q.compression = num() == 1
	q.body = str()
	if rev >= 54459 {
		q.params = pairs()
	}
	if err != nil {
		return fmt.Errorf("query packet: %w", err)
	}
	return nil
}
