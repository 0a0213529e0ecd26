package wal

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/klauspost/compress/s2"
)

const (
	// MaxSamples bounds the samples of one record.
	MaxSamples = 1 << 20
	// maxBodyBytes bounds what a compressed body may claim to unpack to.
	maxBodyBytes = 64 << 20

	recordHeaderBytes = 9

	flagCompressed = 1 << 0
	flagStart      = 1 << 1

	// minSampleBytes is the least that one sample takes in an unpacked body.
	minSampleBytes = 10
)

// Samples are float samples of one tenant and day, in order of arrival, as
// columns of equal length.
type Samples struct {
	Tenant uint32
	Day    int32 // UTC days since 1970, negative before
	Ref    []uint32
	T      []int64 // milliseconds
	V      []float64
	ST     []int64 // start timestamps, ms, 0: unset; empty when all are unset
}

// Reset empties the columns, keeps their memory and sets what they are for.
func (s *Samples) Reset(tenant uint32, day int32) {
	s.Tenant, s.Day = tenant, day
	s.Ref, s.T, s.V, s.ST = s.Ref[:0], s.T[:0], s.V[:0], s.ST[:0]
}

// Len is the number of samples.
func (s *Samples) Len() int { return len(s.Ref) }

// Append adds one sample.
func (s *Samples) Append(ref uint32, t int64, v float64, st int64) {
	if st != 0 || len(s.ST) > 0 {
		s.padStart()
		s.ST = append(s.ST, st)
	}
	s.Ref = append(s.Ref, ref)
	s.T = append(s.T, t)
	s.V = append(s.V, v)
}

// padStart gives all samples so far an unset start, if they have none.
func (s *Samples) padStart() {
	if missing := len(s.Ref) - len(s.ST); missing > 0 {
		at := len(s.ST)
		s.ST = slices.Grow(s.ST, missing)[:len(s.Ref)]
		clear(s.ST[at:])
	}
}

// RecordHeader is what a samples or series payload says before its body.
type RecordHeader struct {
	Tenant uint32
	Day    int32
	Count  int // samples or series
}

// ReadRecordHeader reads the header of a TypeSamples or TypeSeries payload,
// without unpacking it: enough to skip it. Count is not verified.
func ReadRecordHeader(payload []byte) (RecordHeader, error) {
	h, _, _, err := splitRecord(payload)
	return h, err
}

func appendRecordHeader(dst []byte, flags byte, tenant uint32, day int32, count int) []byte {
	dst = append(dst, flags)
	dst = binary.LittleEndian.AppendUint32(dst, tenant)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(day))
	return binary.AppendUvarint(dst, uint64(count))
}

func splitRecord(payload []byte) (h RecordHeader, flags byte, body []byte, err error) {
	if len(payload) < recordHeaderBytes {
		return h, 0, nil, corruptf("record of %d bytes", len(payload))
	}
	flags = payload[0]
	h.Tenant = binary.LittleEndian.Uint32(payload[1:])
	h.Day = int32(binary.LittleEndian.Uint32(payload[5:]))
	count, n := binary.Uvarint(payload[recordHeaderBytes:])
	if n <= 0 || count > MaxSamples {
		return h, 0, nil, corruptf("record count")
	}
	if flags&^(flagCompressed|flagStart) != 0 {
		return h, 0, nil, corruptf("record flags %#x", flags)
	}
	h.Count = int(count)
	return h, flags, payload[recordHeaderBytes+n:], nil
}

// packBody appends body to dst, compressed when that is shorter, and sets the
// flag at dst[flagAt] to say so.
func packBody(dst []byte, flagAt int, body []byte) []byte {
	at := len(dst)
	dst = slices.Grow(dst, s2.MaxEncodedLen(len(body)))
	packed := s2.Encode(dst[at:cap(dst)], body)
	if len(packed) >= len(body) {
		return append(dst[:at], body...)
	}
	dst[flagAt] |= flagCompressed
	return dst[:at+len(packed)]
}

// unpackBody returns the body, in scratch's memory if it was compressed.
func unpackBody(flags byte, body, scratch []byte) (raw, newScratch []byte, err error) {
	if flags&flagCompressed == 0 {
		return body, scratch, nil
	}
	n, err := s2.DecodedLen(body)
	if err != nil || n > maxBodyBytes {
		return nil, scratch, corruptf("body claims %d bytes", n)
	}
	if cap(scratch) < n {
		scratch = make([]byte, n)
	}
	raw, err = s2.Decode(scratch[:n], body)
	if err != nil {
		return nil, scratch, corruptf("body: %v", err)
	}
	return raw, scratch, nil
}

// SamplesEncoder encodes TypeSamples payloads. The zero value is ready; it keeps
// its buffer between calls and is not safe for concurrent use.
type SamplesEncoder struct{ body []byte }

// AppendTo appends the payload for s to dst, commonly what Batch.Start returned.
// Columns of unequal length, or more than MaxSamples, are refused.
func (e *SamplesEncoder) AppendTo(dst []byte, s *Samples) ([]byte, error) {
	n := len(s.Ref)
	if len(s.T) != n || len(s.V) != n || (len(s.ST) != 0 && len(s.ST) != n) {
		return dst, fmt.Errorf("encode samples: columns of %d, %d, %d, %d values", n, len(s.T), len(s.V), len(s.ST))
	}
	if n > MaxSamples {
		return dst, fmt.Errorf("encode %d samples, limit %d: %w", n, MaxSamples, ErrTooLarge)
	}
	var flags byte
	worst := n * (binary.MaxVarintLen32 + 1 + binary.MaxVarintLen64 + 8)
	if hasStart(s.ST) {
		flags = flagStart
		worst += n * 2 * binary.MaxVarintLen64
	}
	if cap(e.body) < worst {
		e.body = make([]byte, worst)
	}
	body := e.body[:worst]
	at := putRefs(body, s.Ref)
	at += putTimes(body[at:], s.T)
	putPlanes(body[at:at+8*n], s.V)
	at += 8 * n
	if flags != 0 {
		at += putStarts(body[at:], s.ST)
	}
	flagAt := len(dst)
	dst = appendRecordHeader(dst, flags, s.Tenant, s.Day, n)
	return packBody(dst, flagAt, body[:at]), nil
}

func hasStart(st []int64) bool {
	for _, t := range st {
		if t != 0 {
			return true
		}
	}
	return false
}

func zigzag(v int64) uint64   { return uint64(v<<1) ^ uint64(v>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

func putRefs(dst []byte, refs []uint32) int {
	at, prev := 0, int64(0)
	for _, ref := range refs {
		u := zigzag(int64(ref) - prev)
		prev = int64(ref)
		if u < 0x80 {
			dst[at] = byte(u)
			at++
			continue
		}
		at += binary.PutUvarint(dst[at:], u)
	}
	return at
}

func putTimes(dst []byte, times []int64) int {
	at, prev := 0, int64(0)
	for _, t := range times {
		u := zigzag(t - prev) // wraps, and wraps back when it is read
		prev = t
		if u < 0x80 {
			dst[at] = byte(u)
			at++
			continue
		}
		at += binary.PutUvarint(dst[at:], u)
	}
	return at
}

// putPlanes writes byte k of every value together, the most significant first:
// signs and exponents repeat where whole values do not. dst holds 8 bytes a value.
func putPlanes(dst []byte, values []float64) {
	n := len(values)
	p0, p1, p2, p3 := dst[:n], dst[n:][:n], dst[2*n:][:n], dst[3*n:][:n]
	p4, p5, p6, p7 := dst[4*n:][:n], dst[5*n:][:n], dst[6*n:][:n], dst[7*n:][:n]
	for i, v := range values {
		b := math.Float64bits(v)
		p0[i], p1[i], p2[i], p3[i] = byte(b>>56), byte(b>>48), byte(b>>40), byte(b>>32)
		p4[i], p5[i], p6[i], p7[i] = byte(b>>24), byte(b>>16), byte(b>>8), byte(b)
	}
}

// putStarts writes runs of equal start timestamps: length, difference.
func putStarts(dst []byte, starts []int64) int {
	at, prev := 0, int64(0)
	for i := 0; i < len(starts); {
		end := i + 1
		for end < len(starts) && starts[end] == starts[i] {
			end++
		}
		at += binary.PutUvarint(dst[at:], uint64(end-i))
		at += binary.PutUvarint(dst[at:], zigzag(starts[i]-prev))
		prev, i = starts[i], end
	}
	return at
}

// SamplesDecoder decodes TypeSamples payloads. The zero value is ready; it keeps
// its buffer between calls and is not safe for concurrent use.
type SamplesDecoder struct{ scratch []byte }

// Decode appends the payload's samples to s's columns and sets its Tenant and
// Day. After an error, which matches ErrCorrupt, the columns are as they were.
func (d *SamplesDecoder) Decode(payload []byte, s *Samples) error {
	h, flags, body, err := splitRecord(payload)
	if err != nil {
		return fmt.Errorf("decode samples: %w", err)
	}
	body, d.scratch, err = unpackBody(flags, body, d.scratch)
	if err != nil {
		return fmt.Errorf("decode samples: %w", err)
	}
	if len(body) < h.Count*minSampleBytes {
		return fmt.Errorf("decode samples: %w", corruptf("%d samples in %d bytes", h.Count, len(body)))
	}
	old := *s
	if err := appendColumns(s, h.Count, flags, body); err != nil {
		*s = old
		return fmt.Errorf("decode samples: %w", err)
	}
	s.Tenant, s.Day = h.Tenant, h.Day
	return nil
}

func appendColumns(s *Samples, n int, flags byte, body []byte) (err error) {
	at := len(s.Ref)
	withStart := flags&flagStart != 0 || len(s.ST) > 0
	if withStart {
		s.padStart()
	}
	s.Ref = slices.Grow(s.Ref, n)[:at+n]
	if body, err = readRefs(body, s.Ref[at:]); err != nil {
		return err
	}
	s.T = slices.Grow(s.T, n)[:at+n]
	if body, err = readTimes(body, s.T[at:]); err != nil {
		return err
	}
	if len(body) < 8*n {
		return corruptf("values cut short")
	}
	s.V = slices.Grow(s.V, n)[:at+n]
	readPlanes(body, s.V[at:])
	body = body[8*n:]
	if withStart {
		s.ST = slices.Grow(s.ST, n)[:at+n]
		clear(s.ST[at:])
	}
	if flags&flagStart != 0 {
		if body, err = readStarts(body, s.ST[at:]); err != nil {
			return err
		}
	}
	if len(body) != 0 {
		return corruptf("%d bytes after the samples", len(body))
	}
	return nil
}

func readRefs(src []byte, refs []uint32) ([]byte, error) {
	prev := int64(0)
	for i := range refs {
		u, n := readUvarint(src)
		if n <= 0 {
			return nil, corruptf("reference %d", i)
		}
		src = src[n:]
		prev += unzigzag(u)
		if uint64(prev) > math.MaxUint32 {
			return nil, corruptf("reference %d out of range", i)
		}
		refs[i] = uint32(prev)
	}
	return src, nil
}

func readTimes(src []byte, times []int64) ([]byte, error) {
	prev := int64(0)
	for i := range times {
		u, n := readUvarint(src)
		if n <= 0 {
			return nil, corruptf("timestamp %d", i)
		}
		src = src[n:]
		prev += unzigzag(u)
		times[i] = prev
	}
	return src, nil
}

// readUvarint is binary.Uvarint with its usual case, one byte, inlined.
func readUvarint(src []byte) (uint64, int) {
	if len(src) > 0 && src[0] < 0x80 {
		return uint64(src[0]), 1
	}
	return binary.Uvarint(src)
}

func readPlanes(src []byte, values []float64) {
	n := len(values)
	p0, p1, p2, p3 := src[:n], src[n:][:n], src[2*n:][:n], src[3*n:][:n]
	p4, p5, p6, p7 := src[4*n:][:n], src[5*n:][:n], src[6*n:][:n], src[7*n:][:n]
	for i := range values {
		values[i] = math.Float64frombits(uint64(p0[i])<<56 | uint64(p1[i])<<48 |
			uint64(p2[i])<<40 | uint64(p3[i])<<32 | uint64(p4[i])<<24 |
			uint64(p5[i])<<16 | uint64(p6[i])<<8 | uint64(p7[i]))
	}
}

func readStarts(src []byte, starts []int64) ([]byte, error) {
	prev := int64(0)
	for at := 0; at < len(starts); {
		run, n := readUvarint(src)
		if n <= 0 || run == 0 || run > uint64(len(starts)-at) {
			return nil, corruptf("run of start timestamps at %d", at)
		}
		src = src[n:]
		u, n := readUvarint(src)
		if n <= 0 {
			return nil, corruptf("start timestamp at %d", at)
		}
		src = src[n:]
		prev += unzigzag(u)
		for end := at + int(run); at < end; at++ {
			starts[at] = prev
		}
	}
	return src, nil
}
