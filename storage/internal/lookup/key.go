package lookup

import (
	"encoding/binary"

	"github.com/luminate/luminate/storage"
)

// Key builds the key of an answer out of what it depends on; parts are
// length-prefixed, so different ones never make the same key.
type Key []byte

// Text adds a string.
func (k Key) Text(s string) Key {
	return append(binary.AppendUvarint(k, uint64(len(s))), s...)
}

// Number adds a number.
func (k Key) Number(n uint64) Key { return binary.AppendUvarint(k, n) }

// Matchers adds the predicates of a selection, in their order.
func (k Key) Matchers(ms []*storage.Matcher) Key {
	k = k.Number(uint64(len(ms)))
	for _, m := range ms {
		k = k.Number(uint64(m.Type)).Text(m.Name).Text(m.Value)
	}
	return k
}
