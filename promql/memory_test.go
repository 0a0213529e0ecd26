package promql

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/luminate/luminate/storage"
)

func TestReservation(t *testing.T) {
	b := newMemoryBudget(10<<20, 6<<20, 4<<20)
	one := &reservation{budget: b, tenant: testTenant}
	kind := func(err error, want storage.Kind, id string) {
		t.Helper()
		if err == nil || storage.KindOf(err) != want || !strings.Contains(err.Error(), id) {
			t.Errorf("got %v, want %v %s", err, want, id)
		}
	}
	if err := one.use(3 << 20); err != nil {
		t.Fatal(err)
	}
	kind(one.use(2<<20), storage.KindTooLarge, "max-query-memory")
	two := &reservation{budget: b, tenant: testTenant}
	kind(two.use(4<<20), storage.KindLimited, "max-query-memory-per-tenant")
	others := []*reservation{{budget: b, tenant: storage.MustTenant("b")}, {budget: b, tenant: storage.MustTenant("c")}}
	if err := others[0].use(4 << 20); err != nil {
		t.Fatal(err)
	}
	if !b.busy() {
		t.Error("7 of 10 MiB are held, and it is not busy")
	}
	kind(others[1].use(4<<20), storage.KindUnavailable, "max-memory")
	for _, r := range append(others, one, two, one) {
		r.release()
	}
	if b.inUse() != 0 || len(b.tenants) != 0 {
		t.Errorf("%d bytes of %d tenants are still held", b.inUse(), len(b.tenants))
	}
}

// TestAwait lets a second query wait until the first is done.
func TestAwait(t *testing.T) {
	b := newMemoryBudget(8<<20, 0, 6<<20)
	first, second := &reservation{budget: b, tenant: testTenant}, &reservation{budget: b, tenant: testTenant}
	if err := first.await(t.Context(), 1<<40); err != nil || first.held != 6<<20 {
		t.Fatalf("%v, holds %d", err, first.held)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := second.await(ctx, 5<<20); storage.KindOf(err) != storage.KindCanceled {
		t.Errorf("waited with a canceled context: %v", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := second.await(t.Context(), 5<<20); err != nil {
			t.Error(err)
		}
	})
	first.release()
	wg.Wait()
	if second.held != 5<<20 {
		t.Errorf("holds %d", second.held)
	}
	second.release()
}

// TestQueryMemory runs a query that reads more than it may, and checks that all is
// given back.
func TestQueryMemory(t *testing.T) {
	store, end := wideStore(t, "m_total")
	for _, planner := range []bool{false, true} {
		srv := serve(t, store, func(c *Config) { c.Planner, c.MaxQueryMemoryBytes = planner, 50_000 })
		for range 3 {
			resp, body := get(t, srv.URL+"/api/v1/query?query=m_total&time="+seconds(end))
			if resp.StatusCode != 422 || !strings.Contains(body, "max-query-memory") {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
		}
		// Pushed, the same data fits: only results are held.
		resp, body := get(t, srv.URL+"/api/v1/query?query=sum(m_total)&time="+seconds(end))
		if (resp.StatusCode == 200) != planner {
			t.Errorf("planner %v: %d %s", planner, resp.StatusCode, body)
		}
	}
}

func TestProcessMemory(t *testing.T) {
	if v := processMemory(); v < 0 {
		t.Errorf("got %d", v)
	}
}
