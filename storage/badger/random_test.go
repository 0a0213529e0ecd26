package badger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

// copyDir copies a data directory as a kill -9 at this moment would leave it: what
// was written through maps and the page cache is in the copy, what is only in the
// process is not. Holes stay holes.
//
// Badger compacts beside us, so a copy counts only when no table came or went.
func copyDir(t testing.TB, from, to string) {
	t.Helper()
	for range 100 {
		before := fileNames(t, from)
		err := copyTree(from, to)
		if err == nil && before == fileNames(t, from) {
			return
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("copy %s: %v", from, err)
		}
		if err := os.RemoveAll(to); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatalf("%s never rests", from)
}

// fileNames lists Badger's files with the size of its manifest.
func fileNames(t testing.TB, dir string) string {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(dir, kvDir))
	if err != nil {
		t.Fatal(err)
	}
	names := ""
	for _, e := range list {
		names += e.Name() + " "
		if e.Name() == "MANIFEST" {
			if info, err := e.Info(); err == nil {
				names += fmt.Sprint(info.Size(), " ")
			}
		}
	}
	return names
}

func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		return copySparse(path, filepath.Join(to, rel))
	})
}

func copySparse(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	const seekData, seekHole = 3, 4 // of lseek; where they are unknown all is data
	for at := int64(0); at < info.Size(); {
		from, err := in.Seek(at, seekData)
		if errors.Is(err, syscall.ENXIO) {
			break // only a hole is left
		}
		if err != nil {
			from = at
		}
		to, err := in.Seek(from, seekHole)
		if err != nil {
			to = info.Size()
		}
		if _, err := io.Copy(io.NewOffsetWriter(out, from), io.NewSectionReader(in, from, to-from)); err != nil {
			return err
		}
		at = to
	}
	return out.Truncate(info.Size())
}

// history drives a store and the model through the same random operations, those
// that only the engine knows among them.
type history struct {
	t     *testing.T
	rng   *rand.Rand
	db    *DB
	model *storagetest.Model
	now   *atomic.Int64 // ms
}

var historyTenants = []string{"a", "b"}

func newHistory(t *testing.T, seed uint64) *history {
	t.Helper()
	now := new(atomic.Int64)
	now.Store(time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC).UnixMilli())
	clock := func() time.Time { return time.UnixMilli(now.Load()) }
	cfg := testConfig(t.TempDir())
	cfg.FlushSamples = 16
	cfg.Now = clock
	mc := storagetest.DefaultModelConfig()
	mc.Now = clock
	return &history{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), db: openTest(t, cfg), model: storagetest.NewModelWith(mc), now: now,
	}
}

func (h *history) labels() storage.Labels {
	pairs := []string{storage.MetricName, fmt.Sprintf("m%d", h.rng.IntN(4)), "a", fmt.Sprint(h.rng.IntN(40))}
	if h.rng.IntN(2) == 0 {
		pairs = append(pairs, "b", fmt.Sprint(h.rng.IntN(3)))
	}
	return storage.LabelsFromStrings(pairs...)
}

func (h *history) value() float64 {
	switch h.rng.IntN(20) {
	case 0:
		return storage.StaleNaN
	case 1:
		return []float64{math.Inf(1), math.Inf(-1), math.NaN(), math.Copysign(0, -1), 5e-324, math.MaxFloat64}[h.rng.IntN(6)]
	case 2:
		return h.rng.NormFloat64()
	default:
		return float64(h.rng.IntN(1000)) / 100
	}
}

// base is a time near now, or days ago.
func (h *history) base() int64 {
	switch h.rng.IntN(4) {
	case 0:
		return h.now.Load() - h.rng.Int64N(3*dayMillis)
	default:
		return h.now.Load() - h.rng.Int64N(3600_000)
	}
}

func (h *history) batch() *storage.Batch {
	var b storage.Batch
	for range 1 + h.rng.IntN(30) {
		b.Labels = append(b.Labels, h.labels()...)
		base := h.base()
		kind := h.rng.IntN(10)
		for i := range 1 + h.rng.IntN(20) {
			ts := base + int64(i)*15000 - int64(h.rng.IntN(2)*h.rng.IntN(90000))
			switch kind {
			case 0:
				b.Histograms = append(b.Histograms, storage.HistogramSample{T: ts, H: tsdbutil.GenerateTestHistogram(int64(h.rng.IntN(5)))})
			case 1:
				b.Histograms = append(b.Histograms, storage.HistogramSample{T: ts, ST: base - 1000, FH: tsdbutil.GenerateTestFloatHistogram(int64(h.rng.IntN(5)))})
			case 2:
				b.AddSample(ts, base-60000+int64(h.rng.IntN(3)), h.value())
			default:
				b.AddSample(ts, 0, h.value())
			}
		}
		b.EndSeries()
	}
	return &b
}

func (h *history) selection() storage.Selection {
	s := storage.Selection{MinT: h.base() - h.rng.Int64N(dayMillis)}
	s.MaxT = s.MinT + h.rng.Int64N(2*dayMillis)
	for range h.rng.IntN(3) {
		s.Matchers = append(s.Matchers, []*storage.Matcher{
			storagetest.Eq(storage.MetricName, fmt.Sprintf("m%d", h.rng.IntN(4))),
			storagetest.Re("a", "[0-9]"), storagetest.Ne("b", "1"), storagetest.Eq("b", ""),
		}[h.rng.IntN(4)])
	}
	return s
}

func (h *history) step() (op string, err error) {
	ctx := context.Background()
	name := historyTenants[h.rng.IntN(2)]
	tn := storage.MustTenant(name)
	switch n := h.rng.IntN(100); {
	case n < 50:
		b := h.batch()
		_, err = h.db.Append(ctx, tn, b)
		_, _ = h.model.Append(ctx, tn, b)
		return "append", err
	case n < 58:
		s := h.selection()
		_, err = h.db.Delete(ctx, tn, s)
		_, _ = h.model.Delete(ctx, tn, s)
		return "delete " + storage.FormatSelector(s.Matchers), err
	case n < 66:
		return "flush", h.db.flush.everything(ctx)
	case n < 74:
		return "snapshot", h.db.snapshot(h.rng.IntN(2) == 0)
	case n < 82:
		for _, p := range h.db.allPartitions() {
			if p.isOpen() && h.rng.IntN(2) == 0 {
				err = errors.Join(err, h.db.closePartition(ctx, p))
			}
		}
		return "close days", err
	case n < 86:
		_, err = h.db.Cleanup(ctx)
		_, _ = h.model.Cleanup(ctx)
		return "cleanup", err
	case n < 88:
		h.now.Add(h.rng.Int64N(6 * 3600_000))
		return "time passes", nil
	case n < 89 && name == "b":
		err = h.db.DeleteTenant(ctx, tn)
		_ = h.model.DeleteTenant(ctx, tn)
		return "delete tenant", err
	case n < 93:
		h.db = reopenTest(h.t, h.db).(*DB)
		return "reopen", nil
	case n < 98:
		cfg := h.db.cfg
		dir := filepath.Join(h.t.TempDir(), "copy")
		copyDir(h.t, cfg.Dir, dir)
		if err := h.db.Close(); err != nil {
			return "crash", err
		}
		cfg.Dir = dir
		h.db = openTest(h.t, cfg)
		if rep := h.db.Recovery(); !rep.Clean() {
			err = fmt.Errorf("recovery after a crash is not clean: %+v", rep)
		}
		return "crash", err
	default:
		h.db.head.mu.RLock()
		h.db.head.mu.RUnlock()
		return "flush some", h.db.flush.write(ctx, h.db.fullest())
	}
}

func (h *history) compare(op string) {
	h.t.Helper()
	for _, tn := range historyTenants {
		for _, s := range []storage.Selection{h.selection(), {MinT: h.now.Load() - 29*dayMillis, MaxT: h.now.Load() + dayMillis}} {
			want := storagetest.Collect(h.t, h.model, tn, s)
			s.Unsorted, s.Chunks = h.rng.IntN(2) == 0, h.rng.IntN(2) == 0
			got := storagetest.Collect(h.t, h.db, tn, s)
			if s.Unsorted {
				slices.SortFunc(got, func(a, b storage.Series) int { return storage.CompareLabels(a.Labels, b.Labels) })
			}
			if d := storagetest.DiffSeries(got, want); d != "" {
				h.t.Fatalf("after %s: tenant %s, %s [%d, %d]: %s", op, tn, storage.FormatSelector(s.Matchers), s.MinT, s.MaxT, d)
			}
		}
	}
}

// TestRandomHistory compares with the model over flushes, snapshots, closed days,
// crashes and clean-ups in any order.
func TestRandomHistory(t *testing.T) {
	seeds, steps := 2, 80
	if n, err := strconv.Atoi(os.Getenv("LUMINATE_TEST_SEEDS")); err == nil {
		seeds = n
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			h := newHistory(t, seed)
			for range steps {
				op, err := h.step()
				if err != nil {
					t.Fatalf("%s: %v", op, err)
				}
				h.compare(op)
			}
		})
	}
}
