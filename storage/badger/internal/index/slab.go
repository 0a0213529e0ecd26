package index

import (
	"encoding/binary"
	"fmt"
)

// Slabs grow by whole chunks: nothing is copied when they grow, and the collector sees a few large objects without
// pointers. Only the first chunk starts small, so that a partition of ten series stays small.
const (
	slabShift  = 13
	slabLen    = 1 << slabShift
	slabMask   = slabLen - 1
	slabFirst  = 16
	bytesShift = 20
	bytesLen   = 1 << bytesShift
	bytesMask  = bytesLen - 1
	bytesFirst = 1 << 10
	// maxChunks keeps references to bytes within 32 bits.
	maxChunks = 1 << (32 - bytesShift)
)

// slab is a growing array of T, a type without pointers.
type slab[T any] struct {
	chunks [][]T
	n      uint32
}

func (s *slab[T]) at(i uint32) *T { return &s.chunks[i>>slabShift][i&slabMask] }

func (s *slab[T]) push(v T) {
	if s.n&slabMask == 0 && int(s.n>>slabShift) == len(s.chunks) {
		size := slabLen
		if s.n == 0 {
			size = slabFirst
		}
		s.chunks = append(s.chunks, make([]T, 0, size))
	}
	c := &s.chunks[s.n>>slabShift]
	if len(*c) == cap(*c) {
		grown := make([]T, len(*c), min(slabLen, 2*cap(*c)))
		copy(grown, *c)
		*c = grown
	}
	*c = append(*c, v)
	s.n++
}

// extend grows the slab with zero values to at least n elements.
func (s *slab[T]) extend(n uint32) {
	var zero T
	for s.n < n {
		s.push(zero)
	}
}

// run reserves n contiguous elements, n <= slabLen, and returns the index of the first.
func (s *slab[T]) run(n uint32) uint32 {
	if s.n&slabMask+n > slabLen {
		s.extend((s.n | slabMask) + 1)
	}
	first := s.n
	s.extend(first + n)
	return first
}

// view returns n contiguous elements that run reserved.
func (s *slab[T]) view(first, n uint32) []T {
	off := first & slabMask
	return s.chunks[first>>slabShift][off : off+n : off+n]
}

func (s *slab[T]) capacity() int {
	n := 0
	for _, c := range s.chunks {
		n += cap(c)
	}
	return n
}

// byteSlab holds byte strings, each with its length before it.
type byteSlab struct{ chunks [][]byte }

// fits tells whether a string of n bytes can be put.
func (s *byteSlab) fits(n int) error {
	if n+binary.MaxVarintLen32 > bytesLen {
		return fmt.Errorf("label of %d bytes: %w", n, ErrLabels)
	}
	if len(s.chunks) >= maxChunks {
		return fmt.Errorf("%d MiB of label values: %w", len(s.chunks), ErrFull)
	}
	return nil
}

// put copies b; fits has been asked before.
func (s *byteSlab) put(b []byte) uint32 {
	need := len(b) + binary.MaxVarintLen32
	last := len(s.chunks) - 1
	if last < 0 || len(s.chunks[last])+need > bytesLen {
		size := bytesLen
		if last < 0 {
			size = max(bytesFirst, need)
		}
		s.chunks = append(s.chunks, make([]byte, 0, size))
		last++
	}
	c := s.chunks[last]
	if len(c)+need > cap(c) {
		grown := make([]byte, len(c), min(bytesLen, 2*(cap(c)+need)))
		copy(grown, c)
		c = grown
	}
	ref := uint32(last)<<bytesShift | uint32(len(c))
	c = binary.AppendUvarint(c, uint64(len(b)))
	s.chunks[last] = append(c, b...)
	return ref
}

// get returns the string; it stays valid for ever but must not be changed.
func (s *byteSlab) get(ref uint32) []byte {
	c := s.chunks[ref>>bytesShift][ref&bytesMask:]
	if n := int(c[0]); n < 0x80 {
		return c[1 : 1+n : 1+n]
	}
	n, w := binary.Uvarint(c)
	return c[w : w+int(n) : w+int(n)]
}
