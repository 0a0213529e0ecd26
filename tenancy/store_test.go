package tenancy

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

// TestConformance holds the wrapper to the suite, without limits and with limits
// that are wide enough, over a store that already has a neighbour.
func TestConformance(t *testing.T) {
	wide := DefaultLimits()
	wide.MaxSamplesPerQuery, wide.MaxSeriesPerQuery = 0, 0
	for name, limits := range map[string]*Limits{"no limiter": nil, "unlimited": ptr(UnlimitedLimits()), "wide limits": &wide} {
		t.Run(name, func(t *testing.T) {
			storagetest.Run(t, func(t testing.TB) storage.Store {
				cfg := WrapConfig{}
				if limits != nil {
					cfg.Limiter = newTestLimiter(t, *limits)
				}
				return Wrap(storagetest.NewModel(), cfg)
			}, storagetest.Options{RandomOps: 150})
		})
	}
}

func ptr[T any](v T) *T { return &v }

func newTestLimiter(t testing.TB, l Limits) *Limiter {
	t.Helper()
	cfg := DefaultLimiterConfig()
	cfg.Defaults = l
	lim, err := NewLimiter(cfg, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	return lim
}

// calls lists every method of a store that takes a tenant, with an answer as text.
var calls = map[string]func(context.Context, storage.Store, storage.Tenant, storage.Selection) (string, error){
	"Select": func(ctx context.Context, s storage.Store, t storage.Tenant, q storage.Selection) (string, error) {
		return collect(s.Select(ctx, t, q), func(x storage.Series) string { return x.Labels.String() })
	},
	"SelectLabels": func(ctx context.Context, s storage.Store, t storage.Tenant, q storage.Selection) (string, error) {
		return collect(s.SelectLabels(ctx, t, q), func(ls storage.Labels) string { return ls.String() })
	},
	"Evaluate": func(ctx context.Context, s storage.Store, t storage.Tenant, q storage.Selection) (string, error) {
		r, err := s.Evaluate(ctx, t, storage.Grid{
			Matchers: q.Matchers, Start: q.MaxT, End: q.MaxT, Window: q.MaxT - q.MinT, Func: storage.FuncLast,
			Aggregates: []storage.Aggregate{{Op: storage.AggCount}}, Grouping: []string{"customer_id", "__name__"},
		})
		if err != nil {
			return "", err
		}
		var b strings.Builder
		for _, g := range r.Groups {
			fmt.Fprintln(&b, g.Labels, g.Values)
		}
		return b.String(), nil
	},
	"Estimate": func(ctx context.Context, s storage.Store, t storage.Tenant, q storage.Selection) (string, error) {
		e, err := s.Estimate(ctx, t, q)
		return fmt.Sprintf("%d series", e.Series), err
	},
	"LabelNames": func(ctx context.Context, s storage.Store, t storage.Tenant, q storage.Selection) (string, error) {
		v, err := s.LabelNames(ctx, t, q)
		return strings.Join(v, " "), err
	},
	"LabelValues": func(ctx context.Context, s storage.Store, t storage.Tenant, q storage.Selection) (string, error) {
		v, err := s.LabelValues(ctx, t, "customer_id", q)
		return strings.Join(v, " "), err
	},
	"Metadata": func(ctx context.Context, s storage.Store, t storage.Tenant, _ storage.Selection) (string, error) {
		v, err := s.Metadata(ctx, t, storage.MetadataQuery{})
		return fmt.Sprint(v), err
	},
	"Exemplars": func(ctx context.Context, s storage.Store, t storage.Tenant, q storage.Selection) (string, error) {
		v, err := s.Exemplars(ctx, t, storage.ExemplarQuery{Selectors: [][]*storage.Matcher{q.Matchers}, MinT: q.MinT, MaxT: q.MaxT})
		var b strings.Builder
		for _, x := range v {
			fmt.Fprintln(&b, x.Labels, len(x.Exemplars))
		}
		return b.String(), err
	},
	"Cardinality": func(ctx context.Context, s storage.Store, t storage.Tenant, q storage.Selection) (string, error) {
		v, err := s.Cardinality(ctx, t, storage.CardinalityQuery{Selection: q, LabelNames: []string{"customer_id"}})
		return fmt.Sprint(v), err
	},
	"Append": func(ctx context.Context, s storage.Store, t storage.Tenant, _ storage.Selection) (string, error) {
		var b storage.Batch
		b.Add(storage.LabelsFromStrings("__name__", "appended", "customer_id", "c0"), storage.Sample{T: time.Now().UnixMilli(), V: 1})
		_, err := s.Append(ctx, t, &b)
		return "", err
	},
	"Delete": func(ctx context.Context, s storage.Store, t storage.Tenant, q storage.Selection) (string, error) {
		q.Matchers = []*storage.Matcher{storagetest.Eq("__name__", "no_such_metric")}
		r, err := s.Delete(ctx, t, q)
		return fmt.Sprint(r.MatchedSeries), err
	},
	"DeleteStatus": func(ctx context.Context, s storage.Store, t storage.Tenant, _ storage.Selection) (string, error) {
		_, err := s.DeleteStatus(ctx, t, "none")
		return "", err
	},
	"Retention": func(ctx context.Context, s storage.Store, t storage.Tenant, _ storage.Selection) (string, error) {
		p, err := s.Retention(ctx, t)
		return fmt.Sprint(p), err
	},
	"SetRetention": func(ctx context.Context, s storage.Store, t storage.Tenant, _ storage.Selection) (string, error) {
		return "", s.SetRetention(ctx, t, storage.RetentionPolicy{Metric: "x", Days: 3})
	},
	"RemoveRetention": func(ctx context.Context, s storage.Store, t storage.Tenant, _ storage.Selection) (string, error) {
		return "", s.RemoveRetention(ctx, t, "x")
	},
	"DeleteTenant": func(ctx context.Context, s storage.Store, t storage.Tenant, _ storage.Selection) (string, error) {
		return "", s.DeleteTenant(ctx, t)
	},
}

// reads are the calls that show data.
var reads = []string{"Select", "SelectLabels", "Evaluate", "Estimate", "LabelNames", "LabelValues", "Metadata", "Exemplars", "Cardinality"}

func collect[T any](seq func(func(T, error) bool), text func(T) string) (string, error) {
	var b strings.Builder
	for x, err := range seq {
		if err != nil {
			return b.String(), err
		}
		fmt.Fprintln(&b, text(x))
	}
	return b.String(), nil
}

// fill stores customers c0, c1, c2 with samples, exemplars and metadata; what must
// not be seen of c1 and c2 has their name in it.
func fill(t testing.TB, s storage.Store, tenant string, now int64) {
	t.Helper()
	storagetest.Fill(t, s, tenant, now)
	var b storage.Batch
	for _, c := range []string{"c0", "c1", "c2"} {
		b.Labels = append(b.Labels, storage.LabelsFromStrings("__name__", "only_of_"+c+"_total", "customer_id", c, "label_of_"+c, "x")...)
		b.AddSample(now, 0, 1)
		b.Exemplars = append(b.Exemplars, storage.Exemplar{Labels: storage.LabelsFromStrings("trace", "t-"+c), T: now, V: 1})
		b.EndSeries()
		b.Metadata = append(b.Metadata, storage.Metadata{Metric: "only_of_" + c, Type: "counter", Help: "help of " + c})
	}
	storagetest.MustAppend(t, s, tenant, &b)
}

func window(now int64) storage.Selection {
	return storage.Selection{MinT: now - 3_600_000, MaxT: now + 60_000}
}

// TestNoIdentityFailsClosed calls every method without an identity, with one of
// another tenant, and with one that the gate did not authenticate.
func TestNoIdentityFailsClosed(t *testing.T) {
	now := time.Now().UnixMilli()
	model := storagetest.NewModel()
	fill(t, model, "a", now)
	s := Wrap(model, WrapConfig{Authenticated: true})
	a := storage.MustTenant("a")
	other := Identity{Tenant: storage.MustTenant("b"), Authenticated: true, Scopes: []Scope{ScopeRead, ScopeWrite, ScopeAdmin}}
	for name, call := range calls {
		for who, ctx := range map[string]context.Context{
			"nobody": t.Context(), "another tenant": NewContext(t.Context(), other),
			"unauthenticated": NewContext(t.Context(), Identity{Tenant: a}),
		} {
			got, err := call(ctx, s, a, window(now))
			want := storage.KindInternal
			if who == "another tenant" {
				want = storage.KindNotFound
			}
			if err == nil || storage.KindOf(err) != want || strings.Contains(got, "c0") {
				t.Errorf("%s by %s: got %q, %v; want an error of kind %s", name, who, got, err, want)
			}
		}
	}
	if _, err := s.Backup(NewContext(t.Context(), other), &bytes.Buffer{}); err == nil {
		t.Error("a backup of every tenant by an admin of one: no error")
	}
	if all, err := s.Tenants(NewContext(t.Context(), other)); err != nil || len(all) != 0 {
		t.Errorf("tenants seen by b: %v, %v", all, err)
	}
	if _, err := s.Tenants(t.Context()); err == nil {
		t.Error("tenants listed for nobody")
	}
	if _, err := s.Cleanup(t.Context()); err == nil {
		t.Error("cleanup for nobody")
	}
	op := NewContext(t.Context(), Identity{Tenant: other.Tenant, Authenticated: true, Scopes: []Scope{ScopeOperator}})
	if all, err := s.Tenants(op); err != nil || len(all) != 1 {
		t.Errorf("tenants seen by an operator: %v, %v", all, err)
	}
	if _, err := s.Backup(op, &bytes.Buffer{}); err != nil {
		t.Errorf("backup by an operator: %v", err)
	}
}

// TestNarrowedToken asks every method with a token that sees one customer only.
func TestNarrowedToken(t *testing.T) {
	now := time.Now().UnixMilli()
	model := storagetest.NewModel()
	fill(t, model, "a", now)
	s := Wrap(model, WrapConfig{Authenticated: true})
	a := storage.MustTenant("a")
	id := Identity{
		Tenant: a, Authenticated: true, Scopes: []Scope{ScopeRead, ScopeWrite, ScopeAdmin},
		Matchers: []*storage.Matcher{storagetest.Eq("customer_id", "c0")},
	}
	ctx := NewContext(t.Context(), id)
	for _, asked := range [][]*storage.Matcher{nil, {storagetest.Eq("customer_id", "c1")}, {storagetest.Re("customer_id", ".*")}, {storagetest.Re("__name__", "only_of_.*")}} {
		q := window(now)
		q.Matchers = asked
		before := len(asked)
		for _, name := range reads {
			got, err := calls[name](ctx, s, a, q)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if strings.Contains(got, "c1") || strings.Contains(got, "c2") {
				t.Errorf("%s of %v shows others: %s", name, asked, got)
			}
		}
		if len(q.Matchers) != before {
			t.Error("the caller's matchers were changed")
		}
	}
	all, _ := calls["Select"](ctx, s, a, window(now))
	if strings.Count(all, "\n") != 5 || !strings.Contains(all, "only_of_c0_total") {
		t.Errorf("own series: %s", all)
	}
	meta, _ := calls["Metadata"](ctx, s, a, window(now))
	if !strings.Contains(meta, "help of c0") {
		t.Errorf("own metadata is missing: %s", meta)
	}
	for _, name := range []string{"SetRetention", "RemoveRetention", "DeleteTenant"} {
		if _, err := calls[name](ctx, s, a, window(now)); storage.KindOf(err) != storage.KindInvalid {
			t.Errorf("%s with a narrowed token: %v", name, err)
		}
	}
	// A delete of everything deletes what the token sees.
	if _, err := s.Delete(ctx, a, window(now)); err != nil {
		t.Fatal(err)
	}
	rest := storagetest.Collect(t, model, "a", window(now))
	if len(rest) != 10 {
		t.Errorf("%d series are left after the delete, want the 10 of others", len(rest))
	}
	// It cannot write what it could not read.
	var b storage.Batch
	b.Add(storage.LabelsFromStrings("__name__", "w", "customer_id", "c1"), storage.Sample{T: now, V: 1})
	b.Add(storage.LabelsFromStrings("__name__", "w", "customer_id", "c0"), storage.Sample{T: now, V: 1}, storage.Sample{T: now + 48*3600_000, V: 1})
	res, err := s.Append(ctx, a, &b)
	if err != nil || res.Samples != 1 || len(res.Refused) != 2 || res.Refused[0].Reason != storage.ReasonForbidden || res.Refused[0].Sample != -1 {
		t.Fatalf("append: %+v, %v", res, err)
	}
	if r := res.Refused[1]; r.Series != 1 || r.Sample != 1 || r.Reason != storage.ReasonTooFarAhead {
		t.Errorf("a refusal of the store is told at %+v, want series 1, sample 1", r)
	}
}

// TestFederation reads over two tenants and compares with the parts.
func TestFederation(t *testing.T) {
	now := time.Now().UnixMilli()
	model := storagetest.NewModel()
	fill(t, model, "a", now)
	fill(t, model, "b", now)
	fill(t, model, "c", now)
	var odd storage.Batch // labels that sort between __name__ and the tenant's label
	odd.Add(storage.LabelsFromStrings("__name__", "m_total", "__sub__", "1"), storage.Sample{T: now, V: 1})
	odd.Add(storage.LabelsFromStrings("__name__", "m_total"), storage.Sample{T: now, V: 1})
	odd.Add(storage.LabelsFromStrings("__name__", "forged", TenantLabel, "c"), storage.Sample{T: now, V: 1})
	storagetest.MustAppend(t, model, "a", &odd)
	s := Wrap(model, WrapConfig{Authenticated: true, Limiter: newTestLimiter(t, UnlimitedLimits())})
	a, b := storage.MustTenant("a"), storage.MustTenant("b")
	id := Identity{Tenant: a, Federated: []storage.Tenant{a, b}, Authenticated: true, Scopes: []Scope{ScopeRead, ScopeWrite}}
	ctx := NewContext(t.Context(), id)

	var labels []storage.Labels
	for x, err := range s.Select(ctx, a, window(now)) {
		if err != nil {
			t.Fatal(err)
		}
		labels = append(labels, x.Labels)
	}
	if len(labels) != 15+3+15 || !slices.IsSortedFunc(labels, storage.CompareLabels) {
		t.Fatalf("%d series, sorted %v", len(labels), slices.IsSortedFunc(labels, storage.CompareLabels))
	}
	for _, ls := range labels {
		if err := ls.Validate(); err != nil || ls.Get(TenantLabel) != "a" && ls.Get(TenantLabel) != "b" {
			t.Errorf("%s: tenant %q, %v", ls, ls.Get(TenantLabel), err)
		}
	}
	q := window(now)
	q.Matchers = []*storage.Matcher{storagetest.Eq(TenantLabel, "b"), storagetest.Eq("__name__", "m_total")}
	for _, name := range []string{"Select", "SelectLabels"} {
		got, err := calls[name](ctx, s, a, q)
		if err != nil || strings.Count(got, "\n") != 6 || strings.Contains(got, `__tenant_id__="a"`) {
			t.Errorf("%s of b: %s, %v", name, got, err)
		}
	}
	if got, _ := s.LabelValues(ctx, a, TenantLabel, window(now)); strings.Join(got, " ") != "a b" {
		t.Errorf("tenants: %v", got)
	}
	if got, _ := s.LabelNames(ctx, a, window(now)); !slices.Contains(got, TenantLabel) || !slices.IsSorted(got) {
		t.Errorf("names: %v", got)
	}
	if e, err := s.Estimate(ctx, a, window(now)); err != nil || e.Series != 33 {
		t.Errorf("estimate %+v, %v", e, err)
	}
	if x, err := s.Exemplars(ctx, a, storage.ExemplarQuery{Selectors: [][]*storage.Matcher{nil}, MinT: now, MaxT: now, Limit: 5}); err != nil || len(x) != 5 {
		t.Errorf("exemplars %v, %v", x, err)
	}
	if m, err := s.Metadata(ctx, a, storage.MetadataQuery{Limit: 2}); err != nil || len(m) != 2 {
		t.Errorf("metadata of two tenants is not merged: %v, %v", m, err)
	}
	c, err := s.Cardinality(ctx, a, storage.CardinalityQuery{Selection: window(now), LabelNames: []string{TenantLabel}, TopN: 3})
	if err != nil || c.Series != 33 || len(c.LabelValues[TenantLabel]) != 2 || c.LabelValues[TenantLabel][0] != (storage.Count{Name: "a", Count: 18}) {
		t.Errorf("cardinality %+v, %v", c, err)
	}
	if _, err := calls["Evaluate"](ctx, s, a, window(now)); storage.KindOf(err) != storage.KindUnsupported {
		t.Errorf("a federated grid: %v, want unsupported", err)
	}
	for _, name := range []string{"Append", "Delete", "SetRetention", "DeleteTenant"} {
		if _, err := calls[name](ctx, s, a, window(now)); storage.KindOf(err) != storage.KindInvalid {
			t.Errorf("%s over two tenants: %v", name, err)
		}
	}
	q = window(now)
	q.MaxSeries = 20
	if _, err := calls["Select"](ctx, s, a, q); storage.KindOf(err) != storage.KindTooLarge {
		t.Errorf("33 series of two tenants with a bound of 20: %v", err)
	}
	q = window(now)
	q.Limit = 4
	if got, err := calls["Select"](ctx, s, a, q); err != nil || strings.Count(got, "\n") != 4 {
		t.Errorf("limit 4: %s %v", got, err)
	}
}

// TestFaultsPassThrough scripts every failure under the wrapper.
func TestFaultsPassThrough(t *testing.T) {
	now := time.Now().UnixMilli()
	model := storagetest.NewModel()
	fill(t, model, "a", now)
	faulty := storagetest.NewFaulty(model, nil)
	a, b := storage.MustTenant("a"), storage.MustTenant("b")
	for _, k := range storage.Kinds() {
		faulty.SetScript(storagetest.FailWith(k))
		for name, call := range calls {
			for who, id := range map[string]Identity{
				"one":       {Tenant: a},
				"narrowed":  {Tenant: a, Matchers: []*storage.Matcher{storagetest.Eq("customer_id", "c0")}},
				"federated": {Tenant: a, Federated: []storage.Tenant{a, b}},
			} {
				if who != "one" && !slices.Contains(reads, name) || who == "federated" && name == "Evaluate" {
					continue
				}
				s := Wrap(faulty, WrapConfig{Limiter: newTestLimiter(t, DefaultLimits())})
				if _, err := call(NewContext(t.Context(), id), s, a, window(now)); err == nil || storage.KindOf(err) != k {
					t.Errorf("%s, %s: a failure of kind %s became %v", name, who, k, err)
				}
			}
		}
	}
}
