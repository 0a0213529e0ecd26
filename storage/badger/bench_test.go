package badger

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/luminate/luminate/storage"
)

// load is the data of the performance targets: eight labels, some 190 bytes; 60 %
// counters, 30 % gauges with two decimals, 10 % constant; 15 s apart.
type load struct {
	batches []storage.Batch // of requestSeries each, with one sample for each series
	values  []float64
	rng     uint64
}

const requestSeries = 2000

func newLoad(series, metrics int) *load {
	l := &load{values: make([]float64, series), rng: 1}
	for i := range series {
		if i%requestSeries == 0 {
			l.batches = append(l.batches, storage.Batch{})
		}
		b := &l.batches[len(l.batches)-1]
		ls := storage.LabelsFromStrings(
			storage.MetricName, fmt.Sprintf("http_request_duration_seconds_bucket_%02d", i%metrics),
			"customer_id", fmt.Sprintf("customer-%06d", i*7919%20000),
			"endpoint", fmt.Sprintf("/api/v2/resource/%02d", i%17),
			"instance", fmt.Sprintf("10.%d.%d.17:9100", i%23, i%211),
			"job", fmt.Sprintf("service-%02d", i%23),
			"region", []string{"eu-west-1", "us-east-1", "us-west-2", "ap-south-1"}[i%4],
			"serial", fmt.Sprintf("%010d", i),
			"status", []string{"200", "404", "500"}[i%3])
		b.Add(ls, storage.Sample{})
	}
	return l
}

// scrape sets the samples of every batch to time t.
func (l *load) scrape(t int64) {
	i := 0
	for k := range l.batches {
		samples := l.batches[k].Samples
		for j := range samples {
			l.rng = l.rng*6364136223846793005 + 1442695040888963407
			r := l.rng >> 40
			switch {
			case i%10 < 6:
				l.values[i] += float64(r % 100)
			case i%10 < 9:
				l.values[i] = float64(r%10000) / 100
			}
			samples[j] = storage.Sample{T: t, V: l.values[i]}
			i++
		}
	}
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// memory returns the process's peak and anonymous resident bytes, in MiB.
func memory() (peak, anon float64) {
	b, _ := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, _ := strconv.ParseFloat(f[1], 64)
		switch f[0] {
		case "VmHWM:":
			peak = n / 1024
		case "RssAnon:":
			anon = n / 1024
		}
	}
	return peak, anon
}

func diskBytes(b *testing.B, dir string) (n float64) {
	b.Helper()
	err := filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().IsRegular() {
			n += float64(allocated(info))
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// BenchmarkAppend appends whole scrapes from four senders and closes the store, so
// flushes are part of the cost. One iteration is all scrapes of a fresh store: run
// it with -benchtime=1x.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct{ series, metrics, scrapes int }{
		{10_000, 50, 120}, {100_000, 50, 40}, {100_000, 50, 240}, {1_000_000, 1, 4},
	} {
		b.Run(fmt.Sprintf("series=%d/scrapes=%d", c.series, c.scrapes), func(b *testing.B) {
			l := newLoad(c.series, c.metrics)
			runtime.GC()
			for b.Loop() {
				appendScrapes(b, l, c.scrapes)
			}
		})
	}
}

func appendScrapes(b *testing.B, l *load, scrapes int) {
	cfg := testConfig(b.TempDir())
	if sync := os.Getenv("LUMINATE_BENCH_SYNC"); sync != "" {
		cfg.WALSync = sync
	}
	db := openTest(b, cfg)
	tn := storage.MustTenant("bench")
	start := time.Now().Add(-time.Duration(scrapes) * 15 * time.Second).UnixMilli()
	cpu, wall := cpuSeconds(), time.Now()
	generate := 0.0
	for s := range scrapes {
		g := cpuSeconds()
		l.scrape(start + int64(s)*15000)
		generate += cpuSeconds() - g
		next := make(chan *storage.Batch)
		done := make(chan error, 4)
		for range 4 {
			go func() {
				var first error
				for batch := range next {
					if _, err := db.Append(context.Background(), tn, batch); err != nil && first == nil {
						first = err
					}
				}
				done <- first
			}()
		}
		for k := range l.batches {
			next <- &l.batches[k]
		}
		close(next)
		for range 4 {
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		}
	}
	n := float64(len(l.values)*scrapes) / 1e6
	ingestWall := time.Since(wall).Seconds()
	ingest := cpuSeconds() - cpu - generate
	peak, anon := memory()
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(ingest/n, "ingest-cpu-s/Msamples")
	b.ReportMetric((cpuSeconds()-cpu-generate)/n, "total-cpu-s/Msamples")
	b.ReportMetric(n/ingestWall, "Msamples/s")
	b.ReportMetric(peak, "peak-MiB")
	b.ReportMetric(anon, "anon-MiB")
	b.ReportMetric(diskBytes(b, cfg.Dir)/n/1e6, "disk-B/sample")
	b.ReportMetric(diskBytes(b, filepath.Join(cfg.Dir, walDir))/n/1e6, "wal-B/sample")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRecover opens a store that was killed with a million series, after four
// scrapes that no snapshot holds, and after a snapshot.
func BenchmarkRecover(b *testing.B) {
	l := newLoad(1_000_000, 1)
	for _, saved := range []bool{false, true} {
		b.Run(fmt.Sprintf("snapshot=%v", saved), func(b *testing.B) {
			cfg := testConfig(b.TempDir())
			db := openTest(b, cfg)
			for s := range 4 {
				l.scrape(time.Now().UnixMilli() - int64(4-s)*15000)
				for k := range l.batches {
					if _, err := db.Append(context.Background(), storage.MustTenant("bench"), &l.batches[k]); err != nil {
						b.Fatal(err)
					}
				}
			}
			if saved {
				if err := db.snapshot(true); err != nil {
					b.Fatal(err)
				}
			}
			killed := cfg
			killed.Dir = filepath.Join(b.TempDir(), "killed")
			copyDir(b, cfg.Dir, killed.Dir)
			if err := db.Close(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				cpu := cpuSeconds()
				again := openTest(b, killed)
				b.ReportMetric(cpuSeconds()-cpu, "cpu-s/op")
				b.StopTimer()
				if n := again.openSeries.Load(); n != 1_000_000 {
					b.Fatalf("%d series after recovery", n)
				}
				if err := again.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
