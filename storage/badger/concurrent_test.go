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

// steadyLoad is a store with a writer whose samples tell their number, and readers
// that know how many there must be.
type steadyLoad struct {
	t      *testing.T
	db     *DB
	begin  int64 // time of the first scrape
	acked  atomic.Int64
	cancel context.CancelFunc
}

const steadySeries = 150

func (l *steadyLoad) fail(format string, args ...any) {
	l.t.Errorf(format, args...)
	l.cancel()
}

func (l *steadyLoad) write(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		var b storage.Batch
		for i := range steadySeries {
			b.Add(metric("steady", "i", fmt.Sprint(i)), storage.Sample{T: l.begin + int64(n)*1000, V: float64(i)*1e6 + float64(n)})
		}
		b.Add(metric("victim", "n", fmt.Sprint(n%50)), storage.Sample{T: l.begin + int64(n)*1000, V: 1})
		if _, err := l.db.Append(context.Background(), engineTenant, &b); err != nil {
			l.fail("append: %v", err)
			return
		}
		l.acked.Store(int64(n + 1))
	}
}

// erase deletes the other metric and has it erased at once.
func (l *steadyLoad) erase(ctx context.Context) {
	s := everything()
	s.Matchers = []*storage.Matcher{storagetest.Eq(storage.MetricName, "victim")}
	for ctx.Err() == nil {
		if _, err := l.db.Delete(context.Background(), engineTenant, s); err != nil {
			l.fail("delete: %v", err)
			return
		}
		if _, err := l.db.Cleanup(context.Background()); err != nil {
			l.fail("cleanup: %v", err)
			return
		}
	}
}

// read selects everything, or only the newest.
func (l *steadyLoad) read(rng *rand.Rand) {
	have, from := int(l.acked.Load()), 0
	if rng.IntN(2) == 0 && have > 0 {
		from = have - 1 - rng.IntN(min(have, 20))
	}
	s := everything()
	s.Unsorted = rng.IntN(2) == 0
	s.MinT = l.begin + int64(from)*1000
	s.Matchers = []*storage.Matcher{storagetest.Eq(storage.MetricName, "steady")}
	found := 0
	for x, err := range l.db.Select(context.Background(), engineTenant, s) {
		if err != nil {
			l.fail("select: %v", err)
			return
		}
		found++
		if len(x.Samples) < have-from {
			l.fail("a series has %d samples, %d were acknowledged before the read", len(x.Samples), have-from)
			return
		}
		for k, p := range x.Samples {
			if want := l.begin + int64(from+k)*1000; p.T != want || math.Mod(p.V, 1e6) != float64(from+k) {
				l.fail("sample %d is %v at %d, want number %d at %d", k, p.V, p.T, from+k, want)
				return
			}
		}
	}
	if have > 0 && found != steadySeries {
		l.fail("%d series, want %d", found, steadySeries)
	}
}

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
	ctx, cancel := context.WithTimeout(context.Background(), 2500*time.Millisecond)
	defer cancel()
	l := &steadyLoad{
		t: t, db: openTest(t, cfg), cancel: cancel,
		// The samples cross a midnight; both days are over and close again and again.
		begin: dayStart(dayOf(time.Now().UnixMilli())-1) - 400*1000,
	}
	var wg sync.WaitGroup
	wg.Go(func() { l.write(ctx) })
	wg.Go(func() { l.erase(ctx) })
	for r := range 2 {
		wg.Go(func() {
			for rng := rand.New(rand.NewPCG(uint64(r), 3)); ctx.Err() == nil; {
				l.read(rng)
			}
		})
	}
	wg.Wait()
	t.Logf("%d scrapes of %d series", l.acked.Load(), steadySeries)
}
