package index

import (
	"bytes"
	"unsafe"
)

// dict numbers the distinct values of one label, or the label names. Numbers start at 1: 0 stands for "no value".
//
// The table holds hash<<32 | number in open addressing with linear probes; the hash bits in the table answer nearly
// every mismatch without touching the bytes, and let the table grow without hashing anything again.
type dict struct {
	refs  slab[uint32] // of value number - 1
	table []uint64
	bytes uint64 // of all values
}

const tableFirst = 8

func (d *dict) len() uint32 { return d.refs.n }

func (d *dict) find(sym *byteSlab, h uint32, v []byte) (uint32, bool) {
	if len(d.table) == 0 {
		return 0, false
	}
	mask := uint32(len(d.table) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		e := d.table[i]
		if e == 0 {
			return 0, false
		}
		if uint32(e>>32) == h && bytes.Equal(sym.get(*d.refs.at(uint32(e) - 1)), v) {
			return uint32(e), true
		}
	}
}

// add numbers a value that find did not find.
func (d *dict) add(sym *byteSlab, h uint32, v []byte) uint32 {
	if (int(d.refs.n)+1)*4 > len(d.table)*3 {
		d.table = growTable(d.table)
	}
	d.refs.push(sym.put(v))
	d.bytes += uint64(len(v))
	tableInsert(d.table, uint64(h)<<32|uint64(d.refs.n))
	return d.refs.n
}

// value returns the bytes of value n >= 1.
func (d *dict) value(sym *byteSlab, n uint32) []byte { return sym.get(*d.refs.at(n - 1)) }

func (d *dict) str(sym *byteSlab, n uint32) string {
	if n == 0 {
		return ""
	}
	return viewString(d.value(sym, n))
}

func tableInsert(table []uint64, e uint64) {
	mask := uint32(len(table) - 1)
	i := uint32(e>>32) & mask
	for table[i] != 0 {
		i = (i + 1) & mask
	}
	table[i] = e
}

func growTable(old []uint64) []uint64 {
	table := make([]uint64, max(tableFirst, 2*len(old)))
	for _, e := range old {
		if e != 0 {
			tableInsert(table, e)
		}
	}
	return table
}

// viewString returns b as a string without copying it; b is never changed afterwards.
func viewString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func viewBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
