package block

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
)

// FloatBlock is an opened float block: its header is read, its samples are not. It refers to the bytes it was opened
// on, which must not change while it is in use. Any number of goroutines may use it, each with its own Columns.
type FloatBlock struct {
	Header

	flags    byte
	samples  int               // of all slots
	colCount byte              // distinct timestamp columns
	refs     [GroupSize]byte   // column of the i-th filled slot
	counts   [GroupSize]uint32 // samples of each column
	desc     int               // bytes of descriptors in the section
	varint   int               // bytes of varints behind them
	packed   []byte
	section  []byte // maybe compressed
}

// OpenFloats verifies the checksum of a float block and reads its header. It allocates nothing. Errors wrap ErrDamaged
// or ErrVersion.
func OpenFloats(b []byte) (FloatBlock, error) {
	var f FloatBlock
	h, flags, r, err := openHeader(b, kindFloat)
	if err != nil {
		return f, err
	}
	f.Header, f.flags = h, flags
	if flags&^(flagZstd|flagST) != 0 {
		return f, damaged("block flags")
	}
	series := f.Series()
	f.colCount = r.byte()
	if f.colCount == 0 || int(f.colCount) > series {
		return f, damaged("block: columns")
	}
	for i := range f.colCount {
		n := r.uvarint()
		if n == 0 || n > MaxSamples {
			return f, damaged("block: column length")
		}
		f.counts[i] = uint32(n)
	}
	if f.colCount > 1 {
		copy(f.refs[:], r.bytes(uint64(series)))
	}
	for _, ref := range f.refs[:series] {
		if ref >= f.colCount {
			return f, damaged("block: column reference")
		}
		f.samples += int(f.counts[ref])
	}
	// A descriptor of a series has 40 bytes at most besides 20 for each exception and run; a varint has ten.
	limit := uint64(series)*128 + 30*uint64(f.samples)
	desc, varint, packed := r.uvarint(), r.uvarint(), r.uvarint()
	if r.bad || f.samples > MaxSamples || desc > limit || varint > limit {
		return f, damaged("block: section sizes")
	}
	f.desc, f.varint = int(desc), int(varint)
	f.packed = r.bytes(packed)
	f.section = r.b
	if r.bad || flags&flagZstd == 0 && len(f.section) != f.desc+f.varint {
		return f, damaged("block: sections")
	}
	return f, nil
}

// Samples returns the number of samples of all slots.
func (f *FloatBlock) Samples() int { return f.samples }

// Count returns the number of samples of a slot, 0 when it is empty.
func (f *FloatBlock) Count(slot int) int {
	if slot < 0 || slot >= GroupSize || f.Slots>>slot&1 == 0 {
		return 0
	}
	return int(f.counts[f.refs[bits.OnesCount64(f.Slots&(1<<slot-1))]])
}

// Decode replaces dst by the samples of the wanted slots (bit i: slot i); others are nil. Slots with one timestamp
// column share its slice. What it leaves in dst is valid until dst is used again. After an error, which wraps
// ErrDamaged, dst is empty.
func (f *FloatBlock) Decode(dst *Columns, want uint64) error {
	dst.Reset()
	want &= f.Slots
	if want == 0 {
		return nil
	}
	section := f.section
	if f.flags&flagZstd != 0 {
		var err error
		if dst.raw, err = decompress(dst.raw, section, f.desc+f.varint); err != nil {
			return err
		}
		section = dst.raw
	}
	src := intSource{
		desc:   reader{b: section[:f.desc]},
		varint: reader{b: section[f.desc:]},
		packed: reader{b: f.packed},
	}
	columns, times, values := f.wanted(want)
	dst.times = slices.Grow(dst.times[:0], times)
	dst.values = slices.Grow(dst.values[:0], values)
	dst.runs = dst.runs[:0]
	f.decodeTimes(dst, &src, columns)
	f.decodeSeries(dst, &src, want)
	if src.desc.bad || src.packed.bad || src.varint.bad || len(src.desc.b)+len(src.packed.b)+len(src.varint.b) > 0 {
		dst.Reset()
		return damaged("block: samples")
	}
	return nil
}

// wanted returns the timestamp columns that the wanted slots need, as a bitmap, and the room for times and values.
func (f *FloatBlock) wanted(want uint64) (columns uint64, times, values int) {
	rest := f.Slots
	for i := 0; rest != 0; i++ {
		if slot := rest & -rest; want&slot != 0 {
			ref := f.refs[i]
			values += int(f.counts[ref])
			if columns>>ref&1 == 0 {
				columns |= 1 << ref
				times += int(f.counts[ref])
			}
		}
		rest &= rest - 1
	}
	return columns, times, values
}

// decodeTimes decodes the timestamp columns named in the bitmap and passes over the others.
func (f *FloatBlock) decodeTimes(dst *Columns, src *intSource, columns uint64) {
	for col := range int(f.colCount) {
		n := int(f.counts[col])
		kind := src.desc.byte()
		if kind >= kindConst {
			src.desc.fail()
			return
		}
		if columns>>col&1 == 0 {
			src.decode(kind, n, nil)
			continue
		}
		from := len(dst.times)
		dst.times = dst.times[:from+n]
		ts := dst.times[from : from+n : from+n]
		src.decode(kind, n, ts)
		if src.desc.bad || src.packed.bad || src.varint.bad {
			return
		}
		for k := range ts {
			ts[k] += f.MinT
		}
		dst.cols[col] = ts
	}
}

// decodeSeries decodes the values and start timestamps of wanted slots and passes over the others.
func (f *FloatBlock) decodeSeries(dst *Columns, src *intSource, want uint64) {
	rest := f.Slots
	for i := 0; rest != 0; i++ {
		slot := bits.TrailingZeros64(rest)
		rest &= rest - 1
		n := int(f.counts[f.refs[i]])
		var out []float64
		if want>>slot&1 != 0 {
			from := len(dst.values)
			dst.values = dst.values[:from+n]
			out = dst.values[from : from+n : from+n]
			dst.TS[slot], dst.VS[slot] = dst.cols[f.refs[i]], out
		}
		src.decodeValues(n, out, dst)
		if f.flags&flagST != 0 {
			runs := decodeST(&src.desc, n, dst)
			if out != nil {
				dst.ST[slot] = runs
			}
		}
		if src.desc.bad || src.packed.bad || src.varint.bad {
			return
		}
	}
}

// decodeValues fills out with one series of n samples, or passes over it when out is nil.
func (s *intSource) decodeValues(n int, out []float64, dst *Columns) {
	kind := s.desc.byte()
	var except reader
	var exceptions uint64
	if kind == kindExcept {
		exceptions = s.desc.uvarint()
		except = s.desc
		if exceptions > uint64(n) {
			s.desc.fail()
			return
		}
		for range exceptions {
			s.desc.uvarint()
			s.desc.uint64()
		}
		kind = s.desc.byte()
	}
	switch kind & kindMask {
	case kindConst:
		v := math.Float64frombits(s.desc.uint64())
		for i := range out {
			out[i] = v
		}
	case kindXOR:
		if p := s.varint.bytes(8 * uint64(n)); out != nil && !s.varint.bad {
			joinPlanes(out, p)
		}
	case kindExcept, kindMask:
		s.desc.fail()
	default:
		if out == nil {
			s.decode(kind, n, nil)
			return
		}
		dst.ints = slices.Grow(dst.ints[:0], n)[:n]
		s.decode(kind, n, dst.ints)
		unscale(out, dst.ints, pow10[kind>>4])
	}
	if out != nil && exceptions > 0 {
		s.putExceptions(out, except, exceptions)
	}
}

func (s *intSource) putExceptions(out []float64, list reader, count uint64) {
	at := uint64(0)
	for range count {
		step := list.uvarint()
		v := math.Float64frombits(list.uint64())
		if list.bad || step >= uint64(len(out)) || at+step >= uint64(len(out)) {
			s.desc.fail()
			return
		}
		at += step
		out[at] = v
	}
}

func unscale(out []float64, xs []int64, pow float64) {
	xs = xs[:len(out)]
	if pow == 1 {
		for i, x := range xs {
			out[i] = float64(x)
		}
		return
	}
	for i, x := range xs {
		out[i] = float64(x) / pow
	}
}

func joinPlanes(out []float64, p []byte) {
	n := len(out)
	prev := uint64(0)
	for i := range out {
		var be [8]byte
		for k := range 8 {
			be[k] = p[k*n+i]
		}
		prev ^= binary.BigEndian.Uint64(be[:])
		out[i] = math.Float64frombits(prev)
	}
}

// decodeST reads the runs of one series of n samples; nil when it has none.
func decodeST(r *reader, n int, dst *Columns) []STRun {
	count := r.uvarint()
	if count == 0 {
		return nil
	}
	if count > uint64(n) {
		r.fail()
		return nil
	}
	from := len(dst.runs)
	st, total := int64(0), uint64(0)
	for range count {
		c := r.uvarint()
		st += r.varint()
		if total += c; c == 0 || c > uint64(n) || r.bad {
			r.fail()
			return nil
		}
		dst.runs = append(dst.runs, STRun{Count: uint32(c), ST: st})
	}
	if total != uint64(n) {
		r.fail()
		return nil
	}
	return dst.runs[from:len(dst.runs):len(dst.runs)]
}
