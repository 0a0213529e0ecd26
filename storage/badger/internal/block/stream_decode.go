package block

import (
	"encoding/binary"
	"math"
	"slices"
	"sort"
)

// streamState is what a token refers to.
type streamState struct {
	t, delta int64
	bits     uint64
	m        int64 // scaled last value, when exp is not expOpaque
	exp      uint8
}

// Decode appends all samples to ts and vs, in time order, and returns the slices.
func (s *Stream) Decode(a *Arena, ts []int64, vs []float64) ([]int64, []float64) {
	return s.decodeUntil(a, math.MaxInt64, ts, vs)
}

// DecodeRange appends the samples in [mint, maxt].
func (s *Stream) DecodeRange(a *Arena, mint, maxt int64, ts []int64, vs []float64) ([]int64, []float64) {
	if s.count == 0 || s.lastT < mint || mint > maxt {
		return ts, vs
	}
	n := len(ts)
	ts, vs = s.decodeUntil(a, maxt, ts, vs)
	got := ts[n:]
	lo := sort.Search(len(got), func(i int) bool { return got[i] >= mint })
	hi := len(got)
	if hi > 0 && got[hi-1] > maxt {
		hi = sort.Search(hi, func(i int) bool { return got[i] > maxt })
	}
	keep := max(hi-lo, 0)
	if lo > 0 {
		copy(got, got[lo:hi])
		copy(vs[n:], vs[n+lo:n+hi])
	}
	return ts[:n+keep], vs[:n+keep]
}

// LastN appends the last n samples.
func (s *Stream) LastN(a *Arena, n int, ts []int64, vs []float64) ([]int64, []float64) {
	if n <= 0 {
		return ts, vs
	}
	if n == 1 && s.count > 0 {
		return append(ts, s.lastT), append(vs, math.Float64frombits(s.lastBits))
	}
	at := len(ts)
	ts, vs = s.Decode(a, ts, vs)
	if skip := len(ts) - at - n; skip > 0 {
		copy(ts[at:], ts[at+skip:])
		copy(vs[at:], vs[at+skip:])
		ts, vs = ts[:len(ts)-skip], vs[:len(vs)-skip]
	}
	return ts, vs
}

// decodeUntil appends samples segment by segment and stops behind the first segment that passes maxt.
func (s *Stream) decodeUntil(a *Arena, maxt int64, ts []int64, vs []float64) ([]int64, []float64) {
	if s.count == 0 {
		return ts, vs
	}
	n, count := len(ts), int(s.count)
	ts = slices.Grow(ts, count)[:n+count]
	vs = slices.Grow(vs, count)[:n+count]
	var st streamState
	for ref := s.first; ; {
		seg := a.segment(ref)
		used := seg[usedAt]
		if ref == s.last {
			used = s.used
		}
		got := decodeTokens(seg[:used], &st, ts[n:], vs[n:])
		if got < 0 {
			panic("block: head stream broken in memory") // Append wrote it, or RestoreStream checked it
		}
		n += got
		if ref == s.last || st.t > maxt {
			return ts[:n], vs[:n]
		}
		ref = binary.LittleEndian.Uint32(seg[nextAt:])
	}
}

// decodeTokens decodes whole tokens from src into ts and vs, which are of one length, and returns how many there were.
// It returns -1 when src is not a sequence of whole tokens or holds more than fit.
func decodeTokens(src []byte, st *streamState, ts []int64, vs []float64) int {
	t, delta, m, exp := st.t, st.delta, st.m, st.exp
	v := math.Float64frombits(st.bits)
	pow := pow10[min(exp, maxExp)]
	vs = vs[:len(ts)]
	n := 0
	for i := 0; i < len(src); n++ {
		if n >= len(ts) {
			return -1
		}
		c := src[i]
		i++
		if c >= timeDod8 {
			dod, width := decodeDod(c, src[i:])
			if width < 0 {
				return -1
			}
			i += width
			delta += dod
			t += delta
			delta = int64(clampDelta(delta))
		} else {
			t += delta
		}
		switch code := c & codeMask; {
		case code >= codeInline:
			m += int64(code) - inlineZero
			v = float64(m) / pow
		case code == codeSame:
		case code == codeDelta1:
			if i >= len(src) {
				return -1
			}
			m += int64(int8(src[i]))
			i++
			v = float64(m) / pow
		case code == codeDelta1+1:
			if i+2 > len(src) {
				return -1
			}
			m += int64(int16(binary.LittleEndian.Uint16(src[i:])))
			i += 2
			v = float64(m) / pow
		default:
			if code == codeFree {
				return -1
			}
			width := wideBytes(code)
			if i+width > len(src) {
				return -1
			}
			m, exp, v = decodeWide(code, src[i:i+width], m, exp)
			pow = pow10[min(exp, maxExp)]
			i += width
		}
		ts[n], vs[n] = t, v
	}
	st.t, st.delta, st.bits, st.m, st.exp = t, delta, math.Float64bits(v), m, exp
	return n
}

// decodeDod returns the difference of time differences that follows a control byte, and its bytes, -1 when truncated.
func decodeDod(c byte, src []byte) (dod int64, width int) {
	switch c &^ codeMask {
	case timeDod8:
		if len(src) < 1 {
			return 0, -1
		}
		return int64(int8(src[0])), 1
	case timeDod2:
		if len(src) < 2 {
			return 0, -1
		}
		return int64(int16(binary.LittleEndian.Uint16(src))), 2
	default:
		dod, width = binary.Varint(src)
		if width <= 0 {
			return 0, -1
		}
		return dod, width
	}
}

// wideBytes returns the payload's bytes of the codes that decodeWide serves.
func wideBytes(code byte) int {
	switch {
	case code <= codeDelta4:
		return int(code)
	case code > codeRise:
		return 4
	default:
		return 8
	}
}

// decodeWide decodes what is rare: differences of 3 and 4 bytes, raw values and new exponents.
func decodeWide(code byte, p []byte, m int64, exp uint8) (int64, uint8, float64) {
	switch {
	case code < codeDelta4:
		m += int64(int32(uint32(p[0])<<8|uint32(p[1])<<16|uint32(p[2])<<24) >> 8)
	case code == codeDelta4:
		m += int64(int32(binary.LittleEndian.Uint32(p)))
	case code == codeRaw:
		return m, expOpaque, math.Float64frombits(binary.LittleEndian.Uint64(p))
	case code <= codeRise:
		v := math.Float64frombits(binary.LittleEndian.Uint64(p))
		exp = code - codeRawExp
		m, _ = scale(v, pow10[exp])
		return m, exp, v
	default:
		next := code - codeRise
		if exp < next {
			m *= pow10int[next-exp]
		}
		exp = next
		m += int64(int32(binary.LittleEndian.Uint32(p)))
	}
	return m, exp, float64(m) / pow10[min(exp, maxExp)]
}
