package block

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// minChunkBytes is the header of a histogram chunk: samples and flags.
const minChunkBytes = 3

// HistogramChunk is a chunk as it is stored. Data can be handed on as it is: Encoding is chunkenc.EncHistogram or
// EncFloatHistogram, or their variants with start timestamps when the series has any.
type HistogramChunk struct {
	MinT, MaxT int64
	Samples    int
	Encoding   chunkenc.Encoding
	Data       []byte
}

// HistogramChunks are the chunks of one group by slot, in time order. It is filled by Decode and keeps its buffers, so
// what it holds is valid until the next Decode into it.
type HistogramChunks struct {
	Slots [GroupSize][]HistogramChunk

	raw  []byte
	flat []HistogramChunk
}

// HistogramBlock is an opened histogram block: its header is read, its chunks are not. It refers to the bytes it was
// opened on.
type HistogramBlock struct {
	Header

	flags   byte
	desc    int
	data    int
	section []byte
}

// OpenHistograms verifies the checksum of a histogram block and reads its header. Errors wrap ErrDamaged or ErrVersion.
func OpenHistograms(b []byte) (HistogramBlock, error) {
	var f HistogramBlock
	h, flags, r, err := openHeader(b, kindHistogram)
	if err != nil {
		return f, err
	}
	f.Header, f.flags = h, flags
	desc, data := r.uvarint(), r.uvarint()
	if r.bad || flags&^flagZstd != 0 || desc > MaxHistogramBytes || data > MaxHistogramBytes || desc+data > MaxHistogramBytes {
		return f, damaged("histogram block: sizes")
	}
	f.desc, f.data, f.section = int(desc), int(data), r.b
	if flags&flagZstd == 0 && len(f.section) != f.desc+f.data {
		return f, damaged("histogram block: section")
	}
	return f, nil
}

// Decode replaces dst by the chunks of the wanted slots (bit i: slot i); others are nil. Where the block is not
// compressed, Data refers to the bytes the block was opened on. After an error, which wraps ErrDamaged, dst is empty.
func (f *HistogramBlock) Decode(dst *HistogramChunks, want uint64) error {
	clear(dst.Slots[:])
	dst.flat = dst.flat[:0]
	if want &= f.Slots; want == 0 {
		return nil
	}
	section := f.section
	if f.flags&flagZstd != 0 {
		var err error
		if dst.raw, err = decompress(dst.raw, section, f.desc+f.data); err != nil {
			return err
		}
		section = dst.raw
	}
	desc, data := reader{b: section[:f.desc]}, reader{b: section[f.desc:]}
	for rest := f.Slots; rest != 0 && !desc.bad && !data.bad; rest &= rest - 1 {
		slot := bits.TrailingZeros64(rest)
		chunks := f.decodeSlot(dst, &desc, &data)
		if want>>slot&1 != 0 {
			dst.Slots[slot] = chunks
		}
	}
	if desc.bad || data.bad || len(desc.b)+len(data.b) > 0 {
		clear(dst.Slots[:])
		return damaged("histogram block: chunks")
	}
	return nil
}

// decodeSlot reads one slot's list of chunks; damage is left in the readers' bad.
func (f *HistogramBlock) decodeSlot(dst *HistogramChunks, desc, data *reader) []HistogramChunk {
	count := desc.uvarint()
	if count == 0 || count > uint64(len(desc.b)) { // a chunk takes five bytes
		desc.fail()
		return nil
	}
	from := len(dst.flat)
	dst.flat = slices.Grow(dst.flat, int(count))
	last := uint64(f.MaxT) - uint64(f.MinT)
	for range count {
		enc := chunkenc.Encoding(desc.byte())
		samples := desc.uvarint()
		mint := desc.uvarint()
		span := desc.uvarint()
		c := HistogramChunk{
			MinT:     int64(uint64(f.MinT) + mint),
			MaxT:     int64(uint64(f.MinT) + mint + span),
			Samples:  int(samples & 0xffff),
			Encoding: enc,
			Data:     data.bytes(desc.uvarint()),
		}
		if desc.bad || data.bad || !isHistogram(enc) || len(c.Data) < minChunkBytes || samples == 0 || samples > 0xffff ||
			mint > last || span > last-mint {
			desc.fail()
			return nil
		}
		dst.flat = append(dst.flat, c)
	}
	return dst.flat[from:len(dst.flat):len(dst.flat)]
}

func isHistogram(enc chunkenc.Encoding) bool {
	switch enc {
	case chunkenc.EncHistogram, chunkenc.EncFloatHistogram, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
		return true
	}
	return false
}

// Chunk returns the chunk for iteration. It shares Data.
func (c *HistogramChunk) Chunk() (chunkenc.Chunk, error) {
	chunk, err := chunkenc.FromData(c.Encoding, c.Data)
	if err != nil {
		return nil, fmt.Errorf("open chunk: %w: %w", ErrDamaged, err)
	}
	return chunk, nil
}

// AppendSamples decodes the chunk and appends its samples to dst. Counter reset hints are those that chunkenc derives
// from the chunk. The samples share nothing with Data.
func (c *HistogramChunk) AppendSamples(dst []HistogramSample) ([]HistogramSample, error) {
	chunk, err := c.Chunk()
	if err != nil {
		return dst, err
	}
	it := chunk.Iterator(nil)
	n := 0
	for {
		switch it.Next() {
		case chunkenc.ValHistogram:
			t, h := it.AtHistogram(nil)
			dst = append(dst, HistogramSample{T: t, ST: it.AtST(), H: h})
		case chunkenc.ValFloatHistogram:
			t, h := it.AtFloatHistogram(nil)
			dst = append(dst, HistogramSample{T: t, ST: it.AtST(), FH: h})
		default:
			if err := it.Err(); err != nil {
				return dst, fmt.Errorf("read chunk: %w: %w", ErrDamaged, err)
			}
			if n != c.Samples {
				return dst, fmt.Errorf("read chunk: %d samples of %d: %w", n, c.Samples, ErrDamaged)
			}
			return dst, nil
		}
		n++
	}
}
