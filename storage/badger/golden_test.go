package badger

import (
	"bytes"
	"context"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

var update = flag.Bool("update", false, "write testdata anew; never for a format that was released")

// goldenStore fills a store with something of everything that the format knows: a
// closed day, blocks, a snapshot and a log; floats, start timestamps, histograms,
// exemplars, metadata, policies, a delete.
func goldenStore(t *testing.T, db *DB, now int64) {
	t.Helper()
	ctx := context.Background()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	fill(t, db, "closed_total", 70, 12, now-2*dayMillis)
	check(db.closePartition(ctx, db.allPartitions()[0]))
	fill(t, db, "blocks_total", 70, 12, now-3_600_000)
	var b storage.Batch
	b.Labels = append(b.Labels, metric("golden", "kind", "start timestamps")...)
	for i := range int64(5) {
		b.AddSample(now-60_000+i*1000, now-90_000, []float64{1, -0.25, 1e300, storage.StaleNaN, 3}[i])
	}
	b.Exemplars = append(b.Exemplars, storage.Exemplar{Labels: storage.LabelsFromStrings("trace_id", "abc"), T: now - 58_000, V: 2})
	b.EndSeries()
	b.Labels = append(b.Labels, metric("golden", "kind", "histograms")...)
	for i := range int64(4) {
		h := storage.HistogramSample{T: now - 60_000 + i*1000, H: tsdbutil.GenerateTestHistogram(i)}
		if i%2 == 1 {
			h.H, h.FH = nil, tsdbutil.GenerateTestFloatHistogram(i)
		}
		b.Histograms = append(b.Histograms, h)
	}
	b.EndSeries()
	b.Metadata = []storage.Metadata{{Metric: "golden", Type: "gauge", Unit: "bytes", Help: "Something of everything."}}
	_, err := db.Append(ctx, engineTenant, &b)
	check(err)
	check(db.flush.everything(ctx))
	check(db.SetRetention(ctx, engineTenant, storage.RetentionPolicy{Metric: "debug_*", Days: 3}))
	fill(t, db, "snapshot_total", 20, 6, now)
	_, err = db.Delete(ctx, engineTenant, storage.Selection{
		Matchers: []*storage.Matcher{storagetest.Eq("i", "7")}, MinT: now - 3*dayMillis, MaxT: now - 120_000,
	})
	check(err)
	check(db.snapshot(true))
	fill(t, db, "log_total", 10, 6, now)
}

// TestGoldenFormat1 reads what the first version of the format wrote.
func TestGoldenFormat1(t *testing.T) {
	clock := newClock()
	cfg := testConfig(t.TempDir())
	cfg.Now = clock.now
	fresh := openTest(t, cfg)
	goldenStore(t, fresh, clock.ms.Load())
	path := filepath.Join("testdata", "format1.archive")
	if *update {
		var archive bytes.Buffer
		dir := filepath.Join(t.TempDir(), "crashed")
		copyDir(t, cfg.Dir, dir)
		crashed := cfg
		crashed.Dir = dir
		db := openTest(t, crashed)
		if _, err := db.Backup(context.Background(), &archive); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, archive.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir := filepath.Join(t.TempDir(), "golden")
	if _, err := Restore(context.Background(), f, dir, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatalf("restore the golden archive: %v", err)
	}
	old := cfg
	old.Dir = dir
	db := openTest(t, old)
	if rep := db.Recovery(); !rep.Clean() {
		t.Fatalf("recovery of golden data: %+v", rep)
	}
	want := storagetest.Collect(t, fresh, "t", everything())
	if d := storagetest.DiffSeries(storagetest.Collect(t, db, "t", everything()), want); d != "" || len(want) == 0 {
		t.Fatalf("golden data differs (%d series): %s", len(want), d)
	}
	ctx := context.Background()
	if md, err := db.Metadata(ctx, engineTenant, storage.MetadataQuery{}); err != nil || len(md) != 1 || md[0].Unit != "bytes" {
		t.Fatalf("golden metadata: %+v, %v", md, err)
	}
	if ps, err := db.Retention(ctx, engineTenant); err != nil || len(ps) != 1 || ps[0].Days != 3 {
		t.Fatalf("golden policies: %+v, %v", ps, err)
	}
	q := storage.ExemplarQuery{Selectors: [][]*storage.Matcher{{storagetest.Eq(storage.MetricName, "golden")}}, MinT: 0, MaxT: clock.ms.Load()}
	if xs, err := db.Exemplars(ctx, engineTenant, q); err != nil || len(xs) != 1 {
		t.Fatalf("golden exemplars: %+v, %v", xs, err)
	}
}
