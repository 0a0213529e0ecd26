package badger

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

// TestReadersMissNothing reads while samples move from head to blocks, days close and
// open, deletes are erased and prefixes dropped: what was acknowledged before a read
// began must be in its answer, with its value.
func TestReadersMissNothing(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.FlushSamples = 8
	cfg.MaintenanceInterval = 20 * time.Millisecond
	cfg.SnapshotInterval = 50 * time.Millisecond
	cfg.FlushAge = 30 * time.Millisecond
	cfg.CloseAfter = 40 * time.Millisecond
	db := openTest(t, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), 2500*time.Millisecond)
	defer cancel()
	const series = 150
	// Half of the time of the samples is the day before yesterday, which closes again
	// and again.
	midnight := dayStart(dayOf(time.Now().UnixMilli())-1) - 400*1000
	value := func(i, n int) float64 { return float64(i)*1e6 + float64(n) }
	var acked atomic.Int64 // scrapes
	var wg sync.WaitGroup
	fail := func(format string, args ...any) {
		t.Errorf(format, args...)
		cancel()
	}
	wg.Go(func() { // the writer
		for n := 0; ctx.Err() == nil; n++ {
			var b storage.Batch
			for i := range series {
				b.Add(metric("steady", "i", fmt.Sprint(i)), storage.Sample{T: midnight + int64(n)*1000, V: value(i, n)})
			}
			b.Add(metric("victim", "n", fmt.Sprint(n%50)), storage.Sample{T: midnight + int64(n)*1000, V: 1})
			if _, err := db.Append(context.Background(), engineTenant, &b); err != nil {
				fail("append: %v", err)
				return
			}
			acked.Store(int64(n + 1))
		}
	})
	wg.Go(func() { // deletes, erased at once
		for ctx.Err() == nil {
			s := everything()
			s.Matchers = []*storage.Matcher{storagetest.Eq(storage.MetricName, "victim")}
			if _, err := db.Delete(context.Background(), engineTenant, s); err != nil {
				fail("delete: %v", err)
				return
			}
			if _, err := db.Cleanup(context.Background()); err != nil {
				fail("cleanup: %v", err)
				return
			}
		}
	})
	for r := range 2 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(r), 3))
			for ctx.Err() == nil {
				have := int(acked.Load())
				s := everything()
				s.Unsorted = rng.IntN(2) == 0
				from := 0
				if rng.IntN(2) == 0 && have > 0 { // only the newest
					from = have - 1 - rng.IntN(min(have, 20))
				}
				s.MinT = midnight + int64(from)*1000
				s.Matchers = []*storage.Matcher{storagetest.Eq(storage.MetricName, "steady")}
				found := 0
				for x, err := range db.Select(context.Background(), engineTenant, s) {
					if err != nil {
						fail("select: %v", err)
						return
					}
					found++
					if len(x.Samples) < have-from {
						fail("a series has %d samples, %d were acknowledged before the read", len(x.Samples), have-from)
						return
					}
					first := math.Mod(x.Samples[0].V, 1e6)
					for k, p := range x.Samples {
						if want := midnight + int64(from+k)*1000; p.T != want || math.Mod(p.V, 1e6) != first+float64(k) {
							fail("sample %d is %v at %d, want the time %d", k, p.V, p.T, want)
							return
						}
					}
				}
				if have > 0 && found != series {
					fail("%d series, want %d", found, series)
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d scrapes of %d series", acked.Load(), series)
}
