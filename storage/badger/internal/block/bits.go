package block

import "encoding/binary"

func zigzag(x int64) uint64 { return uint64(x)<<1 ^ uint64(x>>63) }

func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

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
