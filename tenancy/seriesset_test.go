package tenancy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/luminate/luminate/storage"
)

func see(s *seriesSet, b *storage.Batch, l *Limits, now time.Time) []refusedSeries {
	return s.observe(b, b.HashSeries(7), l, nil, now, nil)
}

// TestOrderOfSeries finds known series in whatever order they come, and again in the
// order of before.
func TestOrderOfSeries(t *testing.T) {
	now := time.Now()
	s, l := newSeriesSet(now, false), &Limits{MaxActiveSeries: 5_000}
	see(s, batchOf("m", 0, 5_000, now), l, now)
	order := rand.New(rand.NewPCG(1, 2)).Perm(5_000)
	for _, shuffled := range []bool{true, false, true} {
		now = now.Add(seriesWindow) // all are marked anew
		var b storage.Batch
		for i := range order {
			n := i
			if shuffled {
				n = order[i]
			}
			b.Labels = append(b.Labels, batchOf("m", n, 1, now).Labels...)
			b.EndSeries()
		}
		if r := see(s, &b, l, now); r != nil || s.len() != 5_000 || s.counts[0] != 5_000 {
			t.Fatalf("shuffled %v: %d refused, %d counted", shuffled, len(r), s.len())
		}
	}
	if r := see(s, batchOf("m", 4_999, 2, now), l, now); len(r) != 1 || r[0].index != 1 {
		t.Errorf("a new series behind the last one: %+v", r)
	}
}

// TestActiveSeries compares the set with a map, through growth, rotation and
// limits.
func TestActiveSeries(t *testing.T) {
	now := time.Now()
	s := newSeriesSet(now, false)
	unlimited := &Limits{MaxActiveSeries: 1 << 30}
	for i := 0; i < 100; i++ {
		if r := see(s, batchOf(fmt.Sprintf("m%d", i%7), i*100, 150, now), unlimited, now); r != nil {
			t.Fatal(r)
		}
	}
	want := map[string]bool{}
	for i := 0; i < 100; i++ {
		for j := range 150 {
			want[fmt.Sprintf("%d/%d", i%7, i*100+j)] = true
		}
	}
	if s.len() != len(want) || s.active != 7 {
		t.Fatalf("%d series of %d metrics, want %d of 7", s.len(), s.active, len(want))
	}
	if est := s.seriesToday(now); est < uint64(len(want)*95/100) || est > uint64(len(want)*105/100) {
		t.Errorf("estimate %d of %d", est, len(want))
	}
	// Half of them stay; after two generations the others are gone.
	for range 2 {
		now = now.Add(seriesWindow)
		for i := 0; i < 50; i++ {
			see(s, batchOf(fmt.Sprintf("m%d", i%7), i*100, 150, now), unlimited, now)
		}
	}
	if s.len() >= len(want)*6/10 || s.len() <= len(want)*4/10 {
		t.Errorf("%d series are active, want about half of %d", s.len(), len(want))
	}
	sum := 0
	for _, c := range s.counts {
		sum += c
	}
	if sum != s.len() {
		t.Errorf("metrics have %d series together, the set %d", sum, s.len())
	}
	now = now.Add(10 * seriesWindow)
	s.rotate(now)
	if s.len() != 0 || s.active != 0 || len(s.table) != minSlots {
		t.Errorf("after a long pause: %d series of %d metrics in %d slots", s.len(), s.active, len(s.table))
	}
}

func TestForgottenNames(t *testing.T) {
	now := time.Now()
	s, l := newSeriesSet(now, false), &Limits{MaxMetrics: 1 << 30}
	for i := range 2 * maxIdleNames {
		see(s, batchOf(fmt.Sprintf("churn_%d", i), i, 1, now), l, now)
	}
	for range 3 {
		now = now.Add(seriesWindow)
		see(s, batchOf("stays", 0, 3, now), l, now)
	}
	if len(s.counts) != 1 || s.counts[s.metrics["stays"]] != 3 {
		t.Errorf("%d names are kept, stays has %v", len(s.counts), s.counts)
	}
	if r := see(s, batchOf("stays", 0, 3, now), l, now); r != nil || s.len() != 3 {
		t.Errorf("known series after names moved: %v, %d", r, s.len())
	}
}

func TestSeriesLimits(t *testing.T) {
	for name, c := range map[string]struct {
		limits Limits
		stored int
		id     string
	}{
		"in all":     {Limits{MaxActiveSeries: 25}, 25, "max-active-series"},
		"per metric": {Limits{MaxActiveSeriesPerMetric: 8}, 32, "max-active-series-per-metric"},
		"metrics":    {Limits{MaxMetrics: 3}, 30, "max-metrics"},
	} {
		t.Run(name, func(t *testing.T) {
			x := newLimited(t, c.limits, nil)
			now, stored := x.clock.Now(), 0
			for range 2 { // the second time nothing changes: known series go on
				stored = 0
				for m := range 4 {
					res, err := x.append(t, batchOf(fmt.Sprintf("m%d", m), 0, 10, now))
					if err != nil {
						t.Fatal(err)
					}
					stored += res.Samples
					for i, r := range res.Refused {
						if r.Reason != storage.ReasonSeriesLimit || r.Sample != -1 || !strings.Contains(r.Message, c.id) || i > 0 && r.Series <= res.Refused[i-1].Series {
							t.Errorf("refusal %+v", r)
						}
					}
					if res.Samples+len(res.Refused) != 10 {
						t.Errorf("%d stored, %d refused, want 10 together", res.Samples, len(res.Refused))
					}
				}
			}
			if stored != c.stored {
				t.Errorf("%d stored, want %d", stored, c.stored)
			}
			if n := testutil.ToFloat64(x.limiter.metrics.limited.WithLabelValues("a", c.id)); n != float64(2*(40-c.stored)) {
				t.Errorf("%v refusals counted", n)
			}
		})
	}
}

// TestDefaultsCarryALargePrometheus writes a million series under the limits that a
// tenant has with authentication, and counts them exactly.
func TestDefaultsCarryALargePrometheus(t *testing.T) {
	if testing.Short() {
		t.Skip("a million series")
	}
	clk := newClock()
	cfg := DefaultLimiterConfig()
	cfg.Defaults, cfg.Now = DefaultLimits(), clk.Now
	l, err := NewLimiter(cfg, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := l.state(tenantA)
	const perBatch = 10_000
	var b storage.Batch
	for i := 0; i < 1_000_000; i += perBatch {
		b.Reset()
		var scratch []byte
		for j := i; j < i+perBatch; j++ {
			scratch = storage.AppendLabel(scratch[:0], "__name__", "m")
			scratch = storage.AppendLabel(scratch, "i", fmt.Sprint(j))
			b.Labels = append(b.Labels, scratch...)
			b.AddSample(clk.Now().UnixMilli(), 0, 1)
			b.EndSeries()
		}
		if f, err := l.checkBatch(t.Context(), s, &b); err != nil || f != nil {
			t.Fatalf("refused at %d: %v", i, err)
		}
		clk.add(perBatch * time.Second / 500_000)
	}
	if s.series.len() != 1_000_000 {
		t.Errorf("%d series counted", s.series.len())
	}
	if size := 4*len(s.series.table) + 12*cap(s.series.series); size > 32<<20 {
		t.Errorf("the set takes %d bytes", size)
	}
}
