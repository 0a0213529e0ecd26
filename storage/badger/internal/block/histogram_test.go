package block

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
)

// histogramShapes return n samples, 15 s apart.
var histogramShapes = map[string]func(r *rand.Rand, n int) []HistogramSample{
	"integer": func(r *rand.Rand, n int) []HistogramSample {
		return histograms(n, func(i int) HistogramSample { return HistogramSample{H: tsdbutil.GenerateTestHistogram(int64(i))} })
	},
	"float": func(r *rand.Rand, n int) []HistogramSample {
		return histograms(n, func(i int) HistogramSample {
			return HistogramSample{FH: tsdbutil.GenerateTestFloatHistogram(int64(i))}
		})
	},
	"gauge": func(r *rand.Rand, n int) []HistogramSample {
		return histograms(n, func(i int) HistogramSample {
			return HistogramSample{H: tsdbutil.GenerateTestGaugeHistogram(int64(r.IntN(10)))}
		})
	},
	"float gauge": func(r *rand.Rand, n int) []HistogramSample {
		return histograms(n, func(i int) HistogramSample {
			return HistogramSample{FH: tsdbutil.GenerateTestGaugeFloatHistogram(int64(r.IntN(10)))}
		})
	},
	"custom buckets": func(r *rand.Rand, n int) []HistogramSample {
		return histograms(n, func(i int) HistogramSample {
			return HistogramSample{H: tsdbutil.GenerateTestCustomBucketsHistogram(int64(i))}
		})
	},
	"float custom buckets": func(r *rand.Rand, n int) []HistogramSample {
		return histograms(n, func(i int) HistogramSample {
			return HistogramSample{FH: tsdbutil.GenerateTestCustomBucketsFloatHistogram(int64(i))}
		})
	},
	"resets": func(r *rand.Rand, n int) []HistogramSample {
		return histograms(n, func(i int) HistogramSample {
			return HistogramSample{H: tsdbutil.GenerateTestHistogram(int64(i % 17))}
		})
	},
	"start timestamps": func(r *rand.Rand, n int) []HistogramSample {
		return histograms(n, func(i int) HistogramSample {
			return HistogramSample{H: tsdbutil.GenerateTestHistogram(int64(i)), ST: int64(i/10) * 1000}
		})
	},
	"kinds in turn": func(r *rand.Rand, n int) []HistogramSample {
		return histograms(n, func(i int) HistogramSample {
			if i/7%2 == 0 {
				return HistogramSample{H: tsdbutil.GenerateTestHistogram(int64(i))}
			}
			return HistogramSample{FH: tsdbutil.GenerateTestFloatHistogram(int64(i)), ST: 5}
		})
	},
	"buckets come and go": func(r *rand.Rand, n int) []HistogramSample {
		return histograms(n, func(i int) HistogramSample {
			h := &histogram.Histogram{Schema: 1, Count: 4 * uint64(i+1), Sum: float64(i)}
			for k := range 4 {
				if k > 0 {
					h.PositiveBuckets = append(h.PositiveBuckets, 0)
				} else {
					h.PositiveBuckets = append(h.PositiveBuckets, int64(i+1))
				}
				off := int32(r.IntN(3))
				h.PositiveSpans = append(h.PositiveSpans, histogram.Span{Offset: off, Length: 1})
			}
			if i%2 == 1 {
				h.CounterResetHint = histogram.GaugeType
			}
			return HistogramSample{H: h}
		})
	},
	"stale": func(r *rand.Rand, n int) []HistogramSample {
		return histograms(n, func(i int) HistogramSample {
			if i%5 == 4 {
				return HistogramSample{H: &histogram.Histogram{Sum: math.Float64frombits(staleNaN)}}
			}
			return HistogramSample{H: tsdbutil.GenerateTestHistogram(int64(i))}
		})
	},
	"odd sums": func(r *rand.Rand, n int) []HistogramSample {
		return histograms(n, func(i int) HistogramSample {
			h := tsdbutil.GenerateTestFloatHistogram(int64(i))
			h.Sum = specials[i%len(specials)]
			return HistogramSample{FH: h}
		})
	},
	"stale of any layout": func(r *rand.Rand, n int) []HistogramSample {
		return histograms(n, func(i int) HistogramSample {
			h := &histogram.Histogram{Schema: 100, Sum: math.Float64frombits(staleNaN), PositiveBuckets: []int64{1}, Count: 3}
			return HistogramSample{H: h, ST: int64(i % 2)}
		})
	},
	"zero-length spans": func(r *rand.Rand, n int) []HistogramSample {
		return histograms(n, func(i int) HistogramSample {
			h := &histogram.Histogram{Schema: 1, Count: 2 * uint64(i+1), Sum: float64(i), PositiveBuckets: []int64{int64(i + 1), 0}}
			h.PositiveSpans = [][]histogram.Span{
				{{Offset: 0, Length: 0}, {Offset: 2, Length: 1}, {Offset: 3, Length: 0}, {Offset: 1, Length: 1}},
				{{Offset: 2, Length: 1}, {Offset: 4, Length: 1}, {Offset: 1, Length: 0}},
				{{Offset: 0, Length: 1}, {Offset: 1, Length: 1}},
			}[r.IntN(3)]
			return HistogramSample{H: h}
		})
	},
	"only stale": func(r *rand.Rand, n int) []HistogramSample {
		return histograms(n, func(i int) HistogramSample {
			return HistogramSample{FH: &histogram.FloatHistogram{Sum: math.Float64frombits(staleNaN)}}
		})
	},
}

func histograms(n int, f func(i int) HistogramSample) []HistogramSample {
	s := make([]HistogramSample, n)
	for i := range s {
		s[i] = f(i)
		s[i].T = 1_700_000_000_000 + 15000*int64(i)
	}
	return s
}

func sameHistograms(t testing.TB, want, got []HistogramSample) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%d samples, want %d", len(got), len(want))
	}
	for i := range want {
		w, g := want[i], got[i]
		if w.T != g.T || w.ST != g.ST || (w.H == nil) != (g.H == nil) || (w.FH == nil) != (g.FH == nil) {
			t.Fatalf("sample %d is %+v, want %+v", i, g, w)
		}
		if w.stale() {
			if !g.stale() {
				t.Fatalf("sample %d is not stale", i)
			}
			continue
		}
		if w.H != nil {
			// Chunks may add empty buckets, so compare what the histograms mean.
			if !w.H.Copy().Compact(0).Equals(g.H.Copy().Compact(0)) || math.Float64bits(w.H.Sum) != math.Float64bits(g.H.Sum) {
				t.Fatalf("sample %d is %v, want %v", i, g.H, w.H)
			}
		} else if !w.FH.Copy().Compact(0).Equals(g.FH.Copy().Compact(0)) || math.Float64bits(w.FH.Sum) != math.Float64bits(g.FH.Sum) {
			t.Fatalf("sample %d is %v, want %v", i, g.FH, w.FH)
		}
	}
}

func roundTripHistograms(t testing.TB, e *Encoder, slots *HistogramSlots) []byte {
	t.Helper()
	b, err := e.EncodeHistograms(nil, 9, slots)
	if err != nil {
		t.Fatal(err)
	}
	f, err := OpenHistograms(b)
	if err != nil {
		t.Fatal(err)
	}
	var got HistogramChunks
	if err := f.Decode(&got, math.MaxUint64); err != nil {
		t.Fatal(err)
	}
	for i := range slots {
		var samples []HistogramSample
		for _, c := range got.Slots[i] {
			from := len(samples)
			if samples, err = c.AppendSamples(samples); err != nil {
				t.Fatal(err)
			}
			if samples[from].T != c.MinT || samples[len(samples)-1].T != c.MaxT {
				t.Fatalf("chunk says [%d, %d], has [%d, %d]", c.MinT, c.MaxT, samples[from].T, samples[len(samples)-1].T)
			}
		}
		sameHistograms(t, slots[i], samples)
	}
	return b
}

func TestHistogramRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	e := NewEncoder()
	for name, shape := range histogramShapes {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{1, 2, 11, 300, 2500} {
				var slots HistogramSlots
				slots[5] = shape(r, n)
				slots[63] = shape(r, 1)
				roundTripHistograms(t, e, &slots)
			}
		})
	}
}

func TestHistogramInputStaysUnchanged(t *testing.T) {
	r := rand.New(rand.NewPCG(23, 24))
	var slots HistogramSlots
	slots[0] = histogramShapes["buckets come and go"](r, 50)
	var before []HistogramSample
	for _, s := range slots[0] {
		before = append(before, HistogramSample{T: s.T, H: s.H.Copy()})
	}
	if _, err := NewEncoder().EncodeHistograms(nil, 1, &slots); err != nil {
		t.Fatal(err)
	}
	for i, s := range slots[0] {
		if fmt.Sprint(before[i].H) != fmt.Sprint(s.H) {
			t.Fatalf("sample %d became %v, was %v", i, s.H, before[i].H)
		}
	}
}

func TestHistogramCounterResetHints(t *testing.T) {
	var slots HistogramSlots
	slots[0] = histograms(40, func(i int) HistogramSample { return HistogramSample{H: tsdbutil.GenerateTestHistogram(int64(i % 20))} })
	slots[1] = histograms(3, func(i int) HistogramSample { return HistogramSample{H: tsdbutil.GenerateTestGaugeHistogram(int64(i))} })
	b, err := NewEncoder().EncodeHistograms(nil, 1, &slots)
	if err != nil {
		t.Fatal(err)
	}
	f, err := OpenHistograms(b)
	if err != nil {
		t.Fatal(err)
	}
	var got HistogramChunks
	if err := f.Decode(&got, 1<<0|1<<1); err != nil {
		t.Fatal(err)
	}
	var hints []histogram.CounterResetHint
	var headers []chunkenc.CounterResetHeader
	for slot := range 2 {
		for _, c := range got.Slots[slot] {
			samples, err := c.AppendSamples(nil)
			if err != nil {
				t.Fatal(err)
			}
			chunk, err := c.Chunk()
			if err != nil {
				t.Fatal(err)
			}
			headers = append(headers, chunk.(*chunkenc.HistogramChunk).GetCounterResetHeader())
			for _, s := range samples {
				hints = append(hints, s.H.CounterResetHint)
			}
		}
	}
	for i, hint := range hints {
		want := histogram.NotCounterReset
		switch {
		case i >= 40:
			want = histogram.GaugeType
		case i == 0 || i == 20: // the first of a chunk: chunkenc leaves it to the reader to compare
			want = histogram.UnknownCounterReset
		}
		if hint != want {
			t.Errorf("sample %d has hint %d, want %d", i, hint, want)
		}
	}
	want := []chunkenc.CounterResetHeader{chunkenc.UnknownCounterReset, chunkenc.CounterReset, chunkenc.GaugeType}
	if !slices.Equal(headers, want) {
		t.Errorf("chunk headers %v, want %v", headers, want)
	}
}

func TestHistogramEncodings(t *testing.T) {
	r := rand.New(rand.NewPCG(25, 26))
	for name, want := range map[string]chunkenc.Encoding{
		"integer": chunkenc.EncHistogram, "float": chunkenc.EncFloatHistogram, "start timestamps": chunkenc.EncHistogramST,
	} {
		var slots HistogramSlots
		slots[2] = histogramShapes[name](r, 30)
		f, err := OpenHistograms(roundTripHistograms(t, NewEncoder(), &slots))
		if err != nil {
			t.Fatal(err)
		}
		var got HistogramChunks
		if err := f.Decode(&got, 1<<2); err != nil {
			t.Fatal(err)
		}
		for _, c := range got.Slots[2] {
			if c.Encoding != want {
				t.Errorf("%s: encoding %v, want %v", name, c.Encoding, want)
			}
		}
		if err := f.Decode(&got, 1<<1); err != nil || got.Slots[2] != nil {
			t.Errorf("%s: unwanted slot decoded (%v)", name, err)
		}
	}
}

func TestHistogramInputErrors(t *testing.T) {
	h := tsdbutil.GenerateTestHistogram(1)
	bad := h.Copy()
	bad.PositiveBuckets = bad.PositiveBuckets[1:]
	jump := h.Copy()
	jump.PositiveSpans[1].Offset = -1
	odd := h.ToFloat(nil)
	odd.Schema = 100
	cases := map[string][]HistogramSample{
		"unknown schema":  {{T: 1, FH: odd}},
		"empty":           nil,
		"none":            {{T: 1}},
		"both":            {{T: 1, H: h, FH: h.ToFloat(nil)}},
		"equal times":     {{T: 1, H: h}, {T: 1, H: h}},
		"too few buckets": {{T: 1, H: bad}},
		"negative offset": {{T: 1, H: jump}},
	}
	for name, samples := range cases {
		var slots HistogramSlots
		slots[0] = samples
		if b, err := NewEncoder().EncodeHistograms([]byte("x"), 1, &slots); !errors.Is(err, ErrInput) || string(b) != "x" {
			t.Errorf("%s: got %q and %v", name, b, err)
		}
	}
}

func BenchmarkHistogramEncode(b *testing.B) {
	e := NewEncoder()
	var slots HistogramSlots
	for i := range slots {
		slots[i] = histogramShapes["integer"](nil, 120)
	}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buf, err = e.EncodeHistograms(buf[:0], 1, &slots); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(buf))/GroupSize/120, "B/sample")
	b.ReportMetric(float64(b.N)*GroupSize*120/b.Elapsed().Seconds()/1e6, "Msamples/s")
}
