package native

import (
	"context"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
	"github.com/luminate/luminate/tenancy"
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

func memoryOf(total, perQuery int64) *tenancy.QueryMemory {
	return tenancy.NewQueryMemory(tenancy.QueryMemoryLimits{Total: total, PerQuery: perQuery}, prometheus.NewRegistry())
}

func TestQueriesWaitForMemory(t *testing.T) {
	base := newFixture(t)
	latencies(base)
	body := queryWith("metricName", `"api_latency"`, "timeRange", `{"relative":"24h"}`, "groupBy", `["customer_id"]`)
	h := &heldStore{Store: base.store, started: make(chan struct{}), proceed: make(chan struct{})}
	memory := memoryOf(1<<20, 0)
	f := newFixtureOver(t, h, func(c *Config) { c.Memory = memory })
	first := make(chan *httptest.ResponseRecorder)
	go func() { first <- f.query(body) }()
	<-h.started
	// Somebody else, a PromQL query say, holds all of the rest.
	other := memory.Begin(storage.MustTenant("other"))
	if err := other.Use(memory.Limits().Total - memory.Reserved()); err != nil {
		t.Fatal(err)
	}
	e := wantError(t, f.query(queryWith("metricName", `"api_latency"`, "timeRange", `{"relative":"24h"}`, "timeout", `"20ms"`)), 503, CodeUnavailable)
	if e.Details["limit"] != "max-memory" || e.Details["setting"] != "query.memoryBytes" {
		t.Errorf("%v", e)
	}
	other.Release()
	close(h.proceed)
	if w := <-first; w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := f.query(body); w.Code != 200 {
		t.Errorf("afterwards: %d %s", w.Code, w.Body)
	}
	if n := memory.Reserved(); n != 0 {
		t.Errorf("%d bytes are still reserved", n)
	}
}

func TestQueryThatNeedsTooMuchMemory(t *testing.T) {
	memory := memoryOf(0, 1000)
	f := newFixture(t, func(c *Config) { c.Memory = memory })
	latencies(f)
	for _, body := range []string{
		queryWith("metricName", `"api_latency"`, "timeRange", `{"relative":"24h"}`, "groupBy", `["customer_id"]`, "aggregation", `"p50"`),
		`{"queryType":"range","metricName":"api_latency","timeRange":{"relative":"24h"}}`,
	} {
		e := wantError(t, f.query(body), 422, CodeQueryTooLarge)
		if e.Details["limit"] != "max-query-memory" || e.Details["setting"] != "query.memoryBytes" {
			t.Errorf("%v", e.Details)
		}
	}
	if n := memory.Reserved(); n != 0 {
		t.Errorf("%d bytes are still reserved", n)
	}
	if w := f.query(queryWith("metricName", `"api_latency"`, "timeRange", `{"relative":"24h"}`)); w.Code != 200 {
		t.Errorf("a sum needs little: %d %s", w.Code, w.Body)
	}
}

func TestMemoryOfAPlan(t *testing.T) {
	lim := DefaultConfig().Query
	for _, c := range []struct {
		body string
		est  storage.Estimate
		want int64
	}{
		{`{"queryType":"range","metricName":"m","timeRange":{"relative":"1h"},"limit":10}`, storage.Estimate{Samples: 100}, 10 * pointBytes},
		{`{"queryType":"range","metricName":"m","timeRange":{"relative":"1h"},"limit":10}`, storage.Estimate{Samples: 3}, 3 * pointBytes},
		{queryWith(), storage.Estimate{Series: 7}, 7*selectedBytes + 2*cellBytes},
		{queryWith("groupBy", `["a"]`), storage.Estimate{Series: 7}, 7*selectedBytes + 7*2*cellBytes},
		{queryWith("groupBy", `["a"]`), storage.Estimate{Series: 1e6}, 1e6*selectedBytes + expectedCells*cellBytes},
		{queryWith("groupBy", `["a"]`, "aggregation", `"p5"`), storage.Estimate{Series: 7, Samples: 1000}, 7*selectedBytes + 7*2*cellBytes + 1000*rankedBytes},
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

// countingStore counts the grids that it is asked.
type countingStore struct {
	storage.Store
	grids []storage.Grid
}

func (s *countingStore) Evaluate(ctx context.Context, t storage.Tenant, g storage.Grid) (*storage.GridResult, error) {
	s.grids = append(s.grids, g)
	return s.Store.Evaluate(ctx, t, g)
}

// TestSeveralAggregationsAreOnePass: all but integral are aggregates of one grid, and
// a top-N over buckets ranks once and then reads the best alone.
func TestSeveralAggregationsAreOnePass(t *testing.T) {
	base := newFixture(t)
	latencies(base)
	s := &countingStore{Store: base.store}
	f := newFixtureOver(t, s)
	ask := func(rest string, aggregates ...int) {
		t.Helper()
		s.grids = nil
		if w := f.query(`{"queryType":"aggregate","metricName":"api_latency","timeRange":{"relative":"24h"},"groupBy":["customer_id"],` + rest + `}`); w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if len(s.grids) != len(aggregates) {
			t.Fatalf("%s: %d passes, want %d", rest, len(s.grids), len(aggregates))
		}
		for i, g := range s.grids {
			if len(g.Aggregates) != aggregates[i] {
				t.Errorf("%s: pass %d has %d aggregates, want %d", rest, i, len(g.Aggregates), aggregates[i])
			}
		}
	}
	ask(`"aggregations":["avg","p95","max","p99","stddev"]`, 6) // and the count
	ask(`"aggregations":["avg","integral"]`, 2, 1)
	ask(`"aggregations":["max","avg"],"orderBy":"value","limit":1,"interval":"1h"`, 3, 3)
	if n := len(s.grids[1].Matchers); n != len(s.grids[0].Matchers)+1 {
		t.Errorf("the second pass is not narrowed to the best group: %v", s.grids[1].Matchers)
	}
}
