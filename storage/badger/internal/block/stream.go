package block

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// Stream is the open samples of one series: a chain of segments of an Arena and the state that the next Append needs.
// It is 40 bytes without pointers, so that a table of streams is one allocation that the collector never scans. The
// zero value is an empty stream. Copying a Stream moves it: only one copy may be used from then on.
type Stream struct {
	first, last uint32 // segment references, 0 = none
	count       uint32 // samples
	lastDelta   int32  // last time difference, 0 when it exceeds 32 bits
	used        uint8  // bytes of tokens in the last segment
	exp         uint8  // decimal exponent of the last value, or expOpaque
	_           uint16
	size        uint32 // bytes of tokens in all segments
	lastT       int64
	lastBits    uint64
}

// The control byte of a token: two bits of time, six of value.
const (
	timeSame = 0 << 6 // the time difference is the previous one
	timeDod8 = 1 << 6 // one signed byte: difference of differences
	timeDod2 = 2 << 6 // two bytes, signed, little endian
	timeDodV = 3 << 6 // zigzag varint
	codeMask = 1<<6 - 1

	codeSame   = 0  // the bits of the previous value
	codeDelta1 = 1  // 1..4: decimal difference in as many bytes, signed, little endian
	codeDelta4 = 4  //
	codeRaw    = 5  // 8 bytes; not a decimal
	codeRawExp = 6  // 6..12: 8 bytes; the decimal exponent becomes code-6
	codeRise   = 12 // 13..18: the exponent rises to code-12, then a difference in 4 bytes
	codeFree   = 19 // never written
	codeInline = 20 // 20..63: decimal difference code-42
	inlineZero = 42

	maxExp    = 6
	expOpaque = maxExp + 1 // the last value is not a decimal

	maxTokenBytes = 1 + binary.MaxVarintLen64 + 8
)

var pow10 = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}
var pow10int = [...]int64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6}

const (
	// Adding 1.5*2^52 leaves the rounded integer in the mantissa, for magnitudes below 2^51.
	roundMagic = 3 << 51
	maxScaled  = 1 << 51
)

// scale returns m such that m/pow has exactly the bits of v; ok is false when there is none below 2^51. Two different m
// never give the same v in that range, so that a decoder which adds differences arrives at the same m.
func scale(v, pow float64) (m int64, ok bool) {
	x := v * pow
	if !(x > -maxScaled && x < maxScaled) { // NaN fails both
		return 0, false
	}
	m = int64(math.Float64bits(x+roundMagic)) - int64(math.Float64bits(roundMagic))
	return m, math.Float64bits(float64(m)/pow) == math.Float64bits(v)
}

// findExp returns the smallest exponent at or below limit at which v is a decimal, with its scaled value.
func findExp(v float64, limit int) (exp int, m int64, ok bool) {
	// What is a decimal at a low exponent is one at every higher that stays in range: the highest decides.
	hi := limit
	for hi >= 0 && !(math.Abs(v)*pow10[hi] < maxScaled) {
		hi--
	}
	if hi < 0 {
		return 0, 0, false
	}
	if _, ok = scale(v, pow10[hi]); !ok {
		return 0, 0, false
	}
	for exp = range hi + 1 {
		if m, ok = scale(v, pow10[exp]); ok {
			return exp, m, true
		}
	}
	return 0, 0, false
}

// Len returns the number of samples.
func (s *Stream) Len() int { return int(s.count) }

// Bytes returns the bytes of tokens, without what segments leave unused.
func (s *Stream) Bytes() int { return int(s.size) }

// MaxT returns the time of the last sample; it means nothing when Len is 0.
func (s *Stream) MaxT() int64 { return s.lastT }

// Last returns the last sample without decoding; it means nothing when Len is 0.
func (s *Stream) Last() (t int64, v float64) { return s.lastT, math.Float64frombits(s.lastBits) }

// Append adds a sample. t must exceed MaxT unless the stream is empty: the caller has sent late samples elsewhere.
func (s *Stream) Append(a *Arena, t int64, v float64) {
	code, payload, width := s.valueToken(v)
	delta := t - s.lastT
	dod := delta - int64(s.lastDelta)
	if dod == 0 {
		s.put(a, code, payload, width)
	} else {
		s.putTimed(a, dod, code, payload, width)
	}
	s.lastDelta = clampDelta(delta)
	s.lastT = t
	s.lastBits = math.Float64bits(v)
	s.count++
}

// clampDelta is the time difference as the next token refers to it. Differences beyond 32 bits (24 days) are forgotten.
func clampDelta(delta int64) int32 {
	if d := int32(delta); int64(d) == delta {
		return d
	}
	return 0
}

// valueToken returns the value code, its payload and the payload's bytes, and moves the exponent state.
func (s *Stream) valueToken(v float64) (code byte, payload uint64, width uint8) {
	if math.Float64bits(v) == s.lastBits {
		return codeSame, 0, 0
	}
	if s.exp <= maxExp {
		pow := pow10[s.exp]
		if m, ok := scale(v, pow); ok {
			last := math.Float64frombits(s.lastBits)*pow + roundMagic
			d := m - (int64(math.Float64bits(last)) - int64(math.Float64bits(roundMagic)))
			if d >= codeInline-inlineZero && d <= codeMask-inlineZero {
				return byte(d + inlineZero), 0, 0
			}
			if int64(int32(d)) == d {
				n := uint8(bits.Len32(uint32(d<<1)^uint32(d>>31))+7) / 8
				return codeSame + n, uint64(d), n
			}
			return codeRawExp + s.exp, math.Float64bits(v), 8
		}
	}
	return s.newExponent(v)
}

// newExponent serves values that the current exponent cannot hold.
func (s *Stream) newExponent(v float64) (code byte, payload uint64, width uint8) {
	exp, m, ok := findExp(v, maxExp)
	if !ok {
		s.exp = expOpaque
		return codeRaw, math.Float64bits(v), 8
	}
	old := s.exp
	s.exp = uint8(exp)
	if old <= maxExp && exp > int(old) {
		if lastM, ok := scale(math.Float64frombits(s.lastBits), pow10[exp]); ok {
			if d := m - lastM; int64(int32(d)) == d {
				return codeRise + byte(exp), uint64(d), 4
			}
		}
	}
	return codeRawExp + byte(exp), math.Float64bits(v), 8
}

// put writes a token whose time difference is the previous one.
func (s *Stream) put(a *Arena, code byte, payload uint64, width uint8) {
	n := width + 1
	if s.last == 0 || s.used+n > payloadBytes {
		s.grow(a)
	}
	seg := a.segment(s.last)
	p := int(s.used)
	seg[p] = code
	if p < segmentBytes-9 {
		// May write over bytes behind the token: they are free, and the chain field is written when the segment is full.
		binary.LittleEndian.PutUint64(seg[p+1:], payload)
	} else {
		for i := range int(width) {
			seg[p+1+i] = byte(payload >> (8 * i))
		}
	}
	s.used += n
	s.size += uint32(n)
}

// putTimed writes a token with a new time difference.
func (s *Stream) putTimed(a *Arena, dod int64, code byte, payload uint64, width uint8) {
	var tok [maxTokenBytes + 8]byte
	n := 1
	switch {
	case dod == int64(int8(dod)):
		code |= timeDod8
		tok[1] = byte(dod)
		n = 2
	case dod == int64(int16(dod)):
		code |= timeDod2
		binary.LittleEndian.PutUint16(tok[1:], uint16(dod))
		n = 3
	default:
		code |= timeDodV
		n += binary.PutVarint(tok[1:], dod)
	}
	tok[0] = code
	binary.LittleEndian.PutUint64(tok[n:], payload)
	n += int(width)
	if s.last == 0 || int(s.used)+n > payloadBytes {
		s.grow(a)
	}
	copy(a.segment(s.last)[s.used:], tok[:n])
	s.used += uint8(n)
	s.size += uint32(n)
}

// grow closes the last segment and chains a new one.
func (s *Stream) grow(a *Arena) {
	ref := a.alloc()
	if s.last == 0 {
		s.first = ref
	} else {
		seg := a.segment(s.last)
		seg[usedAt] = s.used
		binary.LittleEndian.PutUint32(seg[nextAt:], ref)
	}
	s.last, s.used = ref, 0
}

// Reset gives the stream's segments back and makes it empty.
func (s *Stream) Reset(a *Arena) {
	for ref := s.first; ref != 0; {
		isLast := ref == s.last
		ref = a.release(ref)
		if isLast { // its chain field holds anything
			break
		}
	}
	*s = Stream{}
}
