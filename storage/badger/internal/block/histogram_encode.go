package block

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// MaxHistogramBytes is the most that the chunks of one histogram block take before compression. It bounds what Decode
// takes in memory; an encoder refuses more with ErrTooLarge, and the caller splits by time.
const MaxHistogramBytes = 16 << 20

// maxChunkSamples cuts chunks that stay small in bytes (stale markers), far below what a chunk can count.
const maxChunkSamples = 1000

// HistogramSample is one native histogram: exactly one of H and FH is set. ST is the start timestamp, 0 = unset.
type HistogramSample struct {
	T, ST int64
	H     *histogram.Histogram
	FH    *histogram.FloatHistogram
}

// Check reports, wrapping ErrInput, what would make the sample impossible to store or to read: no or two histograms, a
// schema that chunkenc does not read, spans that do not fit the buckets. Append it only when it passes, since one bad
// sample makes the block of its group impossible. Whether counts add up is not looked at. Of a stale marker only the sum
// is stored. chunkenc reduces schemas above 8 to 8 when it reads.
func (s *HistogramSample) Check() error {
	if (s.H == nil) == (s.FH == nil) {
		return fmt.Errorf("check histogram: need exactly one kind: %w", ErrInput)
	}
	if s.stale() {
		return nil
	}
	if s.H != nil {
		h := s.H
		return checkLayout(h.Schema, h.PositiveSpans, len(h.PositiveBuckets), h.NegativeSpans, len(h.NegativeBuckets))
	}
	h := s.FH
	return checkLayout(h.Schema, h.PositiveSpans, len(h.PositiveBuckets), h.NegativeSpans, len(h.NegativeBuckets))
}

func checkLayout(schema int32, pos []histogram.Span, posBuckets int, neg []histogram.Span, negBuckets int) error {
	if !histogram.IsKnownSchema(schema) {
		return fmt.Errorf("check histogram: schema %d: %w", schema, ErrInput)
	}
	for _, side := range [...]struct {
		spans   []histogram.Span
		buckets int
	}{{pos, posBuckets}, {neg, negBuckets}} {
		need, end := uint64(0), int64(0)
		for i, s := range side.spans {
			need += uint64(s.Length)
			end += int64(s.Offset) + int64(s.Length)
			if i > 0 && s.Offset < 0 || end > math.MaxInt32 {
				return fmt.Errorf("check histogram: span %d (%d, %d): %w", i, s.Offset, s.Length, ErrInput)
			}
		}
		if need != uint64(side.buckets) {
			return fmt.Errorf("check histogram: spans of %d buckets, %d buckets: %w", need, side.buckets, ErrInput)
		}
	}
	return nil
}

func (s *HistogramSample) stale() bool {
	if s.H != nil {
		return value.IsStaleNaN(s.H.Sum)
	}
	return value.IsStaleNaN(s.FH.Sum)
}

// HistogramSlots are the histogram samples of one group by slot, times strictly ascending in each.
type HistogramSlots [GroupSize][]HistogramSample

// EncodeHistograms appends the block of the samples to dst and returns it. The samples are not changed. Errors wrap
// ErrInput or ErrTooLarge; dst is then returned as it came.
//
// Samples are cut into chunks of about chunkenc.TargetBytesPerHistogramChunk, and where chunkenc demands it (counter
// reset, other schema or bounds, gauge, stale marker, the kind). Where a slot has start timestamps its chunks have the
// encodings that carry them. The first chunk of a slot does not know what came before the block: its header says unknown,
// unless the sample says that it is a reset.
func (e *Encoder) EncodeHistograms(dst []byte, lsn uint64, slots *HistogramSlots) ([]byte, error) {
	h := Header{LSN: lsn, MinT: math.MaxInt64, MaxT: math.MinInt64}
	for i, samples := range slots {
		if n := len(samples); n > 0 {
			h.Slots |= 1 << i
			h.MinT, h.MaxT = min(h.MinT, samples[0].T), max(h.MaxT, samples[n-1].T)
		}
	}
	if h.Slots == 0 {
		return dst, fmt.Errorf("encode histogram block without samples: %w", ErrInput)
	}
	desc, data := e.ints.desc[:0], e.ints.varint[:0]
	for i, samples := range slots {
		if len(samples) == 0 {
			continue
		}
		chunks, err := cutChunks(samples)
		if err != nil {
			return dst, fmt.Errorf("encode slot %d: %w", i, err)
		}
		desc = binary.AppendUvarint(desc, uint64(len(chunks)))
		for _, c := range chunks {
			b := c.chunk.Bytes()
			desc = append(desc, byte(c.chunk.Encoding()))
			desc = binary.AppendUvarint(desc, uint64(c.chunk.NumSamples()))
			desc = binary.AppendUvarint(desc, uint64(c.mint)-uint64(h.MinT))
			desc = binary.AppendUvarint(desc, uint64(c.maxt)-uint64(c.mint))
			desc = binary.AppendUvarint(desc, uint64(len(b)))
			data = append(data, b...)
		}
	}
	e.ints.desc, e.ints.varint = desc, data
	if len(desc)+len(data) > MaxHistogramBytes {
		return dst, fmt.Errorf("encode %d bytes of histogram chunks: %w", len(desc)+len(data), ErrTooLarge)
	}
	body, flags := e.compress()
	from := len(dst)
	dst = appendHeader(dst, kindHistogram, flags, h)
	dst = binary.AppendUvarint(dst, uint64(len(desc)))
	dst = binary.AppendUvarint(dst, uint64(len(data)))
	dst = append(dst, body...)
	return appendChecksum(dst, from), nil
}

// openChunk is a chunk on its way.
type openChunk struct {
	chunk      chunkenc.Chunk
	mint, maxt int64
}

// cutChunks encodes one slot.
func cutChunks(samples []HistogramSample) ([]openChunk, error) {
	useST := false
	for i := range samples {
		useST = useST || samples[i].ST != 0
	}
	var (
		chunks []openChunk
		app    chunkenc.Appender
	)
	for i := range samples {
		s := &samples[i]
		if err := s.Check(); err != nil {
			return nil, err
		}
		if i > 0 && s.T <= samples[i-1].T {
			return nil, fmt.Errorf("time does not ascend: %w", ErrInput)
		}
		kind := chunkenc.ValFloatHistogram
		if s.H != nil {
			kind = chunkenc.ValHistogram
		}
		prev := app // a new chunk asks it whether there was a reset
		if enc := kind.ChunkEncoding(false, useST); len(chunks) == 0 || full(chunks[len(chunks)-1].chunk, enc) {
			c, err := chunkenc.NewEmptyChunk(enc)
			if err != nil {
				return nil, fmt.Errorf("make chunk: %w", err)
			}
			if app, err = c.Appender(); err != nil {
				return nil, fmt.Errorf("make chunk: %w", err)
			}
			chunks = append(chunks, openChunk{chunk: c, mint: s.T})
		} else {
			prev = nil
		}
		c, recoded, next, err := appendTo(app, prev, s)
		if err != nil {
			return nil, fmt.Errorf("append to chunk: %w: %w", ErrInput, err)
		}
		app = next
		switch {
		case c != nil && recoded:
			chunks[len(chunks)-1].chunk = c
		case c != nil:
			chunks = append(chunks, openChunk{chunk: c, mint: s.T})
		}
		chunks[len(chunks)-1].maxt = s.T
	}
	return chunks, nil
}

// full reports whether a sample of the encoding enc needs another chunk than c.
func full(c chunkenc.Chunk, enc chunkenc.Encoding) bool {
	n := c.NumSamples()
	return c.Encoding() != enc || n >= maxChunkSamples ||
		n >= chunkenc.MinSamplesPerHistogramChunk && len(c.Bytes()) >= chunkenc.TargetBytesPerHistogramChunk
}

// appendTo hands over a shallow copy, because appending may replace the spans and buckets of what it is given.
func appendTo(app, prev chunkenc.Appender, s *HistogramSample) (chunkenc.Chunk, bool, chunkenc.Appender, error) {
	if s.H != nil {
		h := *s.H
		if s.stale() {
			h = histogram.Histogram{Sum: h.Sum, CounterResetHint: h.CounterResetHint}
		}
		return app.AppendHistogram(prev, s.ST, s.T, &h, false)
	}
	h := *s.FH
	if s.stale() {
		h = histogram.FloatHistogram{Sum: h.Sum, CounterResetHint: h.CounterResetHint}
	}
	return app.AppendFloatHistogram(prev, s.ST, s.T, &h, false)
}
