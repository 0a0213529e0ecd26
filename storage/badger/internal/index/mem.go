package index

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/zeebo/xxh3"
)

// Hash128 identifies a series: the seeded xxh3 hash of its canonical label bytes.
type Hash128 = xxh3.Uint128

const (
	// GroupSize is the number of neighbouring ids that belong to one metric.
	GroupSize = 64
	// MaxSeriesID bounds series ids, exclusively.
	MaxSeriesID = 1<<31 - GroupSize
	// MaxLabels bounds the labels of one series.
	MaxLabels = 4096
	// RecordIDs is the number of neighbouring ids that share a packed series record, as far as they are of one metric.
	RecordIDs = 512

	maxSymbols = 1<<32 - 1<<24 // keeps slab indexes within 32 bits

	metricName = "__name__"
	nameOfName = 1 // the number of __name__ among the names
)

// Mem is the index of an open partition. The zero value is not usable; NewMem makes one. See the package comment for
// the locks that its methods need.
type Mem struct {
	seed  maphash.Seed
	sym   byteSlab
	names dict
	label []*nameIndex // of name number - 1
	post  postingStore

	shapes    []shape
	shapeOf   map[string]uint32 // name numbers as bytes -> shape
	lastShape uint32

	hashes  slab[Hash128] // of id
	records slab[uint32]  // of id: 0, or index+1 in values of the shape, behind it one value number for each label
	values  slab[uint32]
	table   []uint64 // hash.Lo low half <<32 | id+1
	series  uint32

	groups    slab[group]
	metrics   slab[metric] // of value number of __name__; 0 for series without it
	nextGroup uint32
	dirty     slab[uint64] // a bit for each group that has series not yet in a packed record

	orderMu sync.Mutex // serialises building of value orders by readers

	scratch struct {
		name, value [][]byte
		key         []byte
		vals        []uint32
	}
}

// nameIndex is one label name: its values and, for each, its series.
type nameIndex struct {
	dict
	post  slab[postingRef] // of value number - 1; unused for __name__, whose series are extents
	order atomic.Pointer[valueOrder]
}

// shape is a set of label names, in order, with the series that have exactly these.
type shape struct {
	names []uint32
	post  postingRef
}

// position returns where among the labels of the shape a name stands, -1 if it does not.
func (s *shape) position(name uint32) int {
	for i, n := range s.names {
		if n == name {
			return i
		}
	}
	return -1
}

// NewMem returns an empty index.
func NewMem() *Mem {
	m := &Mem{seed: maphash.MakeSeed(), shapeOf: map[string]uint32{}}
	m.metrics.push(metric{})
	m.nameNumber([]byte(metricName))
	return m
}

// Lookup returns the id of the series with the hash. It allocates nothing.
func (m *Mem) Lookup(hash Hash128) (id uint32, ok bool) {
	if len(m.table) == 0 {
		return 0, false
	}
	h := uint32(hash.Lo)
	mask := uint32(len(m.table) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		e := m.table[i]
		if e == 0 {
			return 0, false
		}
		if uint32(e>>32) == h && *m.hashes.at(uint32(e) - 1) == hash {
			return uint32(e) - 1, true
		}
	}
}

// Create adds a series that Lookup did not find and returns its id. The labels are copied. It fails with ErrLabels,
// ErrFull, or ErrConflict when the hash is known; then nothing has changed.
func (m *Mem) Create(hash Hash128, labels []byte) (uint32, error) {
	if id, ok := m.Lookup(hash); ok {
		return 0, fmt.Errorf("create series %d again: %w", id, ErrConflict)
	}
	if err := m.parse(labels); err != nil {
		return 0, err
	}
	if m.nextGroup > (MaxSeriesID/GroupSize)-2*runGroups {
		return 0, fmt.Errorf("create series beyond id %d: %w", uint64(m.nextGroup)*GroupSize, ErrFull)
	}
	if m.values.n > maxSymbols || m.post.ids.n > maxSymbols {
		return 0, fmt.Errorf("create series beyond %d labels: %w", uint32(maxSymbols), ErrFull)
	}
	s, vals := m.symbolise()
	metric := m.metricOf(s, vals)
	id := m.nextID(metric)
	m.put(id, hash, s, vals, metric)
	return id, nil
}

// Insert adds a series under the id it had, for recovery. Inserting the same series again changes nothing. It fails
// with ErrConflict when the id, the hash, or the id's group is taken by another series or metric, or when the known
// labels differ; then nothing has changed.
func (m *Mem) Insert(id uint32, hash Hash128, labels []byte) error {
	if id >= MaxSeriesID {
		return fmt.Errorf("insert series %d: id out of range: %w", id, ErrConflict)
	}
	if err := m.parse(labels); err != nil {
		return fmt.Errorf("insert series %d: %w", id, err)
	}
	known, err := m.checkInsert(id, hash, labels)
	if known || err != nil {
		return err
	}
	s, vals := m.symbolise()
	m.insert(id, hash, s, vals)
	return nil
}

// checkInsert tells whether the very same series is there already, or fails with ErrConflict; parse has been called.
func (m *Mem) checkInsert(id uint32, hash Hash128, labels []byte) (known bool, err error) {
	if old, ok := m.Lookup(hash); ok {
		if old != id {
			return false, fmt.Errorf("insert series %d: its hash belongs to series %d: %w", id, old, ErrConflict)
		}
		have, _ := m.AppendLabels(nil, id)
		if !bytes.Equal(have, labels) {
			return false, fmt.Errorf("insert series %d: its labels differ from the known ones: %w", id, ErrConflict)
		}
		return true, nil
	}
	if m.has(id) {
		return false, fmt.Errorf("insert series %d: the id belongs to another hash: %w", id, ErrConflict)
	}
	if g := id / GroupSize; g < m.groups.n && m.groups.at(g).owner != 0 {
		if have := m.metricString(m.groups.at(g).owner - 1); have != m.parsedMetric() {
			return false, fmt.Errorf("insert series %d of %q: its group belongs to %q: %w", id, m.parsedMetric(), have, ErrConflict)
		}
	}
	return false, nil
}

func (m *Mem) insert(id uint32, hash Hash128, s uint32, vals []uint32) {
	metric := m.metricOf(s, vals)
	m.claim(id/GroupSize, metric)
	m.put(id, hash, s, vals, metric)
}

// put enters a series whose id is free and whose group belongs to the metric.
func (m *Mem) put(id uint32, hash Hash128, s uint32, vals []uint32, metricNo uint32) {
	m.hashes.extend(id + 1)
	*m.hashes.at(id) = hash
	m.records.extend(id + 1)
	first := m.values.run(uint32(len(vals)) + 1)
	rec := m.values.view(first, uint32(len(vals))+1)
	rec[0] = s
	copy(rec[1:], vals)
	*m.records.at(id) = first + 1

	if (int(m.series)+1)*4 > len(m.table)*3 {
		m.table = growTable(m.table)
	}
	tableInsert(m.table, hash.Lo<<32|uint64(id+1))
	m.series++
	m.fill(id, metricNo)

	sh := &m.shapes[s]
	sh.post = m.post.add(sh.post, id)
	for i, n := range sh.names {
		if n == nameOfName {
			continue
		}
		ref := m.label[n-1].post.at(vals[i] - 1)
		*ref = m.post.add(*ref, id)
	}
}

// parse splits labels into the scratch slices and checks their form and that the symbol table can take them.
func (m *Mem) parse(labels []byte) error {
	names, values := m.scratch.name[:0], m.scratch.value[:0]
	var prev []byte
	for rest := labels; len(rest) > 0; {
		var name, value []byte
		var ok bool
		if name, rest, ok = cutBytes(rest); ok {
			value, rest, ok = cutBytes(rest)
		}
		switch {
		case !ok:
			return fmt.Errorf("label bytes are cut short: %w", ErrLabels)
		case len(name) == 0 || len(value) == 0:
			return fmt.Errorf("label %q with value %q: %w", name, value, ErrLabels)
		case prev != nil && bytes.Compare(name, prev) <= 0:
			return fmt.Errorf("label %q stands after %q: %w", name, prev, ErrLabels)
		case len(names) == MaxLabels:
			return fmt.Errorf("more than %d labels: %w", MaxLabels, ErrLabels)
		}
		if err := m.sym.fits(max(len(name), len(value))); err != nil {
			return err
		}
		names, values, prev = append(names, name), append(values, value), name
	}
	m.scratch.name, m.scratch.value = names, values
	if len(m.sym.chunks)+len(labels)/bytesLen+2 > maxChunks {
		return fmt.Errorf("%d MiB of label values: %w", len(m.sym.chunks), ErrFull)
	}
	return nil
}

// parsedMetric is the metric of the labels that parse saw.
func (m *Mem) parsedMetric() string {
	for i, n := range m.scratch.name {
		if string(n) == metricName {
			return string(m.scratch.value[i])
		}
	}
	return ""
}

// symbolise numbers the labels that parse saw. The values are valid until the next call.
func (m *Mem) symbolise() (shapeNo uint32, vals []uint32) {
	shapeNo = m.parsedShape()
	vals = m.scratch.vals[:0]
	for i, n := range m.shapes[shapeNo].names {
		vals = append(vals, m.valueNumber(n, m.scratch.value[i]))
	}
	m.scratch.vals = vals
	return shapeNo, vals
}

// parsedShape finds or makes the shape of the parsed names. Neighbours mostly share it, so the last one is tried first.
func (m *Mem) parsedShape() uint32 {
	if int(m.lastShape) < len(m.shapes) {
		last := m.shapes[m.lastShape].names
		same := len(last) == len(m.scratch.name)
		for i := 0; same && i < len(last); i++ {
			same = bytes.Equal(m.names.value(&m.sym, last[i]), m.scratch.name[i])
		}
		if same {
			return m.lastShape
		}
	}
	numbers := make([]uint32, len(m.scratch.name))
	for i, n := range m.scratch.name {
		numbers[i] = m.nameNumber(n)
	}
	m.lastShape = m.shapeNumber(numbers)
	return m.lastShape
}

// shapeNumber finds or makes the shape of names in order; it keeps the slice.
func (m *Mem) shapeNumber(names []uint32) uint32 {
	key := m.scratch.key[:0]
	for _, n := range names {
		key = binary.LittleEndian.AppendUint32(key, n)
	}
	m.scratch.key = key
	s, ok := m.shapeOf[string(key)]
	if !ok {
		s = uint32(len(m.shapes))
		m.shapes = append(m.shapes, shape{names: names})
		m.shapeOf[string(key)] = s
	}
	return s
}

func (m *Mem) nameNumber(name []byte) uint32 {
	h := uint32(maphash.Bytes(m.seed, name))
	n, ok := m.names.find(&m.sym, h, name)
	if !ok {
		n = m.names.add(&m.sym, h, name)
		m.label = append(m.label, &nameIndex{})
	}
	return n
}

// findName returns the number of a name, 0 if there is none.
func (m *Mem) findName(name string) uint32 {
	b := viewBytes(name)
	n, _ := m.names.find(&m.sym, uint32(maphash.Bytes(m.seed, b)), b)
	return n
}

func (m *Mem) valueNumber(name uint32, value []byte) uint32 {
	h := uint32(maphash.Bytes(m.seed, value))
	x := m.label[name-1]
	v, ok := x.find(&m.sym, h, value)
	if !ok {
		v = x.add(&m.sym, h, value)
		if name == nameOfName {
			m.metrics.push(metric{})
		} else {
			x.post.push(0)
		}
	}
	return v
}

// findValue returns the number of a value, 0 if there is none.
func (m *Mem) findValue(name uint32, value string) uint32 {
	b := viewBytes(value)
	v, _ := m.label[name-1].find(&m.sym, uint32(maphash.Bytes(m.seed, b)), b)
	return v
}

func cutBytes(b []byte) (item, rest []byte, ok bool) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return nil, nil, false
	}
	return b[w : w+int(n)], b[w+int(n):], true
}
