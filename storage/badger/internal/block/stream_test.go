package block

import (
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const staleNaN = 0x7ff0000000000002

// shapes are the series that the codecs meet: each returns n values.
var shapes = map[string]func(r *rand.Rand, n int) []float64{
	"constant": func(r *rand.Rand, n int) []float64 { return fill(n, func(int) float64 { return 42.5 }) },
	"zero":     func(r *rand.Rand, n int) []float64 { return make([]float64, n) },
	"counter": func(r *rand.Rand, n int) []float64 {
		return walk(n, 1e6, func() float64 { return float64(r.IntN(100)) })
	},
	"counter large": func(r *rand.Rand, n int) []float64 {
		return walk(n, 1e14, func() float64 { return float64(r.IntN(1e9)) })
	},
	"counter idle": func(r *rand.Rand, n int) []float64 {
		return walk(n, 5, func() float64 { return float64(r.IntN(20) / 19) })
	},
	"counter with resets": func(r *rand.Rand, n int) []float64 {
		x := 0.0
		return fill(n, func(i int) float64 {
			if x += float64(r.IntN(50)); r.IntN(40) == 0 {
				x = 0
			}
			return x
		})
	},
	"linear": func(r *rand.Rand, n int) []float64 { return fill(n, func(i int) float64 { return float64(i) * 15 }) },
	"two decimals": func(r *rand.Rand, n int) []float64 {
		return fill(n, func(int) float64 { return math.Round(r.Float64()*1e4) / 100 })
	},
	"walk of two decimals": func(r *rand.Rand, n int) []float64 {
		m := 5000.0
		return fill(n, func(int) float64 { m += float64(r.IntN(41) - 20); return m / 100 })
	},
	"mixed exponents": func(r *rand.Rand, n int) []float64 {
		return fill(n, func(int) float64 { return math.Round(r.Float64()*1e6) / math.Pow10(r.IntN(9)) })
	},
	"pages": func(r *rand.Rand, n int) []float64 {
		return fill(n, func(int) float64 { return float64(4096 * r.IntN(1e6)) })
	},
	"random": func(r *rand.Rand, n int) []float64 { return fill(n, func(int) float64 { return r.NormFloat64() }) },
	"bits": func(r *rand.Rand, n int) []float64 {
		return fill(n, func(int) float64 { return math.Float64frombits(r.Uint64()) })
	},
	"special": func(r *rand.Rand, n int) []float64 {
		return fill(n, func(int) float64 { return specials[r.IntN(len(specials))] })
	},
	"counter then stale": func(r *rand.Rand, n int) []float64 {
		v := walk(n, 10, func() float64 { return float64(r.IntN(9)) })
		v[n-1] = math.Float64frombits(staleNaN)
		return v
	},
	"negative": func(r *rand.Rand, n int) []float64 {
		return fill(n, func(int) float64 { return -float64(r.IntN(1e6)) / 1000 })
	},
}

var specials = []float64{
	0, math.Copysign(0, -1), math.Inf(1), math.Inf(-1), math.NaN(), math.Float64frombits(staleNaN), math.Float64frombits(0xfff8000000000001),
	math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64, 1 << 51, -(1 << 51), 1<<51 - 1, 1<<53 + 2, 1e-6, 1e-7, 0.1, 0.3, 0.1 + 0.2,
	1e15, 1e300, 123456.789, -1, 1, 2.5, 1 << 31, 1<<31 - 1, -(1 << 31), 1e22, 1e-300,
}

func fill(n int, f func(i int) float64) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = f(i)
	}
	return v
}

func walk(n int, from float64, step func() float64) []float64 {
	return fill(n, func(int) float64 { from += step(); return from })
}

// clocks are the timestamp columns that the codecs meet.
var clocks = map[string]func(r *rand.Rand, n int) []int64{
	"fixed": func(r *rand.Rand, n int) []int64 { return clock(n, 1_700_000_000_000, func() int64 { return 15000 }) },
	"jitter": func(r *rand.Rand, n int) []int64 {
		return clock(n, 1_700_000_000_123, func() int64 { return 14990 + r.Int64N(20) })
	},
	"gaps": func(r *rand.Rand, n int) []int64 {
		return clock(n, -1_000_000, func() int64 { return 1000 + 900_000*(r.Int64N(10)/9) })
	},
	"wild": func(r *rand.Rand, n int) []int64 {
		return clock(n, math.MinInt64/2, func() int64 { return 1 + r.Int64N(1<<52) })
	},
	"each milli": func(r *rand.Rand, n int) []int64 { return clock(n, 0, func() int64 { return 1 }) },
}

func clock(n int, from int64, step func() int64) []int64 {
	t := make([]int64, n)
	for i := range t {
		t[i] = from
		from += step()
	}
	return t
}

func sameSamples(t testing.TB, wantT, gotT []int64, want, got []float64) {
	t.Helper()
	if len(wantT) != len(gotT) || len(want) != len(got) {
		t.Fatalf("got %d times and %d values, want %d and %d", len(gotT), len(got), len(wantT), len(want))
	}
	for i := range want {
		if wantT[i] != gotT[i] || math.Float64bits(want[i]) != math.Float64bits(got[i]) {
			t.Fatalf("sample %d is (%d, %x), want (%d, %x)", i, gotT[i], math.Float64bits(got[i]), wantT[i], math.Float64bits(want[i]))
		}
	}
}

func TestStreamSize(t *testing.T) {
	if got := unsafe.Sizeof(Stream{}); got != 40 {
		t.Fatalf("a stream has %d bytes", got)
	}
}

func TestStreamRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for shape, values := range shapes {
		for name, times := range clocks {
			t.Run(shape+"/"+name, func(t *testing.T) {
				a := NewArena(false)
				for _, n := range []int{1, 2, 3, 30, 500} {
					ts, vs := times(r, n), values(r, n)
					var s Stream
					for i := range ts {
						s.Append(a, ts[i], vs[i])
					}
					gotT, got := s.Decode(a, nil, nil)
					sameSamples(t, ts, gotT, vs, got)
					if lt, lv := s.Last(); lt != ts[n-1] || math.Float64bits(lv) != math.Float64bits(vs[n-1]) {
						t.Fatalf("last is (%d, %v)", lt, lv)
					}
					checkParts(t, a, &s, ts, vs)
					checkSnapshot(t, a, &s, ts, vs)
					s.Reset(a)
				}
				if a.UsedBytes() != 0 {
					t.Fatalf("%d bytes in use after reset", a.UsedBytes())
				}
			})
		}
	}
}

func checkParts(t *testing.T, a *Arena, s *Stream, ts []int64, vs []float64) {
	t.Helper()
	n := len(ts)
	lo, hi := n/3, n-1-n/4
	gotT, got := s.DecodeRange(a, ts[lo], ts[hi], []int64{7}, []float64{8})
	sameSamples(t, append([]int64{7}, ts[lo:hi+1]...), gotT, append([]float64{8}, vs[lo:hi+1]...), got)
	if gotT, _ = s.DecodeRange(a, ts[n-1]+1, math.MaxInt64, nil, nil); len(gotT) != 0 {
		t.Fatalf("%d samples behind the end", len(gotT))
	}
	if gotT, _ = s.DecodeRange(a, math.MinInt64, ts[0]-1, nil, nil); len(gotT) != 0 {
		t.Fatalf("%d samples before the start", len(gotT))
	}
	for _, k := range []int{0, 1, 2, n, n + 5} {
		gotT, got = s.LastN(a, k, nil, nil)
		from := max(n-k, 0)
		sameSamples(t, ts[from:], gotT, vs[from:], got)
	}
}

// checkSnapshot restores a snapshot and appends to the copy what the original would have taken.
func checkSnapshot(t *testing.T, a *Arena, s *Stream, ts []int64, vs []float64) {
	t.Helper()
	snap := append(s.AppendSnapshot(nil, a), "rest"...)
	var c Stream
	rest, err := c.RestoreSnapshot(a, snap)
	if err != nil || string(rest) != "rest" {
		t.Fatalf("restore: %v, rest %q", err, rest)
	}
	next := ts[len(ts)-1] + 15000
	c.Append(a, next, vs[0])
	c.Append(a, next+15000, 1.25)
	gotT, got := c.Decode(a, nil, nil)
	sameSamples(t, append(append([]int64{}, ts...), next, next+15000), gotT, append(append([]float64{}, vs...), vs[0], 1.25), got)
	c.Reset(a)
}

func BenchmarkStreamAppend(b *testing.B) { benchStream(b, false) }
func BenchmarkStreamDecode(b *testing.B) { benchStream(b, true) }

// benchStream holds 10,000 series of the mix, 120 samples each: so many that they do not stay in the cache.
func benchStream(b *testing.B, decode bool) {
	const series, samples = 10_000, 120
	ts, vs := mix(rand.New(rand.NewPCG(3, 4)), series, samples)
	a := NewArena(false)
	streams := make([]Stream, series)
	fillAll := func() {
		for i := range samples {
			for j := range streams {
				streams[j].Append(a, ts[i], vs[j][i])
			}
		}
	}
	if decode {
		fillAll()
	}
	var bt []int64
	var bv []float64
	b.ReportAllocs()
	for b.Loop() {
		if decode {
			for j := range streams {
				bt, bv = streams[j].Decode(a, bt[:0], bv[:0])
			}
			continue
		}
		for j := range streams {
			streams[j].Reset(a)
		}
		fillAll()
	}
	size := 0
	for j := range streams {
		size += streams[j].Bytes()
	}
	b.ReportMetric(float64(b.N)*series*samples/b.Elapsed().Seconds()/1e6, "Msamples/s")
	b.ReportMetric(float64(size)/series/samples, "B/sample")
	b.ReportMetric(float64(a.UsedBytes())/series/samples, "segmentB/sample")
}

// mix is the benchmark's data: 60 % counters, 30 % gauges of two decimals, 10 % constants, 15 s apart.
func mix(r *rand.Rand, series, samples int) (ts []int64, vs [][]float64) {
	ts = clock(samples, 1_700_000_000_000, func() int64 { return 15000 })
	for i := range series {
		switch k := i % 10; {
		case k < 6:
			vs = append(vs, walk(samples, float64(r.IntN(1e6)), func() float64 { return float64(r.IntN(100)) }))
		case k < 9:
			vs = append(vs, fill(samples, func(int) float64 { return float64(r.IntN(10_000)) / 100 }))
		default:
			c := float64(r.IntN(1000))
			vs = append(vs, fill(samples, func(int) float64 { return c }))
		}
	}
	return ts, vs
}
