package tenancy

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/luminate/luminate/storage"
)

func memoryOf(total, perTenant, perQuery int64) *QueryMemory {
	return NewQueryMemory(QueryMemoryLimits{Total: total, PerTenant: perTenant, PerQuery: perQuery}, prometheus.NewRegistry())
}

// refusals returns how many were refused, whatever bound they met.
func (m *QueryMemory) refusals() (n float64) {
	for _, bound := range []string{"query", "tenant", "process", "deadline"} {
		n += testutil.ToFloat64(m.refused.WithLabelValues(bound))
	}
	return n
}

func TestMemoryGrows(t *testing.T) {
	m := memoryOf(10<<20, 6<<20, 4<<20)
	a, b, c := storage.MustTenant("a"), storage.MustTenant("b"), storage.MustTenant("c")
	kind := func(err error, want storage.Kind, id string) {
		t.Helper()
		if err == nil || storage.KindOf(err) != want || !strings.Contains(err.Error(), id) {
			t.Errorf("got %v, want %v %s", err, want, id)
		}
	}
	one, two, three, four := m.Begin(a), m.Begin(a), m.Begin(b), m.Begin(c)
	if err := one.Use(3 << 20); err != nil {
		t.Fatal(err)
	}
	kind(one.Use(2<<20), storage.KindTooLarge, "max-query-memory")
	kind(two.Use(4<<20), storage.KindLimited, "max-query-memory-per-tenant")
	if err := three.Use(4 << 20); err != nil {
		t.Fatal(err)
	}
	kind(four.Use(4<<20), storage.KindUnavailable, "max-memory")
	for _, bound := range []string{"query", "tenant", "process"} {
		if n := testutil.ToFloat64(m.refused.WithLabelValues(bound)); n != 1 {
			t.Errorf("%s: %v refusals are counted", bound, n)
		}
	}
	for _, r := range []*MemoryReservation{one, two, three, four, one} {
		r.Release()
	}
	if m.Reserved() != 0 || len(m.tenants) != 0 {
		t.Errorf("%d bytes of %d tenants are still held", m.Reserved(), len(m.tenants))
	}
}

// TestMemoryIsGivenBack uses the same bytes again and again.
func TestMemoryIsGivenBack(t *testing.T) {
	m := memoryOf(8<<20, 0, 0)
	r := m.Begin(storage.MustTenant("a"))
	for range 100 {
		if err := r.Use(7 << 20); err != nil {
			t.Fatal(err)
		}
		if err := r.Use(-7 << 20); err != nil {
			t.Fatal(err)
		}
	}
	r.Release()
	var none *QueryMemory
	free := none.Begin(storage.MustTenant("a"))
	if err := free.Use(1 << 60); err != nil || free.Counts() || free.Held() != 0 {
		t.Errorf("without a budget: %v", err)
	}
	free.Release()
}

// TestMemoryIsWaitedFor: in order of arrival for the process's memory, and a tenant
// that waits for its own share holds up no other.
func TestMemoryIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memoryOf(10, 6, 8)
		a, b := storage.MustTenant("a"), storage.MustTenant("b")
		first := m.Begin(a)
		if err := first.Await(t.Context(), 1<<40); err != nil || first.Held() != 6 {
			t.Fatalf("%v, holds %d", err, first.Held())
		}
		var mu sync.Mutex
		var order []string
		var wg sync.WaitGroup
		wait := func(name string, tenant storage.Tenant, n int64) *MemoryReservation {
			r := m.Begin(tenant)
			wg.Go(func() {
				if err := r.Await(t.Context(), n); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				order = append(order, name)
			})
			synctest.Wait()
			return r
		}
		own := wait("own", a, 2)                             // its tenant is at its share
		small := wait("small", b, 3)                         // fits at once
		large := wait("large", b, 3)                         // waits for the process
		behind := wait("behind", storage.MustTenant("c"), 1) // would fit, and does not overtake
		if got := fmt.Sprint(order); got != "[small]" || m.refusals() != 0 {
			t.Errorf("went on: %s, %v were refused", got, m.refusals())
		}
		late, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := m.Begin(b).Await(late, 5)
		if storage.KindOf(err) != storage.KindUnavailable || !strings.Contains(err.Error(), "max-memory") {
			t.Errorf("waited in vain: %v", err)
		}
		gone, leave := context.WithCancel(t.Context())
		leave()
		if err := m.Begin(b).Await(gone, 5); storage.KindOf(err) != storage.KindCanceled {
			t.Errorf("waited with a canceled context: %v", err)
		}
		first.Release()
		wg.Wait()
		for _, r := range []*MemoryReservation{own, small, large, behind} {
			r.Release()
		}
		if m.Reserved() != 0 || len(m.waiting) != 0 {
			t.Errorf("%d bytes, %d waiting", m.Reserved(), len(m.waiting))
		}
	})
}

// TestMemoryIsNeverPassed lets many queries take, grow and give back at once.
func TestMemoryIsNeverPassed(t *testing.T) {
	m := memoryOf(50<<20, 30<<20, 20<<20)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			for range 200 {
				r := m.Begin(storage.MustTenant(string(rune('a' + i%3))))
				if err := r.Await(t.Context(), rng.Int64N(25<<20)); err != nil {
					t.Error(err)
				}
				for range 5 {
					_ = r.Use(rng.Int64N(6<<20) - 1<<20)
				}
				if n := m.Reserved(); n > 50<<20 {
					t.Errorf("%d bytes are reserved", n)
				}
				r.Release()
			}
		})
	}
	wg.Wait()
	if m.Reserved() != 0 || len(m.tenants) != 0 || len(m.waiting) != 0 {
		t.Errorf("%d bytes of %d tenants are still held, %d wait", m.Reserved(), len(m.tenants), len(m.waiting))
	}
}

func TestProcessMemory(t *testing.T) {
	if v := ProcessMemory(); v < 0 {
		t.Errorf("got %d", v)
	}
}
