package remote

import (
	"bytes"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	promlabels "github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	promremote "github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger"
	"github.com/luminate/luminate/storage/storagetest"
)

// wideHistogram has so many buckets that a chunk holds few of its kind.
func wideHistogram(i int) *histogram.Histogram {
	h := &histogram.Histogram{Schema: 3, ZeroThreshold: 1e-9, PositiveSpans: []histogram.Span{{Length: 100}}, Sum: float64(i)}
	last := int64(0)
	for k := range 100 {
		n := int64(i * i * (k%7 + 1)) // counters that grow unevenly
		h.PositiveBuckets = append(h.PositiveBuckets, n-last)
		h.Count += uint64(n)
		last = n
	}
	return h
}

// storedHistograms returns a Badger store that has two series of histograms in
// blocks: integers, and floats with start timestamps.
func storedHistograms(t testing.TB) (store storage.Store, from, to int64) {
	t.Helper()
	cfg := badger.DefaultConfig()
	cfg.Dir, cfg.MinFreeBytes = t.TempDir(), 0
	cfg.FlushSamples = 1 // every sample makes a group be written out
	db, err := badger.Open(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	const n = 100
	from = time.Now().Add(-n * 15 * time.Second).Truncate(time.Minute).UnixMilli()
	var hs, fhs []storage.HistogramSample
	for i := range n {
		h := wideHistogram(i)
		ts := from + int64(i)*15_000
		hs = append(hs, storage.HistogramSample{T: ts, H: h})
		fhs = append(fhs, storage.HistogramSample{T: ts, ST: from - 1000, FH: h.ToFloat(nil)})
		to = ts
	}
	var b storage.Batch
	b.AddHistograms(storage.LabelsFromStrings("__name__", "h", "kind", "integer"), hs...)
	b.AddHistograms(storage.LabelsFromStrings("__name__", "h", "kind", "float"), fhs...)
	storagetest.MustAppend(t, db, testTenant, &b)
	flushed := newCondition()
	flushed.wait(t, func() {}, func() bool { return len(chunksOf(t, db, from, to)) >= 6 })
	return db, from, to
}

// chunksOf are the chunks that the store hands out, of all series in order.
func chunksOf(t testing.TB, store storage.Store, from, to int64) (out []storage.Chunk) {
	t.Helper()
	for s, err := range store.Select(t.Context(), storage.MustTenant(testTenant), storage.Selection{MinT: from, MaxT: to, Chunks: true}) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s.Chunks...)
	}
	return out
}

// TestStoredChunksAreSentChunks: what is streamed is byte by byte what is stored,
// whole chunks of it; at the ends of a range that cuts chunks they are made anew. Start
// timestamps go with them where they are wanted.
func TestStoredChunksAreSentChunks(t *testing.T) {
	store, from, to := storedHistograms(t)
	for _, starts := range []bool{false, true} {
		for _, cut := range []int64{0, 1} {
			t.Run(fmt.Sprintf("starts %v, cut %d", starts, cut), func(t *testing.T) {
				s := newStackOver(t, store, func(c *Config) { c.Read.StartTimestamps = starts })
				from, to := from+cut, to-cut
				w := s.read(&prompb.ReadRequest{Queries: []*prompb.Query{query(from, to, storagetest.Eq("__name__", "h"))}, AcceptedResponseTypes: chunked})
				wantStatus(t, w, 200)
				sent := map[string]int{}
				responses, _ := frames(t, w.Body.Bytes())
				for _, r := range responses {
					for _, c := range r.ChunkedSeries[0].Chunks {
						sent[fmt.Sprint(c.MinTimeMs, c.MaxTimeMs, c.Type)+string(c.Data)]++
						if _, known := prompb.Chunk_Encoding_name[int32(c.Type)]; !known || !starts && c.Type > prompb.Chunk_FLOAT_HISTOGRAM {
							t.Errorf("a chunk of type %s", c.Type)
						}
					}
				}
				stored := chunksOf(t, store, from, to)
				if len(stored) < 4 {
					t.Fatalf("%d chunks are stored", len(stored))
				}
				same := 0
				for _, c := range stored {
					if key := fmt.Sprint(c.MinT, c.MaxT, prompb.Chunk_Encoding(c.Encoding)) + string(c.Data); sent[key] == 1 {
						same++
					} else if starts || c.Encoding == chunkenc.EncHistogram {
						t.Errorf("the chunk from %d to %d is not sent as it is", c.MinT, c.MaxT)
					}
				}
				if want := len(stored); starts && same != want || same == 0 {
					t.Errorf("%d of %d chunks are sent as they are", same, want)
				}
				s.wantReadAs(from, to)
			})
		}
	}
}

// wantReadAs compares what Prometheus's own client reads with what is stored.
func (s *stack) wantReadAs(from, to int64) {
	s.tb.Helper()
	all := storagetest.Re("__name__", ".+")
	q, err := promremote.NewSampleAndChunkQueryableClient(s.client(s.serve(), chunked...), promlabels.EmptyLabels(), nil, true, nil).Querier(from, to)
	if err != nil {
		s.tb.Fatal(err)
	}
	got := drain(s.tb, q.Select(s.tb.Context(), true, nil, all))
	want := storagetest.Collect(s.tb, s.faulty, testTenant, storage.Selection{Matchers: []*storage.Matcher{all}, MinT: from, MaxT: to})
	if !s.api.cfg.Read.StartTimestamps {
		for i := range want {
			want[i].STs = nil
			for j := range want[i].Histograms {
				want[i].Histograms[j].ST = 0
			}
		}
	}
	if d := storagetest.DiffSeries(got, want); d != "" {
		s.tb.Error(d)
	}
}

// TestReadStartTimestamps: start timestamps of floats are streamed where they are
// wanted, and else the chunks are those that every Prometheus knows.
func TestReadStartTimestamps(t *testing.T) {
	for _, starts := range []bool{false, true} {
		s := newStack(t, func(c *Config) { c.Read.StartTimestamps = starts })
		var b storage.Batch
		b.Labels = append(b.Labels, storage.LabelsFromStrings("__name__", "with")...)
		for i := range int64(300) {
			b.AddSample(s.now-300_000+i*1000, s.now-400_000+i/50, float64(i))
		}
		b.EndSeries()
		b.Add(storage.LabelsFromStrings("__name__", "without"), storage.Sample{T: s.now, V: 1})
		b.AddHistograms(storage.LabelsFromStrings("__name__", "zhist"), storage.HistogramSample{T: s.now, ST: s.now - 5, H: wideHistogram(3)})
		storagetest.MustAppend(t, s.model, testTenant, &b)
		w := s.read(&prompb.ReadRequest{Queries: []*prompb.Query{query(s.now-400_000, s.now, storagetest.Re("__name__", ".+"))}, AcceptedResponseTypes: chunked})
		wantStatus(t, w, 200)
		var types bytes.Buffer
		responses, _ := frames(t, w.Body.Bytes())
		for _, r := range responses {
			for _, c := range r.ChunkedSeries[0].Chunks {
				fmt.Fprintln(&types, c.Type)
			}
		}
		want := "XOR\nXOR\nXOR\nXOR\nHISTOGRAM\n"
		if starts {
			want = "XOR2\nXOR2\nXOR2\nXOR\nHISTOGRAM_ST\n"
		}
		if types.String() != want {
			t.Errorf("start timestamps %v: chunks of types %q", starts, types.String())
		}
		s.wantReadAs(s.now-400_000, s.now)
	}
}
