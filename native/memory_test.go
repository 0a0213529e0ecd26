package native

import (
	"context"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

// heldStore is a store whose first Evaluate waits.
type heldStore struct {
	storage.Store
	once             sync.Once
	started, proceed chan struct{}
}

func (h *heldStore) Evaluate(ctx context.Context, t storage.Tenant, g storage.Grid) (*storage.GridResult, error) {
	h.once.Do(func() {
		close(h.started)
		<-h.proceed
	})
	return h.Store.Evaluate(ctx, t, g)
}

func TestQueriesWaitForMemory(t *testing.T) {
	base := newFixture(t)
	latencies(base)
	body := queryWith("metricName", `"api_latency"`, "timeRange", `{"relative":"24h"}`, "groupBy", `["customer_id"]`)
	h := &heldStore{Store: base.store, started: make(chan struct{}), proceed: make(chan struct{})}
	// Room for one query with nothing known of it, and none beside it.
	f := newFixtureOver(t, h, func(c *Config) { c.QueryMemoryBytes = int64(c.Query.MaxEvaluated) * cellBytes })
	first := make(chan *httptest.ResponseRecorder)
	go func() { first <- f.query(body) }()
	<-h.started
	e := wantError(t, f.query(queryWith("timeRange", `{"relative":"24h"}`, "timeout", `"20ms"`)), 503, CodeUnavailable)
	if e.Message == "" {
		t.Error("no message")
	}
	close(h.proceed)
	if w := <-first; w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := f.query(body); w.Code != 200 {
		t.Errorf("afterwards: %d %s", w.Code, w.Body)
	}
}

func TestQueryThatNeedsTooMuchMemory(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.QueryMemoryBytes = 50 })
	latencies(f)
	// Eight samples, and a value and a count: 8 × 8 + 2 × 16 bytes.
	e := wantError(t, f.query(queryWith("metricName", `"api_latency"`, "timeRange", `{"relative":"24h"}`, "aggregation", `"p50"`)), 422, CodeQueryTooLarge)
	if e.Details["limit"] != "queryMemoryBytes" || e.Details["max"] != 50.0 {
		t.Errorf("%v", e.Details)
	}
	if w := f.query(queryWith("metricName", `"api_latency"`, "timeRange", `{"relative":"24h"}`)); w.Code != 200 {
		t.Errorf("a sum needs little: %d %s", w.Code, w.Body)
	}
	free := newFixtureOver(t, f.store, func(c *Config) { c.QueryMemoryBytes = 0 })
	if w := free.query(queryWith("metricName", `"api_latency"`, "timeRange", `{"relative":"24h"}`, "aggregation", `"p50"`)); w.Code != 200 {
		t.Errorf("without a bound: %d %s", w.Code, w.Body)
	}
}

func TestMemoryOfAPlan(t *testing.T) {
	lim := DefaultConfig().Query
	lim.MaxSamples = 0
	for _, c := range []struct {
		body string
		est  *storage.Estimate
		want int64
	}{
		{`{"queryType":"range","metricName":"m","timeRange":{"relative":"1h"},"limit":10}`, nil, 10 * pointBytes},
		{`{"queryType":"range","metricName":"m","timeRange":{"relative":"1h"},"limit":10}`, &storage.Estimate{Samples: 3}, 3 * pointBytes},
		{queryWith(), nil, 2 * cellBytes},
		{queryWith("groupBy", `["a"]`), nil, 20_000_000 * cellBytes},
		{queryWith("groupBy", `["a"]`), &storage.Estimate{Series: 7}, 7 * 2 * cellBytes},
		{queryWith("groupBy", `["a"]`, "aggregation", `"p5"`), nil, 1<<63 - 1},
		{queryWith("groupBy", `["a"]`, "aggregation", `"p5"`), &storage.Estimate{Series: 7, Samples: 1000}, 7*2*cellBytes + 8000},
	} {
		var q QueryRequest
		if err := jsonDecode(c.body, &q); err != nil {
			t.Fatal(err)
		}
		p, err := newPlan(&q, lim, testNow)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.memory(c.est); got != c.want {
			t.Errorf("%s: %d, want %d", c.body, got, c.want)
		}
	}
}

func TestQueryTimesOutInTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := storagetest.NewFaulty(storagetest.NewModel(), func(string) storagetest.Fault { return storagetest.Fault{Delay: time.Hour} })
		f := newFixtureOver(t, slow)
		begin := time.Now()
		wantError(t, f.query(queryWith()), 504, CodeQueryTimeout)
		if d := time.Since(begin); d != 10*time.Second {
			t.Errorf("the default timeout is %s", d)
		}
	})
}
