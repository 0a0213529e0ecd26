package tenancy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/luminate/luminate/storage"
)

// TestActiveSeries compares the set with a map, through growth, rotation and
// limits.
func TestActiveSeries(t *testing.T) {
	now := time.Now()
	s := newSeriesSet(now, false)
	unlimited := &Limits{MaxActiveSeries: 1 << 30}
	for i := 0; i < 100; i++ {
		if r := s.observe(batchOf(fmt.Sprintf("m%d", i%7), i*100, 150, now), unlimited, nil, now, nil); r != nil {
			t.Fatal(r)
		}
	}
	want := map[string]bool{}
	for i := 0; i < 100; i++ {
		for j := range 150 {
			want[fmt.Sprintf("%d/%d", i%7, i*100+j)] = true
		}
	}
	if s.n != len(want) || s.active != 7 {
		t.Fatalf("%d series of %d metrics, want %d of 7", s.n, s.active, len(want))
	}
	if est := s.seriesToday(now); est < uint64(len(want)*95/100) || est > uint64(len(want)*105/100) {
		t.Errorf("estimate %d of %d", est, len(want))
	}
	// Half of them stay; after two generations the others are gone.
	for range 2 {
		now = now.Add(seriesWindow)
		for i := 0; i < 50; i++ {
			s.observe(batchOf(fmt.Sprintf("m%d", i%7), i*100, 150, now), unlimited, nil, now, nil)
		}
	}
	if s.n >= len(want)*6/10 || s.n <= len(want)*4/10 {
		t.Errorf("%d series are active, want about half of %d", s.n, len(want))
	}
	sum := 0
	for _, c := range s.counts {
		sum += c
	}
	if sum != s.n {
		t.Errorf("metrics have %d series together, the set %d", sum, s.n)
	}
	now = now.Add(10 * seriesWindow)
	s.rotate(now)
	if s.n != 0 || s.active != 0 || len(s.slots) != minSlots {
		t.Errorf("after a long pause: %d series of %d metrics in %d slots", s.n, s.active, len(s.slots))
	}
}

func TestForgottenNames(t *testing.T) {
	now := time.Now()
	s, l := newSeriesSet(now, false), &Limits{MaxMetrics: 1 << 30}
	for i := range 2 * maxIdleNames {
		s.observe(batchOf(fmt.Sprintf("churn_%d", i), i, 1, now), l, nil, now, nil)
	}
	for range 3 {
		now = now.Add(seriesWindow)
		s.observe(batchOf("stays", 0, 3, now), l, nil, now, nil)
	}
	if len(s.counts) != 1 || s.counts[s.metrics["stays"]] != 3 {
		t.Errorf("%d names are kept, stays has %v", len(s.counts), s.counts)
	}
	if r := s.observe(batchOf("stays", 0, 3, now), l, nil, now, nil); r != nil || s.n != 3 {
		t.Errorf("known series after names moved: %v, %d", r, s.n)
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
	if s.series.n != 1_000_000 {
		t.Errorf("%d series counted", s.series.n)
	}
	if size := len(s.series.slots) * 12; size > 32<<20 {
		t.Errorf("the set takes %d bytes", size)
	}
}
