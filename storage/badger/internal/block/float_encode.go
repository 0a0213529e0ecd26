package block

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/klauspost/compress/zstd"
)

const (
	flagZstd = 1 << 0 // the section of descriptors and varints is compressed
	flagST   = 1 << 1 // start timestamps follow each value descriptor

	maxBlockExp = 15 // decimal exponents that a kind byte can name
)

// Encoder writes blocks. It reuses its buffers, so that a call allocates nothing but what dst needs. One goroutine may
// use it at a time. The zero value is not usable.
type Encoder struct {
	zstd    *zstd.Encoder
	ints    intEncoder
	scaled  []int64 // the series at hand, in ints
	section []byte
	frame   []byte
	except  []int
	columns [][]int64
	refs    [GroupSize]byte
}

// NewEncoder returns an encoder. Keep it: its compressor is large.
func NewEncoder() *Encoder { return &Encoder{zstd: newCompressor()} }

// EncodeFloats appends the block of c to dst and returns it. lsn is the last WAL record applied when the samples were
// copied. Errors wrap ErrInput or ErrTooLarge; dst is then returned as it came.
func (e *Encoder) EncodeFloats(dst []byte, lsn uint64, c *Columns) ([]byte, error) {
	if _, err := c.check(); err != nil {
		return dst, err
	}
	h := Header{LSN: lsn, MinT: math.MaxInt64, MaxT: math.MinInt64, Slots: c.Slots()}
	if err := e.gatherColumns(c, &h); err != nil {
		return dst, err
	}
	e.ints.reset()
	for _, ts := range e.columns {
		e.encodeTimes(ts, h.MinT)
	}
	flags := byte(0)
	for i := range c.ST {
		if len(c.TS[i]) > 0 && c.ST[i] != nil {
			flags |= flagST
		}
	}
	for i := range c.VS {
		if len(c.VS[i]) == 0 {
			continue
		}
		e.encodeValues(c.VS[i])
		if flags&flagST != 0 {
			e.encodeST(c.ST[i])
		}
	}
	e.ints.finish()
	dst = e.assemble(dst, flags, h)
	clear(e.columns) // they are the caller's
	return dst, nil
}

// gatherColumns finds the distinct timestamp columns and the block's time bounds.
func (e *Encoder) gatherColumns(c *Columns, h *Header) error {
	e.columns = e.columns[:0]
	series := 0
	for slot, ts := range c.TS {
		if len(ts) == 0 {
			continue
		}
		n := slices.IndexFunc(e.columns, func(o []int64) bool {
			return len(o) == len(ts) && (&o[0] == &ts[0] || o[0] == ts[0] && o[len(o)-1] == ts[len(ts)-1] && slices.Equal(o, ts))
		})
		if n < 0 {
			if !ascending(ts, 0, true) {
				return fmt.Errorf("encode slot %d: time does not ascend: %w", slot, ErrInput)
			}
			n = len(e.columns)
			e.columns = append(e.columns, ts)
			h.MinT, h.MaxT = min(h.MinT, ts[0]), max(h.MaxT, ts[len(ts)-1])
		}
		e.refs[series] = byte(n)
		series++
	}
	return nil
}

// encodeTimes writes a column relative to mint.
func (e *Encoder) encodeTimes(ts []int64, mint int64) {
	xs := e.ints.grow(len(ts))
	for i, t := range ts {
		xs[i] = t - mint
	}
	e.ints.sequence(len(e.ints.pre), len(ts), 0)
}

func (e *Encoder) encodeST(runs []STRun) {
	from := len(e.ints.pre)
	p := binary.AppendUvarint(e.ints.pre, uint64(len(runs)))
	prev := int64(0)
	for _, r := range runs {
		p = binary.AppendUvarint(p, uint64(r.Count))
		p = binary.AppendVarint(p, r.ST-prev)
		prev = r.ST
	}
	e.ints.pre = p
	e.ints.fixed(from, len(e.ints.cand))
}

// encodeValues writes one series.
func (e *Encoder) encodeValues(vs []float64) {
	from := len(e.ints.pre)
	mark := len(e.ints.ints)
	if exp, ok := e.scaleAll(vs); ok {
		if len(e.except) > 0 {
			e.encodeExceptions(vs)
		}
		e.ints.sequence(from, len(vs), byte(exp)<<4)
		return
	}
	e.ints.ints = e.ints.ints[:mark]
	first := math.Float64bits(vs[0])
	if slices.ContainsFunc(vs, func(v float64) bool { return math.Float64bits(v) != first }) {
		e.encodeXOR(vs)
		return
	}
	e.ints.pre = binary.LittleEndian.AppendUint64(append(e.ints.pre, kindConst), first)
	e.ints.fixed(from, len(e.ints.cand))
}

// encodeExceptions lists the values that are not decimals: position after the previous one, and bits.
func (e *Encoder) encodeExceptions(vs []float64) {
	p := append(e.ints.pre, kindExcept)
	p = binary.AppendUvarint(p, uint64(len(e.except)))
	prev := 0
	for _, i := range e.except {
		p = binary.AppendUvarint(p, uint64(i-prev))
		p = binary.LittleEndian.AppendUint64(p, math.Float64bits(vs[i]))
		prev = i
	}
	e.ints.pre = p
}

// encodeXOR writes eight byte planes: all highest bytes first.
func (e *Encoder) encodeXOR(vs []float64) {
	n := len(vs)
	from, preFrom := len(e.ints.cand), len(e.ints.pre)
	e.ints.pre = append(e.ints.pre, kindXOR)
	e.ints.cand = slices.Grow(e.ints.cand, 8*n)[:from+8*n]
	planes := e.ints.cand[from:]
	prev := uint64(0)
	for i, v := range vs {
		b := math.Float64bits(v)
		x := b ^ prev
		prev = b
		for k := range 8 {
			planes[k*n+i] = byte(x >> (56 - 8*k))
		}
	}
	e.ints.fixed(preFrom, from)
}

// scaleAll fills e.scaled with vs as integers at one decimal exponent and e.except with the positions where no exponent
// serves; ok is false when these are more than an eighth and one.
func (e *Encoder) scaleAll(vs []float64) (exp int, ok bool) {
	e.scaled = e.ints.grow(len(vs))
	for _, limit := range [...]int{maxBlockExp, 6, 2} {
		exp, raised, ok := e.scaleUpTo(vs, limit)
		if ok || !raised { // without a raise a lower limit changes nothing
			return exp, ok
		}
	}
	return 0, false
}

// scaleUpTo tries exponents up to limit. raised tells that the exponent had to go above 0.
func (e *Encoder) scaleUpTo(vs []float64, limit int) (exp int, raised, ok bool) {
	xs := e.scaled
	most := len(vs) / 8
	if len(vs) > 2 {
		most++ // a stale marker may end a short series, too
	}
	stale := 0 // xs below were scaled at a lower exponent
	e.except = e.except[:0]
	for i := 0; i < len(vs); i++ {
		x, ok := scale(vs[i], pow10[exp])
		if ok {
			xs[i] = x
			continue
		}
		if up, m, ok := findExp(vs[i], limit); ok && up > exp {
			exp, stale, xs[i] = up, i, m
			continue
		}
		if e.except = append(e.except, i); len(e.except) > most {
			return 0, exp > 0, false
		}
	}
	if stale > 0 {
		if !e.rescale(vs, stale, exp, most) {
			return 0, true, false
		}
	}
	fillExceptions(xs, e.except)
	return exp, exp > 0, true
}

// rescale repeats the work for the values before the last raise of the exponent.
func (e *Encoder) rescale(vs []float64, upTo, exp, most int) bool {
	behind := e.except
	for len(behind) > 0 && behind[0] < upTo {
		behind = behind[1:]
	}
	kept := len(behind)
	e.except = append(e.except[:0], behind...)
	for i := range upTo {
		x, ok := scale(vs[i], pow10[exp])
		if !ok {
			if e.except = append(e.except, i); len(e.except) > most {
				return false
			}
			continue
		}
		e.scaled[i] = x
	}
	if kept > 0 && len(e.except) > kept {
		slices.Sort(e.except)
	}
	return true
}

// fillExceptions repeats the neighbour at the places that decode overwrites, so that they cost nothing.
func fillExceptions(xs []int64, except []int) {
	for k, i := range except {
		if i > k { // not of a run at the very start
			xs[i] = xs[i-1]
		}
	}
	lead := 0
	for lead < len(except) && except[lead] == lead {
		lead++
	}
	for i := range lead { // lead is an eighth of xs at most
		xs[i] = xs[lead]
	}
}

// compress returns the section of descriptors and varints, compressed when that makes it shorter, and the flag for it.
func (e *Encoder) compress() (section []byte, flags byte) {
	e.section = append(append(e.section[:0], e.ints.desc...), e.ints.varint...)
	if len(e.section) < minCompress {
		return e.section, 0
	}
	e.frame = e.zstd.EncodeAll(e.section, e.frame[:0])
	if len(e.frame) >= len(e.section) {
		return e.section, 0
	}
	return e.frame, flagZstd
}

// assemble writes the block: header, column counts and references, packed bits, the section, checksum.
func (e *Encoder) assemble(dst []byte, flags byte, h Header) []byte {
	body, compressed := e.compress()
	from := len(dst)
	dst = appendHeader(dst, kindFloat, flags|compressed, h)
	dst = append(dst, byte(len(e.columns)))
	for _, ts := range e.columns {
		dst = binary.AppendUvarint(dst, uint64(len(ts)))
	}
	if len(e.columns) > 1 {
		dst = append(dst, e.refs[:h.Series()]...)
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.ints.desc)))
	dst = binary.AppendUvarint(dst, uint64(len(e.ints.varint)))
	dst = binary.AppendUvarint(dst, uint64(len(e.ints.packed)))
	dst = append(dst, e.ints.packed...)
	dst = append(dst, body...)
	return appendChecksum(dst, from)
}
