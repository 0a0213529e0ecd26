package storagetest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/luminate/luminate/storage"
)

// lookUps are questions of discovery, each with the store's answer in lines.
func lookUps(t testing.TB, q storage.Selection) map[string]func(storage.Store, storage.Tenant) ([]string, error) {
	ask := map[string]func(storage.Store, storage.Tenant) ([]string, error){
		"label names": func(st storage.Store, tn storage.Tenant) ([]string, error) { return st.LabelNames(t.Context(), tn, q) },
		"series": func(st storage.Store, tn storage.Tenant) (out []string, err error) {
			for ls, err := range st.SelectLabels(t.Context(), tn, q) {
				if err != nil {
					return nil, err
				}
				out = append(out, ls.String())
			}
			return out, nil
		},
		"metadata": func(st storage.Store, tn storage.Tenant) (out []string, err error) {
			all, err := st.Metadata(t.Context(), tn, storage.MetadataQuery{})
			for _, m := range all {
				out = append(out, fmt.Sprint(m))
			}
			return out, err
		},
	}
	for _, label := range []string{storage.MetricName, "customer", "region", "later"} {
		ask["values of "+label] = func(st storage.Store, tn storage.Tenant) ([]string, error) {
			return st.LabelValues(t.Context(), tn, label, q)
		}
	}
	return ask
}

// compareLookUps asks everything of both tenants twice: what a store keeps of its
// first answer must not show in the second, even though a caller changed it.
func (s *suite) compareLookUps(t *testing.T, after string, store storage.Store, model *Model) {
	t.Helper()
	// Whole days, so that an index of days may answer exactly.
	mint, maxt := (s.now/day-8)*day, (s.now/day+1)*day-1
	for _, q := range []storage.Selection{
		{MinT: mint, MaxT: maxt},
		{MinT: s.now / day * day, MaxT: maxt},
		{MinT: mint, MaxT: maxt, Limit: 2},
		{MinT: mint, MaxT: maxt, Matchers: []*storage.Matcher{Eq(storage.MetricName, "orders_total")}},
		{MinT: mint, MaxT: maxt, Matchers: []*storage.Matcher{Eq("customer", "acme")}},
		{MinT: mint, MaxT: maxt, Matchers: []*storage.Matcher{Re("customer", "a.*"), Ne("region", "us")}},
	} {
		for name, ask := range lookUps(t, q) {
			for _, tenant := range []string{tenantA, tenantB} {
				want, _ := ask(model, storage.MustTenant(tenant))
				for range 2 {
					got, err := ask(store, storage.MustTenant(tenant))
					if err != nil {
						t.Fatalf("after %s: %s of %s: %v", after, name, tenant, err)
					}
					if !slices.Equal(got, want) {
						t.Fatalf("after %s: %s of %s, %s from %d: got %q, want %q", after, name, tenant, storage.FormatSelector(q.Matchers), q.MinT, got, want)
					}
					for i := range got {
						got[i] = "changed by the caller"
					}
				}
			}
		}
	}
}

// testDiscoveryIsCurrent changes all that look-ups can show, one thing at a time, and
// looks at the answers after each: a change that was acknowledged is seen by the next
// look-up.
func (s *suite) testDiscoveryIsCurrent(t *testing.T) {
	store, model := s.pair(t)
	add := func(tenant string, at int64, sets ...storage.Labels) func() {
		return func() {
			var b storage.Batch
			for _, ls := range sets {
				b.Add(ls, storage.Sample{T: at, V: 1})
			}
			appendBoth(t, store, model, tenant, &b)
		}
	}
	describe := func(help string) func() {
		return func() {
			b := storage.Batch{Metadata: []storage.Metadata{{Metric: "orders_total", Type: "counter", Help: help}}}
			appendBoth(t, store, model, tenantA, &b)
		}
	}
	both := func(op string, fn func(storage.Store) error) func() {
		return func() {
			if err := fn(store); err != nil {
				t.Fatalf("%s: %v", op, err)
			}
			if err := fn(model); err != nil {
				t.Fatalf("%s of the model: %v", op, err)
			}
		}
	}
	a, ctx := storage.MustTenant(tenantA), t.Context()
	whole := storage.Selection{MinT: (s.now/day - 8) * day, MaxT: (s.now/day+1)*day - 1}
	remove := func(ms ...*storage.Matcher) func() {
		return both("delete", func(st storage.Store) error {
			q := whole
			q.Matchers = ms
			_, err := st.Delete(ctx, a, q)
			return err
		})
	}
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"nothing", func() {}},
		{"the first series", add(tenantA, s.now, name("orders_total", "customer", "acme", "region", "eu"), name("orders_total", "customer", "zeta", "region", "us"))},
		{"a new value", add(tenantA, s.now, name("orders_total", "customer", "apex", "region", "eu"))},
		{"another sample of a known series", add(tenantA, s.now+1, name("orders_total", "customer", "apex", "region", "eu"))},
		{"a new label", add(tenantA, s.now, name("orders_total", "customer", "acme", "region", "eu", "later", "yes"))},
		{"a new metric", add(tenantA, s.now, name("refunds_total", "customer", "acme"))},
		{"another tenant's series", add(tenantB, s.now, name("orders_total", "customer", "other", "region", "ap"))},
		{"a series of five days ago", add(tenantA, s.now-5*day, name("orders_total", "customer", "aged", "region", "eu"), name("old_total", "customer", "aged"))},
		{"metadata", describe("Orders.")},
		{"changed metadata", describe("Orders, all of them.")},
		{"a policy that hides five days ago", both("set retention", func(st storage.Store) error {
			return st.SetRetention(ctx, a, storage.RetentionPolicy{Metric: "old_*", Days: 2})
		})},
		{"a longer policy", both("set retention", func(st storage.Store) error {
			return st.SetRetention(ctx, a, storage.RetentionPolicy{Metric: "old_*", Days: 20})
		})},
		{"no policy", both("remove retention", func(st storage.Store) error { return st.RemoveRetention(ctx, a, "old_*") })},
		{"a delete of one customer", remove(Eq("customer", "zeta"))},
		{"a delete of a metric", remove(Eq(storage.MetricName, "refunds_total"))},
		{"the deleted series again", add(tenantA, s.now+2, name("refunds_total", "customer", "acme"))},
		{"the neighbour's second series", add(tenantB, s.now, name("refunds_total", "customer", "other"))},
		{"a delete of everything", remove()},
		{"something new", add(tenantA, s.now+3, name("orders_total", "customer", "anew", "region", "eu"))},
		{"the end of the tenant", both("delete tenant", func(st storage.Store) error { return st.DeleteTenant(ctx, a) })},
		{"its return", add(tenantA, s.now+4, name("orders_total", "customer", "acme", "region", "us"))},
	} {
		step.do()
		s.compareLookUps(t, step.name, store, model)
	}
}
