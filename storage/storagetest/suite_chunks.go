package storagetest

import (
	"fmt"
	"testing"

	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/luminate/luminate/storage"
)

// testChunks asks for stored chunks: whatever a store hands out undecoded must come
// to what it would have decoded, also where late samples, doubles, floats and deletes
// are among the histograms and the range cuts through them.
func (s *suite) testChunks(t *testing.T) {
	store, model := s.pair(t)
	const n = 400
	start := s.now - n*15_000
	var b storage.Batch
	for i := range 6 {
		var hs []storage.HistogramSample
		for j := range n {
			h := storage.HistogramSample{T: start + int64(j)*15_000, H: tsdbutil.GenerateTestHistogram(int64(j % 150))}
			if i%2 == 1 {
				h.H, h.FH = nil, tsdbutil.GenerateTestFloatHistogram(int64(j%150))
			}
			if i >= 4 {
				h.ST = start - 1000
			}
			hs = append(hs, h)
		}
		b.AddHistograms(name("chunked", "i", fmt.Sprint(i)), hs...)
	}
	appendBoth(t, store, model, tenantA, &b)
	ask := func() {
		t.Helper()
		for _, r := range [][2]int64{{start, s.now}, {start + 1_000_000, s.now - 1_000_000}, {start + 15_000, start + 15_000}, {s.now - 60_000, s.now}} {
			for _, unsorted := range []bool{false, true} {
				compare(t, store, model, tenantA, storage.Selection{
					Matchers: []*storage.Matcher{Eq(storage.MetricName, "chunked")}, MinT: r[0], MaxT: r[1], Chunks: true, Unsorted: unsorted,
				})
			}
		}
	}
	ask()
	if s.opts.Reopen != nil {
		store = s.opts.Reopen(t, store)
		ask()
	}
	var late storage.Batch
	late.AddHistograms(name("chunked", "i", "0"), storage.HistogramSample{T: start + 100_001, H: tsdbutil.GenerateTestHistogram(900)})
	late.AddHistograms(name("chunked", "i", "1"), storage.HistogramSample{T: start + 150_000, FH: tsdbutil.GenerateTestFloatHistogram(900)})
	late.Add(name("chunked", "i", "2"), storage.Sample{T: start + 200_001, V: 7})
	late.Add(name("chunked", "i", "3"), storage.Sample{T: start + 210_000, V: 7}) // loses to the histogram
	appendBoth(t, store, model, tenantA, &late)
	ask()
	gone := storage.Selection{Matchers: []*storage.Matcher{Eq("i", "4")}, MinT: start + 3_000_000, MaxT: start + 3_015_000}
	for _, st := range []storage.Store{store, model} {
		if _, err := st.Delete(t.Context(), storage.MustTenant(tenantA), gone); err != nil {
			t.Fatalf("delete: %v", err)
		}
	}
	ask()
}
