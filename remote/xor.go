package remote

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/luminate/luminate/storage"
)

// xorEncoder encodes floats as XOR chunks, byte by byte as chunkenc does: remote read
// makes a chunk of every 120 samples, and chunkenc's appender writes bit by bit.
type xorEncoder struct {
	dst  []byte
	acc  uint64 // bits that are not in dst yet, right-aligned
	held uint   // their number, below 32

	leading, trailing uint // the window of the last difference that was written
}

// append appends a chunk of the samples, at least one and at most 65,535, to dst.
func (x *xorEncoder) append(dst []byte, samples []storage.Sample) []byte {
	x.dst, x.acc, x.held = binary.BigEndian.AppendUint16(dst, uint16(len(samples))), 0, 0
	x.leading, x.trailing = 64, 0 // no window: no difference has as many leading zeros
	first := samples[0]
	x.dst = binary.AppendVarint(x.dst, first.T)
	last := math.Float64bits(first.V)
	x.dst = binary.BigEndian.AppendUint64(x.dst, last)
	t, delta := first.T, uint64(0)
	for i, s := range samples[1:] {
		step := uint64(s.T - t)
		if i == 0 {
			x.dst = binary.AppendUvarint(x.dst, step)
		} else {
			x.time(int64(step - delta))
		}
		t, delta = s.T, step
		v := math.Float64bits(s.V)
		x.value(v ^ last)
		last = v
	}
	for ; x.held >= 8; x.held -= 8 {
		x.dst = append(x.dst, byte(x.acc>>(x.held-8)))
	}
	if x.held > 0 {
		x.dst = append(x.dst, byte(x.acc<<(8-x.held)))
	}
	return x.dst
}

// write appends the n low bits of v, whose others are zero; n is at most 32.
func (x *xorEncoder) write(v uint64, n uint) {
	x.acc = x.acc<<n | v
	if x.held += n; x.held >= 32 {
		x.held -= 32
		x.dst = binary.BigEndian.AppendUint32(x.dst, uint32(x.acc>>x.held))
	}
}

// long is write for up to 64 bits.
func (x *xorEncoder) long(v uint64, n uint) {
	if n > 32 {
		x.write(v>>32, n-32)
		v, n = v&math.MaxUint32, 32
	}
	x.write(v, n)
}

// time appends the difference of two steps: a prefix of ones tells its width.
func (x *xorEncoder) time(d int64) {
	switch {
	case d == 0:
		x.write(0, 1)
	case -8191 <= d && d <= 8192:
		x.write(0b10<<14|uint64(d)&(1<<14-1), 16)
	case -65535 <= d && d <= 65536:
		x.write(0b110<<17|uint64(d)&(1<<17-1), 20)
	case -524287 <= d && d <= 524288:
		x.write(0b1110<<20|uint64(d)&(1<<20-1), 24)
	default:
		x.write(0b1111, 4)
		x.long(uint64(d), 64)
	}
}

// value appends the XOR of two values' bits: the bits between its leading and trailing
// zeros, in the last window where they fit.
func (x *xorEncoder) value(d uint64) {
	if d == 0 {
		x.write(0, 1)
		return
	}
	leading, trailing := min(uint(bits.LeadingZeros64(d)), 31), uint(bits.TrailingZeros64(d))
	if leading >= x.leading && trailing >= x.trailing {
		x.write(0b10, 2)
		x.long(d>>x.trailing, 64-x.leading-x.trailing)
		return
	}
	x.leading, x.trailing = leading, trailing
	n := 64 - leading - trailing
	x.write(0b11<<11|uint64(leading)<<6|uint64(n)&63, 13) // 64 is written as 0
	x.long(d>>trailing, n)
}
