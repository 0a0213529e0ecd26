package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// scrape is the usual request: n neighbouring series at one time; counters,
// gauges with two decimals and constants.
func scrape(n int, rnd *rand.Rand) *Samples {
	s := &Samples{}
	s.Reset(3, 20_000)
	const now = int64(1_760_000_000_000)
	for i := range n {
		v := 1.0
		switch {
		case i%10 < 6:
			v = float64(rnd.IntN(1_000_000))
		case i%10 < 9:
			v = float64(rnd.IntN(10_000)) / 100
		}
		s.Append(uint32(1000+i), now+int64(i/500)*7, v, 0)
	}
	return s
}

func sameSamples(a, b *Samples) error {
	if a.Tenant != b.Tenant || a.Day != b.Day {
		return fmt.Errorf("tenant %d day %d, want %d %d", b.Tenant, b.Day, a.Tenant, a.Day)
	}
	if !slices.Equal(a.Ref, b.Ref) || !slices.Equal(a.T, b.T) {
		return errors.New("references or timestamps differ")
	}
	bits := func(x, y float64) bool { return math.Float64bits(x) == math.Float64bits(y) }
	if !slices.EqualFunc(a.V, b.V, bits) {
		return errors.New("values differ")
	}
	if hasStart(a.ST) && !slices.Equal(a.ST, b.ST) || !hasStart(a.ST) && hasStart(b.ST) {
		return errors.New("start timestamps differ")
	}
	return nil
}

func TestSamplesRoundTrip(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	odd := &Samples{Tenant: math.MaxUint32, Day: math.MinInt32}
	for _, ref := range []uint32{0, math.MaxUint32, 0, 5, 5} {
		for _, ts := range []int64{0, math.MinInt64, math.MaxInt64, -1} {
			for _, bits := range []uint64{0, 1 << 63, 0x7ff0000000000002, 0x7ff8000000000001, 1, math.MaxUint64} {
				odd.Append(ref, ts, math.Float64frombits(bits), 0)
			}
		}
	}
	starts := scrape(1000, rnd)
	for i := range starts.Ref {
		starts.ST = append(starts.ST, int64(i/300)*17)
	}
	extreme := &Samples{}
	extreme.Append(1, 1, 1, 0)
	extreme.Append(1, 2, 1, math.MinInt64)
	extreme.Append(1, 3, 1, math.MaxInt64)
	if !slices.Equal(extreme.ST, []int64{0, math.MinInt64, math.MaxInt64}) {
		t.Fatalf("start timestamps %v", extreme.ST)
	}
	var enc SamplesEncoder
	var dec SamplesDecoder
	for name, s := range map[string]*Samples{
		"none": {Tenant: 1}, "odd": odd, "scrape": scrape(5000, rnd), "one": scrape(1, rnd),
		"starts": starts, "extreme starts": extreme,
	} {
		prefix := []byte("before")
		p, err := enc.AppendTo(prefix, s)
		if err != nil || !bytes.HasPrefix(p, prefix) {
			t.Fatalf("%s: %v", name, err)
		}
		p = p[len(prefix):]
		h, err := ReadRecordHeader(p)
		if err != nil || h != (RecordHeader{s.Tenant, s.Day, s.Len()}) {
			t.Fatalf("%s: header %+v, %v", name, h, err)
		}
		var got Samples
		if err := dec.Decode(p, &got); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := sameSamples(s, &got); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

// TestDecodeAppends: columns grow over several records, with and without starts.
func TestDecodeAppends(t *testing.T) {
	plain, starts := &Samples{}, &Samples{}
	plain.Append(1, 10, 1, 0)
	starts.Append(2, 20, 2, 5)
	var enc SamplesEncoder
	var dec SamplesDecoder
	var got Samples
	for _, s := range []*Samples{plain, starts, plain} {
		p, err := enc.AppendTo(nil, s)
		if err != nil {
			t.Fatal(err)
		}
		if err := dec.Decode(p, &got); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(got.Ref, []uint32{1, 2, 1}) || !slices.Equal(got.ST, []int64{0, 5, 0}) {
		t.Fatalf("%+v", got)
	}
	before := got
	if err := dec.Decode([]byte("0123456789"), &got); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("got %v", err)
	}
	if err := sameSamples(&before, &got); err != nil {
		t.Fatalf("changed by a failed decode: %v", err)
	}
}

func TestEncoderRefuses(t *testing.T) {
	var enc SamplesEncoder
	uneven := &Samples{Ref: []uint32{1}, T: []int64{1, 2}, V: []float64{1}}
	if _, err := enc.AppendTo(nil, uneven); err == nil {
		t.Fatal("columns of unequal length were accepted")
	}
	n := MaxSamples + 1
	many := &Samples{Ref: make([]uint32, n), T: make([]int64, n), V: make([]float64, n)}
	if _, err := enc.AppendTo(nil, many); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("got %v", err)
	}
}

// TestEncodeDoesNotAllocate: the committer's path, encoder to written group.
func TestEncodeDoesNotAllocate(t *testing.T) {
	s := scrape(2000, rand.New(rand.NewPCG(1, 2)))
	l, _, err := Open(t.TempDir(), DefaultConfig(), 0, quiet(), func(Record) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer closeLog(t, l)
	var enc SamplesEncoder
	var dec SamplesDecoder
	var b Batch
	var out Samples
	step := func() {
		b.Reset()
		p, err := enc.AppendTo(b.Start(), s)
		if err != nil {
			t.Fatal(err)
		}
		b.Finish(TypeSamples, p)
		if _, err := l.Append(&b); err != nil {
			t.Fatal(err)
		}
		out.Reset(0, 0)
		if err := dec.Decode(frameBody(b.buf), &out); err != nil {
			t.Fatal(err)
		}
	}
	step()
	if n := testing.AllocsPerRun(100, step); n > 0 && !raceEnabled {
		t.Fatalf("%v allocations", n)
	}
}

func TestSeriesRoundTrip(t *testing.T) {
	var enc SeriesEncoder
	var dec SeriesDecoder
	for _, n := range []int{0, 1, 3000} {
		enc.Reset(9, -5)
		for i := range n {
			enc.Add(uint32(i*7), fmt.Appendf(nil, "metric{customer_id=%d,region=eu}", i))
		}
		p, err := enc.AppendTo([]byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		at := 0
		err = dec.Decode(p[1:], func(h RecordHeader, id uint32, labels []byte) error {
			if h != (RecordHeader{9, -5, n}) || id != uint32(at*7) ||
				string(labels) != fmt.Sprintf("metric{customer_id=%d,region=eu}", at) {
				return fmt.Errorf("series %d: %+v %d %q", at, h, id, labels)
			}
			at++
			return nil
		})
		if err != nil || at != n {
			t.Fatalf("%d of %d series: %v", at, n, err)
		}
	}
}

// TestDecodersRefuseCuts: no prefix of a payload decodes.
func TestDecodersRefuseCuts(t *testing.T) {
	var enc SamplesEncoder
	s := scrape(50, rand.New(rand.NewPCG(1, 2)))
	s.ST = make([]int64, 50)
	s.ST[3] = 1
	p, err := enc.AppendTo(nil, s)
	if err != nil {
		t.Fatal(err)
	}
	var series SeriesEncoder
	series.Reset(1, 1)
	series.Add(1, []byte("a"))
	series.Add(2, []byte("bcd"))
	q, err := series.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	var sd SamplesDecoder
	for n := range p {
		var out Samples
		if err := sd.Decode(p[:n], &out); !errors.Is(err, ErrCorrupt) || out.Len() != 0 {
			t.Fatalf("samples cut to %d: %v", n, err)
		}
	}
	var ld SeriesDecoder
	for n := range q {
		err := ld.Decode(q[:n], func(RecordHeader, uint32, []byte) error { t.Fatal("called"); return nil })
		if !errors.Is(err, ErrCorrupt) {
			t.Fatalf("series cut to %d: %v", n, err)
		}
	}
}

func FuzzSamplesRecord(f *testing.F) {
	f.Add(uint32(1), int32(2), []byte("0123456789abcdef0123456789abcdefghijklmnopqr"), true)
	f.Add(uint32(0), int32(-1), make([]byte, 280), false)
	f.Fuzz(func(t *testing.T, tenant uint32, day int32, raw []byte, starts bool) {
		s := &Samples{Tenant: tenant, Day: day}
		for ; len(raw) >= 28; raw = raw[28:] {
			var st int64
			if starts {
				st = int64(binary.LittleEndian.Uint64(raw[20:]))
			}
			s.Append(binary.LittleEndian.Uint32(raw), int64(binary.LittleEndian.Uint64(raw[4:])),
				math.Float64frombits(binary.LittleEndian.Uint64(raw[12:])), st)
		}
		var enc SamplesEncoder
		p, err := enc.AppendTo(nil, s)
		if err != nil {
			t.Fatal(err)
		}
		var dec SamplesDecoder
		var got Samples
		if err := dec.Decode(p, &got); err != nil {
			t.Fatal(err)
		}
		if err := sameSamples(s, &got); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzDecodeSamples also feeds the series decoder: both read untrusted bytes.
func FuzzDecodeSamples(f *testing.F) {
	var enc SamplesEncoder
	p, _ := enc.AppendTo(nil, scrape(20, rand.New(rand.NewPCG(1, 2))))
	f.Add(p)
	var series SeriesEncoder
	series.Add(1, []byte("labels"))
	q, _ := series.AppendTo(nil)
	f.Add(q)
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x3f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var dec SamplesDecoder
		var s Samples
		if err := dec.Decode(b, &s); err == nil {
			if len(s.T) != s.Len() || len(s.V) != s.Len() || (len(s.ST) != 0 && len(s.ST) != s.Len()) {
				t.Fatalf("columns of unequal length: %d %d %d %d", s.Len(), len(s.T), len(s.V), len(s.ST))
			}
		} else if !errors.Is(err, ErrCorrupt) || s.Len() != 0 {
			t.Fatalf("%d samples with error %v", s.Len(), err)
		}
		var ld SeriesDecoder
		n, count := 0, 0
		err := ld.Decode(b, func(h RecordHeader, _ uint32, _ []byte) error { n, count = n+1, h.Count; return nil })
		if err == nil && n != count || err != nil && n > 0 {
			t.Fatalf("%d of %d series, error %v", n, count, err)
		}
	})
}
