package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
)

// migrateNow is the clock of the tests' stores: noon of a day.
func migrateNow() time.Time {
	return time.Now().UTC().Truncate(24 * time.Hour).Add(-12 * time.Hour)
}

func migrateModel(now time.Time, retentionDays int, future time.Duration) *storagetest.Model {
	return storagetest.NewModelWith(storagetest.ModelConfig{RetentionDays: retentionDays, FutureLimit: future, Now: func() time.Time { return now }})
}

var migrateTenants = []string{"acme", "zeta"}

// fillForMigration writes every kind of data on three days before now for two
// tenants, 8 hours between two samples of the sparse series.
func fillForMigration(t *testing.T, s storage.Store, now time.Time, perSeries int) {
	t.Helper()
	end := now.UnixMilli()
	values := []float64{1, math.Copysign(0, -1), math.NaN(), storage.StaleNaN, math.Inf(1), 0.1, -7}
	for k, tenant := range migrateTenants {
		b := storage.Batch{Metadata: []storage.Metadata{
			{Metric: "req_total", Type: "counter", Help: "Requests of " + tenant + ".", Unit: "requests"}, {Metric: "temp", Type: "gauge"},
		}}
		for i := range 6 {
			b.Labels = append(b.Labels, storage.LabelsFromStrings(storage.MetricName, "req_total", "i", fmt.Sprint(i), "Zone", "ä")...)
			for j := range perSeries {
				at := end - int64(j)*(2*dayMillis)/int64(perSeries)
				st := int64(0)
				if j%3 == 0 {
					st = at - 5000
				}
				v := values[(i+j)%len(values)]
				if k > 0 && v == 1 {
					v = 1.5 // arithmetic would change the bits of NaNs and of -0
				}
				b.AddSample(at, st, v)
			}
			for j := range 5 {
				b.Exemplars = append(b.Exemplars, storage.Exemplar{T: end - int64(j*i)*1000, V: float64(j), Labels: storage.LabelsFromStrings("trace_id", fmt.Sprint(i, j))})
			}
			b.EndSeries()
		}
		var ints, floats, gauges, custom []storage.HistogramSample
		for j := range int64(30) {
			at := end - j*(2*dayMillis)/30
			ints = append(ints, storage.HistogramSample{T: at, ST: at - 1000*(j%2), H: tsdbutil.GenerateTestHistogram(40 - j)})
			floats = append(floats, storage.HistogramSample{T: at, FH: tsdbutil.GenerateTestFloatHistogram(j % 7)})
			gauges = append(gauges, storage.HistogramSample{T: at, FH: tsdbutil.GenerateTestGaugeFloatHistogram(j)})
			custom = append(custom, storage.HistogramSample{T: at, H: tsdbutil.GenerateTestCustomBucketsHistogram(j)})
		}
		stale := tsdbutil.GenerateTestHistogram(1)
		stale.Sum = storage.StaleNaN
		ints = append(ints, storage.HistogramSample{T: end + 1000, H: stale})
		for name, hs := range map[string][]storage.HistogramSample{"h_int": ints, "h_float": floats, "h_gauge": gauges, "h_custom": custom} {
			b.AddHistograms(storage.LabelsFromStrings(storage.MetricName, name), hs...)
		}
		b.AddHistograms(storage.LabelsFromStrings(storage.MetricName, "h_mixed"), ints[:5]...)
		b.Add(storage.LabelsFromStrings(storage.MetricName, "h_mixed"), storage.Sample{T: end - 30*60*1000, V: 3})
		storagetest.MustAppend(t, s, tenant, &b)
		if err := s.SetRetention(t.Context(), storage.MustTenant(tenant), storage.RetentionPolicy{Metric: "req_*", Days: 14 + k}); err != nil {
			t.Fatal(err)
		}
	}
}

// mustBeMigrated compares the stores through their own answers.
func mustBeMigrated(t *testing.T, got, want storage.Store) {
	t.Helper()
	all := storage.Selection{MinT: 0, MaxT: 1 << 42}
	for _, tenant := range migrateTenants {
		if d := storagetest.DiffSeries(storagetest.Collect(t, got, tenant, all), storagetest.Collect(t, want, tenant, all)); d != "" {
			t.Errorf("tenant %s: %s", tenant, d)
		}
		texts := map[storage.Store]string{}
		for _, s := range []storage.Store{got, want} {
			id := storage.MustTenant(tenant)
			ex, err := s.Exemplars(t.Context(), id, storage.ExemplarQuery{Selectors: everySeries(), MinT: 0, MaxT: 1 << 42})
			if err != nil {
				t.Fatal(err)
			}
			md, err := s.Metadata(t.Context(), id, storage.MetadataQuery{})
			if err != nil {
				t.Fatal(err)
			}
			ps, err := s.Retention(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			for i := range ex {
				slices.SortFunc(ex[i].Exemplars, func(a, b storage.Exemplar) int { return storage.CompareLabels(a.Labels, b.Labels) })
			}
			texts[s] = fmt.Sprint(ex, md, ps)
		}
		if texts[got] != texts[want] {
			t.Errorf("tenant %s: exemplars, metadata and policies are\n%s, want\n%s", tenant, texts[got], texts[want])
		}
	}
}

func statuses(r migrateReport) map[string]int {
	n := map[string]int{}
	for _, d := range r.days {
		n[d.status]++
	}
	return n
}

func testMigrateOptions(t *testing.T) migrateOptions {
	o := defaultMigrateOptions()
	o.statePath, o.fromName, o.toName = filepath.Join(t.TempDir(), "state.json"), "a", "b"
	o.batchSamples, o.concurrency, o.firstRetry, o.exemplarsPage = 64, 3, time.Millisecond, 16
	return o
}

// TestMigrateGoesOn ends a migration after some batches, again and again, until one
// gets to the end; then nothing is left to do until the source changes.
func TestMigrateGoesOn(t *testing.T) {
	now := migrateNow()
	from, to := migrateModel(now, 30, time.Hour), migrateModel(now, 30, time.Hour)
	fillForMigration(t, from, now, 100)
	o := testMigrateOptions(t)
	o.concurrency = 1
	faulty := storagetest.NewFaulty(to, nil)
	rounds := 0
	for ; ; rounds++ {
		ctx, cancel := context.WithCancel(t.Context())
		left := 12
		faulty.SetScript(func(method string) storagetest.Fault {
			if method == "Append" {
				if left--; left == 0 {
					cancel()
				}
			}
			return storagetest.Fault{}
		})
		report, err := migrate(ctx, from, faulty, o)
		cancel()
		if err == nil {
			if n := statuses(report); n[statusBefore] == 0 || n[statusDifferent] > 0 {
				t.Errorf("the last round says %v", n)
			}
			break
		}
		if rounds > 20 {
			t.Fatalf("still not done: %v", err)
		}
	}
	if rounds < 2 {
		t.Errorf("the migration was interrupted %d times only", rounds)
	}
	mustBeMigrated(t, to, from)

	faulty.SetScript(nil)
	before := faulty.Calls("Append")
	report, err := migrate(t.Context(), from, faulty, o)
	if err != nil || report.failure() != nil {
		t.Fatal(err, report.failure())
	}
	// One append for each tenant's metadata, none for samples.
	if n := statuses(report); n[statusBefore] != len(report.days) || len(report.days) != 6 || faulty.Calls("Append")-before != 2 {
		t.Errorf("a migration of what is there did %d appends: %v", faulty.Calls("Append")-before, n)
	}

	var late storage.Batch
	late.Add(storage.LabelsFromStrings(storage.MetricName, "late"), storage.Sample{T: now.UnixMilli() - dayMillis, V: 1})
	storagetest.MustAppend(t, from, "zeta", &late)
	report, err = migrate(t.Context(), from, faulty, o)
	if n := statuses(report); err != nil || n[statusOK] != 1 || n[statusBefore] != 5 {
		t.Errorf("after a late sample: %v, %v", n, err)
	}
	mustBeMigrated(t, to, from)

	o.toName = "elsewhere"
	if _, err := migrate(t.Context(), from, faulty, o); err == nil || !strings.Contains(err.Error(), "--state") {
		t.Errorf("the state of another migration: %v", err)
	}
}

// lossy changes what is appended to it.
type lossy struct {
	storage.Store
	change func(b *storage.Batch)
}

func (l lossy) Append(ctx context.Context, t storage.Tenant, b *storage.Batch) (storage.AppendResult, error) {
	l.change(b)
	return l.Store.Append(ctx, t, b)
}

// TestMigrateTellsDifferences migrates into stores that lose or change one thing.
func TestMigrateTellsDifferences(t *testing.T) {
	now := migrateNow()
	for name, change := range map[string]func(b *storage.Batch){
		"a value's last bit": func(b *storage.Batch) {
			for i := range b.Samples {
				if b.Samples[i].V == 1 {
					b.Samples[i].V = math.Nextafter(1, 2)
				}
			}
		},
		"a NaN's payload": func(b *storage.Batch) {
			for i := range b.Samples {
				if storage.IsStale(b.Samples[i].V) {
					b.Samples[i].V = math.NaN()
				}
			}
		},
		"a time":             func(b *storage.Batch) { changeFirst(b.Samples, func(s *storage.Sample) { s.T++ }) },
		"a start time":       func(b *storage.Batch) { clear(b.STs) },
		"a histogram":        func(b *storage.Batch) { changeFirst(b.Histograms, dropBucket) },
		"a histogram's kind": func(b *storage.Batch) { changeFirst(b.Histograms, toFloat) },
		"an exemplar":        func(b *storage.Batch) { changeFirst(b.Exemplars, func(e *storage.Exemplar) { e.V = 42 }) },
		"metadata":           func(b *storage.Batch) { b.Metadata = nil },
	} {
		t.Run(name, func(t *testing.T) {
			from, to := migrateModel(now, 30, time.Hour), migrateModel(now, 30, time.Hour)
			fillForMigration(t, from, now, 20)
			o := testMigrateOptions(t)
			report, err := migrate(t.Context(), from, lossy{to, change}, o)
			if err != nil {
				t.Fatal(err)
			}
			if report.failure() == nil {
				t.Fatal("no difference was found")
			}
			var text strings.Builder
			report.print(&text)
			if !strings.Contains(text.String(), statusDifferent) {
				t.Errorf("the report does not say so:\n%s", &text)
			}
		})
	}
}

func changeFirst[T any](list []T, change func(*T)) {
	if len(list) > 0 {
		change(&list[0])
	}
}

func dropBucket(h *storage.HistogramSample) {
	if h.H != nil {
		h.H = h.H.Copy()
		h.H.Count++
	} else {
		h.FH = h.FH.Copy()
		h.FH.Count++
	}
}

func toFloat(h *storage.HistogramSample) { h.FH, h.H = h.Float(), nil }

// TestMigrateCountsRefusals has a destination that keeps less, and one that lets
// less of the future in.
func TestMigrateCountsRefusals(t *testing.T) {
	now := migrateNow()
	from := migrateModel(now, 30, time.Hour)
	fillForMigration(t, from, now, 20)

	short := migrateModel(now, 1, time.Hour)
	report, err := migrate(t.Context(), from, short, testMigrateOptions(t))
	if err != nil || report.failure() != nil {
		t.Fatalf("a shorter retention: %v, %v", err, report.failure())
	}
	if n := report.refused(); n[storage.ReasonTooOld] == 0 || len(n) != 1 {
		t.Errorf("refused: %v", n)
	}
	var text strings.Builder
	report.print(&text)
	if !strings.Contains(text.String(), "refused by the destination, and not there: too_old=") {
		t.Errorf("the report does not say what was refused:\n%s", &text)
	}

	strict := migrateModel(now, 30, 500*time.Millisecond)
	report, err = migrate(t.Context(), from, strict, testMigrateOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	if n := report.refused(); n[storage.ReasonTooFarAhead] != 2 { // the last marker of each tenant
		t.Errorf("refused: %v", n)
	}
	if err := report.failure(); err == nil || !strings.Contains(err.Error(), "too_far_ahead=2") {
		t.Errorf("samples of the future were refused: %v", err)
	}
}

// TestMigrateBatches looks at the size of batches, at retries, and at the selection.
func TestMigrateBatches(t *testing.T) {
	now := migrateNow()
	from, to := migrateModel(now, 30, time.Hour), migrateModel(now, 30, time.Hour)
	fillForMigration(t, from, now, 300)
	o := testMigrateOptions(t)
	o.tenants = []storage.Tenant{storage.MustTenant("zeta")}
	o.firstDay = now.Unix() / 86400
	o.lastDay = o.firstDay
	failures := 0
	faulty := storagetest.NewFaulty(to, nil)
	faulty.SetScript(func(method string) storagetest.Fault {
		if method == "Append" && failures < 4 {
			failures++
			return storagetest.Fault{Err: storage.Errorf(storage.KindUnavailable, "append", "too busy")}
		}
		return storagetest.Fault{}
	})
	o.concurrency = 1
	largest := 0
	size := lossy{faulty, func(b *storage.Batch) {
		largest = max(largest, len(b.Samples)+len(b.Histograms)+len(b.Exemplars))
	}}
	report, err := migrate(t.Context(), from, size, o)
	if err != nil || report.failure() != nil {
		t.Fatal(err, report.failure())
	}
	if largest != o.batchSamples || failures != 4 {
		t.Errorf("the largest batch has %d, want %d; %d failures", largest, o.batchSamples, failures)
	}
	if len(report.days) != 1 || report.days[0].Tenant != "zeta" || report.days[0].Day != now.Format(time.DateOnly) {
		t.Errorf("days: %+v", report.days)
	}
	o.tenants = []storage.Tenant{storage.MustTenant("nobody")}
	if _, err := migrate(t.Context(), from, to, o); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("a tenant without data: %v", err)
	}

	o.tenants, o.dryRun = nil, true
	faulty.SetScript(storagetest.FailWith(storage.KindInternal))
	report, err = migrate(t.Context(), from, faulty, o)
	if n := statuses(report); err != nil || n[statusDryRun] != 2 {
		t.Errorf("a dry run: %v, %v", n, err)
	}
}

// TestFingerprintIsASum checks that elements can be taken off, in any order, and
// that the text form is exact.
func TestFingerprintIsASum(t *testing.T) {
	var all, some, rest fingerprint
	var h elementHash
	ls := storage.LabelsFromStrings(storage.MetricName, "m")
	for i := range 100 {
		one := storage.Series{Labels: ls, Samples: []storage.Sample{{T: int64(i), V: 1}}}
		all.addSeries(&h, one)
		if i%3 == 0 {
			some.addSeries(&h, one)
		} else {
			rest.addSeries(&h, one)
		}
	}
	got := all
	got.remove(some)
	if !got.sameData(rest) {
		t.Errorf("all - some = %+v, want %+v", got, rest)
	}
	got.merge(some)
	if !got.sameData(all) {
		t.Errorf("rest + some = %+v, want %+v", got, all)
	}
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	var again fingerprint
	if err := json.Unmarshal(b, &again); err != nil || again != all {
		t.Errorf("%s is read as %+v: %v", b, again, err)
	}
	if err := json.Unmarshal([]byte(`{"hash":"12"}`), &again); err == nil {
		t.Error("a short hash is taken")
	}
}
