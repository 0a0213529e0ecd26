package index

import (
	"bytes"
	"encoding/binary"

	"github.com/RoaringBitmap/roaring/v2"
)

// A block of postings holds values of one label in ascending order, with their series. Its payload: position of the
// block among the label's, flags, the last value of the block before, number of entries, the block's last value; for
// each entry the value front-coded against the one before (the first against the last of the block before), and
//
//	0 count length bitmap   roaring
//	1 id                    one series
//	n length ids            n series, the first id and then differences
//
// A value may have several entries, over several blocks: its series are all of them together. What the block before
// ended with makes a lost block visible.
type postingsBlock struct {
	position  uint32
	continues bool   // the next block begins with this block's last value
	prevLast  []byte // of the block before, if position > 0
	entries   int
	rest      []byte
	last      []byte
}

const flagContinues = 1

// packSpan is the range of ids that one bitmap entry covers: it bounds an entry to 64 KiB.
const packSpan = 1 << 19

func (b *postingsBlock) decode(payload []byte) bool {
	d := decoder{b: payload}
	b.position = d.u32()
	flags := d.byte()
	b.continues = flags&flagContinues != 0
	b.prevLast = d.bytes()
	b.entries = d.count(3)
	b.last = d.bytes()
	b.rest = d.b
	return !d.bad && flags <= flagContinues && b.entries > 0
}

// packedEntry is one value's series, still encoded.
type packedEntry struct {
	value  []byte // valid until the next entry
	n      uint64
	single uint32
	raw    []byte
	bitmap bool
}

// entryReader walks over the entries of a block.
type entryReader struct {
	d    decoder
	left int
	e    packedEntry
}

func (b *postingsBlock) reader() entryReader {
	r := entryReader{d: decoder{b: b.rest}, left: b.entries}
	r.e.value = append([]byte(nil), b.prevLast...)
	return r
}

// next moves to the next entry; at the end, or at an impossible entry, it returns false. ok tells which it was.
func (r *entryReader) next() bool {
	if r.left == 0 {
		return false
	}
	r.left--
	r.e.value = r.d.frontCoded(r.e.value)
	r.e.bitmap, r.e.raw = false, nil
	switch r.e.n = r.d.uvarint(); r.e.n {
	case 0:
		r.e.bitmap = true
		r.e.n = r.d.uvarint()
		r.e.raw = r.d.bytes()
	case 1:
		r.e.single = r.d.u32()
	default:
		r.e.raw = r.d.bytes()
		if r.e.n > uint64(len(r.e.raw)) {
			r.d.fail()
		}
	}
	return !r.d.bad
}

func (r *entryReader) ok() bool { return !r.d.bad && r.left == 0 && len(r.d.b) == 0 }

// posting decodes the series; ids are below bound. ok is false for impossible bytes.
func (e *packedEntry) posting(bound uint32) (p posting, ok bool) {
	switch {
	case e.bitmap:
		b := roaring.New()
		// The bitmap shares the payload's memory, which nobody reuses.
		if n, err := b.FromBuffer(e.raw); err != nil || n != int64(len(e.raw)) || b.Validate() != nil {
			return posting{}, false
		}
		if b.GetCardinality() != e.n || e.n == 0 || b.Maximum() >= bound {
			return posting{}, false
		}
		return posting{n: e.n, bitmap: b}, true
	case e.n == 1:
		return posting{n: 1, single: e.single}, e.single < bound
	}
	d := decoder{b: e.raw}
	list := make([]uint32, e.n)
	id := uint64(0)
	for i := range list {
		step := d.uvarint()
		if i > 0 && step == 0 || step >= uint64(bound) {
			return posting{}, false
		}
		id += step
		if id >= uint64(bound) {
			return posting{}, false
		}
		list[i] = uint32(id)
	}
	return posting{n: e.n, list: list}, !d.bad && len(d.b) == 0
}

// postingsWriter packs the values of one label, given in ascending order, into blocks.
type postingsWriter struct {
	sink      Sink
	target    int // bytes from which a block is closed
	gen, name uint32
	blocks    uint32
	entries   int
	prevLast  []byte
	last      []byte
	buf, out  []byte
	bytes     int
}

func (w *postingsWriter) add(value []byte, p posting) error {
	if p.bitmap == nil && p.mem == nil {
		return w.entry(value, p)
	}
	b := p.toBitmap()
	for from := uint64(b.Minimum()) &^ (packSpan - 1); from <= uint64(b.Maximum()); from += packSpan {
		if b.CardinalityInRange(from, from+packSpan) == 0 {
			continue
		}
		part := roaring.New()
		part.AddRange(from, from+packSpan)
		part.And(b)
		part.RunOptimize()
		if err := w.entry(value, posting{n: part.GetCardinality(), bitmap: part}); err != nil {
			return err
		}
	}
	return nil
}

func (w *postingsWriter) entry(value []byte, p posting) error {
	if len(w.buf) >= w.target {
		if err := w.flush(bytes.Equal(value, w.last)); err != nil {
			return err
		}
	}
	w.buf = appendFrontCoded(w.buf, w.last, value)
	w.last = append(w.last[:0], value...)
	w.entries++
	switch {
	case p.bitmap != nil:
		raw, err := p.bitmap.ToBytes()
		if err != nil {
			return err
		}
		w.buf = binary.AppendUvarint(append(w.buf, 0), p.n)
		w.buf = appendBytes(w.buf, raw)
	case p.n == 1 && p.list == nil:
		w.buf = binary.AppendUvarint(append(w.buf, 1), uint64(p.single))
	default:
		var ids []byte
		prev := uint32(0)
		for _, id := range p.list {
			ids = binary.AppendUvarint(ids, uint64(id-prev))
			prev = id
		}
		w.buf = appendBytes(binary.AppendUvarint(w.buf, p.n), ids)
	}
	return nil
}

// flush writes the block; continues tells that the next entry is of the same value as the last.
func (w *postingsWriter) flush(continues bool) error {
	if w.entries == 0 {
		return nil
	}
	flags := byte(0)
	if continues {
		flags = flagContinues
	}
	w.out = append(binary.AppendUvarint(w.out[:0], uint64(w.blocks)), flags)
	w.out = appendBytes(w.out, w.prevLast)
	w.out = binary.AppendUvarint(w.out, uint64(w.entries))
	w.out = appendBytes(w.out, w.last)
	w.out = append(w.out, w.buf...)
	key := postingsKey(w.gen, w.name, w.last, w.blocks)
	value := seal(KindPostings, key, w.out)
	w.bytes += len(key) + len(value)
	w.blocks++
	w.entries = 0
	w.buf = w.buf[:0]
	w.prevLast = append(w.prevLast[:0], w.last...)
	return w.sink.Put(KindPostings, key, value)
}
