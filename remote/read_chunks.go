package remote

import (
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/VictoriaMetrics/easyproto"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/luminate/luminate/storage"
)

// samplesPerChunk is where Prometheus cuts chunks.
const samplesPerChunk = 120

// frameWriter sends series as frames of ChunkedReadResponse messages: one series a
// frame, a long series in several.
type frameWriter struct {
	out      io.Writer // gets each message in one Write
	maxBytes int
	// starts sends start timestamps, in the chunk types that hold them.
	starts bool

	resp   prompb.ChunkedReadResponse
	one    [1]*prompb.ChunkedSeries
	chunks []prompb.Chunk
	labels []prompb.Label
	xor    xorEncoder
	coded  []byte // chunks of floats in the frame
	left   int    // bytes left in the frame, about
	full   int    // bytes that chunks may take in one frame
	data   []byte
}

func newFrameWriter(out io.Writer, maxBytes int, starts bool) *frameWriter {
	return &frameWriter{out: out, maxBytes: maxBytes, starts: starts}
}

// series sends one series in order of time: stored chunks as they are, floats and
// histograms between them in chunks of one type each.
func (f *frameWriter) series(query int64, s storage.Series) error {
	f.labels = appendLabelPairs(f.labels[:0], s.Labels)
	f.full = f.maxBytes
	for i := range f.labels {
		f.full -= f.labels[i].Size()
	}
	f.left = f.full
	f.chunks, f.coded = f.chunks[:0], f.coded[:0]
	f.resp.QueryIndex = query
	if len(s.Samples)+len(s.Histograms)+len(s.Chunks) == 0 {
		return f.send() // only the labels were asked for
	}
	for len(s.Samples)+len(s.Histograms)+len(s.Chunks) > 0 {
		// Nothing lies at the end of time but for nothing at all.
		float, hist, chunk := int64(math.MaxInt64), int64(math.MaxInt64), int64(math.MaxInt64)
		if len(s.Samples) > 0 {
			float = s.Samples[0].T
		}
		if len(s.Histograms) > 0 {
			hist = s.Histograms[0].T
		}
		if len(s.Chunks) > 0 {
			chunk = s.Chunks[0].MinT
		}
		var err error
		switch {
		case len(s.Chunks) > 0 && chunk <= min(float, hist):
			err = f.stored(&s.Chunks[0])
			s.Chunks = s.Chunks[1:]
		case len(s.Samples) > 0 && float <= hist:
			n := floatRun(s.Samples, min(hist, chunk))
			err = f.floats(s.Samples[:n], s.STs)
			s.Samples = s.Samples[n:]
			s.STs = s.STs[min(n, len(s.STs)):]
		default:
			n := histogramRun(s.Histograms, min(float, chunk))
			err = f.histograms(s.Histograms[:n])
			s.Histograms = s.Histograms[n:]
		}
		if err != nil {
			return err
		}
	}
	return f.flush()
}

// floatRun counts the floats before a time, a chunk's worth at most and at least one.
func floatRun(samples []storage.Sample, end int64) int {
	n := min(len(samples), samplesPerChunk)
	if samples[n-1].T < end {
		return n
	}
	for i := 1; i < n; i++ {
		if samples[i].T >= end {
			return i
		}
	}
	return n
}

// histogramRun counts the histograms of the first one's type before a time, a chunk's
// worth at most and at least one.
func histogramRun(histograms []storage.HistogramSample, end int64) int {
	n := min(len(histograms), samplesPerChunk)
	for i := 1; i < n; i++ {
		if (histograms[i].FH != nil) != (histograms[0].FH != nil) || histograms[i].T >= end {
			return i
		}
	}
	return n
}

// stored sends a chunk as it is stored, unless it is of a type that only a reader of
// start timestamps knows.
func (f *frameWriter) stored(c *storage.Chunk) error {
	plain := c.Encoding == chunkenc.EncHistogram || c.Encoding == chunkenc.EncFloatHistogram
	if plain || f.starts {
		return f.add(c.Encoding, c.Data, c.MinT, c.MaxT)
	}
	hs, err := c.AppendHistograms(nil)
	if err != nil {
		return err
	}
	for len(hs) > 0 {
		n := min(len(hs), samplesPerChunk)
		if err := f.histograms(hs[:n]); err != nil {
			return err
		}
		hs = hs[n:]
	}
	return nil
}

// floats encodes a run of floats; sts are their start timestamps, or nil.
func (f *frameWriter) floats(samples []storage.Sample, sts []int64) error {
	mint, maxt := samples[0].T, samples[len(samples)-1].T
	if f.starts && slices.ContainsFunc(sts[:min(len(samples), len(sts))], func(st int64) bool { return st != 0 }) {
		c := chunkenc.NewXOR2Chunk()
		app, err := c.Appender()
		if err != nil {
			return fmt.Errorf("begin a chunk: %w", err)
		}
		for i, s := range samples {
			app.Append(sts[i], s.T, s.V)
		}
		return f.add(c.Encoding(), c.Bytes(), mint, maxt)
	}
	// Where the buffer grows, earlier chunks stay in the old one.
	from := len(f.coded)
	f.coded = f.xor.append(f.coded, samples)
	return f.add(chunkenc.EncXOR, f.coded[from:len(f.coded):len(f.coded)], mint, maxt)
}

// histograms encodes histograms of one type. A counter reset or a new bucket layout
// that the chunk cannot take in begins another chunk.
func (f *frameWriter) histograms(hs []storage.HistogramSample) error {
	kind := chunkenc.ValHistogram
	if hs[0].FH != nil {
		kind = chunkenc.ValFloatHistogram
	}
	starts := f.starts && slices.ContainsFunc(hs, func(h storage.HistogramSample) bool { return h.ST != 0 })
	c, err := chunkenc.NewEmptyChunk(kind.ChunkEncoding(false, starts))
	if err != nil {
		return fmt.Errorf("begin a chunk: %w", err)
	}
	app, err := c.Appender()
	if err != nil {
		return fmt.Errorf("begin a chunk: %w", err)
	}
	first := 0
	for i, h := range hs {
		st := int64(0)
		if starts {
			st = h.ST
		}
		var next chunkenc.Chunk
		var recoded bool
		if h.FH != nil {
			next, recoded, app, err = app.AppendFloatHistogram(nil, st, h.T, h.FH, false)
		} else {
			next, recoded, app, err = app.AppendHistogram(nil, st, h.T, h.H, false)
		}
		if err != nil {
			return fmt.Errorf("encode a histogram at %d: %w", h.T, err)
		}
		if next == nil {
			continue
		}
		if !recoded {
			if err := f.add(c.Encoding(), c.Bytes(), hs[first].T, hs[i-1].T); err != nil {
				return err
			}
			first = i
		}
		c = next
	}
	return f.add(c.Encoding(), c.Bytes(), hs[first].T, hs[len(hs)-1].T)
}

// add puts a chunk into the frame, and sends the frame once it is full.
func (f *frameWriter) add(encoding chunkenc.Encoding, data []byte, mint, maxt int64) error {
	chunk := prompb.Chunk{MinTimeMs: mint, MaxTimeMs: maxt, Type: prompb.Chunk_Encoding(encoding), Data: data}
	size := chunk.Size()
	if size > f.left {
		if err := f.flush(); err != nil {
			return err
		}
	}
	f.chunks = append(f.chunks, chunk)
	f.left -= size
	return nil
}

// flush sends the frame, if it has chunks.
func (f *frameWriter) flush() error {
	if len(f.chunks) == 0 {
		return nil
	}
	return f.send()
}

func (f *frameWriter) send() error {
	f.one[0] = &prompb.ChunkedSeries{Labels: f.labels, Chunks: f.chunks}
	f.resp.ChunkedSeries = f.one[:]
	size := f.resp.Size()
	if cap(f.data) < size {
		f.data = make([]byte, size+size/2)
	}
	n, err := f.resp.MarshalToSizedBuffer(f.data[:size])
	if err != nil {
		return fmt.Errorf("marshal a frame: %w", err)
	}
	if _, err := f.out.Write(f.data[size-n : size]); err != nil {
		return storage.Errorf(storage.KindCanceled, "remote read", "send: %w", err)
	}
	f.chunks = f.chunks[:0]
	f.left = f.full
	return nil
}

// countFields counts the occurrences of a field at the top of a message.
func countFields(src []byte, field uint32) (n int, err error) {
	var fc easyproto.FieldContext
	for len(src) > 0 {
		if src, err = fc.NextField(src); err != nil {
			return 0, storage.Errorf(storage.KindInvalid, "decode", "read request: %w", err)
		}
		if fc.FieldNum == field {
			n++
		}
	}
	return n, nil
}
