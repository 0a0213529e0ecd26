package badger

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger/internal/block"
	"github.com/luminate/luminate/storage/storagetest"
)

// storedChunks reads the chunks of the only series out of its blocks.
func storedChunks(t *testing.T, db *DB) (out []storage.Chunk) {
	t.Helper()
	txn := db.view()
	defer txn.Discard()
	for _, p := range db.allPartitions() {
		s := db.newScan(p)
		s.open()
		for it := s.its[1]; ; it.Next() {
			if len(out) == 0 {
				it.Rewind()
			}
			if !it.Valid() {
				break
			}
			b, err := it.Item().ValueCopy(nil)
			if err != nil {
				t.Fatal(err)
			}
			f, err := block.OpenHistograms(b)
			if err != nil {
				t.Fatal(err)
			}
			var chunks block.HistogramChunks
			if err := f.Decode(&chunks, f.Slots); err != nil {
				t.Fatal(err)
			}
			for _, c := range chunks.Slots[0] {
				c.Data = slices.Clone(c.Data)
				out = append(out, storage.Chunk(c))
			}
		}
		s.close()
	}
	return out
}

// TestStoredChunks: chunks come out of Select as they lie in their block, but for
// those that something speaks against.
func TestStoredChunks(t *testing.T) {
	const step, n = 15_000, 110
	tn := storage.MustTenant("a")
	name := storage.LabelsFromStrings(storage.MetricName, "h")
	clock := newClock()
	start := clock.ms.Load() - n*step
	at := func(i int) int64 { return start + int64(i)*step }
	for _, tc := range []struct {
		name     string
		disturb  func(t *testing.T, db *DB, chunks []storage.Chunk)
		from, to func([]storage.Chunk) int64
		lost     []int // chunks that are decoded
	}{
		{name: "alone"},
		{name: "range cuts the first and the last", from: func(cs []storage.Chunk) int64 { return cs[0].MinT + 1 },
			to: func(cs []storage.Chunk) int64 { return cs[len(cs)-1].MaxT - 1 }, lost: []int{0, -1}},
		{name: "range between chunks", from: func(cs []storage.Chunk) int64 { return cs[0].MaxT + 1 }, lost: []int{0}},
		{name: "late sample within", disturb: func(t *testing.T, db *DB, cs []storage.Chunk) {
			addHistogram(t, db, cs[1].MinT+1, 500)
		}, lost: []int{1}},
		{name: "late sample between", disturb: func(t *testing.T, db *DB, cs []storage.Chunk) {
			addHistogram(t, db, cs[1].MaxT+1, 500)
		}, lost: []int{2}},
		{name: "double", disturb: func(t *testing.T, db *DB, cs []storage.Chunk) {
			addHistogram(t, db, cs[1].MaxT, 500)
		}, lost: []int{1, 2}},
		{name: "double in a block", disturb: func(t *testing.T, db *DB, cs []storage.Chunk) {
			addHistogram(t, db, cs[1].MinT, 500)
			flushAll(t, db)
		}, lost: []int{1}},
		{name: "late chunk between", disturb: func(t *testing.T, db *DB, cs []storage.Chunk) {
			addHistogram(t, db, cs[1].MaxT+1, 500)
			flushAll(t, db)
		}, lost: []int{2}},
		{name: "newer sample", disturb: func(t *testing.T, db *DB, cs []storage.Chunk) {
			addHistogram(t, db, at(n), 500)
		}},
		{name: "float", disturb: func(t *testing.T, db *DB, cs []storage.Chunk) {
			var b storage.Batch
			b.Add(name, storage.Sample{T: cs[0].MinT + 1, V: 1})
			storagetest.MustAppend(t, db, "a", &b)
		}, lost: []int{0}},
		{name: "tombstone", disturb: func(t *testing.T, db *DB, cs []storage.Chunk) {
			if _, err := db.Delete(t.Context(), tn, storage.Selection{MinT: cs[1].MinT, MaxT: cs[1].MinT}); err != nil {
				t.Fatal(err)
			}
		}, lost: []int{1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := testConfig(t.TempDir())
			cfg.Now = clock.now
			db := openTest(t, cfg)
			var b storage.Batch
			var hs []storage.HistogramSample
			for i := range n {
				hs = append(hs, storage.HistogramSample{T: at(i), H: wideHistogram(i)})
			}
			b.AddHistograms(name, hs...)
			storagetest.MustAppend(t, db, "a", &b)
			flushAll(t, db)
			want := storedChunks(t, db)
			if len(want) < 4 {
				t.Fatalf("%d chunks are too few for this test", len(want))
			}
			s := storage.Selection{MinT: start, MaxT: at(n), Chunks: true}
			if tc.from != nil {
				s.MinT = tc.from(want)
			}
			if tc.to != nil {
				s.MaxT = tc.to(want)
			}
			if tc.disturb != nil {
				tc.disturb(t, db, want)
			}
			for _, i := range tc.lost {
				want[(i+len(want))%len(want)].Encoding = chunkenc.EncNone
			}
			want = slices.DeleteFunc(want, func(c storage.Chunk) bool { return c.Encoding == chunkenc.EncNone })
			for got, err := range db.Select(t.Context(), tn, s) {
				if err != nil {
					t.Fatal(err)
				}
				// A late sample that was written out is a chunk of its own.
				got.Chunks = slices.DeleteFunc(got.Chunks, func(c storage.Chunk) bool { return c.Samples == 1 })
				sameChunks(t, got.Chunks, want)
			}
			plain := s
			plain.Chunks = false
			if d := storagetest.DiffSeries(storagetest.Collect(t, db, "a", s), storagetest.Collect(t, db, "a", plain)); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestChunksSeenTwice: while a group is written out, its samples are in the head and in
// the new block, both of one LSN. No sample of a chunk may stand beside it, also not the
// first of a series' first chunk; the last of the chunk before may.
func TestChunksSeenTwice(t *testing.T) {
	cfg := testConfig(t.TempDir())
	clock := newClock()
	cfg.Now = clock.now
	db := openTest(t, cfg)
	start := clock.ms.Load() - 600_000
	addHistogram(t, db, start, 1)
	flushAll(t, db)
	chunk := block.HistogramChunk(storedChunks(t, db)[0])
	for _, tc := range []struct {
		name  string
		after int64 // of the chunk
		at    int64 // of the other sample
		lsn   uint64
		whole bool
	}{
		{"its own first", start, start, 5, false},
		{"its own, not the first chunk", start - 1000, start, 5, false},
		{"the last before", start - 1000, start - 1000, 5, true},
		{"another in its place", start - 1000, start - 1000, 6, false},
		{"older", start - 1000, start - 2000, 6, true},
		{"newer", start, start + 1, 6, true},
	} {
		s := db.newScan(db.allPartitions()[0])
		s.kept = append(s.kept, chunkPiece{lsn: 5, after: tc.after, c: chunk})
		s.hists = append(s.hists, histogramPiece{lsn: tc.lsn, h: storage.HistogramSample{T: tc.at, H: tsdbutil.GenerateTestHistogram(1)}})
		if err := s.settleChunks(0); err != nil {
			t.Fatal(err)
		}
		if whole := len(s.kept) == 1; whole != tc.whole {
			t.Errorf("%s: the chunk stays whole: %v", tc.name, whole)
		}
		s.close()
	}
}

func sameChunks(t *testing.T, got, want []storage.Chunk) {
	t.Helper()
	same := slices.EqualFunc(got, want, func(a, b storage.Chunk) bool {
		return a.MinT == b.MinT && a.MaxT == b.MaxT && a.Encoding == b.Encoding && a.Samples == b.Samples && bytes.Equal(a.Data, b.Data)
	})
	if !same {
		for _, c := range got {
			t.Logf("got %d to %d", c.MinT, c.MaxT)
		}
		for _, c := range want {
			t.Logf("want %d to %d", c.MinT, c.MaxT)
		}
		t.Error("chunks differ")
	}
}

// wideHistogram is so wide that a chunk holds some ten of its kind.
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

func addHistogram(t *testing.T, db *DB, ts, n int64) {
	t.Helper()
	var b storage.Batch
	b.AddHistograms(storage.LabelsFromStrings(storage.MetricName, "h"), storage.HistogramSample{T: ts, H: tsdbutil.GenerateTestHistogram(n)})
	storagetest.MustAppend(t, db, "a", &b)
}

func flushAll(t *testing.T, db *DB) {
	t.Helper()
	if err := db.flush.everything(context.Background()); err != nil {
		t.Fatal(err)
	}
}
