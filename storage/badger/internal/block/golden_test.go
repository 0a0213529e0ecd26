package block

import (
	"bytes"
	"encoding/hex"
	"flag"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
)

var update = flag.Bool("update", false, "rewrite the golden blocks in testdata")

// goldenColumns uses every form of the float block; only arithmetic that is exact everywhere.
func goldenColumns() *Columns {
	var c Columns
	n := 40
	regular := clock(n, 1_700_000_000_000, func() int64 { return 15000 })
	jitter := make([]int64, n)
	for i := range jitter {
		jitter[i] = regular[i] + int64(i*i%7)
	}
	put := func(slot int, ts []int64, f func(i int) float64) { c.TS[slot], c.VS[slot] = ts, fill(len(ts), f) }
	put(0, regular, func(i int) float64 { return float64(i * i * 3) })
	put(1, regular, func(i int) float64 { return float64(i*7919%10007) / 100 })
	put(2, regular, func(int) float64 { return 7 })
	put(3, jitter, func(i int) float64 { return 1 / float64(i+3) })
	put(4, jitter, func(i int) float64 { return float64(4096 * (i * i * i * 7919 % 1009)) })
	put(5, regular, func(int) float64 { return math.Copysign(0, -1) })
	put(6, regular[:39], func(i int) float64 { return float64(i) })
	put(7, regular, func(i int) float64 {
		if i == 39 {
			return math.Float64frombits(staleNaN)
		}
		return float64(i/13) * 0.5
	})
	put(63, jitter[:1], func(int) float64 { return 1e300 })
	c.ST[7] = []STRun{{30, 1_699_999_999_000}, {10, 1_700_000_450_000}}
	for i := 8; i < 24; i++ { // enough skewed series for varints to win
		put(i, regular, func(k int) float64 { return float64((k*k*(i+1))%50 + 1000*(k/17)) })
	}
	for i := 24; i < 40; i++ {
		put(i, regular, func(k int) float64 { return float64(100 + (k*k*7919+i)%60*(k%5/4)) })
	}
	return &c
}

func goldenHistograms() *HistogramSlots {
	var slots HistogramSlots
	h := func(i int) *histogram.Histogram {
		return &histogram.Histogram{
			Schema: 2, ZeroThreshold: 0.001, ZeroCount: uint64(i), Count: uint64(8*i + 4), Sum: float64(i) * 1.5,
			PositiveSpans: []histogram.Span{{Offset: -2, Length: 2}, {Offset: 1, Length: 1}}, PositiveBuckets: []int64{int64(i + 1), 1, int64(-i)},
			NegativeSpans: []histogram.Span{{Offset: 0, Length: 1}}, NegativeBuckets: []int64{int64(i)},
		}
	}
	slots[0] = histograms(12, func(i int) HistogramSample { return HistogramSample{H: h(i)} })
	slots[9] = histograms(5, func(i int) HistogramSample { return HistogramSample{FH: h(i).ToFloat(nil), ST: 1_699_999_000_000} })
	slots[63] = histograms(3, func(i int) HistogramSample {
		return HistogramSample{H: &histogram.Histogram{Schema: histogram.CustomBucketsSchema, Count: uint64(i), CustomValues: []float64{0.5, 1},
			PositiveSpans: []histogram.Span{{Offset: 0, Length: 1}}, PositiveBuckets: []int64{int64(i)}, Sum: float64(i)}}
	})
	return &slots
}

func goldenStream(a *Arena) *Stream {
	var s Stream
	c := goldenColumns()
	at := int64(1_700_000_000_000)
	for _, slot := range []int{0, 1, 2, 3, 5, 7} {
		for i, v := range c.VS[slot] {
			at += 15000 + int64(i/20*slot*slot*9000)
			s.Append(a, at, v)
		}
	}
	return &s
}

// readGolden returns the bytes kept in testdata; with -update they are b.
func readGolden(t *testing.T, name string, b []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name+".hex")
	if *update {
		var out bytes.Buffer
		for line := range bytes.SplitSeq([]byte(hex.EncodeToString(b)), nil) {
			out.Write(line)
			if out.Len()%101 == 100 {
				out.WriteByte('\n')
			}
		}
		out.WriteByte('\n')
		if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	golden, err := hex.DecodeString(string(bytes.ReplaceAll(text, []byte("\n"), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return golden
}

// A block of format 1 must be readable for ever, and must be written as it is: a change that alters the bytes needs a new
// version, or (another zstd, a better choice among the forms) a look and -update.
func TestGoldenFloats(t *testing.T) {
	want := goldenColumns()
	b, err := NewEncoder().EncodeFloats(nil, 123456789, want)
	if err != nil {
		t.Fatal(err)
	}
	golden := readGolden(t, "floats_v1", b)
	f, err := OpenFloats(golden)
	if err != nil {
		t.Fatal(err)
	}
	var got Columns
	if err := f.Decode(&got, math.MaxUint64); err != nil {
		t.Fatal(err)
	}
	sameColumns(t, want, &got, want.Slots())
	if f.LSN != 123456789 {
		t.Errorf("LSN %d", f.LSN)
	}
	if !bytes.Equal(b, golden) {
		t.Errorf("encoding differs from testdata: %x", b)
	}
	forms := map[byte]bool{}
	e := NewEncoder()
	if _, err := e.EncodeFloats(nil, 0, want); err != nil {
		t.Fatal(err)
	}
	for _, it := range e.ints.items {
		switch {
		case it.ints.to == it.ints.from:
		case it.useVarint && it.voffset:
			forms[kindOffset] = true
		case it.useVarint:
			forms[kindZigzag] = true
		case it.shift > 0:
			forms[kindShifted] = true
		default:
			forms[kindPacked] = true
		}
	}
	if len(forms) != 4 {
		t.Errorf("the golden block shows the forms %v only", forms)
	}
}

func TestGoldenHistograms(t *testing.T) {
	want := goldenHistograms()
	b, err := NewEncoder().EncodeHistograms(nil, 123456789, want)
	if err != nil {
		t.Fatal(err)
	}
	golden := readGolden(t, "histograms_v1", b)
	f, err := OpenHistograms(golden)
	if err != nil {
		t.Fatal(err)
	}
	var chunks HistogramChunks
	if err := f.Decode(&chunks, math.MaxUint64); err != nil {
		t.Fatal(err)
	}
	for i := range want {
		var samples []HistogramSample
		for _, c := range chunks.Slots[i] {
			if samples, err = c.AppendSamples(samples); err != nil {
				t.Fatal(err)
			}
		}
		sameHistograms(t, want[i], samples)
	}
	if !bytes.Equal(b, golden) {
		t.Errorf("encoding differs from testdata: %x", b)
	}
}

func TestGoldenSnapshot(t *testing.T) {
	a := NewArena(false)
	s := goldenStream(a)
	b := s.AppendSnapshot(nil, a)
	golden := readGolden(t, "stream_v1", b)
	var c Stream
	if _, err := c.RestoreSnapshot(a, golden); err != nil {
		t.Fatal(err)
	}
	ts, vs := s.Decode(a, nil, nil)
	gotT, got := c.Decode(a, nil, nil)
	sameSamples(t, ts, gotT, vs, got)
	if !bytes.Equal(b, golden) {
		t.Errorf("encoding differs from testdata: %x", b)
	}
}
