package block

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"
)

const (
	formatVersion = 1
	kindFloat     = 1
	kindHistogram = 2

	checksumBytes = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header is what every block tells without being decompressed.
type Header struct {
	LSN        uint64 // last WAL record that the block's samples may come from
	MinT, MaxT int64  // first and last sample of all slots, inclusive Unix milliseconds
	Slots      uint64 // bit i: slot i holds samples
}

// Series returns the number of slots that hold samples.
func (h Header) Series() int { return bits.OnesCount64(h.Slots) }

// appendHeader writes version, kind and flags, then the fields.
func appendHeader(dst []byte, kind, flags byte, h Header) []byte {
	dst = append(dst, formatVersion, kind, flags)
	dst = binary.AppendUvarint(dst, h.LSN)
	dst = binary.AppendVarint(dst, h.MinT)
	dst = binary.AppendUvarint(dst, uint64(h.MaxT)-uint64(h.MinT))
	return binary.AppendUvarint(dst, h.Slots)
}

// appendChecksum seals the block that starts at from.
func appendChecksum(dst []byte, from int) []byte {
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[from:], castagnoli))
}

// openHeader checks checksum, version and kind and returns the header, the flags and a reader of what follows it.
func openHeader(b []byte, kind byte) (h Header, flags byte, r reader, err error) {
	if len(b) < 3+checksumBytes {
		return h, 0, r, damaged("block: truncated")
	}
	body := b[:len(b)-checksumBytes]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[len(body):]) {
		return h, 0, r, damaged("block: checksum")
	}
	if body[0] != formatVersion || body[1] != kind {
		return h, 0, r, fmt.Errorf("read block of version %d, kind %d: %w", body[0], body[1], ErrVersion)
	}
	r = reader{b: body[3:]}
	h.LSN = r.uvarint()
	h.MinT = r.varint()
	span := r.uvarint()
	h.MaxT = int64(uint64(h.MinT) + span)
	h.Slots = r.uvarint()
	if r.bad || h.Slots == 0 || h.MaxT < h.MinT {
		return h, 0, r, damaged("block header")
	}
	return h, body[2], r, nil
}

// reader takes fields from b. After a field that is not there bad is set and all further fields are zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint() uint64 {
	if len(r.b) > 0 && r.b[0] < 0x80 {
		v := r.b[0]
		r.b = r.b[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uint64() uint64 {
	p := r.bytes(8)
	if r.bad {
		return 0
	}
	return binary.LittleEndian.Uint64(p)
}

// bytes returns the next n bytes without copying them, nil when there are fewer.
func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) fail() { r.b, r.bad = nil, true }
