package badger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

var engineTenant = storage.MustTenant("t")

// fakeClock is a clock that tests set.
type fakeClock struct{ ms atomic.Int64 }

func newClock() *fakeClock {
	c := new(fakeClock)
	c.ms.Store(time.Date(2026, 5, 20, 12, 0, 0, 0, time.UTC).UnixMilli())
	return c
}

func (c *fakeClock) now() time.Time { return time.UnixMilli(c.ms.Load()) }

func metric(name string, pairs ...string) storage.Labels {
	return storage.LabelsFromStrings(append([]string{storage.MetricName, name}, pairs...)...)
}

// fill appends n samples a minute apart that end at end, to each of some series.
func fill(t testing.TB, db *DB, name string, series, n int, end int64) {
	t.Helper()
	var b storage.Batch
	for i := range series {
		xs := make([]storage.Sample, n)
		for j := range xs {
			xs[j] = storage.Sample{T: end - int64(n-1-j)*60_000, V: float64(i*1000 + j)}
		}
		b.Add(metric(name, "i", fmt.Sprint(i)), xs...)
	}
	res, err := db.Append(context.Background(), engineTenant, &b)
	if err != nil || len(res.Refused) > 0 {
		t.Fatalf("append: %v, refused %v", err, res.Refused)
	}
}

func everything() storage.Selection {
	return storage.Selection{MinT: math.MinInt64 / 4, MaxT: math.MaxInt64 / 4}
}

func sampleCount(t testing.TB, db *DB, ms ...*storage.Matcher) (n int) {
	t.Helper()
	s := everything()
	s.Matchers = ms
	for x, err := range db.Select(context.Background(), engineTenant, s) {
		if err != nil {
			t.Fatalf("select: %v", err)
		}
		n += len(x.Samples) + len(x.Histograms)
	}
	return n
}

// eventually waits for a condition; the test's own deadline ends the wait.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestCloseLeavesBlocksOnly(t *testing.T) {
	cfg := testConfig(t.TempDir())
	db := openTest(t, cfg)
	fill(t, db, "m", 200, 30, time.Now().UnixMilli())
	want := storagetest.Collect(t, db, "t", everything())
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	size := int64(0)
	err := filepath.WalkDir(filepath.Join(cfg.Dir, walDir), func(_ string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			info, _ := e.Info()
			size += info.Size()
		}
		return err
	})
	if err != nil || size > 4096 {
		t.Fatalf("the log has %d bytes after close (%v)", size, err)
	}
	db = openTest(t, cfg)
	if rep := db.Recovery(); rep.ReplayedRecords != 0 || !rep.Clean() {
		t.Fatalf("recovery after a clean close: %+v", rep)
	}
	if d := storagetest.DiffSeries(storagetest.Collect(t, db, "t", everything()), want); d != "" {
		t.Fatal(d)
	}
}

func TestClosedDayTakesLateSamples(t *testing.T) {
	clock := newClock()
	cfg := testConfig(t.TempDir())
	cfg.Now = clock.now
	db := openTest(t, cfg)
	yesterday := clock.ms.Load() - dayMillis
	fill(t, db, "m", 300, 10, yesterday)
	p := db.lookupTenant(engineTenant).part(dayOf(yesterday))
	if err := db.closePartition(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	if p.isOpen() {
		t.Fatal("the day is still open")
	}
	if n := sampleCount(t, db, storagetest.Re("i", "1.*"), storagetest.Eq(storage.MetricName, "m")); n != 111*10 {
		t.Fatalf("a closed day answers %d samples, want %d", n, 111*10)
	}
	names, err := db.LabelValues(context.Background(), engineTenant, "i", everything())
	if err != nil || len(names) != 300 {
		t.Fatalf("a closed day lists %d values: %v", len(names), err)
	}
	// Late samples: of a known series, and of a new one.
	fill(t, db, "m", 1, 5, yesterday+3_600_000)
	fill(t, db, "late", 2, 5, yesterday)
	if !p.isOpen() {
		t.Fatal("late samples did not open the day")
	}
	if n := sampleCount(t, db); n != 300*10+5+10 {
		t.Fatalf("%d samples, want %d", n, 300*10+5+10)
	}
	if err := db.closePartition(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	db = reopenTest(t, db).(*DB)
	if n := sampleCount(t, db); n != 300*10+5+10 {
		t.Fatalf("%d samples after reopening, want %d", n, 300*10+5+10)
	}
}

func TestRetentionDropsDaysAndMetrics(t *testing.T) {
	clock := newClock()
	cfg := testConfig(t.TempDir())
	cfg.Now = clock.now
	cfg.RetentionDays = 10
	db := openTest(t, cfg)
	ctx := context.Background()
	for d := range int64(8) {
		fill(t, db, "keep", 3, 4, clock.ms.Load()-d*dayMillis)
		fill(t, db, "debug_x", 3, 4, clock.ms.Load()-d*dayMillis)
	}
	if err := db.flush.everything(ctx); err != nil {
		t.Fatal(err)
	}
	if err := db.SetRetention(ctx, engineTenant, storage.RetentionPolicy{Metric: "debug_*", Days: 2}); err != nil {
		t.Fatal(err)
	}
	if n := sampleCount(t, db, storagetest.Eq(storage.MetricName, "debug_x")); n >= 3*3*4 || n < 2*3*4 {
		t.Fatalf("%d samples of a metric that is kept 2 days", n)
	}
	values, err := db.LabelValues(ctx, engineTenant, storage.MetricName,
		storage.Selection{MinT: clock.ms.Load() - 7*dayMillis, MaxT: clock.ms.Load() - 5*dayMillis})
	if err != nil || len(values) != 1 || values[0] != "keep" {
		t.Fatalf("metrics of days beyond the shorter retention: %v, %v", values, err)
	}
	rep, err := db.Cleanup(ctx)
	if err != nil || rep.Metrics != 5 || rep.Partitions != 0 {
		t.Fatalf("cleanup: %+v, %v; want 5 metrics of days that stay", rep, err)
	}
	clock.ms.Add(6 * dayMillis)
	if rep, err = db.Cleanup(ctx); err != nil || rep.Partitions != 3 {
		t.Fatalf("cleanup: %+v, %v; want 3 days", rep, err)
	}
	db = reopenTest(t, db).(*DB)
	if n := sampleCount(t, db, storagetest.Eq(storage.MetricName, "keep")); n != 3*(4*4+1) {
		t.Fatalf("%d samples are left, want four days and the last sample of a fifth of 3 series: %d", n, 3*(4*4+1))
	}
}

// A dropped day must not come back from the log or a snapshot.
func TestDroppedDayStaysDropped(t *testing.T) {
	clock := newClock()
	cfg := testConfig(t.TempDir())
	cfg.Now = clock.now
	db := openTest(t, cfg)
	old := clock.ms.Load() - 3*dayMillis
	fill(t, db, "m", 5, 5, old)
	if err := db.snapshot(true); err != nil {
		t.Fatal(err)
	}
	fill(t, db, "n", 5, 5, old)
	if err := db.dropPartition(context.Background(), db.lookupTenant(engineTenant).part(dayOf(old))); err != nil {
		t.Fatal(err)
	}
	fill(t, db, "again", 1, 1, old)
	dir := filepath.Join(t.TempDir(), "copy")
	copyDir(t, cfg.Dir, dir)
	cfg.Dir = dir
	again := openTest(t, cfg)
	if n := sampleCount(t, again); n != 1 || !again.Recovery().Clean() {
		t.Fatalf("%d samples after a crash, want the one that was written after the drop; %+v", n, again.Recovery())
	}
}

func TestMaxBytesDropsOldestDays(t *testing.T) {
	clock := newClock()
	cfg := testConfig(t.TempDir())
	cfg.Now = clock.now
	db := openTest(t, cfg)
	for d := range int64(4) {
		fill(t, db, "m", 50, 20, clock.ms.Load()-d*dayMillis)
	}
	db.cfg.MaxBytes = 1 // everything is too much: only the current day stays
	if err := db.enforceMaxBytes(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := sampleCount(t, db); n != 50*20 {
		t.Fatalf("%d samples are left, want those of today, %d", n, 50*20)
	}
	var b storage.Batch
	b.Add(metric("m"), storage.Sample{T: clock.ms.Load() - 2*dayMillis, V: 1})
	res, err := db.Append(context.Background(), engineTenant, &b)
	if err != nil || len(res.Refused) != 1 || res.Refused[0].Reason != storage.ReasonTooOld {
		t.Fatalf("a sample of a dropped day: %+v, %v; want too old", res, err)
	}
	db.cfg.MaxBytes = 0
	db = reopenTest(t, db).(*DB)
	if res, err = db.Append(context.Background(), engineTenant, &b); err != nil || len(res.Refused) != 1 {
		t.Fatalf("a sample of a dropped day after reopening: %+v, %v; want too old", res, err)
	}
}

func TestLowDiskRefusesWritesAndRecovers(t *testing.T) {
	var logged lockedBuffer
	cfg := testConfig(t.TempDir())
	cfg.MinFreeBytes = 1 << 30
	db, err := Open(cfg, slog.New(slog.NewTextHandler(&logged, nil)), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var free atomic.Uint64
	free.Store(100 << 30)
	db.disk.setProbe(func(string) (uint64, uint64, error) { return free.Load(), 200 << 30, nil })
	db.disk.check()
	fill(t, db, "m", 10, 10, time.Now().UnixMilli())
	free.Store(1<<30 - 1)
	eventually(t, "writes are refused", func() bool { return db.Health(t.Context()).Status == storage.HealthReadOnly })
	var b storage.Batch
	b.Add(metric("m"), storage.Sample{T: time.Now().UnixMilli(), V: 1})
	if _, err := db.Append(t.Context(), engineTenant, &b); storage.KindOf(err) != storage.KindUnavailable || !strings.Contains(err.Error(), "minFreeBytes") {
		t.Fatalf("append on a full disk: %v", err)
	}
	if n := sampleCount(t, db); n != 100 {
		t.Fatalf("reads on a full disk: %d samples", n)
	}
	if !strings.Contains(logged.String(), "the disk is nearly full") {
		t.Fatalf("no clear log line: %s", logged.String())
	}
	free.Store(100 << 30)
	eventually(t, "writes are taken again", func() bool { return db.Health(t.Context()).Status == storage.HealthOK })
	if _, err := db.Append(t.Context(), engineTenant, &b); err != nil {
		t.Fatalf("append after the disk has space again: %v", err)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestMemoryPressureFlushes(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.HeadMaxBytes = 1 << 20
	db := openTest(t, cfg)
	end := time.Now().UnixMilli()
	for i := range 40 {
		var b storage.Batch
		for s := range 2000 {
			b.Add(metric("m", "i", fmt.Sprint(s)), storage.Sample{T: end - int64(40-i)*15_000, V: float64(i)*1.37 + float64(s)})
		}
		err := errors.New("not yet")
		eventually(t, "the append is taken", func() bool {
			_, err = db.Append(context.Background(), engineTenant, &b)
			return storage.KindOf(err) != storage.KindUnavailable || err == nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the head is below its bound", func() bool { return db.head.bytes.Load() <= cfg.HeadMaxBytes })
	if n := sampleCount(t, db); n != 40*2000 {
		t.Fatalf("%d samples, want %d", n, 40*2000)
	}
}

func TestNewerFormatIsRefusedByName(t *testing.T) {
	cfg := testConfig(t.TempDir())
	db := openTest(t, cfg)
	if err := db.put([]byte{keyFormat}, []byte{99, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := Open(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	var fe *FormatError
	if !errors.As(err, &fe) || fe.Found != 99 || !strings.Contains(err.Error(), "format 99") {
		t.Fatalf("open of a newer format: %v", err)
	}
}

func TestDirectoryIsLocked(t *testing.T) {
	cfg := testConfig(t.TempDir())
	openTest(t, cfg)
	_, err := Open(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if storage.KindOf(err) != storage.KindUnavailable || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("second open of a directory: %v", err)
	}
}

func TestExemplarsAndMetadataSurviveCrashAndClose(t *testing.T) {
	clock := newClock()
	cfg := testConfig(t.TempDir())
	cfg.Now = clock.now
	cfg.ExemplarsPerSeries = 3
	db := openTest(t, cfg)
	var b storage.Batch
	now := clock.ms.Load()
	b.Labels = append(b.Labels, metric("m", "a", "b")...)
	b.AddSample(now, 0, 1)
	for i := range int64(5) {
		b.Exemplars = append(b.Exemplars, storage.Exemplar{Labels: storage.LabelsFromStrings("trace_id", fmt.Sprint(i)), T: now - 5000 + i*1000, V: float64(i)})
	}
	b.EndSeries()
	b.Metadata = []storage.Metadata{{Metric: "m", Type: "counter", Unit: "s", Help: "first"}}
	if _, err := db.Append(t.Context(), engineTenant, &b); err != nil {
		t.Fatal(err)
	}
	check := func(db *DB, when string) {
		t.Helper()
		q := storage.ExemplarQuery{Selectors: [][]*storage.Matcher{{storagetest.Eq("a", "b")}}, MinT: now - dayMillis, MaxT: now}
		got, err := db.Exemplars(t.Context(), engineTenant, q)
		if err != nil || len(got) != 1 || len(got[0].Exemplars) != 3 || got[0].Exemplars[0].V != 2 || got[0].Exemplars[2].Labels.Get("trace_id") != "4" {
			t.Fatalf("%s: exemplars %+v, %v; want the newest three", when, got, err)
		}
		md, err := db.Metadata(t.Context(), engineTenant, storage.MetadataQuery{})
		if err != nil || len(md) != 1 || md[0].Help != "first" || md[0].Unit != "s" {
			t.Fatalf("%s: metadata %+v, %v", when, md, err)
		}
	}
	check(db, "live")
	dir := filepath.Join(t.TempDir(), "copy")
	copyDir(t, cfg.Dir, dir)
	crashed := cfg
	crashed.Dir = dir
	check(openTest(t, crashed), "after a crash")
	db = reopenTest(t, db).(*DB)
	check(db, "after a close")
	if err := db.closePartition(t.Context(), db.lookupTenant(engineTenant).part(dayOf(now))); err != nil {
		t.Fatal(err)
	}
	check(db, "of a closed day")
}

func TestConfigValidateNamesEveryProblem(t *testing.T) {
	cfg := Config{WALSync: "sometimes", RetentionDays: -1, MaxBytes: -1}
	err := cfg.Validate()
	for _, word := range []string{"dir", "walSync", "retentionDays", "flushSamples", "flushAge", "queueSamples", "maxBytes"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("validate does not name %s: %v", word, err)
		}
	}
	good := DefaultConfig()
	good.Dir = os.TempDir()
	if err := good.Validate(); err != nil {
		t.Fatalf("the defaults are refused: %v", err)
	}
}

func TestKeysRoundTripAndSort(t *testing.T) {
	for _, ms := range []int64{0, -1, 1, dayMillis - 1, dayMillis, -dayMillis, -dayMillis - 1, 1700000000000} {
		day := dayOf(ms)
		if ms < dayStart(day) || ms >= dayStart(day+1) {
			t.Errorf("%d is not within its day %d", ms, day)
		}
		if got := dayOfPart(partOf(day)); got != day {
			t.Errorf("day %d comes back as %d", day, got)
		}
	}
	if partOf(-1) >= partOf(0) || partOf(0) >= partOf(1) {
		t.Error("days do not sort as their keys")
	}
	p := newPartition(newTenant(7, "t"), -3)
	k := blockKey{group: 5, t0: 100, t1: 86399999, lsn: 1 << 40, gen: 3}
	key := p.blockKey(rowFloats, k)
	if got, err := parseBlockKey(key); err != nil || got != k || !bytes.HasPrefix(key, p.groupKey(rowFloats, 5)) {
		t.Errorf("block key %x: %+v, %v", key, got, err)
	}
}

// A series that the index cannot take is refused; the rest of the batch is kept.
func TestSeriesWithTooManyLabelsIsRefused(t *testing.T) {
	db := openTest(t, testConfig(t.TempDir()))
	var many storage.LabelsBuilder
	for i := range 5000 {
		many.Add(fmt.Sprintf("l%04d", i), "v")
	}
	ls, err := many.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UnixMilli()
	var b storage.Batch
	b.Add(metric("a"), storage.Sample{T: now, V: 1})
	b.Add(ls, storage.Sample{T: now - 1, V: 2}, storage.Sample{T: now, V: 3})
	b.Add(metric("c"), storage.Sample{T: now, V: 4})
	res, err := db.Append(t.Context(), engineTenant, &b)
	if err != nil || res.Samples != 2 || len(res.Refused) != 1 || res.Refused[0].Series != 1 || res.Refused[0].Reason != storage.ReasonLabelLimit {
		t.Fatalf("append: %+v, %v; want the second series refused", res, err)
	}
	if n := sampleCount(t, db); n != 2 {
		t.Fatalf("%d samples are stored, want 2", n)
	}
}

// Close waits for the calls that are under way, and later ones are refused.
func TestCloseWaitsForReaders(t *testing.T) {
	db := openTest(t, testConfig(t.TempDir()))
	fill(t, db, "m", 200, 5, time.Now().UnixMilli())
	s := everything()
	s.Unsorted = true
	closed := make(chan error, 1)
	n := 0
	for x, err := range db.Select(context.Background(), engineTenant, s) {
		if err != nil {
			t.Fatalf("select while closing: %v", err)
		}
		if n == 0 {
			go func() { closed <- db.Close() }()
			eventually(t, "the store refuses callers", func() bool { return db.closed.Load() })
		}
		n += len(x.Samples)
	}
	if err := <-closed; err != nil || n != 200*5 {
		t.Fatalf("%d samples were read while closing, want %d; close: %v", n, 200*5, err)
	}
}
