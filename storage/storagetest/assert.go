package storagetest

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/luminate/luminate/storage"
	promlabels "github.com/prometheus/prometheus/model/labels"
)

// TB is the part of testing.TB that the package needs.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Context() context.Context
}

var _ TB = testing.TB(nil)

// MustAppend appends and fails the test on an error or a refusal.
func MustAppend(t TB, s storage.Store, tenant string, b *storage.Batch) {
	t.Helper()
	res, err := s.Append(t.Context(), storage.MustTenant(tenant), b)
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	if len(res.Refused) > 0 {
		t.Fatalf("append refused %d, the first: %+v", len(res.Refused), res.Refused[0])
	}
}

// Eq, Ne, Re and NotRe build matchers.
func Eq(name, value string) *storage.Matcher { return matcher(promlabels.MatchEqual, name, value) }

// Ne builds name!="value".
func Ne(name, value string) *storage.Matcher { return matcher(promlabels.MatchNotEqual, name, value) }

// Re builds name=~"value".
func Re(name, value string) *storage.Matcher { return matcher(promlabels.MatchRegexp, name, value) }

// NotRe builds name!~"value".
func NotRe(name, value string) *storage.Matcher {
	return matcher(promlabels.MatchNotRegexp, name, value)
}

func matcher(typ promlabels.MatchType, name, value string) *storage.Matcher {
	return promlabels.MustNewMatcher(typ, name, value)
}

// Collect drains a Select and fails the test on an error. Chunks that q asks for are
// checked against their promise and decoded.
func Collect(t TB, s storage.Store, tenant string, q storage.Selection) []storage.Series {
	t.Helper()
	var out []storage.Series
	for x, err := range s.Select(t.Context(), storage.MustTenant(tenant), q) {
		if err != nil {
			t.Fatalf("select %s: %v", storage.FormatSelector(q.Matchers), err)
		}
		if d := checkChunks(&x, q); d != "" {
			t.Fatalf("select %s: %s: %s", storage.FormatSelector(q.Matchers), x.Labels, d)
		}
		if err := x.DecodeChunks(); err != nil {
			t.Fatalf("select %s: %s: %v", storage.FormatSelector(q.Matchers), x.Labels, err)
		}
		out = append(out, x)
	}
	return out
}

// checkChunks tells what is wrong with the chunks of a series, "" if nothing is.
func checkChunks(x *storage.Series, q storage.Selection) string {
	if len(x.Chunks) > 0 && !q.Chunks {
		return "chunks that nobody asked for"
	}
	last := int64(math.MinInt64)
	for i := range x.Chunks {
		c := &x.Chunks[i]
		hs, err := c.AppendHistograms(nil)
		switch {
		case err != nil:
			return err.Error()
		case len(hs) == 0 || len(hs) != c.Samples:
			return fmt.Sprintf("chunk %d has %d samples, said %d", i, len(hs), c.Samples)
		case hs[0].T != c.MinT || hs[len(hs)-1].T != c.MaxT:
			return fmt.Sprintf("chunk %d is from %d to %d, said %d to %d", i, hs[0].T, hs[len(hs)-1].T, c.MinT, c.MaxT)
		case c.MinT < q.MinT || c.MaxT > q.MaxT:
			return fmt.Sprintf("chunk %d from %d to %d is not in the range %d to %d", i, c.MinT, c.MaxT, q.MinT, q.MaxT)
		case i > 0 && c.MinT <= last:
			return fmt.Sprintf("chunk %d begins at %d, the one before ends at %d", i, c.MinT, last)
		}
		last = c.MaxT
		within := func(t int64) bool { return t >= c.MinT && t <= c.MaxT }
		if slices.ContainsFunc(x.Samples, func(s storage.Sample) bool { return within(s.T) }) ||
			slices.ContainsFunc(x.Histograms, func(h storage.HistogramSample) bool { return within(h.T) }) {
			return fmt.Sprintf("chunk %d from %d to %d is not alone there", i, c.MinT, c.MaxT)
		}
	}
	return ""
}

// DiffSeries compares two answers bit by bit and returns the first difference,
// "" if there is none.
func DiffSeries(got, want []storage.Series) string {
	if len(got) != len(want) {
		return fmt.Sprintf("got %d series, want %d: %v against %v", len(got), len(want), labelsOf(got), labelsOf(want))
	}
	for i := range got {
		g, w := got[i], want[i]
		if string(g.Labels) != string(w.Labels) {
			return fmt.Sprintf("series %d: got %s, want %s", i, g.Labels, w.Labels)
		}
		if d := diffSamples(g, w); d != "" {
			return fmt.Sprintf("%s: %s", g.Labels, d)
		}
	}
	return ""
}

func labelsOf(ss []storage.Series) []string {
	var out []string
	for _, s := range ss[:min(len(ss), 10)] {
		out = append(out, s.Labels.String())
	}
	return out
}

func diffSamples(g, w storage.Series) string {
	if len(g.Samples) != len(w.Samples) {
		return fmt.Sprintf("got %d samples, want %d", len(g.Samples), len(w.Samples))
	}
	for j := range g.Samples {
		a, b := g.Samples[j], w.Samples[j]
		if a.T != b.T || math.Float64bits(a.V) != math.Float64bits(b.V) {
			return fmt.Sprintf("sample %d: got %v@%d (%x), want %v@%d (%x)", j, a.V, a.T, math.Float64bits(a.V), b.V, b.T, math.Float64bits(b.V))
		}
		if x, y := stAt(g.STs, j), stAt(w.STs, j); x != y {
			return fmt.Sprintf("sample %d at %d: start timestamp %d, want %d", j, a.T, x, y)
		}
	}
	if len(g.Histograms) != len(w.Histograms) {
		return fmt.Sprintf("got %d histograms, want %d", len(g.Histograms), len(w.Histograms))
	}
	for j := range g.Histograms {
		a, b := g.Histograms[j], w.Histograms[j]
		if a.T != b.T || a.ST != b.ST || (a.H == nil) != (b.H == nil) {
			return fmt.Sprintf("histogram %d: got T=%d ST=%d, want T=%d ST=%d (integer %v, want %v)", j, a.T, a.ST, b.T, b.ST, a.H != nil, b.H != nil)
		}
		if !equalHistograms(a, b) {
			return fmt.Sprintf("histogram %d at %d: got %v %v, want %v %v", j, a.T, a.H, a.FH, b.H, b.FH)
		}
	}
	return ""
}

// equalHistograms compares counts, sums, buckets and custom bounds bit by bit;
// counter reset hints are left out: backends may set them to unknown.
func equalHistograms(a, b storage.HistogramSample) bool {
	if a.IsStale() || b.IsStale() {
		return a.IsStale() == b.IsStale()
	}
	if a.H != nil {
		return a.H.Equals(b.H)
	}
	return a.FH.Equals(b.FH)
}

func stAt(sts []int64, i int) int64 {
	if sts == nil {
		return 0
	}
	return sts[i]
}
