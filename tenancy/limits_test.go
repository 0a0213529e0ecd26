package tenancy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/histogram"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

var tenantA = storage.MustTenant("a")

// limited is a guarded model with a clock and limits.
type limited struct {
	storage.Store
	model   *storagetest.Model
	limiter *Limiter
	clock   *clock
	reg     *prometheus.Registry
	log     *bytes.Buffer
}

func newLimited(t testing.TB, l Limits, edit func(*LimiterConfig)) *limited {
	t.Helper()
	x := &limited{model: storagetest.NewModel(), clock: newClock(), reg: prometheus.NewRegistry(), log: &bytes.Buffer{}}
	cfg := DefaultLimiterConfig()
	cfg.Defaults, cfg.Now = l, x.clock.Now
	if edit != nil {
		edit(&cfg)
	}
	var err error
	if x.limiter, err = NewLimiter(cfg, slog.New(slog.NewTextHandler(x.log, nil)), x.reg); err != nil {
		t.Fatal(err)
	}
	x.Store = Wrap(x.model, WrapConfig{Limiter: x.limiter})
	return x
}

// batchOf has n series of the metric, one sample each; first numbers them.
func batchOf(metric string, first, n int, now time.Time) *storage.Batch {
	var b storage.Batch
	for i := range n {
		b.Add(storage.LabelsFromStrings("__name__", metric, "i", fmt.Sprint(first+i)), storage.Sample{T: now.UnixMilli(), V: 1})
	}
	return &b
}

func (x *limited) append(t testing.TB, b *storage.Batch) (storage.AppendResult, error) {
	return x.Append(t.Context(), tenantA, b)
}

func limitOf(err error) (id string, e *LimitError) {
	var se *storage.Error
	if errors.As(err, &se) {
		id = se.ID
	}
	errors.As(err, &e)
	return id, e
}

func TestSamplesPerSecond(t *testing.T) {
	x := newLimited(t, Limits{SamplesPerSecond: 100, SamplesBurst: 200}, nil)
	now := x.clock.Now()
	if _, err := x.append(t, batchOf("m", 0, 150, now)); err != nil {
		t.Fatal(err)
	}
	_, err := x.append(t, batchOf("m", 0, 100, now))
	id, e := limitOf(err)
	if storage.KindOf(err) != storage.KindLimited || id != "samples-per-second" || e == nil {
		t.Fatalf("over the rate: %v", err)
	}
	limit, remaining, reset := e.RateLimit()
	if limit != 100 || remaining != 50 || e.RetryAfter() != 500*time.Millisecond || reset != 1500*time.Millisecond {
		t.Errorf("limit %d, remaining %d, reset %s, retry after %s", limit, remaining, reset, e.RetryAfter())
	}
	if !strings.Contains(err.Error(), "limits.samplesPerSecond") {
		t.Errorf("the message does not name the setting: %v", err)
	}
	x.clock.add(500 * time.Millisecond)
	if _, err := x.append(t, batchOf("m", 0, 100, now)); err != nil {
		t.Errorf("after the advised time: %v", err)
	}
	if _, err := x.append(t, batchOf("m", 0, 201, now)); storage.KindOf(err) != storage.KindTooLarge {
		t.Errorf("more than the burst: %v", err)
	}
	if _, err := x.Append(t.Context(), storage.MustTenant("b"), batchOf("m", 0, 200, now)); err != nil {
		t.Errorf("another tenant: %v", err)
	}
	x.clock.add(-time.Hour) // a clock that jumps back must not shut a tenant out for an hour
	_, _ = x.append(t, batchOf("m", 0, 1, now))
	x.clock.add(time.Second)
	if _, err := x.append(t, batchOf("m", 0, 1, now)); err != nil {
		t.Errorf("after the clock jumped back: %v", err)
	}
}

func TestProcessesShareARate(t *testing.T) {
	x := newLimited(t, Limits{SamplesPerSecond: 300, SamplesBurst: 100, SamplesPerDay: 900}, func(c *LimiterConfig) { c.Processes = 3 })
	now := x.clock.Now()
	accepted := 0
	for range 20 { // ten seconds of trying
		for range 4 {
			if res, err := x.append(t, batchOf("m", 0, 25, now)); err == nil {
				accepted += res.Samples
			}
		}
		x.clock.add(500 * time.Millisecond)
	}
	if accepted != 300 { // a third of the day's quota; the rate alone would allow 100 + 950
		t.Errorf("a third of 900 samples a day: %d accepted", accepted)
	}
}

// TestActiveSeries compares the set with a map, through growth, rotation and
// limits.
func TestActiveSeries(t *testing.T) {
	now := time.Now()
	s := newSeriesSet(now)
	unlimited := &Limits{MaxActiveSeries: 1 << 30}
	for i := 0; i < 100; i++ {
		if r := s.observe(batchOf(fmt.Sprintf("m%d", i%7), i*100, 150, now), unlimited, 0, now, nil); r != nil {
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
			s.observe(batchOf(fmt.Sprintf("m%d", i%7), i*100, 150, now), unlimited, 0, now, nil)
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
	s, l := newSeriesSet(now), &Limits{MaxMetrics: 1 << 30}
	for i := range 2 * maxIdleNames {
		s.observe(batchOf(fmt.Sprintf("churn_%d", i), i, 1, now), l, 0, now, nil)
	}
	for range 3 {
		now = now.Add(seriesWindow)
		s.observe(batchOf("stays", 0, 3, now), l, 0, now, nil)
	}
	if len(s.counts) != 1 || s.counts[s.metrics["stays"]] != 3 {
		t.Errorf("%d names are kept, stays has %v", len(s.counts), s.counts)
	}
	if r := s.observe(batchOf("stays", 0, 3, now), l, 0, now, nil); r != nil || s.n != 3 {
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

// TestSeriesKnownFromTheStore lets a process refuse by what others have stored.
func TestSeriesKnownFromTheStore(t *testing.T) {
	x := newLimited(t, Limits{MaxActiveSeries: 20}, func(c *LimiterConfig) { c.Processes = 2 })
	if _, err := x.model.Append(t.Context(), tenantA, batchOf("elsewhere", 0, 20, x.clock.Now())); err != nil {
		t.Fatal(err)
	}
	x.limiter.learn(t.Context(), x.model)
	res, err := x.append(t, batchOf("here", 0, 5, x.clock.Now()))
	if err != nil || res.Samples != 0 || len(res.Refused) != 5 {
		t.Errorf("20 series elsewhere, limit 20: %+v, %v", res, err)
	}
}

func TestQuotas(t *testing.T) {
	x := newLimited(t, Limits{SamplesPerDay: 100, StoredBytes: 1 << 40}, nil)
	now := x.clock.Now()
	if _, err := x.append(t, batchOf("m", 0, 90, now)); err != nil {
		t.Fatal(err)
	}
	_, err := x.append(t, batchOf("m", 0, 20, now))
	id, e := limitOf(err)
	if id != "samples-per-day" || e.Remaining != 10 || e.RetryAfter() <= 0 || e.RetryAfter() > 24*time.Hour {
		t.Fatalf("over the day's samples: %v %+v", err, e)
	}
	x.clock.add(24 * time.Hour)
	if _, err := x.append(t, batchOf("m", 0, 20, now)); err != nil {
		t.Errorf("the next day: %v", err)
	}
	s := x.limiter.state(tenantA)
	s.bytes.Store(1 << 40)
	if _, err := x.append(t, batchOf("m", 0, 1, now)); storage.KindOf(err) != storage.KindLimited {
		t.Errorf("over the stored bytes: %v", err)
	}
}

// TestPartialRefusals refuses samples, exemplars and histograms one by one and
// checks that the rest is stored and each refusal named by its place.
func TestPartialRefusals(t *testing.T) {
	x := newLimited(t, Limits{
		MaxPast: Duration(time.Hour), MaxFuture: Duration(time.Minute), MaxExemplarsPerRequest: 2, MaxHistogramBuckets: 3,
	}, nil)
	now := x.clock.Now().UnixMilli()
	wide := &histogram.Histogram{
		Schema: 1, Count: 4, ZeroThreshold: 0.001, PositiveSpans: []histogram.Span{{Length: 4}}, PositiveBuckets: []int64{1, 0, 0, 0},
	}
	slim := &histogram.Histogram{Schema: 1, Count: 2, PositiveSpans: []histogram.Span{{Length: 2}}, PositiveBuckets: []int64{1, 0}}
	var b storage.Batch
	b.Add(storage.LabelsFromStrings("__name__", "gone"), storage.Sample{T: now - 7_200_000, V: 1})
	b.Labels = append(b.Labels, storage.LabelsFromStrings("__name__", "mixed")...)
	b.AddSample(now-7_200_000, 0, 1)
	b.AddSample(now, now-1000, 2)
	b.AddSample(now+120_000, 0, 3)
	for i := range 3 {
		b.Exemplars = append(b.Exemplars, storage.Exemplar{Labels: storage.LabelsFromStrings("t", fmt.Sprint(i)), T: now + int64(i), V: 1})
	}
	b.EndSeries()
	b.AddHistograms(storage.LabelsFromStrings("__name__", "h"), storage.HistogramSample{T: now, H: wide}, storage.HistogramSample{T: now + 1, H: slim})
	res, err := x.append(t, &b)
	if err != nil {
		t.Fatal(err)
	}
	if res.Samples != 1 || res.Histograms != 1 || res.Exemplars != 2 {
		t.Errorf("stored %d samples, %d histograms, %d exemplars", res.Samples, res.Histograms, res.Exemplars)
	}
	want := []storage.Refusal{
		{Series: 0, Sample: 0, T: now - 7_200_000, Reason: storage.ReasonTooOld},
		{Series: 1, Sample: 0, T: now - 7_200_000, Reason: storage.ReasonTooOld},
		{Series: 1, Sample: 2, T: now + 120_000, Reason: storage.ReasonTooFarAhead},
		{Series: 1, Sample: 2, T: now + 2, Exemplar: true, Reason: storage.ReasonExemplarLimit},
		{Series: 2, Sample: 0, T: now, Histogram: true, Reason: storage.ReasonBucketLimit},
	}
	if len(res.Refused) != len(want) {
		t.Fatalf("refused %+v", res.Refused)
	}
	for i, r := range res.Refused {
		if r.Message == "" {
			t.Errorf("refusal %d has no message", i)
		}
		r.Message = ""
		if r != want[i] {
			t.Errorf("refusal %d: %+v, want %+v", i, r, want[i])
		}
	}
	got := storagetest.Collect(t, x.model, "a", storage.Selection{MinT: now - 8_000_000, MaxT: now + 1000})
	if len(got) != 2 || got[1].STs == nil || got[1].STs[0] != now-1000 {
		t.Errorf("start timestamps were lost: %+v", got)
	}
}

func TestQueryLimits(t *testing.T) {
	x := newLimited(t, Limits{MaxSeriesPerQuery: 5, MaxSamplesPerQuery: 1000, MaxGroupsPerQuery: 2, MaxQueryRange: Duration(2 * time.Hour)}, nil)
	now := x.clock.Now().UnixMilli()
	fill(t, x.model, "a", now)
	q := window(now)
	if _, err := calls["Select"](t.Context(), x, tenantA, q); storage.KindOf(err) != storage.KindTooLarge {
		t.Errorf("more series than allowed: %v", err)
	}
	q.Matchers = []*storage.Matcher{storagetest.Eq("customer_id", "c0")}
	if _, err := calls["Select"](t.Context(), x, tenantA, q); err != nil {
		t.Errorf("within limits: %v", err)
	}
	if _, err := calls["Evaluate"](t.Context(), x, tenantA, q); storage.KindOf(err) != storage.KindTooLarge {
		t.Errorf("more groups than allowed: %v", err)
	}
	q.MinT = now - 3*3_600_000
	for _, name := range []string{"Select", "Evaluate"} {
		_, err := calls[name](t.Context(), x, tenantA, q)
		if id, _ := limitOf(err); id != "max-query-range" || storage.KindOf(err) != storage.KindTooLarge {
			t.Errorf("%s over three hours: %v", name, err)
		}
	}
	q.MinT, q.MaxT = -1<<62, 1<<62 // a listing of all times is cut, not refused
	if got, err := calls["LabelValues"](t.Context(), x, tenantA, q); err != nil || got != "c0" {
		t.Errorf("a listing without a range: %q, %v", got, err)
	}
}

func TestObserveRefusesNothing(t *testing.T) {
	x := newLimited(t, Limits{
		SamplesPerSecond: 10, SamplesBurst: 10, MaxActiveSeries: 3, MaxPast: Duration(time.Second), MaxQueryRange: Duration(time.Second),
		WriteRequestsPerSecond: 1, WriteRequestBurst: 1, MaxRequestBytes: 1, StoredBytes: 1, SamplesPerDay: 1,
	}, func(c *LimiterConfig) { c.Observe = true })
	now := x.clock.Now()
	x.limiter.state(tenantA).bytes.Store(10)
	res, err := x.append(t, batchOf("m", 0, 50, now.Add(-time.Hour)))
	if err != nil || res.Samples != 50 || len(res.Refused) != 0 {
		t.Fatalf("observe refuses: %+v, %v", res, err)
	}
	if _, err := calls["Select"](t.Context(), x, tenantA, window(now.UnixMilli())); err != nil {
		t.Errorf("observe refuses a query: %v", err)
	}
	g := newTestGate(t, nil, x.limiter, func(c *GateConfig) { c.DefaultTenant = "a" })
	for range 3 {
		if w := g.ask("POST", "/api/v1/push"); w.Code != 200 {
			t.Errorf("observe refuses a request: %d", w.Code)
		}
	}
	if n := testutil.CollectAndCount(x.limiter.metrics.limited); n < 4 {
		t.Errorf("only %d limits are counted", n)
	}
}

func TestGateLimits(t *testing.T) {
	x := newLimited(t, Limits{
		WriteRequestsPerSecond: 2, WriteRequestBurst: 3, QueryRequestsPerSecond: 1, QueryRequestBurst: 1,
		SamplesPerSecond: 100, SamplesBurst: 100, MaxRequestBytes: 10, MaxQueryTime: Duration(time.Minute),
	}, nil)
	g := newTestGate(t, nil, x.limiter, func(c *GateConfig) { c.DefaultTenant, c.Now = "a", x.clock.Now })
	w := g.ask("POST", "/api/v1/push")
	if w.Code != 200 || w.Header().Get("X-RateLimit-Limit") != "100" || w.Header().Get("X-RateLimit-Remaining") != "100" || w.Header().Get("X-RateLimit-Reset") != "0" {
		t.Errorf("an accepted write: %d %v", w.Code, w.Header())
	}
	if w := g.ask("GET", "/api/v1/query"); w.Code != 200 || w.Header().Get("X-RateLimit-Limit") != "1" || w.Header().Get("X-RateLimit-Remaining") != "0" {
		t.Errorf("an accepted query: %d %v", w.Code, w.Header())
	}
	w = g.ask("GET", "/api/v1/query")
	if w.Code != 429 || w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), "limits.queryRequestsPerSecond") || !strings.Contains(w.Body.String(), "too_many_requests") {
		t.Errorf("a query too many: %d %v %s", w.Code, w.Header(), w.Body)
	}
	// A batch over the rate shuts the gate until it could pass, before a body is read.
	if _, err := x.append(t, batchOf("m", 0, 100, x.clock.Now())); err != nil {
		t.Fatal(err)
	}
	if _, err := x.append(t, batchOf("m", 0, 100, x.clock.Now())); err == nil {
		t.Fatal("no refusal")
	}
	w = g.ask("POST", "/api/v1/write", "Content-Type: application/json")
	if w.Code != 429 || w.Header().Get("X-RateLimit-Remaining") != "0" || !strings.Contains(w.Body.String(), `"limit":"samples-per-second"`) {
		t.Errorf("a write while the rate is used up: %d %v %s", w.Code, w.Header(), w.Body)
	}
	x.clock.add(2 * time.Second)
	if w := g.ask("POST", "/api/v1/push"); w.Code != 200 {
		t.Errorf("after the wait: %d", w.Code)
	}
	r, _ := http.NewRequest("POST", "/api/v1/push", strings.NewReader(strings.Repeat("x", 11)))
	rec := newRecorder()
	g.mux.ServeHTTP(rec, r)
	if rec.Code != 413 || !strings.Contains(rec.Body.String(), "limits.maxRequestBytes") {
		t.Errorf("a body over the limit: %d %s", rec.Code, rec.Body)
	}
}

func TestFairQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newFairQueue(2)
		b := storage.MustTenant("b")
		r1, _ := q.acquire(t.Context(), tenantA, 0, 0)
		r2, _ := q.acquire(t.Context(), tenantA, 0, 0)
		order := make(chan string, 10)
		wait := func(tn storage.Tenant, name string) {
			go func() {
				release, err := q.acquire(t.Context(), tn, 0, 0)
				if err != nil {
					order <- err.Error()
					return
				}
				order <- name
				release()
			}()
			synctest.Wait()
		}
		for _, n := range []string{"a1", "a2", "a3"} {
			wait(tenantA, n)
		}
		wait(b, "b1")
		r1()
		synctest.Wait()
		var got []string
		for range 4 {
			got = append(got, <-order)
		}
		if strings.Join(got, " ") != "a1 b1 a2 a3" {
			t.Errorf("served in the order %v: b must not wait for all of a", got)
		}
		r2()
		if inUse, queued := q.load(); inUse != 0 || queued != 0 || len(q.tenants) != 0 || len(q.turn) != 0 {
			t.Errorf("left over: %d in use, %d queued, %d tenants", inUse, queued, len(q.tenants))
		}
	})
}

func TestFairQueueBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newFairQueue(10)
		release, err := q.acquire(t.Context(), tenantA, 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		done := make(chan *LimitError)
		go func() { _, err := q.acquire(ctx, tenantA, 1, 1); done <- err }()
		synctest.Wait()
		if _, err := q.acquire(t.Context(), tenantA, 1, 1); err == nil || err.err.Kind != storage.KindLimited || err.err.ID != "max-queued-queries" {
			t.Errorf("a third query of a tenant with one place and one in the queue: %v", err)
		}
		if other, err := q.acquire(t.Context(), storage.MustTenant("b"), 1, 1); err != nil {
			t.Errorf("another tenant: %v", err)
		} else {
			other()
		}
		if err := <-done; err == nil || err.err.Kind != storage.KindTimeout {
			t.Errorf("a query that waited too long: %v", err)
		}
		release()
		if _, queued := q.load(); queued != 0 || len(q.tenants) != 0 {
			t.Errorf("%d queued, %d tenants", queued, len(q.tenants))
		}
	})
}

func TestLimitsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.yaml")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("defaults:\n  maxActiveSeries: 10\ntenants:\n  a:\n    maxActiveSeries: 20\n    maxQueryRange: 90d\n")
	x := newLimited(t, DefaultLimits(), func(c *LimiterConfig) { c.File = path })
	b := storage.MustTenant("b")
	if x.limiter.LimitsOf(tenantA).MaxActiveSeries != 20 || x.limiter.LimitsOf(b).MaxActiveSeries != 10 || x.limiter.LimitsOf(b).SamplesPerSecond != 500_000 {
		t.Errorf("a %+v, b %+v", x.limiter.LimitsOf(tenantA), x.limiter.LimitsOf(b))
	}
	if d := time.Duration(x.limiter.LimitsOf(tenantA).MaxQueryRange); d != 90*24*time.Hour {
		t.Errorf("90d is %s", d)
	}
	if _, err := x.append(t, batchOf("m", 0, 1, x.clock.Now())); err != nil {
		t.Fatal(err)
	}
	hash := testutil.ToFloat64(x.limiter.metrics.hash)
	for name, c := range map[string]struct{ content, message string }{
		"unknown key":       {"tenants:\n  a:\n    maxActiveSerie: 5\n", `tenants.a: unknown key "maxActiveSerie", the nearest is "maxActiveSeries"`},
		"unknown section":   {"tenant: {}\n", `unknown key "tenant", the nearest is "tenants"`},
		"not YAML":          {"tenants: [\n", "yaml"},
		"twice":             {"tenants:\n  a: {}\n  a: {}\n", "already"},
		"bad tenant":        {"tenants:\n  ../x: {}\n", "tenants.../x"},
		"negative":          {"defaults:\n  maxActiveSeries: -1\n", "maxActiveSeries must not be negative"},
		"bad duration":      {"defaults:\n  maxPast: 7 days\n", "duration"},
		"number for a text": {"defaults:\n  maxPast: 7\n", "a duration is a string"},
		"gone":              {"", ""},
	} {
		write(c.content)
		if name == "gone" {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		err := x.limiter.reload()
		if err == nil || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%s: %v", name, err)
		}
		if x.limiter.LimitsOf(tenantA).MaxActiveSeries != 20 || testutil.ToFloat64(x.limiter.metrics.reloadOK) != 0 {
			t.Errorf("%s: the old values do not hold, or the metric does not tell", name)
		}
	}
	write("tenants:\n  a:\n    maxActiveSeries: 1\n    samplesPerSecond: 7\n")
	if err := x.limiter.reload(); err != nil {
		t.Fatal(err)
	}
	if testutil.ToFloat64(x.limiter.metrics.reloadOK) != 1 || testutil.ToFloat64(x.limiter.metrics.hash) == hash {
		t.Error("the metrics do not tell of the new file")
	}
	res, err := x.append(t, batchOf("m", 0, 3, x.clock.Now()))
	if err != nil || res.Samples != 1 {
		t.Errorf("the new limit does not act on a known tenant: %+v, %v", res, err)
	}
}

func TestAdminLimits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.yaml")
	if err := os.WriteFile(path, []byte("# a comment that stays\ntenants:\n  a: {maxActiveSeries: 20}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := func(c *LimiterConfig) { c.File = path }
	x := newLimited(t, DefaultLimits(), file)
	admin := NewContext(t.Context(), Identity{Tenant: tenantA, Authenticated: true, Scopes: []Scope{ScopeAdmin}})
	operator := NewContext(t.Context(), Identity{Authenticated: true, Scopes: []Scope{ScopeOperator}})
	if _, err := x.limiter.SetTenantLimits(admin, tenantA, json.RawMessage(`{"maxActiveSeries": 5}`)); err != nil {
		t.Fatalf("an admin lowers a limit: %v", err)
	}
	for name, c := range map[string]struct {
		ctx context.Context
		t   string
		doc string
	}{
		"an admin raises a limit":          {admin, "a", `{"maxActiveSeries": 21}`},
		"an admin takes a limit away":      {admin, "a", `{"samplesPerSecond": 0}`},
		"an admin sets another's":          {admin, "b", `{"maxActiveSeries": 1}`},
		"an unknown key":                   {operator, "a", `{"maxSeries": 1}`},
		"not an object":                    {operator, "a", `[1]`},
		"two documents":                    {operator, "a", `{} {}`},
		"a negative limit by the operator": {operator, "a", `{"maxMetrics": -1}`},
	} {
		_, err := x.limiter.SetTenantLimits(c.ctx, storage.MustTenant(c.t), json.RawMessage(c.doc))
		if k := storage.KindOf(err); err == nil || k != storage.KindInvalid && k != storage.KindNotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := x.limiter.LimitsOf(tenantA).MaxActiveSeries; got != 5 {
		t.Errorf("limit %d, want 5", got)
	}
	got, err := x.limiter.SetTenantLimits(operator, tenantA, json.RawMessage(`{"maxActiveSeries": 50}`))
	if err != nil || got.(TenantLimits).Limits.MaxActiveSeries != 50 || !strings.Contains(string(got.(TenantLimits).Own), "50") {
		t.Errorf("an operator raises a limit: %+v, %v", got, err)
	}
	// Another process, or the next start, has them too; the operator's file is as it was.
	again := newLimited(t, DefaultLimits(), file)
	if again.limiter.LimitsOf(tenantA).MaxActiveSeries != 50 {
		t.Error("the limit did not last")
	}
	if b, _ := os.ReadFile(path); !strings.Contains(string(b), "a comment that stays") {
		t.Errorf("the operator's file was rewritten: %s", b)
	}
	if _, err := again.limiter.SetTenantLimits(operator, tenantA, json.RawMessage(`{}`)); err != nil || again.limiter.LimitsOf(tenantA).MaxActiveSeries != 20 {
		t.Errorf("taken back: %v, %d", err, again.limiter.LimitsOf(tenantA).MaxActiveSeries)
	}
	if err := x.limiter.reload(); err != nil || x.limiter.LimitsOf(tenantA).MaxActiveSeries != 20 {
		t.Errorf("the other process: %v, %d", err, x.limiter.LimitsOf(tenantA).MaxActiveSeries)
	}
	none := newLimited(t, DefaultLimits(), nil)
	if _, err := none.limiter.SetTenantLimits(operator, tenantA, json.RawMessage(`{}`)); storage.KindOf(err) != storage.KindInvalid {
		t.Errorf("without a file: %v", err)
	}
	if _, err := x.limiter.TenantUsage(admin, storage.MustTenant("b")); storage.KindOf(err) != storage.KindNotFound {
		t.Errorf("the usage of another tenant: %v", err)
	}
}

func TestUsageIsWarnedOfAndSaved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.yaml")
	if err := os.WriteFile(path, []byte("defaults: {maxActiveSeries: 100, samplesPerDay: 1000}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	x := newLimited(t, UnlimitedLimits(), func(c *LimiterConfig) { c.File = path })
	warnings := func() int { return strings.Count(x.log.String(), "nearly used up") }
	step := func(first, n, want int) {
		t.Helper()
		if _, err := x.append(t, batchOf("m", first, n, x.clock.Now())); err != nil {
			t.Fatal(err)
		}
		x.clock.add(tick)
		x.limiter.measure(x.clock.Now())
		if warnings() != want {
			t.Errorf("%d warnings, want %d: %s", warnings(), want, x.log)
		}
	}
	step(0, 70, 0)
	step(70, 15, 1)
	step(85, 5, 1)
	if r := testutil.ToFloat64(x.limiter.metrics.usage.WithLabelValues("a", "max-active-series")); r != 0.9 {
		t.Errorf("usage %v, want 0.9", r)
	}
	u, err := x.limiter.TenantUsage(t.Context(), tenantA)
	if err != nil || u.(TenantUsage).SeriesToday != 90 || u.(TenantUsage).Accepted != 90 {
		t.Errorf("usage %+v, %v", u, err)
	}
	if _, err := json.Marshal(u); err != nil {
		t.Error(err)
	}
	x.limiter.saveUsage()
	again := newLimited(t, UnlimitedLimits(), func(c *LimiterConfig) { c.File, c.Now = path, x.clock.Now })
	if again.limiter.state(tenantA).today != 90 {
		t.Errorf("after a restart %d samples of the day are known, want 90", again.limiter.state(tenantA).today)
	}
}

func TestTenantsAreForgotten(t *testing.T) {
	x := newLimited(t, Limits{SamplesPerSecond: 1, SamplesBurst: 1}, func(c *LimiterConfig) { c.MaxTenants = 10 })
	for i := range 50 {
		x.clock.add(time.Millisecond)
		_, _ = x.Append(t.Context(), storage.MustTenant(fmt.Sprintf("t%d", i)), batchOf("m", 0, 2, x.clock.Now()))
	}
	if n := len(x.limiter.states); n != 10 {
		t.Errorf("%d tenants are kept", n)
	}
	if n := testutil.CollectAndCount(x.limiter.metrics.limited); n > 11 {
		t.Errorf("%d series of the metric are kept", n)
	}
}

func TestLimiterRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.yaml")
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	x := newLimited(t, UnlimitedLimits(), func(c *LimiterConfig) { c.File, c.Reload, c.Poll = path, time.Millisecond, time.Millisecond })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- x.limiter.Run(ctx, x.model) }()
	defer func() { cancel(); <-done }()
	if err := os.WriteFile(path, []byte("defaults: {maxMetrics: 7}"), 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return x.limiter.LimitsOf(tenantA).MaxMetrics == 7 })
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
		if f, err := l.checkBatch(s, &b); err != nil || f != nil {
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

func FuzzLimitFile(f *testing.F) {
	f.Add("defaults: {maxActiveSeries: 1}\ntenants: {a: {maxPast: 1h}}")
	f.Add(`{"tenants":{"a":null}}`)
	f.Add("defaults: 7")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := parseLimitFile([]byte(text))
		if err != nil {
			return
		}
		set, err := buildLimits(DefaultLimits(), file, limitFile{})
		if err == nil && set.defaults.Validate() != nil {
			t.Fatalf("limits that are not valid pass: %+v", set.defaults)
		}
	})
}
