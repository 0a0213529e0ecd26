package remote

import (
	"fmt"
	"io"

	"github.com/VictoriaMetrics/easyproto"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/luminate/luminate/storage"
)

// samplesPerChunk is where Prometheus cuts chunks.
const samplesPerChunk = 120

// frameWriter sends series as frames of ChunkedReadResponse messages: one series a
// frame, a long series in several. Start timestamps are not sent: the chunk types
// that hold them are unknown to all but the newest Prometheus.
type frameWriter struct {
	out      io.Writer // gets each message in one Write
	maxBytes int

	resp   prompb.ChunkedReadResponse
	one    [1]*prompb.ChunkedSeries
	chunks []prompb.Chunk
	labels []prompb.Label
	left   int // bytes left in the frame, about
	full   int // bytes that chunks may take in one frame
	data   []byte
}

func newFrameWriter(out io.Writer, maxBytes int) *frameWriter {
	return &frameWriter{out: out, maxBytes: maxBytes}
}

// series sends one series: floats and histograms in order of time, in chunks of one
// type each.
func (f *frameWriter) series(query int64, s storage.Series) error {
	f.labels = appendLabelPairs(f.labels[:0], s.Labels)
	f.full = f.maxBytes
	for i := range f.labels {
		f.full -= f.labels[i].Size()
	}
	f.left = f.full
	f.chunks = f.chunks[:0]
	f.resp.QueryIndex = query
	if len(s.Samples)+len(s.Histograms) == 0 {
		return f.send() // only the labels were asked for
	}
	samples, histograms := s.Samples, s.Histograms
	for len(samples)+len(histograms) > 0 {
		var n int
		var err error
		switch {
		case len(histograms) == 0 || len(samples) > 0 && samples[0].T < histograms[0].T:
			n = floatRun(samples, histograms)
			err = f.floats(samples[:n])
			samples = samples[n:]
		default:
			n = histogramRun(histograms, samples)
			err = f.histograms(histograms[:n])
			histograms = histograms[n:]
		}
		if err != nil {
			return err
		}
	}
	return f.flush()
}

// floatRun counts the floats before the next histogram, a chunk's worth at most.
func floatRun(samples []storage.Sample, histograms []storage.HistogramSample) int {
	n := min(len(samples), samplesPerChunk)
	if len(histograms) == 0 || samples[n-1].T < histograms[0].T {
		return n
	}
	for i := 1; i < n; i++ {
		if samples[i].T >= histograms[0].T {
			return i
		}
	}
	return n
}

// histogramRun counts the histograms of the first one's type before the next float,
// a chunk's worth at most.
func histogramRun(histograms []storage.HistogramSample, samples []storage.Sample) int {
	n := min(len(histograms), samplesPerChunk)
	for i := 1; i < n; i++ {
		if (histograms[i].FH != nil) != (histograms[0].FH != nil) || len(samples) > 0 && samples[0].T < histograms[i].T {
			return i
		}
	}
	return n
}

func (f *frameWriter) floats(samples []storage.Sample) error {
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	if err != nil {
		return fmt.Errorf("begin a chunk: %w", err)
	}
	for _, s := range samples {
		app.Append(0, s.T, s.V)
	}
	return f.add(c, samples[0].T, samples[len(samples)-1].T)
}

// histograms encodes histograms of one type. A counter reset or a new bucket layout
// that the chunk cannot take in begins another chunk.
func (f *frameWriter) histograms(hs []storage.HistogramSample) error {
	encoding := chunkenc.EncHistogram
	if hs[0].FH != nil {
		encoding = chunkenc.EncFloatHistogram
	}
	c, err := chunkenc.NewEmptyChunk(encoding)
	if err != nil {
		return fmt.Errorf("begin a chunk: %w", err)
	}
	app, err := c.Appender()
	if err != nil {
		return fmt.Errorf("begin a chunk: %w", err)
	}
	first := 0
	for i, h := range hs {
		var next chunkenc.Chunk
		var recoded bool
		if h.FH != nil {
			next, recoded, app, err = app.AppendFloatHistogram(nil, 0, h.T, h.FH, false)
		} else {
			next, recoded, app, err = app.AppendHistogram(nil, 0, h.T, h.H, false)
		}
		if err != nil {
			return fmt.Errorf("encode a histogram at %d: %w", h.T, err)
		}
		if next == nil {
			continue
		}
		if !recoded {
			if err := f.add(c, hs[first].T, hs[i-1].T); err != nil {
				return err
			}
			first = i
		}
		c = next
	}
	return f.add(c, hs[first].T, hs[len(hs)-1].T)
}

// add puts a chunk into the frame, and sends the frame once it is full.
func (f *frameWriter) add(c chunkenc.Chunk, mint, maxt int64) error {
	chunk := prompb.Chunk{MinTimeMs: mint, MaxTimeMs: maxt, Type: prompb.Chunk_Encoding(c.Encoding()), Data: c.Bytes()}
	if size := chunk.Size(); size <= f.left || len(f.chunks) == 0 {
		f.chunks = append(f.chunks, chunk)
		f.left -= size
		return nil
	}
	if err := f.flush(); err != nil {
		return err
	}
	return f.add(c, mint, maxt)
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
