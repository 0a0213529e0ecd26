package index

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/s2"
)

// The kinds of keys. A key is the store's own prefix (partition and tenant), the kind, and a suffix that is built here.
const (
	KindMeta     byte = 0x00 // no suffix
	KindSeries   byte = 0x02 // metricID4 firstID4, or with parts4 behind it
	KindPostings byte = 0x03 // generation4 name4 lastValue block4
	KindHashes   byte = 0x04 // generation4 lastHash8 block4
	KindNames    byte = 0x05 // generation4 chunk4
)

// Source reads a partition's keys, in one unchanging view. It is safe for concurrent use.
type Source interface {
	// Get returns the value of a key; the caller may keep it.
	Get(kind byte, suffix []byte) (value []byte, ok bool, err error)
	// Scan calls fn in ascending order for the keys of a kind whose suffix begins with prefix and is not below from,
	// until fn returns false or an error. The slices are valid during the call only.
	Scan(kind byte, prefix, from []byte, fn func(suffix, value []byte) (bool, error)) error
	// ScanKeys is Scan without values.
	ScanKeys(kind byte, prefix, from []byte, fn func(suffix []byte) (bool, error)) error
}

// Sink writes a partition's keys. It may keep the slices. Writes become durable in the order of the calls, or all at
// once: never a later one without the earlier ones.
type Sink interface {
	Put(kind byte, suffix, value []byte) error
	Delete(kind byte, suffix []byte) error
}

const (
	formatVersion = 1
	// blockTarget is the size from which a block of postings, hashes or names is closed, before compression.
	blockTarget = 32 << 10
	// maxRecord is the size of a series record above which it is written in parts: larger values would leave the
	// store's tables for its value log.
	maxRecord = 512 << 10
	// maxPayload bounds what a value may claim to hold: the largest single series, with room.
	maxPayload = 64 << 20
	// maxKeyValue is how many bytes of a label value go into a key.
	maxKeyValue = 256

	crcLen   = 4
	frameLen = 1 + crcLen
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum covers the key, too, so that a value under a wrong key is damage.
func checksum(kind byte, suffix, body []byte) uint32 {
	c := crc32.Update(0, castagnoli, []byte{kind})
	c = crc32.Update(c, castagnoli, suffix)
	return crc32.Update(c, castagnoli, body)
}

// seal turns a payload into a value: version, s2 of the payload, crc32c of key and all before.
func seal(kind byte, suffix, payload []byte) []byte {
	v := make([]byte, 1, 1+s2.MaxEncodedLen(len(payload))+crcLen)
	v[0] = formatVersion
	body := s2.EncodeBetter(v[1:cap(v)-crcLen], payload)
	v = v[:1+len(body)]
	return binary.BigEndian.AppendUint32(v, checksum(kind, suffix, v))
}

// open checks a value and returns its payload, in fresh memory or buf's.
func open(buf []byte, kind byte, suffix, value []byte) ([]byte, error) {
	if len(value) < frameLen {
		return nil, damaged(kind, suffix, "value of %d bytes", len(value))
	}
	body := value[:len(value)-crcLen]
	if binary.BigEndian.Uint32(value[len(body):]) != checksum(kind, suffix, body) {
		return nil, damaged(kind, suffix, "checksum differs")
	}
	if body[0] != formatVersion {
		return nil, fmt.Errorf("index key %s: version %d: %w", keyString(kind, suffix), body[0], ErrVersion)
	}
	if n, err := s2.DecodedLen(body[1:]); err != nil || n > maxPayload {
		return nil, damaged(kind, suffix, "payload of %d bytes: %v", n, err)
	}
	payload, err := s2.Decode(buf[:cap(buf)], body[1:])
	if err != nil {
		return nil, damaged(kind, suffix, "%v", err)
	}
	return payload, nil
}

func keyString(kind byte, suffix []byte) string { return fmt.Sprintf("%02x|%x", kind, suffix) }

func damaged(kind byte, suffix []byte, format string, args ...any) error {
	return fmt.Errorf("index key %s: %s: %w", keyString(kind, suffix), fmt.Sprintf(format, args...), ErrDamaged)
}

func appendU32s(dst []byte, vs ...uint32) []byte {
	for _, v := range vs {
		dst = binary.BigEndian.AppendUint32(dst, v)
	}
	return dst
}

// A large record is written as parts of equal id ranges; parts 1 is the whole record.
func seriesKey(metricID, firstID, parts, part uint32) []byte {
	k := appendU32s(make([]byte, 0, 12), metricID, firstID)
	if parts > 1 {
		k = binary.BigEndian.AppendUint16(k, uint16(parts))
		k = binary.BigEndian.AppendUint16(k, uint16(part))
	}
	return k
}

// splitSeriesKey is the reverse of seriesKey.
func splitSeriesKey(suffix []byte) (metricID, firstID, parts, part uint32, ok bool) {
	if len(suffix) != 8 && len(suffix) != 12 {
		return 0, 0, 0, 0, false
	}
	metricID, firstID, parts = binary.BigEndian.Uint32(suffix), binary.BigEndian.Uint32(suffix[4:]), 1
	if len(suffix) == 12 {
		parts, part = uint32(binary.BigEndian.Uint16(suffix[8:])), uint32(binary.BigEndian.Uint16(suffix[10:]))
		ok = parts > 1 && parts <= RecordIDs && RecordIDs%parts == 0 && part < parts
		return metricID, firstID, parts, part, ok && firstID%RecordIDs == 0
	}
	return metricID, firstID, parts, part, firstID%RecordIDs == 0
}

// postingsKey is the key of the block that ends with last. Values are ordered by bytes and so are keys: the escape
// keeps a value before its extensions whatever follows.
func postingsKey(gen, name uint32, last []byte, block uint32) []byte {
	k := appendKeyValue(appendU32s(make([]byte, 0, 16+len(last)), gen, name), last)
	return appendU32s(append(k, 0, 1), block)
}

// postingsSeek is not above the key of any block that may hold value or anything after it, and above all others.
func postingsSeek(gen, name uint32, value []byte) []byte {
	return appendKeyValue(appendU32s(make([]byte, 0, 16+len(value)), gen, name), value)
}

func appendKeyValue(k, value []byte) []byte {
	value = value[:min(len(value), maxKeyValue)]
	for {
		i := bytes.IndexByte(value, 0)
		if i < 0 {
			return append(k, value...)
		}
		k = append(append(k, value[:i]...), 0, 0xff)
		value = value[i+1:]
	}
}

func hashesKey(gen uint32, last uint64, block uint32) []byte {
	return appendU32s(binary.BigEndian.AppendUint64(appendU32s(make([]byte, 0, 16), gen), last), block)
}

func namesKey(gen, chunk uint32) []byte { return appendU32s(make([]byte, 0, 8), gen, chunk) }

// decoder reads a payload; after the first impossible field everything reads as zero and bad is set.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, w := binary.Uvarint(d.b)
	if w <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[w:]
	return v
}

// count reads a number of things of which each takes at least size bytes of what is left.
func (d *decoder) count(size int) int {
	v := d.uvarint()
	if v > uint64(len(d.b)/size) {
		d.fail()
		return 0
	}
	return int(v)
}

func (d *decoder) u32() uint32 {
	v := d.uvarint()
	if v > 1<<32-1 {
		d.fail()
		return 0
	}
	return uint32(v)
}

func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.fail()
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) byte() byte {
	if b := d.take(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

// bytes reads a length and as many bytes.
func (d *decoder) bytes() []byte { return d.take(d.count(1)) }

// frontCoded reads a string that shares its beginning with prev, and returns it in prev's memory.
func (d *decoder) frontCoded(prev []byte) []byte {
	shared := d.uvarint()
	if shared > uint64(len(prev)) {
		d.fail()
		return prev[:0]
	}
	return append(prev[:shared], d.bytes()...)
}

func (d *decoder) fail() { d.b, d.bad = nil, true }

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

func appendFrontCoded(dst, prev, b []byte) []byte {
	n := 0
	for n < len(prev) && n < len(b) && prev[n] == b[n] {
		n++
	}
	return appendBytes(binary.AppendUvarint(dst, uint64(n)), b[n:])
}
