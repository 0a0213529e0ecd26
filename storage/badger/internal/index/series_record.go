package index

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
)

// seriesRecord is a decoded series record: up to RecordIDs neighbouring series of one metric, label by label. Labels
// are columns of cells, each 0 for a missing label or the position of the value, plus 1, among the record's values of
// that label. A record needs nothing but itself to be read.
type seriesRecord struct {
	first  uint32
	mask   [runGroups]uint64
	before [runGroups]uint32 // series of the record in earlier groups
	n      int
	names  []recordLabel
	hashes []byte // n times 16 bytes
	arena  []byte // the values of all labels

	payload []byte
	serial  uint64 // differs from record to record in a recordWindow
}

type recordLabel struct {
	name  []byte
	arena []byte // the record's
	ends  []uint32
	from  uint32
	cells []byte
	width uint8 // bytes of a cell; 0: every series has value 0
}

// The payload: 64 bytes of mask; number of labels; for each label name, number of values, the values front-coded,
// width, cells (low bytes of all, then high bytes); at the end the hashes, 16 bytes each.
const hashLen = 16

func (l *recordLabel) values() int { return len(l.ends) }

func (l *recordLabel) value(i int) []byte {
	from := l.from
	if i > 0 {
		from = l.ends[i-1]
	}
	return l.arena[from:l.ends[i]:l.ends[i]]
}

// cell returns 0 if the series has no such label, else the position of its value plus 1.
func (l *recordLabel) cell(slot int) int {
	switch l.width {
	case 0:
		return 1
	case 1:
		return int(l.cells[slot])
	default:
		return int(l.cells[slot]) | int(l.cells[len(l.cells)/2+slot])<<8
	}
}

// slot returns the position of a series in the record.
func (r *seriesRecord) slot(id uint32) (int, bool) {
	off := id - r.first
	if off >= RecordIDs || r.mask[off/64]>>(off%64)&1 == 0 {
		return 0, false
	}
	return int(r.before[off/64]) + bits.OnesCount64(r.mask[off/64]&(1<<(off%64)-1)), true
}

func (r *seriesRecord) hash(slot int) Hash128 {
	b := r.hashes[slot*hashLen:]
	return Hash128{Hi: binary.BigEndian.Uint64(b), Lo: binary.BigEndian.Uint64(b[8:])}
}

func (r *seriesRecord) appendLabels(dst []byte, slot int) []byte {
	for i := range r.names {
		l := &r.names[i]
		if c := l.cell(slot); c > 0 {
			dst = appendLabel(dst, l.name, l.value(c-1))
		}
	}
	return dst
}

// label returns the column of a name, nil if no series of the record has it.
func (r *seriesRecord) label(name string) *recordLabel {
	for i := range r.names {
		if string(r.names[i].name) == name {
			return &r.names[i]
		}
	}
	return nil
}

// decode fills r from a payload, which r keeps, and reuses r's memory. ok is false for impossible bytes.
func (r *seriesRecord) decode(first uint32, payload []byte) (ok bool) {
	d := decoder{b: payload}
	r.first, r.n, r.arena, r.payload = first, 0, r.arena[:0], payload
	m := d.take(8 * runGroups)
	for g := range r.mask {
		if len(m) == 0 {
			return false
		}
		r.mask[g] = binary.BigEndian.Uint64(m[8*g:])
		r.before[g] = uint32(r.n)
		r.n += bits.OnesCount64(r.mask[g])
	}
	names := d.count(3)
	r.names = slices.Grow(r.names[:0], names)[:names]
	var prev []byte
	for i := range r.names {
		l := &r.names[i]
		l.name = d.bytes()
		if len(l.name) == 0 || i > 0 && bytes.Compare(prev, l.name) >= 0 {
			return false
		}
		prev = l.name
		if !r.decodeLabel(&d, l) {
			return false
		}
	}
	for i := range r.names { // the arena has stopped moving
		r.names[i].arena = r.arena
	}
	r.hashes = d.take(r.n * hashLen)
	return !d.bad && len(d.b) == 0
}

func (r *seriesRecord) decodeLabel(d *decoder, l *recordLabel) bool {
	n := d.count(2)
	l.ends = slices.Grow(l.ends[:0], n)[:n]
	l.from = uint32(len(r.arena))
	from := len(r.arena)
	for i := range l.ends {
		shared, prevLen := d.uvarint(), len(r.arena)-from
		if i == 0 {
			prevLen = 0
		}
		if shared > uint64(prevLen) {
			return false
		}
		tail := d.bytes()
		if shared+uint64(len(tail)) == 0 || len(r.arena)+int(shared)+len(tail) > maxPayload {
			return false
		}
		start := len(r.arena)
		r.arena = append(r.arena, r.arena[from:from+int(shared)]...)
		r.arena = append(r.arena, tail...)
		l.ends[i], from = uint32(len(r.arena)), start
	}
	l.width = d.byte()
	if d.bad || l.width > 2 || l.width == 0 && n != 1 {
		return false
	}
	l.cells = d.take(r.n * int(l.width))
	for slot := range r.n {
		if d.bad || l.cell(slot) > n {
			return false
		}
	}
	return true
}

// recordEncoder makes payloads of series records; it keeps its buffers.
type recordEncoder struct {
	ids, cells, distinct, names []uint32
	byValue                     []int
	rank                        []uint32
	out                         []byte
}

// encode makes the payload of the metric's series with ids in [from, to), of a record that begins at first. The
// payload is valid until the next call; n is the number of series.
func (e *recordEncoder) encode(m *Mem, metricNo, first, from, to uint32) (payload []byte, n int) {
	var mask [runGroups]uint64
	e.ids = e.ids[:0]
	for g := from / GroupSize; g*GroupSize < to && g < m.groups.n; g++ {
		if m.groups.at(g).owner != metricNo+1 {
			continue
		}
		for rest := m.groups.at(g).mask; rest != 0; rest &= rest - 1 {
			if id := g*GroupSize + uint32(bits.TrailingZeros64(rest)); id >= from && id < to {
				mask[g-first/GroupSize] |= rest & -rest
				e.ids = append(e.ids, id)
			}
		}
	}
	e.out = e.out[:0]
	for _, w := range mask {
		e.out = binary.BigEndian.AppendUint64(e.out, w)
	}
	e.collectNames(m)
	e.out = binary.AppendUvarint(e.out, uint64(len(e.names)))
	for _, name := range e.names {
		e.encodeLabel(m, name)
	}
	for _, id := range e.ids {
		h := m.hashes.at(id)
		e.out = binary.BigEndian.AppendUint64(e.out, h.Hi)
		e.out = binary.BigEndian.AppendUint64(e.out, h.Lo)
	}
	return e.out, len(e.ids)
}

// collectNames lists the names of the labels of the series, ascending by their strings.
func (e *recordEncoder) collectNames(m *Mem) {
	e.names = e.names[:0]
	last := ^uint32(0)
	for _, id := range e.ids {
		shapeNo := *m.values.at(*m.records.at(id) - 1)
		if shapeNo != last {
			last = shapeNo
			e.names = append(e.names, m.shapes[shapeNo].names...)
		}
	}
	slices.SortFunc(e.names, func(a, b uint32) int {
		return bytes.Compare(m.names.value(&m.sym, a), m.names.value(&m.sym, b))
	})
	e.names = slices.Compact(e.names)
}

func (e *recordEncoder) encodeLabel(m *Mem, name uint32) {
	x := m.label[name-1]
	e.cells = e.cells[:0]
	lastShape, pos := ^uint32(0), -1
	missing := false
	for _, id := range e.ids {
		first := *m.records.at(id) - 1
		if s := *m.values.at(first); s != lastShape {
			lastShape, pos = s, m.shapes[s].position(name)
		}
		v := uint32(0)
		if pos >= 0 {
			v = *m.values.at(first + 1 + uint32(pos))
		}
		missing = missing || v == 0
		e.cells = append(e.cells, v)
	}
	// distinct is ascending by number, to find numbers in; byValue orders it by the values' bytes.
	e.distinct = append(e.distinct[:0], e.cells...)
	slices.Sort(e.distinct)
	e.distinct = slices.Compact(e.distinct)
	if missing {
		e.distinct = e.distinct[1:]
	}
	n := len(e.distinct)
	e.byValue = e.byValue[:0]
	for i := range n {
		e.byValue = append(e.byValue, i)
	}
	slices.SortFunc(e.byValue, func(a, b int) int {
		return bytes.Compare(x.value(&m.sym, e.distinct[a]), x.value(&m.sym, e.distinct[b]))
	})
	e.rank = slices.Grow(e.rank[:0], n)[:n]
	e.out = appendBytes(e.out, m.names.value(&m.sym, name))
	e.out = binary.AppendUvarint(e.out, uint64(n))
	var prev []byte
	for r, i := range e.byValue {
		e.rank[i] = uint32(r)
		v := x.value(&m.sym, e.distinct[i])
		e.out = appendFrontCoded(e.out, prev, v)
		prev = v
	}
	e.appendCells(n, missing)
}

func (e *recordEncoder) appendCells(n int, missing bool) {
	width := 1
	switch {
	case n == 1 && !missing:
		e.out = append(e.out, 0)
		return
	case n > 255:
		width = 2
	}
	e.out = append(e.out, byte(width))
	at := len(e.out)
	e.out = append(e.out, make([]byte, width*len(e.cells))...)
	for i, v := range e.cells {
		if v == 0 {
			continue
		}
		k, _ := slices.BinarySearch(e.distinct, v)
		c := e.rank[k] + 1
		e.out[at+i] = byte(c)
		if width == 2 {
			e.out[at+len(e.cells)+i] = byte(c >> 8)
		}
	}
}
