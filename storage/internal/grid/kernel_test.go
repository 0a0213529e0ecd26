package grid

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/luminate/luminate/storage"
)

const plenty = 1 << 30

// specials are the values that break careless arithmetic.
var specials = []float64{
	0, math.Copysign(0, -1), 1, -1, 0.1, 1e-300, 1e300, math.MaxFloat64, -math.MaxFloat64, math.Inf(1), math.Inf(-1),
	math.NaN(), math.Float64frombits(0x7ff8000000000123), math.Float64frombits(0xfff8000000000001),
}

// randomSeries returns a series with gaps, resets, staleness markers and, sometimes, odd values.
func randomSeries(rng *rand.Rand, from int64, n int) (ts []int64, vs []float64) {
	t := from + rng.Int64N(15_000)
	v := float64(rng.IntN(1000))
	kind := rng.IntN(6)
	for range n {
		t += 15_000
		switch rng.IntN(12) {
		case 0:
			t += rng.Int64N(400_000)
		case 1:
			t += rng.Int64N(1000)
		}
		switch kind {
		case 0, 1: // counter
			v += float64(rng.IntN(50))
			if rng.IntN(20) == 0 {
				v = float64(rng.IntN(3))
			}
		case 2: // few distinct values
			v = float64(rng.IntN(3)) - 1
		case 3:
			v = rng.NormFloat64() * math.Pow(10, float64(rng.IntN(20)-10))
		case 4:
			v = specials[rng.IntN(len(specials))]
		case 5: // constant
		}
		ts, vs = append(ts, t), append(vs, v)
		if rng.IntN(25) == 0 {
			vs[len(vs)-1] = storage.StaleNaN
		}
	}
	return ts, vs
}

// wantKernel is the loop of the reference: windows by hand, values by storage.EvalWindow.
func wantKernel(g storage.Grid, ts []int64, vs []float64) []float64 {
	var all []storage.Sample
	for i, t := range ts {
		if g.Func == storage.FuncLast || !storage.IsStale(vs[i]) {
			all = append(all, storage.Sample{T: t, V: vs[i]})
		}
	}
	out := make([]float64, g.Steps())
	for i := range out {
		after, upto := g.WindowAt(i)
		lo, _ := slices.BinarySearchFunc(all, after+1, func(s storage.Sample, t int64) int { return int(s.T - t) })
		hi, _ := slices.BinarySearchFunc(all, upto+1, func(s storage.Sample, t int64) int { return int(s.T - t) })
		out[i] = storage.Absent
		if lo == hi {
			continue
		}
		var prev *storage.Sample
		if lo > 0 && all[lo].T-all[lo-1].T <= storage.NativeRateLookback {
			prev = &all[lo-1]
		}
		if v, ok := storage.EvalWindow(g.Func, g.FuncArg, all[lo:hi], after, upto, prev); ok {
			out[i] = v
		}
	}
	return out
}

func sameBits(a, b float64) bool {
	if math.IsNaN(a) && math.IsNaN(b) { // a NaN's payload is not part of the contract, but absence is
		return storage.IsStale(a) == storage.IsStale(b)
	}
	return math.Float64bits(a) == math.Float64bits(b)
}

func checkKernel(t *testing.T, k *Kernel, g storage.Grid, ts []int64, vs []float64) {
	t.Helper()
	want := wantKernel(g, ts, vs)
	got := k.Eval(ts, vs)
	if got == nil {
		if i := slices.IndexFunc(want, func(v float64) bool { return !storage.IsStale(v) }); i >= 0 {
			t.Fatalf("%s: nothing, want %v at step %d", g.Func, want[i], i)
		}
		return
	}
	for i := range want {
		if !sameBits(got[i], want[i]) {
			after, upto := g.WindowAt(i)
			t.Fatalf("%s: step %d, window (%d, %d]: %v (%x), want %v (%x)\ntimes %v\nvalues %v", g.Func, i, after, upto,
				got[i], math.Float64bits(got[i]), want[i], math.Float64bits(want[i]), ts, vs)
		}
	}
}

func functions() (fs []storage.Func) {
	for f := storage.FuncLast; f <= storage.FuncNativeRate; f++ {
		fs = append(fs, f)
	}
	return fs
}

func mustPlan(t testing.TB, g storage.Grid) *Plan {
	t.Helper()
	if g.Aggregates == nil {
		g.Aggregates = []storage.Aggregate{{Op: storage.AggSum}}
	}
	p, err := NewPlan(g, NewBudget(plenty, "the test", nil))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func testGrids() []storage.Grid {
	const from = int64(1_700_000_000_000)
	return []storage.Grid{
		{Start: from + 600_000, End: from + 600_000, Window: 300_000},
		{Start: from, End: from + 1_800_000, Step: 15_000, Window: 300_000},
		{Start: from, End: from + 1_800_000, Step: 60_000, Window: 45_000},
		{Start: from, End: from + 1_800_000, Step: 97_000, Window: 97_000, Offset: 30_000},
		{Edges: []int64{from, from + 1, from + 100_000, from + 900_000, from + 2_000_000}},
	}
}

func TestKernelEqualsReference(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const from = int64(1_700_000_000_000)
	for _, f := range functions() {
		for _, g := range testGrids() {
			g.Func, g.FuncArg = f, []float64{0.5, 0.95, 0, 1, -1, 2, math.NaN()}[rng.IntN(7)]
			k := NewKernel(mustPlan(t, g))
			for range 50 {
				ts, vs := randomSeries(rng, from-300_000, rng.IntN(150))
				k.Reset()
				checkKernel(t, k, g, ts, vs)
				// A neighbour shares the times.
				other := slices.Clone(vs)
				rng.Shuffle(len(other), func(i, j int) { other[i], other[j] = other[j], other[i] })
				checkKernel(t, k, g, ts, other)
			}
		}
	}
}

func TestKernelLeavesInputAlone(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, f := range functions() {
		g := testGrids()[1]
		g.Func, g.FuncArg = f, 0.5
		ts, vs := randomSeries(rng, g.Start-300_000, 120)
		vs[7] = storage.StaleNaN
		ts2, vs2 := slices.Clone(ts), slices.Clone(vs)
		NewKernel(mustPlan(t, g)).Eval(ts, vs)
		for i := range ts {
			if ts[i] != ts2[i] || math.Float64bits(vs[i]) != math.Float64bits(vs2[i]) {
				t.Fatalf("%s: sample %d was changed", f, i)
			}
		}
	}
}

func FuzzKernel(f *testing.F) {
	f.Add(uint8(storage.FuncRate), uint16(60), uint16(300), []byte("some bytes that become samples of a series, eight each"))
	f.Add(uint8(storage.FuncMinOverTime), uint16(1), uint16(7), make([]byte, 200))
	f.Add(uint8(storage.FuncResets), uint16(15), uint16(15), []byte{0xff, 0xf8, 0, 0, 0, 0, 0, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 2})
	f.Fuzz(func(t *testing.T, fn uint8, step, window uint16, data []byte) {
		g := storage.Grid{
			Start: 0, End: 20 * (int64(step) + 1), Step: int64(step) + 1, Window: int64(window) + 1,
			Func: storage.FuncLast + storage.Func(fn)%storage.FuncNativeRate, FuncArg: 0.9,
		}
		var ts []int64
		var vs []float64
		at := -int64(window)
		for ; len(data) >= 9; data = data[9:] {
			at += 1 + int64(data[0])
			ts, vs = append(ts, at), append(vs, math.Float64frombits(binary.LittleEndian.Uint64(data[1:])))
		}
		checkKernel(t, NewKernel(mustPlan(t, g)), g, ts, vs)
	})
}

func FuzzQuantile(f *testing.F) {
	f.Add(0.5, []byte("0123456789abcdef0123456789abcdef"))
	f.Add(0.99, make([]byte, 400))
	f.Fuzz(func(t *testing.T, q float64, data []byte) {
		var vs []float64
		for ; len(data) >= 8; data = data[8:] {
			vs = append(vs, math.Float64frombits(binary.LittleEndian.Uint64(data)))
		}
		checkQuantile(t, q, vs)
	})
}

func checkQuantile(t *testing.T, q float64, vs []float64) {
	t.Helper()
	want := storage.Quantile(q, slices.Clone(vs))
	got := quantile(q, slices.Clone(vs))
	if got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
		t.Fatalf("quantile %v of %v: %v, want %v", q, vs, got, want)
	}
}

func TestQuantileEqualsReference(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	qs := []float64{math.NaN(), -1, 0, 0.001, 0.25, 0.5, 0.9, 0.95, 0.999, 1, 2}
	shapes := []func(i, n int) float64{
		func(int, int) float64 { return rng.NormFloat64() },
		func(int, int) float64 { return float64(rng.IntN(3)) },
		func(i, _ int) float64 { return float64(i) },
		func(i, n int) float64 { return float64(min(i, n-i)) },
		func(i, n int) float64 { return float64(-i) },
		func(int, int) float64 { return specials[rng.IntN(len(specials))] },
		func(int, int) float64 { return 7 },
	}
	for _, n := range []int{0, 1, 2, 3, 16, 17, 18, 100, 3000} {
		for _, shape := range shapes {
			vs := make([]float64, n)
			for i := range vs {
				vs[i] = shape(i, n)
			}
			for _, q := range qs {
				checkQuantile(t, q, vs)
			}
		}
	}
}
