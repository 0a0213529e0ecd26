package block

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// A sequence of integers is stored either bit-packed or as zigzag varints that go through zstd, after up to two rounds of
// differences. The kind byte names both: low four bits here, the high four belong to the caller (a decimal exponent).
const (
	kindPacked  = 0  // 0..2: bit-packed, that many rounds of differences
	kindShifted = 3  // 3..5: the same, with common trailing zero bits cut off
	kindVarint  = 6  // 6..8: varints
	kindConst   = 12 // floats only: one raw value
	kindXOR     = 13 // floats only: byte planes of XOR with the previous value
	kindExcept  = 14 // floats only: a list of exceptions, then the kind byte proper
	kindMask    = 15
)

// rounds are the statistics of a sequence after 0, 1 or 2 rounds of differences, without the first values that the
// differences leave over.
type rounds struct {
	min, max int64
	first    int64
	or       uint64 // of all differences from first: its trailing zeros are common to all x-min
	varbits  int    // zigzag lengths
}

func (s *rounds) start(x int64) { s.min, s.max, s.first = x, x, x }

func (s *rounds) add(x int64) {
	s.min, s.max = min(s.min, x), max(s.max, x)
	s.or |= uint64(x) ^ uint64(s.first)
	s.varbits += bits.Len64(zigzag(x))
}

// width returns the bits of one packed value and the trailing zeros cut off.
func (s *rounds) width() (width, shift int) {
	if s.max == s.min {
		return 0, 0
	}
	shift = bits.TrailingZeros64(s.or)
	return bits.Len64((uint64(s.max) - uint64(s.min)) >> shift), shift
}

func zigzag(x int64) uint64 { return uint64(x)<<1 ^ uint64(x>>63) }

func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// intEncoder writes sequences to three streams: descriptors, packed bits and varints.
type intEncoder struct {
	desc   []byte
	packed []byte
	varint []byte
	diffs  []int64
	freq   [256]uint32
}

// encode appends xs, which is not empty; high goes into the upper half of the kind byte.
func (e *intEncoder) encode(xs []int64, high byte) {
	var st [3]rounds
	measure(xs, &st)
	best, bestBits, shift := 0, math.MaxInt, 0
	vbest := 0
	for r := range min(3, len(xs)) {
		w, sh := st[r].width()
		cost := w*(len(xs)-r) + 12*r // a first value costs a byte or two more
		if cost < bestBits {
			best, bestBits, shift = r, cost, sh
		}
		if st[r].varbits < st[vbest].varbits {
			vbest = r
		}
	}
	if bestBits > len(xs) { // more than a bit a value: what would entropy coding make of it?
		from := len(e.varint)
		if cost := e.tryVarint(xs, vbest); cost < float64(bestBits) {
			e.desc = append(e.desc, high|byte(kindVarint+vbest))
			e.desc = binary.AppendUvarint(e.desc, uint64(len(e.varint)-from))
			return
		}
		e.varint = e.varint[:from]
	}
	e.pack(xs, best, shift, &st[best], high)
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

// difference leaves xs after r rounds in e.diffs; the first r values are x0 and d0.
func (e *intEncoder) difference(xs []int64, r int) []int64 {
	e.diffs = append(e.diffs[:0], xs...)
	for k := range r {
		for i := len(e.diffs) - 1; i > k; i-- {
			e.diffs[i] -= e.diffs[i-1]
		}
	}
	return e.diffs
}

// pack writes the bit-packed form: kind, first values, minimum, width, shift if any.
func (e *intEncoder) pack(xs []int64, r, shift int, st *rounds, high byte) {
	kind := kindPacked + r
	if shift > 0 {
		kind = kindShifted + r
	}
	diffs := e.difference(xs, r)
	e.desc = append(e.desc, high|byte(kind))
	for _, x := range diffs[:r] {
		e.desc = binary.AppendVarint(e.desc, x)
	}
	width, _ := st.width()
	e.desc = binary.AppendVarint(e.desc, st.min)
	e.desc = append(e.desc, byte(width))
	if shift > 0 {
		e.desc = append(e.desc, byte(shift))
	}
	e.packed = packBits(e.packed, diffs[r:], st.min, shift, width)
}

// tryVarint appends the varints of xs after r rounds and returns an estimate, in bits, of what zstd makes of them.
func (e *intEncoder) tryVarint(xs []int64, r int) float64 {
	from := len(e.varint)
	for _, x := range e.difference(xs, r) {
		e.varint = binary.AppendVarint(e.varint, x)
	}
	clear(e.freq[:])
	out := e.varint[from:]
	for _, c := range out {
		e.freq[c]++
	}
	// Entropy of the bytes. Few samples flatter it, and the literals of all series share one Huffman table: hence a bit
	// for each distinct byte and a twentieth on top; and no literal takes less than a bit unless in a match.
	sum, distinct := 0.0, 0
	for _, f := range e.freq {
		if f > 0 {
			sum += float64(f) * math.Log2(float64(f))
			distinct++
		}
	}
	n := float64(len(out))
	return (n*math.Log2(n)-sum)*1.05 + 2*float64(distinct)
}

// packBits appends (x-lo)>>shift of every x in width bits, least significant first, padded to a whole byte.
func packBits(dst []byte, xs []int64, lo int64, shift, width int) []byte {
	if width == 0 {
		return dst
	}
	var acc uint64
	have := 0
	for _, x := range xs {
		u := (uint64(x) - uint64(lo)) >> shift
		acc |= u << have
		have += width
		if have >= 64 {
			dst = binary.LittleEndian.AppendUint64(dst, acc)
			have -= 64
			acc = u >> (width - have) // a shift by 64 gives 0
		}
	}
	for ; have > 0; have -= 8 {
		dst = append(dst, byte(acc))
		acc >>= 8
	}
	return dst
}

// packedBytes is the length of n values of that width.
func packedBytes(n, width int) int { return (n*width + 7) / 8 }

// unpackBits fills out from src, which holds packedBytes(len(out), width) bytes at least; what lies behind them may be
// read, never used.
func unpackBits(out []int64, src []byte, lo int64, shift, width int) {
	if width == 0 {
		for i := range out {
			out[i] = lo
		}
		return
	}
	mask := ^uint64(0) >> (64 - width)
	i := 0
	if width <= 57 { // a value and its offset in the first byte fit one load
		fast := max(min(len(out), (len(src)-8)*8/width), 0)
		for bit := 0; i < fast; i++ {
			u := binary.LittleEndian.Uint64(src[bit>>3:]) >> (bit & 7) & mask
			out[i] = lo + int64(u<<shift)
			bit += width
		}
	}
	for ; i < len(out); i++ {
		bit := i * width
		at := bit >> 3
		u := uint64(0)
		for k := 0; k < 8 && at+k < len(src); k++ {
			u |= uint64(src[at+k]) << (8 * k)
		}
		u >>= bit & 7
		if over := bit&7 + width - 64; over > 0 {
			u |= uint64(src[at+8]) << (64 - bit&7)
		}
		out[i] = lo + int64(u&mask<<shift)
	}
}

// intSource are the three streams on the way back.
type intSource struct {
	desc   reader
	packed reader
	varint reader
}

// decode fills out, or passes over the sequence when out is nil; n is its length. Damage is left in the readers' bad.
func (s *intSource) decode(kind byte, n int, out []int64) {
	kind &= kindMask
	if kind >= kindVarint {
		r := int(kind - kindVarint)
		p := s.varint.bytes(s.desc.uvarint())
		if out == nil || s.varint.bad {
			return
		}
		if r > 2 || !readVarints(out, p) {
			s.desc.fail()
			return
		}
		integrate(out, r)
		return
	}
	r := int(kind % 3)
	if r > n {
		s.desc.fail()
		return
	}
	var head [2]int64
	for i := range r {
		head[i] = s.desc.varint()
	}
	lo := s.desc.varint()
	width, shift := int(s.desc.byte()), 0
	if kind >= kindShifted {
		shift = int(s.desc.byte())
	}
	if width > 64 || shift > 63 {
		s.desc.fail()
		return
	}
	tail := s.packed.b
	s.packed.bytes(uint64(packedBytes(n-r, width)))
	if out == nil || s.packed.bad || s.desc.bad {
		return
	}
	copy(out, head[:r])
	unpackBits(out[r:], tail, lo, shift, width)
	integrate(out, r)
}

// readVarints fills out from exactly the bytes of p.
func readVarints(out []int64, p []byte) bool {
	at := 0
	for i := range out {
		if at < len(p) && p[at] < 0x80 {
			out[i] = unzigzag(uint64(p[at]))
			at++
			continue
		}
		x, w := binary.Varint(p[min(at, len(p)):])
		if w <= 0 {
			return false
		}
		out[i] = x
		at += w
	}
	return at == len(p)
}

// integrate undoes r rounds of differences.
func integrate(xs []int64, r int) {
	switch {
	case r == 1:
		acc := int64(0)
		for i, x := range xs {
			acc += x
			xs[i] = acc
		}
	case r == 2 && len(xs) > 0:
		acc := xs[0]
		d := int64(0)
		for i, x := range xs[1:] {
			d += x
			acc += d
			xs[i+1] = acc
		}
	}
}
