package badger

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/luminate/luminate/storage"
)

// The crash test kills a child process that writes, and compares what the next
// process finds with the ledger of what was acknowledged. The child is this test
// binary, started again with crashChildEnv set.
const (
	crashChildEnv  = "LUMINATE_CRASH_CHILD"  // the data directory
	crashFromEnv   = "LUMINATE_CRASH_FROM"   // first batch of each writer, separated by commas
	crashBaseEnv   = "LUMINATE_CRASH_BASE"   // time of batch 0, ms
	crashSyncEnv   = "LUMINATE_CRASH_SYNC"   // walSync of the child
	crashRoundsEnv = "LUMINATE_CRASH_ROUNDS" // rounds, 20 if unset
)

const (
	crashWriters = 4
	crashSeries  = 40 // of each writer
	crashTenant  = "crash"
	crashStep    = 10_000 // ms between batches
)

// crashConfig makes everything happen often: flushes, snapshots, closed days.
func crashConfig(dir string) Config {
	cfg := testConfig(dir)
	cfg.FlushSamples = 20
	cfg.SnapshotInterval = 70 * time.Millisecond
	cfg.MaintenanceInterval = 30 * time.Millisecond
	cfg.FlushAge = 400 * time.Millisecond
	cfg.CloseAfter = 100 * time.Millisecond
	return cfg
}

// crashBatch is batch n of a writer: the same in every process. Some batches come
// late, some make new series, some have special values.
func crashBatch(base int64, writer, n int) *storage.Batch {
	rng := rand.New(rand.NewPCG(uint64(writer), uint64(n)))
	var b storage.Batch
	for i := range crashSeries {
		serial := i
		if i%8 == 7 {
			serial = 1000 + n // churn
		}
		ls := storage.LabelsFromStrings(storage.MetricName, fmt.Sprintf("crash_%d_total", i%3),
			"writer", strconv.Itoa(writer), "serial", strconv.Itoa(serial))
		ts := base + int64(n)*crashStep + int64(writer)
		if i%5 == 4 {
			ts -= 3 * crashStep * int64(rng.IntN(4)) // later ones are taken first
			ts += 7
		}
		v := float64(n*crashSeries + i)
		switch rng.IntN(12) {
		case 0:
			v = storage.StaleNaN
		case 1:
			v = math.Float64frombits(rng.Uint64())
		case 2:
			v = rng.NormFloat64()
		}
		b.Add(ls, storage.Sample{T: ts, V: v})
	}
	return &b
}

// crashChild writes until it is killed, and tells each acknowledged batch.
func crashChild(dir string) int {
	fail := func(err error) int {
		fmt.Println("error", err)
		return 1
	}
	cfg := crashConfig(dir)
	cfg.WALSync = os.Getenv(crashSyncEnv)
	db, err := Open(cfg, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), prometheus.NewRegistry())
	if err != nil {
		return fail(err)
	}
	if rep := db.Recovery(); !rep.Clean() {
		return fail(fmt.Errorf("recovery is not clean: %+v", rep))
	}
	base, err := strconv.ParseInt(os.Getenv(crashBaseEnv), 10, 64)
	if err != nil {
		return fail(err)
	}
	fmt.Println("ready")
	var out sync.Mutex
	var wg sync.WaitGroup
	for w, from := range strings.Split(os.Getenv(crashFromEnv), ",") {
		n, err := strconv.Atoi(from)
		if err != nil {
			return fail(err)
		}
		wg.Go(func() {
			for ; ; n++ {
				b := crashBatch(base, w, n)
				res, err := db.Append(context.Background(), storage.MustTenant(crashTenant), b)
				out.Lock()
				if err != nil || res.Samples != crashSeries {
					fmt.Println("error append", res.Samples, err)
				} else {
					fmt.Println("ack", w, n)
				}
				out.Unlock()
			}
		})
	}
	wg.Wait()
	return 0
}

// ledger is what was acknowledged: the next batch of each writer.
type ledger struct {
	base int64
	next [crashWriters]int
}

// runChild lets a child write for a while, kills it, and adds its acknowledgements.
func (l *ledger) runChild(t *testing.T, dir, sync string, life time.Duration) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	from := make([]string, crashWriters)
	for w, n := range l.next {
		from[w] = strconv.Itoa(n)
	}
	cmd.Env = append(os.Environ(), crashChildEnv+"="+dir, crashFromEnv+"="+strings.Join(from, ","),
		crashBaseEnv+"="+strconv.FormatInt(l.base, 10), crashSyncEnv+"="+sync)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var kill *time.Timer
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			break // a last line without its end is not an answer
		}
		if err != nil {
			t.Fatal(err)
		}
		f := strings.Fields(line)
		switch {
		case f[0] == "ready":
			kill = time.AfterFunc(life, func() { _ = cmd.Process.Kill() })
			defer kill.Stop()
		case f[0] == "ack" && len(f) == 3:
			w, _ := strconv.Atoi(f[1])
			n, _ := strconv.Atoi(f[2])
			if n != l.next[w] {
				t.Fatalf("writer %d acknowledged batch %d, want %d", w, n, l.next[w])
			}
			l.next[w]++
		default:
			_ = cmd.Process.Kill()
			t.Fatalf("child: %s%s", line, stderr.String())
		}
	}
	_ = cmd.Wait() // it was killed
	if kill == nil {
		t.Fatalf("the child ended before it was ready: %s", stderr.String())
	}
}

// verify opens the store and compares every acknowledged sample bit by bit. Batches
// that were being written may be there or not.
func (l *ledger) verify(t *testing.T, dir string) {
	t.Helper()
	cfg := crashConfig(dir)
	db, err := Open(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatalf("open after a crash: %v", err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	if rep := db.Recovery(); !rep.Clean() {
		t.Fatalf("recovery is not clean: %+v", rep)
	}
	got := map[string]map[int64]float64{}
	s := storage.Selection{MinT: l.base - dayMillis, MaxT: math.MaxInt64 / 4}
	for x, err := range db.Select(context.Background(), storage.MustTenant(crashTenant), s) {
		if err != nil {
			t.Fatalf("select: %v", err)
		}
		samples := make(map[int64]float64, len(x.Samples))
		for _, p := range x.Samples {
			samples[p.T] = p.V
		}
		got[string(x.Labels)] = samples
	}
	checked := 0
	for w, next := range l.next {
		want := map[string]map[int64]float64{}
		// One batch more than acknowledged may be there; it may win a duplicate time.
		for n := range next + 1 {
			b := crashBatch(l.base, w, n)
			for i := range b.Series {
				v := b.At(i)
				x := want[string(v.Labels)]
				if x == nil {
					x = map[int64]float64{}
					want[string(v.Labels)] = x
				}
				p := v.Samples[0]
				old, dup := x[p.T]
				found, ok := got[string(v.Labels)][p.T]
				if n == next {
					if ok && !dup && !holds(b, string(v.Labels), p.T, found) {
						t.Fatalf("writer %d: unacknowledged sample of %s at %d is %v, want %v or none", w, v.Labels, p.T, found, p.V)
					}
					continue
				}
				if !dup || storage.CompareValues(p.V, old) > 0 {
					x[p.T] = p.V
				}
			}
		}
		extra := crashBatch(l.base, w, next)
		for ls, samples := range want {
			for ts, v := range samples {
				found, ok := got[ls][ts]
				if !ok {
					t.Fatalf("writer %d: acknowledged sample of %s at %d is lost", w, storage.Labels(ls), ts)
				}
				if math.Float64bits(found) != math.Float64bits(v) && !holds(extra, ls, ts, found) {
					t.Fatalf("writer %d: sample of %s at %d is %x, want %x", w, storage.Labels(ls), ts, math.Float64bits(found), math.Float64bits(v))
				}
				checked++
			}
		}
	}
	t.Logf("%d acknowledged samples checked", checked)
}

func holds(b *storage.Batch, ls string, ts int64, v float64) bool {
	for i := range b.Series {
		x := b.At(i)
		if string(x.Labels) == ls && x.Samples[0].T == ts && math.Float64bits(x.Samples[0].V) == math.Float64bits(v) {
			return true
		}
	}
	return false
}

// TestCrash kills a writing process again and again: nothing that was acknowledged
// may be lost or changed.
func TestCrash(t *testing.T) {
	rounds := 20
	if n, err := strconv.Atoi(os.Getenv(crashRoundsEnv)); err == nil {
		rounds = n
	}
	for _, sync := range []string{"os", "always"} {
		t.Run(sync, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(rounds), 7))
			dir := t.TempDir()
			l := &ledger{base: time.Now().Add(-20 * 24 * time.Hour).UnixMilli()}
			for i := range rounds / 2 {
				l.runChild(t, dir, sync, time.Duration(10+rng.IntN(120))*time.Millisecond)
				if i%4 == 3 || i == rounds/2-1 {
					l.verify(t, dir)
				}
			}
		})
	}
}
