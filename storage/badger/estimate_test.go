package badger

import (
	"testing"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

// TestEstimateIsNear holds the estimate within a factor of two of what Select reads,
// while the samples are in the head, in blocks and in both.
func TestEstimateIsNear(t *testing.T) {
	w := newEvalWorld(t, 8, noon(), 300)
	check := func(state string) {
		t.Helper()
		for _, m := range []*storage.Matcher{
			storagetest.Eq(storage.MetricName, "m0"), storagetest.Re("serial", ".*7"), storagetest.Eq("serial", "42"), storagetest.Eq("serial", "none"),
		} {
			for _, span := range []int64{60_000, 300_000, 1_200_000, 90_000_000} {
				s := storage.Selection{Matchers: []*storage.Matcher{m}, MinT: w.now - span, MaxT: w.now}
				got, err := w.db.Estimate(t.Context(), storage.MustTenant(evalTenant), s)
				if err != nil {
					t.Fatal(err)
				}
				series, samples := 0, 0
				for _, x := range storagetest.Collect(t, w.db, evalTenant, s) {
					series++
					samples += len(x.Samples)
				}
				if int(got.Series) < series || (got.Samples == 0) != (samples == 0) {
					t.Fatalf("%s, %s over %d ms: estimate %+v, there are %d series and %d samples", state, m, span, got, series, samples)
				}
				if n := int(got.Samples); samples > 100 && (n > 2*samples || 2*n < samples) {
					t.Fatalf("%s, %s over %d ms: estimate of %d samples, there are %d", state, m, span, n, samples)
				}
				if got.Bytes < got.Samples*sampleBytes {
					t.Fatalf("%s: %d bytes for %d samples", state, got.Bytes, got.Samples)
				}
			}
		}
	}
	w.append(w.now-1_500_000, 100, false)
	check("head")
	w.flush()
	check("blocks")
	w.append(w.now-60_000, 5, true)
	check("both")
	if err := w.db.closePartition(t.Context(), w.db.allPartitions()[0]); err != nil {
		t.Fatal(err)
	}
	check("closed")
}
