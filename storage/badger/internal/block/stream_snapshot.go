package block

import (
	"encoding/binary"
	"fmt"
	"math"
)

// AppendSnapshot appends the stream's samples as they lie in memory, tokens segment by segment, and returns dst.
// There is no checksum in it: the file around it has one.
func (s *Stream) AppendSnapshot(dst []byte, a *Arena) []byte {
	dst = binary.AppendUvarint(dst, uint64(s.count))
	for ref := s.first; ref != 0; {
		seg := a.segment(ref)
		used := seg[usedAt]
		if ref == s.last {
			used = s.used
		}
		dst = append(dst, used)
		dst = append(dst, seg[:used]...)
		if ref == s.last {
			break
		}
		ref = binary.LittleEndian.Uint32(seg[nextAt:])
	}
	return dst
}

// RestoreSnapshot fills s, which must be empty, with what AppendSnapshot wrote at the start of src, and returns what
// follows. Every token is checked, and the time order. After an error s is empty and holds no memory.
func (s *Stream) RestoreSnapshot(a *Arena, src []byte) (rest []byte, err error) {
	count, n := binary.Uvarint(src)
	if n <= 0 || count > uint64(len(src)) { // a sample has one byte at least
		return nil, damaged("stream snapshot: count")
	}
	src = src[n:]
	if count == 0 {
		return src, nil
	}
	var (
		st streamState
		ts [payloadBytes]int64
		vs [payloadBytes]float64
	)
	for have := 0; have < int(count); {
		if len(src) < 1 || src[0] == 0 || src[0] > payloadBytes || len(src) < 1+int(src[0]) {
			s.Reset(a)
			return nil, damaged("stream snapshot: segment length")
		}
		tokens := src[1 : 1+src[0]]
		prev := st.t
		got := decodeTokens(tokens, &st, ts[:], vs[:])
		if got < 0 || have+got > int(count) || !ascending(ts[:got], prev, have == 0) || !st.sound() {
			s.Reset(a)
			return nil, fmt.Errorf("read stream snapshot: segment at sample %d of %d: %w", have, count, ErrDamaged)
		}
		s.grow(a)
		copy(a.segment(s.last)[:], tokens)
		s.used = uint8(len(tokens))
		s.size += uint32(len(tokens))
		have += got
		src = src[1+len(tokens):]
	}
	s.count = uint32(count)
	s.lastT, s.lastDelta, s.lastBits, s.exp = st.t, int32(st.delta), st.bits, st.exp
	return src, nil
}

// sound reports whether the state is one that Append leaves behind: a decimal state whose scaled value is the value's.
func (st *streamState) sound() bool {
	if st.exp > maxExp {
		return st.exp == expOpaque
	}
	m, ok := scale(math.Float64frombits(st.bits), pow10[st.exp])
	return ok && m == st.m
}

// ascending reports whether ts ascends strictly, from prev on unless first.
func ascending(ts []int64, prev int64, first bool) bool {
	for i, t := range ts {
		if t <= prev && !(first && i == 0) {
			return false
		}
		prev = t
	}
	return true
}
