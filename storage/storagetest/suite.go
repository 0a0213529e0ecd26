package storagetest

import (
	"slices"
	"testing"
	"time"

	"github.com/luminate/luminate/storage"
)

// Options tell Run what a backend offers beyond the interface.
type Options struct {
	// Reopen closes s and opens the same data again; nil for a store that keeps
	// nothing.
	Reopen func(t testing.TB, s storage.Store) storage.Store
	// Tolerance is the largest accepted error of Evaluate relative to the sum of
	// the absolute values; 0 means 1e-12.
	Tolerance float64
	// RandomOps is the number of random operations compared with the model; 0
	// means 300.
	RandomOps int
}

// Run runs the conformance suite: each subtest gets a fresh, empty store from
// newStore, which registers its own clean-up with t. Times are near the real now:
// the store runs with the default retention and future limit.
func Run(t *testing.T, newStore func(t testing.TB) storage.Store, opts Options) {
	if opts.Tolerance == 0 {
		opts.Tolerance = 1e-12
	}
	if opts.RandomOps == 0 {
		opts.RandomOps = 300
	}
	s := &suite{newStore: newStore, opts: opts, now: time.Now().Truncate(time.Minute).UnixMilli()}
	for _, c := range []struct {
		name string
		fn   func(*testing.T)
	}{
		{"values are kept bit by bit", s.testValues},
		{"labels of any UTF-8 are kept", s.testLabels},
		{"order of series and samples", s.testOrder},
		{"matchers", s.testMatchers},
		{"range is inclusive", s.testRange},
		{"append is idempotent", s.testIdempotent},
		{"greater value wins at one timestamp", s.testDuplicates},
		{"out of order over days", s.testOutOfOrder},
		{"start timestamps", s.testStartTimestamps},
		{"native histograms", s.testHistograms},
		{"stored chunks", s.testChunks},
		{"exemplars", s.testExemplars},
		{"metadata", s.testMetadata},
		{"tenants are isolated", s.testTenants},
		{"zero tenant is refused everywhere", s.testZeroTenant},
		{"refusals name their samples", s.testRefusals},
		{"discovery", s.testDiscovery},
		{"discovery is current", s.testDiscoveryIsCurrent},
		{"selection limits", s.testLimits},
		{"estimate", s.testEstimate},
		{"cardinality", s.testCardinality},
		{"delete", s.testDelete},
		{"retention", s.testRetention},
		{"evaluate equals the reference", s.testEvaluate},
		{"canceled context", s.testCanceled},
		{"concurrent use", s.testConcurrent},
		{"processes exchange notes", s.testExchange},
		{"backup and health", s.testBackup},
		{"closed store", s.testClosed},
		{"reopened store", s.testReopen},
		{"random operations equal the model", s.testRandom},
	} {
		t.Run(c.name, c.fn)
	}
}

type suite struct {
	newStore func(testing.TB) storage.Store
	opts     Options
	now      int64
}

const (
	tenantA = "tenant-a"
	tenantB = "tenant-b"
	day     = int64(24 * 3600 * 1000)
)

// all selects everything near now.
func (s *suite) all(ms ...*storage.Matcher) storage.Selection {
	return storage.Selection{Matchers: ms, MinT: s.now - 29*day, MaxT: s.now + day}
}

// pair opens a store and a model.
func (s *suite) pair(t testing.TB) (storage.Store, *Model) { return s.newStore(t), NewModel() }

// appendBoth appends to both and compares the answers.
func appendBoth(t testing.TB, got, want storage.Store, tenant string, b *storage.Batch) {
	t.Helper()
	g, err := got.Append(t.Context(), storage.MustTenant(tenant), b)
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	w, _ := want.Append(t.Context(), storage.MustTenant(tenant), b)
	if g.Samples != w.Samples || g.Histograms != w.Histograms || g.Exemplars != w.Exemplars || len(g.Refused) != len(w.Refused) {
		t.Fatalf("append answered %d samples, %d histograms, %d exemplars, %d refused; want %d, %d, %d, %d",
			g.Samples, g.Histograms, g.Exemplars, len(g.Refused), w.Samples, w.Histograms, w.Exemplars, len(w.Refused))
	}
}

// compare fails the test where a selection differs between store and model.
func compare(t testing.TB, got, want storage.Store, tenant string, q storage.Selection) {
	t.Helper()
	g, w := Collect(t, got, tenant, q), Collect(t, want, tenant, q)
	if q.Unsorted {
		for _, all := range [][]storage.Series{g, w} {
			slices.SortFunc(all, func(a, b storage.Series) int { return storage.CompareLabels(a.Labels, b.Labels) })
		}
	}
	if d := DiffSeries(g, w); d != "" {
		t.Fatalf("select %s [%d, %d]: %s", storage.FormatSelector(q.Matchers), q.MinT, q.MaxT, d)
	}
}

func series(pairs ...string) storage.Labels { return storage.LabelsFromStrings(pairs...) }

func name(n string, pairs ...string) storage.Labels {
	return series(append([]string{storage.MetricName, n}, pairs...)...)
}
