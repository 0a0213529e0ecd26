package storage

import (
	"cmp"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Chunk is a run of native histograms of one series as Prometheus encodes them.
// What its header says of counter resets holds for the sample before it in the
// series, if there is one in the answer.
type Chunk struct {
	MinT, MaxT int64 // of the first and the last sample, Unix milliseconds
	Samples    int
	Encoding   chunkenc.Encoding // of a histogram or float histogram, with or without start timestamps
	Data       []byte
}

// AppendHistograms appends the chunk's samples to dst. Bytes that are no chunk give
// a KindInternal error.
func (c *Chunk) AppendHistograms(dst []HistogramSample) ([]HistogramSample, error) {
	chunk, err := chunkenc.FromData(c.Encoding, c.Data)
	if err != nil {
		return dst, Errorf(KindInternal, "chunk", "open: %w", err)
	}
	it := chunk.Iterator(nil)
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		h := HistogramSample{ST: it.AtST()}
		switch typ {
		case chunkenc.ValHistogram:
			h.T, h.H = it.AtHistogram(nil)
		case chunkenc.ValFloatHistogram:
			h.T, h.FH = it.AtFloatHistogram(nil)
		default:
			return dst, Errorf(KindInternal, "chunk", "encoding %s holds no histograms", c.Encoding)
		}
		dst = append(dst, h)
	}
	if err := it.Err(); err != nil {
		return dst, Errorf(KindInternal, "chunk", "read: %w", err)
	}
	return dst, nil
}

// DecodeChunks moves the samples of the chunks to Histograms.
func (s *Series) DecodeChunks() error {
	var err error
	for i := range s.Chunks {
		if s.Histograms, err = s.Chunks[i].AppendHistograms(s.Histograms); err != nil {
			return err
		}
	}
	if len(s.Chunks) > 0 {
		slices.SortFunc(s.Histograms, func(a, b HistogramSample) int { return cmp.Compare(a.T, b.T) })
	}
	s.Chunks = nil
	return nil
}
