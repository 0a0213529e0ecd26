package storage

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParseTenant(t *testing.T) {
	for _, ok := range []string{"a", "A-b_c.d", "0", strings.Repeat("x", 150), "...", ".a"} {
		if tn, err := ParseTenant(ok); err != nil || tn.String() != ok || tn.Validate() != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"", ".", "..", "a b", "a/b", "a|b", "ü", "a\x00", strings.Repeat("x", 151), "a:b"} {
		if _, err := ParseTenant(bad); KindOf(err) != KindInvalid {
			t.Errorf("%q: got %v, want an invalid error", bad, err)
		}
	}
	if (Tenant{}).Validate() == nil {
		t.Error("the zero tenant is valid")
	}
}

func TestKindOf(t *testing.T) {
	inner := LimitErrorf(KindLimited, "append", "samples-rate", "limits.samplesPerSecond", "over %d", 5)
	f := func(err error, want Kind) {
		t.Helper()
		if got := KindOf(err); got != want {
			t.Errorf("%v: got %s, want %s", err, got, want)
		}
	}
	f(errors.New("x"), KindInternal)
	f(inner, KindLimited)
	f(fmt.Errorf("outer: %w", inner), KindLimited)
	f(context.Canceled, KindCanceled)
	f(fmt.Errorf("x: %w", context.DeadlineExceeded), KindTimeout)
	for _, part := range []string{"append", "over 5", "samples-rate", "limits.samplesPerSecond"} {
		if !strings.Contains(inner.Error(), part) {
			t.Errorf("%q does not say %q", inner, part)
		}
	}
	seen := map[string]bool{}
	for _, k := range Kinds() {
		if seen[k.String()] || k.String() == "unknown" {
			t.Errorf("kind %d has no name of its own", k)
		}
		seen[k.String()] = true
	}
}

// TestValueImageOrder pins the duplicate rule: staleness marker < other NaN <
// -Inf < … < +Inf, and that the image can be inverted to the bit.
func TestValueImageOrder(t *testing.T) {
	ordered := []float64{
		StaleNaN, math.NaN(), math.Inf(-1), -math.MaxFloat64, -1, -math.SmallestNonzeroFloat64, math.Copysign(0, -1), 0,
		math.SmallestNonzeroFloat64, 1, math.MaxFloat64, math.Inf(1),
	}
	for i := 1; i < len(ordered); i++ {
		if CompareValues(ordered[i-1], ordered[i]) >= 0 {
			t.Errorf("%v must be below %v", ordered[i-1], ordered[i])
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 1_000_000 {
		bits := rng.Uint64()
		if back := math.Float64bits(ValueOfImage(ValueImage(math.Float64frombits(bits)))); back != bits {
			t.Fatalf("%x comes back as %x", bits, back)
		}
	}
}

func TestHistogramBytesRoundTrip(t *testing.T) {
	for _, h := range []HistogramSample{
		{T: 1, ST: 2, H: tsdbutil.GenerateTestHistogram(3)},
		{T: 1, FH: tsdbutil.GenerateTestFloatHistogram(3)},
		{T: 1, H: tsdbutil.GenerateTestCustomBucketsHistogram(3)},
		{T: 1, FH: tsdbutil.GenerateTestGaugeFloatHistogram(3)},
	} {
		b := EncodeHistogram(nil, h)
		back, err := DecodeHistogram(b, h.T, h.ST)
		if err != nil || back.T != h.T || back.ST != h.ST || CompareHistograms(h, back) != 0 {
			t.Errorf("%v: came back as %v, %v", h, back, err)
		}
	}
	if _, err := DecodeHistogram([]byte{0xff, 0xff}, 0, 0); KindOf(err) != KindInvalid {
		t.Errorf("damaged bytes: %v", err)
	}
}

func TestRetentionMostSpecificWins(t *testing.T) {
	ps := []RetentionPolicy{{"*", 1}, {"debug_*", 7}, {"debug_a*", 8}, {"debug_abc", 9}, {"*_total", 10}}
	SortRetention(ps)
	f := func(metric string, want int) {
		t.Helper()
		if got := RetentionOf(ps, metric, 30); got != want {
			t.Errorf("%s: got %d, want %d", metric, got, want)
		}
	}
	f("debug_abc", 9)
	f("debug_abd", 8)
	f("debug_x", 7)
	f("x_total", 10)
	f("y", 1)
	if got := RetentionOf(nil, "y", 30); got != 30 {
		t.Errorf("no policy: got %d", got)
	}
}

func TestMatchPattern(t *testing.T) {
	f := func(pattern, name string, want bool) {
		t.Helper()
		if got := MatchPattern(pattern, name); got != want {
			t.Errorf("%q on %q: got %v", pattern, name, got)
		}
	}
	f("a", "a", true)
	f("a", "ab", false)
	f("", "", true)
	f("*", "", true)
	f("a*c", "abbc", true)
	f("a*c", "abbcd", false)
	f("*a*b*", "xaybz", true)
	f("a**b", "ab", true)
	f("*aab", "aaaaab", true)
	f(strings.Repeat("*a", 50)+"b", strings.Repeat("a", 2000), false)
}

func TestBatchViews(t *testing.T) {
	var b Batch
	b.Add(LabelsFromStrings("a", "1"), Sample{T: 1, V: 1}, Sample{T: 2, V: 2})
	b.Labels = append(b.Labels, LabelsFromStrings("a", "2")...)
	b.AddSample(3, 77, 3)
	b.Exemplars = append(b.Exemplars, Exemplar{T: 3, V: 9})
	b.EndSeries()
	b.Add(LabelsFromStrings("a", "3"), Sample{T: 4, V: 4})
	b.AddHistograms(LabelsFromStrings("a", "4"), HistogramSample{T: 5, H: tsdbutil.GenerateTestHistogram(1)})
	var got []string
	for i := range b.Series {
		v := b.At(i)
		got = append(got, fmt.Sprintf("%s %v %v %d %d", v.Labels, v.Samples, v.STs, len(v.Histograms), len(v.Exemplars)))
	}
	want := []string{
		`{a="1"} [{1 1} {2 2}] [0 0] 0 0`, `{a="2"} [{3 3}] [77] 0 1`, `{a="3"} [{4 4}] [0] 0 0`, `{a="4"} [] [] 1 0`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	b.Reset()
	if len(b.Series)+len(b.Samples)+len(b.STs)+len(b.Histograms)+len(b.Labels) != 0 {
		t.Error("reset left something")
	}
}

func TestGridValidateAndWindows(t *testing.T) {
	sum := []Aggregate{{Op: AggSum}}
	f := func(g Grid, want string) {
		t.Helper()
		err := g.Validate()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%+v: got %v, want %q", g, err, want)
		}
	}
	f(Grid{Start: 1, End: 1, Window: 1, Aggregates: sum}, "")
	f(Grid{Start: 2, End: 1, Window: 1, Aggregates: sum}, "ends")
	f(Grid{Start: 1, End: 2, Window: 1, Aggregates: sum}, "step")
	f(Grid{Start: 1, End: 1, Aggregates: sum}, "window")
	f(Grid{Start: 1, End: 1, Window: 1}, "no aggregate")
	f(Grid{Edges: []int64{1}, Aggregates: sum}, "two values")
	f(Grid{Edges: []int64{1, 1}, Aggregates: sum}, "ascend")
	f(Grid{Start: 1, End: 1, Window: 1, Func: FuncRate, Aggregates: []Aggregate{{Op: AggLast}}}, "none")
	f(Grid{Start: 1, End: 1, Window: 1, Aggregates: []Aggregate{{Op: AggTopK}, {Op: AggSum}}}, "alone")

	g := Grid{Start: 100, End: 130, Step: 15, Window: 20, Offset: 5}
	if g.Steps() != 3 || g.Time(2) != 130 {
		t.Errorf("steps %d, time %d", g.Steps(), g.Time(2))
	}
	if after, upto := g.WindowAt(1); after != 90 || upto != 110 {
		t.Errorf("window (%d, %d]", after, upto)
	}
	if mint, maxt := g.Bounds(); mint != 76 || maxt != 125 {
		t.Errorf("bounds [%d, %d]", mint, maxt)
	}
}

func TestPreselectTopKKeepsTies(t *testing.T) {
	group := func(name string, v float64) GridGroup {
		return GridGroup{Labels: LabelsFromStrings("s", name), Values: [][]float64{{v}}}
	}
	in := []GridGroup{group("a", 1), group("b", 3), group("c", 2), group("d", 2), group("e", math.NaN())}
	var got []string
	for _, g := range PreselectTopK(slices.Clone(in), 1, Aggregate{Op: AggTopK, Arg: 2}) {
		got = append(got, g.Labels.Get("s"))
	}
	if !slices.Equal(got, []string{"b", "c", "d"}) {
		t.Errorf("topk(2): %q", got)
	}
	in = []GridGroup{group("a", 1), group("b", 3)}
	if out := PreselectTopK(in, 1, Aggregate{Op: AggBottomK, Arg: 0}); len(out) != 0 {
		t.Errorf("bottomk(0): %v", out)
	}
}
