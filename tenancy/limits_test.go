package tenancy

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
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
