package badger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

// crashedStore returns the directory of a store that died with samples in blocks, in
// a snapshot and in the log, and the number of samples in it.
func crashedStore(t *testing.T) (cfg Config, samples int) {
	t.Helper()
	clock := newClock()
	cfg = testConfig(t.TempDir())
	cfg.Now = clock.now
	db := openTest(t, cfg)
	fill(t, db, "blocks", 300, 20, clock.ms.Load()-3_600_000)
	if err := db.flush.everything(context.Background()); err != nil {
		t.Fatal(err)
	}
	db = reopenTest(t, db).(*DB) // the memtable becomes a table
	fill(t, db, "memtable", 300, 20, clock.ms.Load()-1_800_000)
	if err := db.flush.everything(context.Background()); err != nil {
		t.Fatal(err)
	}
	fill(t, db, "snapshot", 200, 10, clock.ms.Load())
	if err := db.snapshot(true); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		fill(t, db, fmt.Sprintf("log_%d", i), 50, 3, clock.ms.Load())
	}
	samples = sampleCount(t, db)
	cfg.Dir = filepath.Join(t.TempDir(), "crashed")
	copyDir(t, db.cfg.Dir, cfg.Dir)
	return cfg, samples
}

func onlyFile(t *testing.T, dir, pattern string) string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(list) == 0 {
		t.Fatalf("no file %s in %s: %v", pattern, dir, err)
	}
	best, size := "", int64(-1)
	for _, f := range list {
		if info, err := os.Stat(f); err == nil && info.Size() > size {
			best, size = f, info.Size()
		}
	}
	return best
}

// openDamaged opens a damaged copy. The answers: the report, how many samples can be
// read, and the first error of opening or reading.
func openDamaged(t *testing.T, cfg Config) (rep RecoveryReport, samples int, err error) {
	t.Helper()
	db, err := Open(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		return rep, 0, err
	}
	defer func() { _ = db.Close() }() // a damaged store may not be able to save everything
	for x, err := range db.Select(context.Background(), engineTenant, everything()) {
		if err != nil {
			return db.Recovery(), samples, err
		}
		samples += len(x.Samples)
	}
	return db.Recovery(), samples, nil
}

// TestDamageIsNeverSilent flips bits in, and cuts, the files of a crashed store: then
// either all samples are there, or something is said.
func TestDamageIsNeverSilent(t *testing.T) {
	cfg, want := crashedStore(t)
	rng := rand.New(rand.NewPCG(5, 6))
	for _, target := range []struct {
		dir, pattern string
		rounds       int
		cut          bool
	}{
		{walDir, "*.wal", 8, false},
		{snapshotDir, "*.snap", 4, false},
		{kvDir, "*.sst", 6, false},
		{kvDir, "*.mem", 8, false},
		{snapshotDir, "*.snap", 3, true},
	} {
		t.Run(fmt.Sprintf("%s cut=%v", target.pattern, target.cut), func(t *testing.T) {
			silent := 0
			for range target.rounds {
				c := cfg
				c.Dir = filepath.Join(t.TempDir(), "damaged")
				if err := copyTree(cfg.Dir, c.Dir); err != nil {
					t.Fatal(err)
				}
				list, _ := filepath.Glob(filepath.Join(c.Dir, target.dir, target.pattern))
				if len(list) == 0 {
					t.Skipf("the store has no %s", target.pattern)
				}
				damage(t, rng, onlyFile(t, filepath.Join(c.Dir, target.dir), target.pattern), target.cut)
				rep, got, err := openDamaged(t, c)
				if err == nil && rep.Clean() && rep.TornBytes == 0 && got != want {
					silent++
					t.Errorf("%d of %d samples and not a word: %+v", got, want, rep)
				}
			}
		})
	}
}

// damage cuts a file, or flips one bit of the bytes that are in use: Badger maps
// files larger than they are.
func damage(t *testing.T, rng *rand.Rand, path string, cut bool) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	used := min(info.Size(), allocated(info))
	if used == 0 {
		t.Fatalf("%s is empty", path)
	}
	at := rng.Int64N(used)
	if cut {
		if err := os.Truncate(path, at); err != nil {
			t.Fatal(err)
		}
		return
	}
	flipBit(t, path, at, rng.IntN(8))
}

func flipBit(t *testing.T, path string, at int64, bit int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	b[0] ^= 1 << bit
	if err == nil {
		_, err = f.WriteAt(b[:], at)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedLogKeepsTheRest: a flipped bit in the middle of the log loses one record,
// and the store goes on.
func TestDamagedLogKeepsTheRest(t *testing.T) {
	cfg, want := crashedStore(t)
	path := onlyFile(t, filepath.Join(cfg.Dir, walDir), "*.wal")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	flipBit(t, path, info.Size()/2, 4)
	rep, got, err := openDamaged(t, cfg)
	if err != nil || rep.LostRecords == 0 || len(rep.DamagedFiles) == 0 {
		t.Fatalf("report %+v, error %v; want a lost record and the name of the damaged file", rep, err)
	}
	if got >= want || got < want-2*150 {
		t.Fatalf("%d of %d samples are left: one record should be lost, not more", got, want)
	}
	kept, _ := filepath.Glob(filepath.Join(cfg.Dir, walDir, "*damaged*"))
	if len(kept) == 0 {
		t.Fatal("the damaged segment is not kept")
	}
	rep, again, err := openDamaged(t, cfg)
	if err != nil || again != got {
		t.Fatalf("second start: %d samples, want %d; %v, %+v", again, got, err, rep)
	}
}

func TestBackupRestores(t *testing.T) {
	clock := newClock()
	cfg := testConfig(t.TempDir())
	cfg.Now = clock.now
	db := openTest(t, cfg)
	ctx := context.Background()
	fill(t, db, "old", 100, 10, clock.ms.Load()-2*dayMillis)
	if err := db.closePartition(ctx, db.allPartitions()[0]); err != nil {
		t.Fatal(err)
	}
	fill(t, db, "m", 200, 10, clock.ms.Load())
	if _, err := db.Delete(ctx, engineTenant, storage.Selection{
		Matchers: []*storage.Matcher{storagetest.Re("i", "1.")}, MinT: clock.ms.Load() - 3*dayMillis, MaxT: clock.ms.Load() - 120_000,
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.SetRetention(ctx, engineTenant, storage.RetentionPolicy{Metric: "x", Days: 3}); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	rep, err := db.Backup(ctx, &archive)
	if err != nil {
		t.Fatal(err)
	}
	want := storagetest.Collect(t, db, "t", everything())

	dir := filepath.Join(t.TempDir(), "restored")
	got, err := Restore(ctx, bytes.NewReader(archive.Bytes()), dir, slog.New(slog.DiscardHandler))
	if err != nil || got != rep {
		t.Fatalf("restore: %+v, %v; want the report of the backup, %+v", got, err, rep)
	}
	restored := cfg
	restored.Dir = dir
	again := openTest(t, restored)
	if d := storagetest.DiffSeries(storagetest.Collect(t, again, "t", everything()), want); d != "" {
		t.Fatalf("restored: %s", d)
	}
	if ps, err := again.Retention(ctx, engineTenant); err != nil || len(ps) != 1 {
		t.Fatalf("restored policies: %v, %v", ps, err)
	}
	if _, err := Restore(ctx, bytes.NewReader(archive.Bytes()), dir, slog.New(slog.DiscardHandler)); storage.KindOf(err) != storage.KindInvalid {
		t.Fatalf("restore over data: %v, want invalid", err)
	}
}

func TestDamagedArchivesAreRefused(t *testing.T) {
	db := openTest(t, testConfig(t.TempDir()))
	fill(t, db, "m", 20, 5, db.now().UnixMilli())
	var archive bytes.Buffer
	if _, err := db.Backup(context.Background(), &archive); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 12 {
		b := bytes.Clone(archive.Bytes())
		switch {
		case i < 4:
			b = b[:rng.IntN(len(b))]
		case i == 4:
			b = append(b, 0)
		default:
			b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		}
		dir := filepath.Join(t.TempDir(), "restored")
		if _, err := Restore(context.Background(), bytes.NewReader(b), dir, slog.New(slog.DiscardHandler)); err == nil {
			t.Fatalf("a damaged archive (%d) was restored", i)
		}
		cfg := testConfig(dir)
		if db, err := Open(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry()); err == nil {
			_ = db.Close()
			t.Fatal("a half restored directory was opened")
		}
	}
}

// TestBackupOfDamagedTablesFails: Badger's own iterators end early and say nothing.
func TestBackupOfDamagedTablesFails(t *testing.T) {
	cfg := testConfig(t.TempDir())
	db := openTest(t, cfg)
	for i := range 30 {
		fill(t, db, fmt.Sprintf("m%d", i), 300, 30, db.now().UnixMilli())
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	path := onlyFile(t, filepath.Join(cfg.Dir, kvDir), "*.sst")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	flipBit(t, path, info.Size()/3, 2)
	db, err = Open(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		return // refused at once: also not silent
	}
	defer func() { _ = db.Close() }()
	if _, err := db.Backup(context.Background(), &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Fatalf("backup of damaged tables: %v", err)
	}
}

// TestShortKeyIsDamage: a row whose key ends too early, which a damaged table or an
// archive may hold, is counted and does not end the process.
func TestShortKeyIsDamage(t *testing.T) {
	db := openTest(t, testConfig(t.TempDir()))
	if err := db.put([]byte{keyMetadata, 1, 2}, []byte("x")); err != nil {
		t.Fatal(err)
	}
	db = reopenTest(t, db).(*DB)
	if n := db.Recovery().DamagedRows; n != 1 {
		t.Errorf("%d damaged rows, want 1", n)
	}
}
