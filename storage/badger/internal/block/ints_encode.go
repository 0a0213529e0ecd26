package block

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
)

// intEncoder collects everything that a block's descriptors tell, in order, and then chooses for each sequence of
// integers the shorter of two forms. Varints share one Huffman table in zstd, so that the choice is made for all
// sequences together.
type intEncoder struct {
	desc   []byte // the results
	packed []byte
	varint []byte

	items []item
	pre   []byte  // descriptor bytes of items, known beforehand
	cand  []byte  // varint forms
	ints  []int64 // all sequences
	diffs []int64 // scratch
	freq  [256]uint32
	cost  [256]uint32 // what a byte is likely to take, in bits/256
}

// item is a part of the descriptors: fixed bytes, with raw bytes for the varint section maybe, or a sequence.
type item struct {
	pre, cand  span // in intEncoder.pre and .cand
	ints       span // in intEncoder.ints; empty for fixed items
	high       byte
	useVarint  bool
	rounds     int // of the packed form
	width      int
	shift      int
	lo         int64
	vrounds    int // of the varint form
	voffset    bool
	vlo        int64
	packedBits int
}

type span struct{ from, to int }

func (e *intEncoder) reset() {
	e.desc, e.packed, e.varint = e.desc[:0], e.packed[:0], e.varint[:0]
	e.items, e.pre, e.cand, e.ints = e.items[:0], e.pre[:0], e.cand[:0], e.ints[:0]
}

// grow returns room for a sequence of n integers, to be filled and handed to sequence before the next call.
func (e *intEncoder) grow(n int) []int64 {
	from := len(e.ints)
	e.ints = slices.Grow(e.ints, n)[:from+n]
	return e.ints[from:]
}

// fixed adds what was appended to pre since preFrom and to cand since candFrom.
func (e *intEncoder) fixed(preFrom, candFrom int) {
	it := item{pre: span{preFrom, len(e.pre)}, cand: span{candFrom, len(e.cand)}, useVarint: true}
	e.items = append(e.items, it)
}

// sequence adds the last n integers that grow gave room for, behind what was appended to pre since preFrom; high goes
// into the upper half of the kind byte.
func (e *intEncoder) sequence(preFrom, n int, high byte) {
	it := item{pre: span{preFrom, len(e.pre)}, ints: span{len(e.ints) - n, len(e.ints)}, high: high}
	xs := e.ints[it.ints.from:it.ints.to]
	var st [3]rounds
	measure(xs, &st)
	it.packedBits = math.MaxInt
	for r := range min(3, n) {
		w, sh := st[r].width()
		if cost := w*(n-r) + 12*r; cost < it.packedBits { // a first value costs a byte or two more
			it.rounds, it.width, it.shift, it.lo, it.packedBits = r, w, sh, st[r].min, cost
		}
	}
	it.useVarint = it.packedBits > n // at a bit a value there is little to win
	it.cand = span{len(e.cand), len(e.cand)}
	if it.useVarint {
		e.addVarints(&it, xs, &st)
	}
	e.items = append(e.items, it)
}

// addVarints appends the varint form whose bytes have the least entropy. Short numbers alone do not tell: differences of
// differences are often shorter and less regular.
func (e *intEncoder) addVarints(it *item, xs []int64, st *[3]rounds) {
	best := uint64(math.MaxUint64)
	for r := range min(3, len(xs)) {
		from := len(e.cand)
		offset := e.putVarints(xs, r, st[r].min)
		cost := e.entropy(e.cand[from:])
		if cost >= best {
			e.cand = e.cand[:from]
			continue
		}
		best, it.vrounds, it.voffset, it.vlo = cost, r, offset, st[r].min
		e.cand = append(e.cand[:it.cand.from], e.cand[from:]...)
	}
	it.cand.to = len(e.cand)
}

// putVarints appends xs after r rounds as zigzag varints, or as varints above lo where these are shorter.
func (e *intEncoder) putVarints(xs []int64, r int, lo int64) (offset bool) {
	diffs := e.difference(xs, r)
	zig, off := 0, 7+bits.Len64(zigzag(lo)) // bytes times seven, about
	for _, x := range diffs[r:] {
		zig += varintSevenths[bits.Len64(zigzag(x))]
		off += varintSevenths[bits.Len64(uint64(x)-uint64(lo))]
	}
	if offset = off < zig; !offset {
		r, lo = len(diffs), 0
	}
	for _, x := range diffs[:r] {
		e.cand = binary.AppendVarint(e.cand, x)
	}
	for _, x := range diffs[r:] {
		e.cand = binary.AppendUvarint(e.cand, uint64(x)-uint64(lo))
	}
	return offset
}

// entropy returns the bits/256 that p takes when its bytes are coded each for itself.
func (e *intEncoder) entropy(p []byte) uint64 {
	for _, c := range p {
		e.freq[c]++
	}
	sum := uint64(len(p)) * uint64(log256(uint32(len(p))))
	for _, c := range p {
		sum -= uint64(log256(e.freq[c]))
	}
	for _, c := range p {
		e.freq[c] = 0
	}
	return sum
}

// finish chooses the forms and writes the three results.
func (e *intEncoder) finish() {
	for range 3 { // each round the table fits better what is left
		if !e.chooseForms() {
			break
		}
	}
	for i := range e.items {
		e.emit(&e.items[i])
	}
}

// chooseForms moves sequences to the packed form where that is shorter than what one entropy code for all varints makes
// of them; it reports whether any moved.
func (e *intEncoder) chooseForms() (moved bool) {
	clear(e.freq[:])
	sum, open := uint32(0), false
	for i := range e.items {
		if it := &e.items[i]; it.useVarint {
			for _, c := range e.cand[it.cand.from:it.cand.to] {
				e.freq[c]++
			}
			sum += uint32(it.cand.to - it.cand.from)
			open = open || it.ints.to > it.ints.from
		}
	}
	if !open {
		clear(e.freq[:])
		return false
	}
	distinct := uint32(0)
	for c, f := range e.freq {
		if f > 0 {
			e.cost[c] = log256(sum) - log256(f)
			distinct++
		}
	}
	clear(e.freq[:])
	for c := range e.cost { // half a byte of table for each distinct byte is shared out by length
		e.cost[c] += 4 * 256 * distinct / sum
	}
	for i := range e.items {
		it := &e.items[i]
		if !it.useVarint || it.ints.to == it.ints.from {
			continue
		}
		cost := uint64(0)
		for _, c := range e.cand[it.cand.from:it.cand.to] {
			cost += uint64(e.cost[c])
		}
		if cost >= 256*uint64(it.packedBits) {
			it.useVarint, moved = false, true
		}
	}
	return moved
}

// emit writes one item in its chosen form.
func (e *intEncoder) emit(it *item) {
	e.desc = append(e.desc, e.pre[it.pre.from:it.pre.to]...)
	if it.useVarint {
		e.varint = append(e.varint, e.cand[it.cand.from:it.cand.to]...)
	}
	if it.ints.to == it.ints.from {
		return
	}
	switch {
	case it.useVarint && it.voffset:
		e.desc = append(e.desc, it.high|byte(kindOffset+it.vrounds))
		e.desc = binary.AppendUvarint(e.desc, uint64(it.cand.to-it.cand.from))
		e.desc = binary.AppendVarint(e.desc, it.vlo)
	case it.useVarint:
		e.desc = append(e.desc, it.high|byte(kindZigzag+it.vrounds))
		e.desc = binary.AppendUvarint(e.desc, uint64(it.cand.to-it.cand.from))
	default:
		e.pack(it)
	}
}

// pack writes the bit-packed form: kind, first values, minimum, width, shift if any.
func (e *intEncoder) pack(it *item) {
	kind := kindPacked + it.rounds
	if it.shift > 0 {
		kind = kindShifted + it.rounds
	}
	diffs := e.difference(e.ints[it.ints.from:it.ints.to], it.rounds)
	e.desc = append(e.desc, it.high|byte(kind))
	for _, x := range diffs[:it.rounds] {
		e.desc = binary.AppendVarint(e.desc, x)
	}
	e.desc = binary.AppendVarint(e.desc, it.lo)
	e.desc = append(e.desc, byte(it.width))
	if it.shift > 0 {
		e.desc = append(e.desc, byte(it.shift))
	}
	e.packed = packBits(e.packed, diffs[it.rounds:], it.lo, it.shift, it.width)
}

// difference returns xs after r rounds, in scratch: the first r values are x0 and d0.
func (e *intEncoder) difference(xs []int64, r int) []int64 {
	e.diffs = append(e.diffs[:0], xs...)
	for k := range r {
		for i := len(e.diffs) - 1; i > k; i-- {
			e.diffs[i] -= e.diffs[i-1]
		}
	}
	return e.diffs
}

// rounds are the statistics of a sequence after 0, 1 or 2 rounds of differences, without the first values that the
// differences leave over.
type rounds struct {
	min, max int64
	first    int64
	or       uint64 // of all x^first: its trailing zeros are those of all x-min
}

func (s *rounds) start(x int64) {
	s.min, s.max, s.first = x, x, x
}

func (s *rounds) add(x int64) {
	s.min, s.max = min(s.min, x), max(s.max, x)
	s.or |= uint64(x) ^ uint64(s.first)
}

// width returns the bits of one packed value and the trailing zeros cut off.
func (s *rounds) width() (width, shift int) {
	if s.max == s.min {
		return 0, 0
	}
	shift = bits.TrailingZeros64(s.or)
	return bits.Len64((uint64(s.max) - uint64(s.min)) >> shift), shift
}

// measure fills the statistics of all rounds in one pass.
func measure(xs []int64, st *[3]rounds) {
	st[0].start(xs[0])
	st[0].add(xs[0])
	if len(xs) < 2 {
		return
	}
	st[0].add(xs[1])
	d := xs[1] - xs[0]
	st[1].start(d)
	st[1].add(d)
	if len(xs) < 3 {
		return
	}
	st[2].start(xs[2] - xs[1] - d)
	prev := xs[1]
	for _, x := range xs[2:] {
		nd := x - prev
		st[0].add(x)
		st[1].add(nd)
		st[2].add(nd - d)
		prev, d = x, nd
	}
}

// varintSevenths is seven times the bytes of a varint of so many bits.
var varintSevenths = func() (t [65]int) {
	for n := range t {
		t[n] = 7 * max(1, (n+6)/7)
	}
	return t
}()

var log256Table = func() (t [1024]uint32) {
	for i := range t {
		t[i] = uint32(math.Round(256 * math.Log2(float64(max(i, 1)))))
	}
	return t
}()

// log256 returns 256 times the binary logarithm; 0 for 0.
func log256(n uint32) uint32 {
	shift := 0
	for n >= uint32(len(log256Table)) {
		n >>= 2
		shift += 2
	}
	return log256Table[n] + uint32(256*shift)
}
