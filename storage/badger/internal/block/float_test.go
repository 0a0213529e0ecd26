package block

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func sameColumns(t testing.TB, want, got *Columns, slots uint64) {
	t.Helper()
	for i := range want.TS {
		if slots>>i&1 == 0 {
			if got.TS[i] != nil || got.VS[i] != nil || got.ST[i] != nil {
				t.Fatalf("slot %d has samples", i)
			}
			continue
		}
		sameSamples(t, want.TS[i], got.TS[i], want.VS[i], got.VS[i])
		if !slices.Equal(want.ST[i], got.ST[i]) {
			t.Fatalf("slot %d: start timestamps %v, want %v", i, got.ST[i], want.ST[i])
		}
	}
}

// roundTrip encodes c and decodes all of it, each slot alone, and nothing.
func roundTrip(t testing.TB, e *Encoder, c *Columns) []byte {
	t.Helper()
	prefix := []byte("before")
	b, err := e.EncodeFloats(prefix, 77, c)
	if err != nil {
		t.Fatal(err)
	}
	b = b[len(prefix):]
	f, err := OpenFloats(b)
	if err != nil {
		t.Fatal(err)
	}
	if f.LSN != 77 || f.Slots != c.Slots() {
		t.Fatalf("header %+v", f.Header)
	}
	mint, maxt, samples := int64(math.MaxInt64), int64(math.MinInt64), 0
	var got Columns
	for i, ts := range c.TS {
		if f.Count(i) != len(ts) {
			t.Fatalf("slot %d counts %d, want %d", i, f.Count(i), len(ts))
		}
		if len(ts) == 0 {
			continue
		}
		mint, maxt, samples = min(mint, ts[0]), max(maxt, ts[len(ts)-1]), samples+len(ts)
		if err := f.Decode(&got, 1<<i); err != nil {
			t.Fatal(err)
		}
		sameColumns(t, c, &got, 1<<i)
	}
	if f.MinT != mint || f.MaxT != maxt || f.Samples() != samples {
		t.Fatalf("header %+v with %d samples, want [%d, %d] with %d", f.Header, f.Samples(), mint, maxt, samples)
	}
	if err := f.Decode(&got, math.MaxUint64); err != nil {
		t.Fatal(err)
	}
	sameColumns(t, c, &got, c.Slots())
	if err := f.Decode(&got, 0); err != nil || got.Slots() != 0 {
		t.Fatalf("nothing wanted: %v, slots %x", err, got.Slots())
	}
	return b
}

func TestFloatRoundTripShapes(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	e := NewEncoder()
	for shape, values := range shapes {
		for name, times := range clocks {
			t.Run(shape+"/"+name, func(t *testing.T) {
				for _, n := range []int{1, 2, 3, 8, 40, 120, 700} {
					var c Columns
					shared := times(r, n)
					c.TS[3], c.VS[3] = shared, values(r, n)
					roundTrip(t, e, &c)
					c.TS[0], c.VS[0] = slices.Clone(shared), values(r, n)
					c.TS[63], c.VS[63] = times(r, n+5), values(r, n+5)
					c.ST[63] = []STRun{{Count: 2, ST: 5}, {Count: uint32(n + 3), ST: -1 << 60}}
					roundTrip(t, e, &c)
				}
			})
		}
	}
}

func TestFloatRoundTripMixture(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	e := NewEncoder()
	for range 150 {
		roundTrip(t, e, randomColumns(r))
	}
}

// randomColumns fills some slots with any shapes.
func randomColumns(r *rand.Rand) *Columns {
	names, clockNames := keys(shapes), keys(clocks)
	var c Columns
	shared := clocks["fixed"](r, 1+r.IntN(300))
	for c.Slots() == 0 {
		for i := range GroupSize {
			if r.IntN(3) == 0 {
				continue
			}
			ts := shared
			if r.IntN(4) == 0 {
				ts = clocks[clockNames[r.IntN(len(clockNames))]](r, 1+r.IntN(200))
			}
			c.TS[i], c.VS[i] = ts, shapes[names[r.IntN(len(names))]](r, len(ts))
			if r.IntN(4) == 0 {
				for range ts {
					c.ST[i] = AppendST(c.ST[i], int64(r.IntN(3)))
				}
			}
		}
	}
	return &c
}

func keys[V any](m map[string]V) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func TestFloatStaleMarkerKeepsDecimals(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	e := NewEncoder()
	var c Columns
	for i := range GroupSize {
		c.TS[i], c.VS[i] = clocks["fixed"](r, 40), shapes["counter"](r, 40)
	}
	plain := len(roundTrip(t, e, &c))
	for i := range GroupSize {
		c.VS[i][39] = math.Float64frombits(staleNaN)
		c.VS[i][0] = math.NaN()
	}
	if marked := len(roundTrip(t, e, &c)); marked > plain+2*GroupSize*12 {
		t.Fatalf("%d bytes with exceptions, %d without", marked, plain)
	}
}

func TestFloatInputErrors(t *testing.T) {
	many := clock(MaxSamples+1, 0, func() int64 { return 1 })
	cases := map[string]struct {
		c    Columns
		want error
	}{
		"empty":               {Columns{}, ErrInput},
		"lengths":             {Columns{TS: [GroupSize][]int64{{1}}}, ErrInput},
		"descending":          {Columns{TS: [GroupSize][]int64{{2, 1}}, VS: [GroupSize][]float64{{1, 1}}}, ErrInput},
		"equal times":         {Columns{TS: [GroupSize][]int64{{2, 2}}, VS: [GroupSize][]float64{{1, 1}}}, ErrInput},
		"start timestamps":    {Columns{TS: [GroupSize][]int64{{2}}, VS: [GroupSize][]float64{{1}}, ST: [GroupSize][]STRun{{{2, 2}}}}, ErrInput},
		"empty run":           {Columns{TS: [GroupSize][]int64{{2}}, VS: [GroupSize][]float64{{1}}, ST: [GroupSize][]STRun{{{0, 2}, {1, 2}}}}, ErrInput},
		"more than MaxSample": {Columns{TS: [GroupSize][]int64{many}, VS: [GroupSize][]float64{make([]float64, len(many))}}, ErrTooLarge},
	}
	e := NewEncoder()
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			b, err := e.EncodeFloats([]byte("x"), 0, &tc.c)
			if !errors.Is(err, tc.want) || string(b) != "x" {
				t.Fatalf("got %q and %v, want %v", b, err, tc.want)
			}
		})
	}
}

func TestFloatLargestBlock(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	var c Columns
	for i := range GroupSize {
		c.TS[i] = clocks["jitter"](r, MaxSamples/GroupSize)
		c.VS[i] = shapes["bits"](r, MaxSamples/GroupSize)
	}
	b, err := NewEncoder().EncodeFloats(nil, 1, &c)
	if err != nil {
		t.Fatal(err)
	}
	f, err := OpenFloats(b)
	if err != nil {
		t.Fatal(err)
	}
	var got Columns
	if err := f.Decode(&got, math.MaxUint64); err != nil {
		t.Fatal(err)
	}
	sameColumns(t, &c, &got, math.MaxUint64)
}

func TestFloatReuseAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	r := rand.New(rand.NewPCG(13, 14))
	c := mixColumns(r, 120, 64)
	e := NewEncoder()
	b, err := e.EncodeFloats(nil, 1, c)
	if err != nil {
		t.Fatal(err)
	}
	var got Columns
	buf := make([]byte, 0, 2*len(b))
	if n := testing.AllocsPerRun(20, func() {
		f, err := OpenFloats(b)
		if err != nil || f.Decode(&got, math.MaxUint64) != nil {
			t.Fatal("decode")
		}
	}); n > 1 { // the pool of decoders may be emptied by a collection
		t.Errorf("decode allocates %v times", n)
	}
	if n := testing.AllocsPerRun(20, func() {
		if _, err := e.EncodeFloats(buf, 1, c); err != nil {
			t.Fatal(err)
		}
	}); n > 1 {
		t.Errorf("encode allocates %v times", n)
	}
}

// mixColumns is one group of the benchmark's data.
func mixColumns(r *rand.Rand, samples, series int) *Columns {
	ts, vs := mix(r, series, samples)
	var c Columns
	for i := range series {
		c.TS[i], c.VS[i] = ts, vs[i]
	}
	return &c
}

func BenchmarkFloatEncode(b *testing.B) { benchFloats(b, false) }
func BenchmarkFloatDecode(b *testing.B) { benchFloats(b, true) }

func benchFloats(b *testing.B, decode bool) {
	for _, samples := range []int{4, 40, 120, 480} {
		for _, series := range []int{3, 64} {
			b.Run(fmt.Sprintf("samples=%d/series=%d", samples, series), func(b *testing.B) {
				benchGroup(b, decode, func(r *rand.Rand) *Columns { return mixColumns(r, samples, series) })
			})
		}
	}
	for _, shape := range keys(shapes) {
		b.Run("shape="+shape, func(b *testing.B) {
			benchGroup(b, decode, func(r *rand.Rand) *Columns {
				var c Columns
				ts := clocks["fixed"](r, 120)
				for i := range GroupSize {
					c.TS[i], c.VS[i] = ts, shapes[shape](r, len(ts))
				}
				return &c
			})
		})
	}
}

// benchGroup works through 16 groups, so that the branch predictor does not learn one by heart.
func benchGroup(b *testing.B, decode bool, make func(r *rand.Rand) *Columns) {
	r := rand.New(rand.NewPCG(15, 16))
	e := NewEncoder()
	var in [16]*Columns
	var blocks [16][]byte
	size, samples := 0, 0
	for i := range in {
		in[i] = make(r)
		var err error
		if blocks[i], err = e.EncodeFloats(nil, 1<<20, in[i]); err != nil {
			b.Fatal(err)
		}
		size += len(blocks[i])
		for _, ts := range in[i].TS {
			samples += len(ts)
		}
	}
	var out Columns
	var buf []byte
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if decode {
			f, err := OpenFloats(blocks[n%16])
			if err != nil || f.Decode(&out, math.MaxUint64) != nil {
				b.Fatal("decode")
			}
			continue
		}
		buf, _ = e.EncodeFloats(buf[:0], 1<<20, in[n%16])
	}
	b.ReportMetric(float64(b.N)*float64(samples)/16/b.Elapsed().Seconds()/1e6, "Msamples/s")
	b.ReportMetric(float64(size)/float64(samples), "B/sample")
}
