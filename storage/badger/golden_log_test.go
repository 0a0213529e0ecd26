package badger

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

// goldenLog adds records of every kind to the log, after the last snapshot.
func goldenLog(t *testing.T, db *DB, now int64) {
	t.Helper()
	var b storage.Batch
	b.Labels = append(b.Labels, metric("logged", "kind", "floats")...)
	for i := range int64(6) {
		b.AddSample(now-6_000+i*1000, (i%2)*(now-90_000), []float64{1, -0.5, 1e-300, storage.StaleNaN, 0, 9}[i])
	}
	b.Exemplars = append(b.Exemplars, storage.Exemplar{Labels: storage.LabelsFromStrings("trace_id", "def"), T: now - 3_000, V: 4})
	b.EndSeries()
	b.Labels = append(b.Labels, metric("logged", "kind", "histograms")...)
	for i := range int64(4) {
		h := storage.HistogramSample{T: now - 4_000 + i*1000, H: tsdbutil.GenerateTestHistogram(i)}
		if i%2 == 1 {
			h.H, h.FH = nil, tsdbutil.GenerateTestFloatHistogram(i)
		}
		b.Histograms = append(b.Histograms, h)
	}
	b.EndSeries()
	b.Metadata = []storage.Metadata{{Metric: "logged", Type: "counter", Help: "Only in the log."}}
	if _, err := db.Append(context.Background(), engineTenant, &b); err != nil {
		t.Fatal(err)
	}
	_, err := db.Delete(context.Background(), engineTenant, storage.Selection{
		Matchers: []*storage.Matcher{storagetest.Eq(storage.MetricName, "log_total"), storagetest.Eq("i", "3")}, MinT: now - dayMillis, MaxT: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, db, "log_total", 5, 3, now+60_000) // what is written after a delete stays
}

// TestGoldenFormat1Log opens a folder as kill -9 left it under the first version of the
// format, with records in its log that no snapshot has.
func TestGoldenFormat1Log(t *testing.T) {
	clock := newClock()
	cfg := testConfig(t.TempDir())
	cfg.Now = clock.now
	fresh := openTest(t, cfg)
	now := clock.ms.Load()
	goldenStore(t, fresh, now)
	goldenLog(t, fresh, now)
	path := filepath.Join("testdata", "format1-killed.tar.gz")
	if *update {
		crashed := filepath.Join(t.TempDir(), "crashed")
		copyDir(t, cfg.Dir, crashed)
		packFolder(t, crashed, path)
	}
	old := cfg
	old.Dir = filepath.Join(t.TempDir(), "golden")
	unpackFolder(t, path, old.Dir)
	db := openTest(t, old)
	rep := db.Recovery()
	if !rep.Clean() || rep.ReplayedRecords == 0 {
		t.Fatalf("recovery of the golden log: %+v", rep)
	}
	want := storagetest.Collect(t, fresh, "t", everything())
	if d := storagetest.DiffSeries(storagetest.Collect(t, db, "t", everything()), want); d != "" || len(want) == 0 {
		t.Fatalf("the golden log differs (%d series): %s", len(want), d)
	}
	ctx := context.Background()
	if md, err := db.Metadata(ctx, engineTenant, storage.MetadataQuery{}); err != nil || len(md) != 2 {
		t.Fatalf("metadata: %+v, %v", md, err)
	}
	q := storage.ExemplarQuery{Selectors: [][]*storage.Matcher{{storagetest.Eq(storage.MetricName, "logged")}}, MinT: 0, MaxT: now}
	if xs, err := db.Exemplars(ctx, engineTenant, q); err != nil || len(xs) != 1 {
		t.Fatalf("exemplars: %+v, %v", xs, err)
	}
}

// sizeRecord is a file's whole size: Badger's logs are mapped larger than they are
// filled, and the zeros at their ends are left out of the archive.
const sizeRecord = "LUMINATE.size"

func packFolder(t *testing.T, dir, path string) {
	t.Helper()
	var out bytes.Buffer
	z, _ := gzip.NewWriterLevel(&out, gzip.BestCompression) // the level is one
	w := tar.NewWriter(z)
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, file)
		size := len(b)
		b = bytes.TrimRight(b, "\x00")
		h := &tar.Header{Name: filepath.ToSlash(rel), Mode: 0o600, Size: int64(len(b)), PAXRecords: map[string]string{sizeRecord: strconv.Itoa(size)}}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	})
	if err := errors.Join(err, w.Close(), z.Close(), os.WriteFile(path, out.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func unpackFolder(t *testing.T, path, dir string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(path)
	check(err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	check(err)
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		check(err)
		if !filepath.IsLocal(h.Name) {
			t.Fatalf("%s leaves the folder", h.Name)
		}
		file := filepath.Join(dir, h.Name)
		check(os.MkdirAll(filepath.Dir(file), 0o700))
		b, err := io.ReadAll(r)
		check(err)
		check(os.WriteFile(file, b, 0o600))
		size, err := strconv.ParseInt(h.PAXRecords[sizeRecord], 10, 64)
		check(err)
		check(os.Truncate(file, size))
	}
}
