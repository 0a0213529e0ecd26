package tenancy

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/luminate/luminate/storage"
)

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
