package tenancy

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

// fleet are processes that share a store.
type fleet struct {
	model   *storagetest.Model
	faulty  []*storagetest.Faulty
	clock   *clock
	stores  []storage.Store
	limiter []*Limiter
}

func newFleet(t *testing.T, n int, limits Limits) *fleet {
	t.Helper()
	f := &fleet{clock: newClock()}
	mc := storagetest.DefaultModelConfig()
	mc.Now = f.clock.Now
	f.model = storagetest.NewModelWith(mc)
	for range n {
		f.start(t, limits)
	}
	f.exchange(t)
	return f
}

// start adds a process.
func (f *fleet) start(t *testing.T, limits Limits) {
	t.Helper()
	cfg := DefaultLimiterConfig()
	cfg.Defaults, cfg.Now, cfg.Shared = limits, f.clock.Now, true
	l, err := NewLimiter(cfg, quiet, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	l.share.apart = 0
	faulty := storagetest.NewFaulty(f.model, nil)
	f.faulty = append(f.faulty, faulty)
	f.limiter = append(f.limiter, l)
	f.stores = append(f.stores, Wrap(faulty, WrapConfig{Limiter: l}))
	l.share.join(t.Context(), faulty)
}

// exchange is what a second's tick does in each process.
func (f *fleet) exchange(t *testing.T) {
	t.Helper()
	f.clock.add(time.Second)
	for _, l := range f.limiter {
		l.share.exchange(t.Context())
	}
}

// write sends n series of the metric, numbered from first, to process p and returns how
// many were stored.
func (f *fleet) write(t *testing.T, p int, metric string, first, n int) int {
	t.Helper()
	res, err := f.stores[p].Append(t.Context(), tenantA, batchOf(metric, first, n, f.clock.Now()))
	if err != nil {
		t.Fatal(err)
	}
	return res.Samples
}

// stored counts the distinct series in the store.
func (f *fleet) stored(t *testing.T) int {
	t.Helper()
	c, err := f.model.Cardinality(t.Context(), tenantA, storage.CardinalityQuery{
		Selection: storage.Selection{MinT: f.clock.Now().Add(-24 * time.Hour).UnixMilli(), MaxT: f.clock.Now().Add(time.Hour).UnixMilli()}, TopN: 1})
	if err != nil {
		t.Fatal(err)
	}
	return int(c.Series)
}

// TestSeriesOverProcesses sends far more series than the limit to three processes, in
// several ways, and expects the limit to hold for all of them together, within 3 %, and
// known series to be let in by whichever process they come to.
func TestSeriesOverProcesses(t *testing.T) {
	const limit, batch = 15_000, 500
	for name, way := range map[string]func(i int) int{
		"in turn":      func(i int) int { return i % 3 },
		"at random":    func(int) int { return rand.IntN(3) },
		"one, another": func(i int) int { return i / 40 % 3 },
		"one alone":    func(int) int { return 1 },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, 3, Limits{MaxActiveSeries: limit})
			for i := 0; i*batch < 2*limit; i++ {
				f.write(t, way(i), "m", i*batch, batch)
				if i%10 == 9 {
					f.exchange(t)
				}
			}
			n := f.stored(t)
			if n < limit*97/100 || n > limit*103/100 {
				t.Errorf("%d series are stored, the limit is %d", n, limit)
			}
			f.exchange(t)
			f.exchange(t)
			if got := f.write(t, 2, "m", 0, batch); got != batch {
				t.Errorf("another process stores %d of %d known series", got, batch)
			}
			for p, l := range f.limiter {
				if u := l.state(tenantA).usage(3, f.clock.Now())[3]; u.ID != "max-active-series" || int(u.Used) != n {
					t.Errorf("process %d counts %v series, stored are %d", p, u.Used, n)
				}
			}
		})
	}
}

// TestProcessesAtOnce lets all write at the same time.
func TestProcessesAtOnce(t *testing.T) {
	const limit, batch = 6_000, 200
	f := newFleet(t, 3, Limits{MaxActiveSeries: limit, MaxMetrics: 10, MaxActiveSeriesPerMetric: 1_000})
	var wg sync.WaitGroup
	for p := range f.stores {
		wg.Go(func() {
			for i := range 60 {
				_, err := f.stores[p].Append(t.Context(), tenantA, batchOf(fmt.Sprintf("m%d", i%20), (p*60+i)*batch, batch, f.clock.Now()))
				if err != nil {
					t.Error(err)
				}
				if i%5 == 4 {
					f.limiter[p].share.exchange(t.Context())
				}
			}
		})
	}
	wg.Wait()
	now := f.clock.Now()
	c, err := f.model.Cardinality(t.Context(), tenantA, storage.CardinalityQuery{
		Selection: storage.Selection{MinT: now.Add(-time.Hour).UnixMilli(), MaxT: now.Add(time.Hour).UnixMilli()}, TopN: 100})
	if err != nil {
		t.Fatal(err)
	}
	if c.Series > limit*103/100 || len(c.Metrics) > 10 {
		t.Errorf("%d series of %d metrics, the limits are %d and 10", c.Series, len(c.Metrics), limit)
	}
	for _, m := range c.Metrics {
		if m.Count > 1_030 {
			t.Errorf("metric %s has %d series, the limit is 1,000", m.Name, m.Count)
		}
	}
	if c.Series < limit*80/100 {
		t.Errorf("only %d series got in", c.Series)
	}
}

// TestProcessesComeAndGo checks what a process that begins knows, that rates follow the
// number of those alive, and that what a dead one had reserved comes free.
func TestProcessesComeAndGo(t *testing.T) {
	limits := Limits{MaxActiveSeries: 1_000, SamplesPerSecond: 3_000_000, SamplesBurst: 1_000_000}
	f := newFleet(t, 2, limits)
	rate := func(p int) int64 {
		n, _, _ := f.limiter[p].state(tenantA).samples.status(f.clock.Now())
		return n
	}
	f.write(t, 0, "m", 0, 900)
	f.exchange(t)
	if rate(0) != 1_500_000 {
		t.Errorf("a rate of 3,000,000 over two processes: %d", rate(0))
	}
	f.start(t, limits)
	if got := f.write(t, 2, "m", 0, 900); got != 900 {
		t.Errorf("a process that begins stores %d of 900 known series", got)
	}
	f.exchange(t)
	f.exchange(t)
	if rate(0) != 1_000_000 || rate(2) != 1_000_000 {
		t.Errorf("a rate of 3,000,000 over three processes: %d, %d", rate(0), rate(2))
	}
	if n := testutil.ToFloat64(f.limiter[0].metrics.processes); n != 3 {
		t.Errorf("%v processes are told", n)
	}
	// Two of them end without a word.
	f.limiter, f.stores = f.limiter[:1], f.stores[:1]
	for range 25 {
		f.exchange(t)
	}
	if rate(0) != 3_000_000 {
		t.Errorf("a rate of 3,000,000 after two have gone: %d", rate(0))
	}
	if got := f.write(t, 0, "m", 900, 200); got < 95 || got > 110 {
		t.Errorf("%d of the 100 series that are left were let in", got)
	}
}

// TestSeriesStayActiveElsewhere writes through one process for hours; the others keep
// knowing its series, and forget them when they stop.
func TestSeriesStayActiveElsewhere(t *testing.T) {
	f := newFleet(t, 2, Limits{MaxActiveSeries: 1_000})
	known := func() int {
		s := f.limiter[1].state(tenantA)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.trackLocked(f.clock.Now(), true)
		s.series.rotate(f.clock.Now())
		return s.series.len()
	}
	for range 20 {
		f.write(t, 0, "m", 0, 300)
		f.exchange(t)
		if n := known(); n != 300 {
			t.Fatalf("the other process knows %d series at %s", n, f.clock.Now())
		}
		f.clock.add(10 * time.Minute)
	}
	for range 4 {
		f.clock.add(20 * time.Minute)
		f.exchange(t)
	}
	if n := known(); n != 0 {
		t.Errorf("an hour after the last sample the other process knows %d series", n)
	}
}

// TestSeriesOfTheDayOverRestarts estimates the day's distinct series in a process that
// began after some of them had ended.
func TestSeriesOfTheDayOverRestarts(t *testing.T) {
	f := newFleet(t, 1, Limits{MaxActiveSeries: 100_000})
	f.clock.add(time.Duration(86400-f.clock.Now().Unix()%86400)*time.Second + time.Minute)
	for i := range 20 {
		f.write(t, 0, "m", i*500, 500)
		f.exchange(t)
		f.clock.add(11 * time.Minute)
	}
	f.start(t, Limits{MaxActiveSeries: 100_000})
	u, err := f.limiter[1].TenantUsage(t.Context(), tenantA)
	if err != nil {
		t.Fatal(err)
	}
	if n := u.(TenantUsage).SeriesToday; n < 9_000 || n > 10_500 {
		t.Errorf("%d series of the day, written were 10,000", n)
	}
}

// TestProcessesWithoutAnExchange cuts one off: it goes by its own count, tells so, and
// tells what it had not told once it can.
func TestProcessesWithoutAnExchange(t *testing.T) {
	f := newFleet(t, 2, Limits{MaxActiveSeries: 1_000})
	f.faulty[0].SetScript(func(method string) storagetest.Fault {
		if method != "Exchange" {
			return storagetest.Fault{}
		}
		return storagetest.FailWith(storage.KindUnavailable)(method)
	})
	for range 15 {
		f.exchange(t)
	}
	if got := f.write(t, 0, "m", 0, 1_100); got != 1_000 {
		t.Errorf("a process by itself stores %d of 1,100 series", got)
	}
	if testutil.ToFloat64(f.limiter[0].metrics.exchangeFails) == 0 {
		t.Error("failed exchanges are not counted")
	}
	f.faulty[0].SetScript(nil)
	f.exchange(t)
	f.exchange(t)
	if got := f.write(t, 1, "m", 0, 1_100); got != 1_000 {
		t.Errorf("the other process stores %d of 1,100 series of which it should know 1,000", got)
	}
}

func TestNotes(t *testing.T) {
	want := []tenantNote{
		{tenant: "a", generation: 7, reserved: map[string]int{"s": 5, "mx": 0}, series: []metricSeries{{"x", []uint64{4, 1 << 63}}, {"", []uint64{8}}}},
		{tenant: "b", generation: -1, day: 20_000, sketch: []byte{1, 0, 2}},
	}
	b := appendNote(nil, want)
	got, err := parseNote(b)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range b {
		if _, err := parseNote(b[:i]); err == nil {
			t.Errorf("a note cut after %d bytes is read", i)
		}
	}
	if _, err := parseNote(append(bytes.Clone(b), 0)); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a note with more behind it: %v", err)
	}
}

// FuzzNote reads anything, and what it reads it writes alike.
func FuzzNote(f *testing.F) {
	f.Add(appendNote(nil, []tenantNote{{tenant: "a", reserved: map[string]int{"s": 1}, series: []metricSeries{{"m", []uint64{4}}}, sketch: []byte("x")}}))
	f.Add([]byte{1, 255, 255, 255, 255, 15})
	f.Fuzz(func(t *testing.T, b []byte) {
		notes, err := parseNote(b)
		if err != nil {
			return
		}
		again, err := parseNote(appendNote(nil, notes))
		if err != nil || len(again) != len(notes) {
			t.Fatalf("%+v becomes %+v, %v", notes, again, err)
		}
	})
}
