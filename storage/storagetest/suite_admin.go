package storagetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/luminate/luminate/storage"
)

func (s *suite) testTenants(t *testing.T) {
	store, model := s.pair(t)
	for i, tn := range []string{tenantA, tenantB, "tenant", "tenant-a-1", "T", "t.e-n_4"} {
		var b storage.Batch
		b.Add(name("shared", "l", "v"), storage.Sample{T: s.now, V: float64(i)})
		b.Add(name("own_"+fmt.Sprint(i)), storage.Sample{T: s.now, V: 1})
		appendBoth(t, store, model, tn, &b)
	}
	for _, tn := range []string{tenantA, tenantB, "tenant", "tenant-a-1", "T", "t.e-n_4", "unknown"} {
		compare(t, store, model, tn, s.all())
	}
	got, err := store.Tenants(t.Context())
	if err != nil || len(got) != 6 {
		t.Fatalf("tenants: got %d (%v), want 6", len(got), err)
	}
	if err := store.DeleteTenant(t.Context(), storage.MustTenant(tenantA)); err != nil {
		t.Fatalf("delete tenant: %v", err)
	}
	_ = model.DeleteTenant(t.Context(), storage.MustTenant(tenantA))
	for _, tn := range []string{tenantA, tenantB, "tenant-a-1"} {
		compare(t, store, model, tn, s.all())
	}
	var b storage.Batch
	b.Add(name("again"), storage.Sample{T: s.now, V: 1})
	appendBoth(t, store, model, tenantA, &b)
	compare(t, store, model, tenantA, s.all())
}

// testExchange lets two processes post notes, and each read both's.
func (s *suite) testExchange(t *testing.T) {
	store := s.newStore(t)
	post := func(process string, seq uint64, body string, since time.Time) map[string]string {
		t.Helper()
		notes, err := store.Exchange(t.Context(), storage.Note{Process: process, Seq: seq, Body: []byte(body)}, since)
		if storage.KindOf(err) == storage.KindUnsupported {
			t.Log("the backend's data is one process's")
			return nil
		}
		if err != nil {
			t.Fatalf("exchange: %v", err)
		}
		got, last := map[string]string{}, map[string]uint64{}
		for _, n := range notes {
			if n.At.IsZero() || n.Seq <= last[n.Process] {
				t.Errorf("note %d of %s at %s comes after %d", n.Seq, n.Process, n.At, last[n.Process])
			}
			last[n.Process] = n.Seq
			got[fmt.Sprintf("%s/%d", n.Process, n.Seq)] = string(n.Body)
		}
		return got
	}
	never := time.Unix(0, 0)
	binary := "\x00\xff'\\\n"
	if post("p", 1, "one", never) == nil {
		return
	}
	if got := post("q", 1, binary, never); got["p/1"] != "one" || len(got) != 2 {
		t.Errorf("q sees %q", got)
	}
	if got := post("p", 2, "two", never); got["q/1"] != binary || got["p/1"] != "" || len(got) != 3 {
		t.Errorf("p sees %q", got)
	}
	if got := post("q", 2, "", never); got["p/1"] != "one" || got["p/2"] != "two" || len(got) != 3 {
		t.Errorf("q, which posts nothing, sees %q", got)
	}
	if got := post("q", 2, "", time.Now().Add(2*time.Hour)); len(got) != 0 {
		t.Errorf("notes of the future: %q", got)
	}
}

func (s *suite) testZeroTenant(t *testing.T) {
	store := s.newStore(t)
	var zero storage.Tenant
	ctx := t.Context()
	var b storage.Batch
	b.Add(name("m"), storage.Sample{T: s.now, V: 1})
	errs := map[string]error{}
	_, errs["Append"] = store.Append(ctx, zero, &b)
	for _, err := range store.Select(ctx, zero, s.all()) {
		errs["Select"] = err
	}
	for _, err := range store.SelectLabels(ctx, zero, s.all()) {
		errs["SelectLabels"] = err
	}
	_, errs["Evaluate"] = store.Evaluate(ctx, zero, s.grids()[1])
	_, errs["Estimate"] = store.Estimate(ctx, zero, s.all())
	_, errs["LabelNames"] = store.LabelNames(ctx, zero, s.all())
	_, errs["LabelValues"] = store.LabelValues(ctx, zero, "a", s.all())
	_, errs["Metadata"] = store.Metadata(ctx, zero, storage.MetadataQuery{})
	_, errs["Exemplars"] = store.Exemplars(ctx, zero, storage.ExemplarQuery{})
	_, errs["Cardinality"] = store.Cardinality(ctx, zero, storage.CardinalityQuery{})
	_, errs["Delete"] = store.Delete(ctx, zero, s.all(Eq("a", "b")))
	_, errs["DeleteStatus"] = store.DeleteStatus(ctx, zero, "x")
	_, errs["Retention"] = store.Retention(ctx, zero)
	errs["SetRetention"] = store.SetRetention(ctx, zero, storage.RetentionPolicy{Metric: "a", Days: 1})
	errs["RemoveRetention"] = store.RemoveRetention(ctx, zero, "a")
	errs["DeleteTenant"] = store.DeleteTenant(ctx, zero)
	if len(errs) != 16 {
		t.Fatalf("a sequence answered nothing: %v", errs)
	}
	for m, err := range errs {
		if err == nil || storage.KindOf(err) != storage.KindInvalid {
			t.Errorf("%s with no tenant: got %v, want an invalid error", m, err)
		}
	}
}

func (s *suite) testRefusals(t *testing.T) {
	store, model := s.pair(t)
	var b storage.Batch
	b.Add(name("good"), storage.Sample{T: s.now - 1000, V: 1}, storage.Sample{T: s.now + 2*day, V: 2}, storage.Sample{T: s.now, V: 3}, storage.Sample{T: s.now - 40*day, V: 4})
	b.Add(storage.Labels{0x99, 'a'}, storage.Sample{T: s.now, V: 1})
	b.Add(append(series("b", "1"), series("a", "2")...), storage.Sample{T: s.now, V: 1})
	b.Add(append(series("a", "1"), series("a", "2")...), storage.Sample{T: s.now, V: 1})
	b.Add(series("bad", "\xff"), storage.Sample{T: s.now, V: 1})
	b.Add(name("also_good"), storage.Sample{T: s.now, V: 5})
	got, err := store.Append(t.Context(), storage.MustTenant(tenantA), &b)
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	want, _ := model.Append(t.Context(), storage.MustTenant(tenantA), &b)
	if got.Samples != 3 || len(got.Refused) != len(want.Refused) {
		t.Fatalf("append: %d stored, %d refused; want 3 and %d: %+v", got.Samples, len(got.Refused), len(want.Refused), got.Refused)
	}
	for i := range got.Refused {
		g, w := got.Refused[i], want.Refused[i]
		if g.Series != w.Series || g.Sample != w.Sample || g.Reason != w.Reason || g.Message == "" {
			t.Errorf("refusal %d: got %+v, want %+v with a message", i, g, w)
		}
	}
	compare(t, store, model, tenantA, s.all())
}

func (s *suite) testDelete(t *testing.T) {
	store, model := s.pair(t)
	s.fillBoth(t, store, model, tenantA)
	s.fillBoth(t, store, model, tenantB)
	del := func(q storage.Selection) storage.DeleteReceipt {
		t.Helper()
		r, err := store.Delete(t.Context(), storage.MustTenant(tenantA), q)
		if err != nil || r.ID == "" {
			t.Fatalf("delete: receipt %+v, error %v", r, err)
		}
		want, _ := model.Delete(t.Context(), storage.MustTenant(tenantA), q)
		if (r.MatchedSeries == 0) != (want.MatchedSeries == 0) {
			t.Fatalf("delete of %s matched %d series, want %d", r.Selector, r.MatchedSeries, want.MatchedSeries)
		}
		compare(t, store, model, tenantA, s.all())
		return r
	}
	del(storage.Selection{Matchers: []*storage.Matcher{Eq("region", "eu-west-1")}, MinT: s.now - 300_000, MaxT: s.now - 200_000})
	r := del(storage.Selection{Matchers: []*storage.Matcher{Eq(storage.MetricName, "http_requests_001_total")}, MinT: math.MinInt64 / 4, MaxT: math.MaxInt64 / 4})
	del(s.all(Eq("region", "nowhere")))
	// What is written after a delete is visible, at the same timestamps too.
	var b storage.Batch
	b.Add(name("http_requests_001_total", "region", "eu-west-1"), storage.Sample{T: s.now - 250_000, V: 42}, storage.Sample{T: s.now, V: 43})
	appendBoth(t, store, model, tenantA, &b)
	compare(t, store, model, tenantA, s.all())
	g := NewGenerator(Workload{Seed: 11, Series: 120, Metrics: 4, Customers: 6, Resets: true})
	b.Reset()
	g.Scrape(&b, s.now-250_000, 0, 120)
	appendBoth(t, store, model, tenantA, &b)
	compare(t, store, model, tenantA, s.all())
	compare(t, store, model, tenantB, s.all())

	if _, err := store.Cleanup(t.Context()); err != nil {
		t.Fatalf("cleanup: %v", err)
	}
	compare(t, store, model, tenantA, s.all())
	got, err := store.DeleteStatus(t.Context(), storage.MustTenant(tenantA), r.ID)
	if err != nil || got.ID != r.ID || got.State != storage.DeleteErased && got.State != storage.DeleteHidden {
		t.Fatalf("delete status: %+v, %v", got, err)
	}
	for _, x := range []struct{ tenant, id string }{{tenantB, r.ID}, {tenantA, "no-such-receipt"}} {
		if _, err := store.DeleteStatus(t.Context(), storage.MustTenant(x.tenant), x.id); storage.KindOf(err) != storage.KindNotFound {
			t.Fatalf("delete status of %v: got %v, want not found", x, err)
		}
	}
}

func (s *suite) testRetention(t *testing.T) {
	store, model := s.pair(t)
	ctx, tn := t.Context(), storage.MustTenant(tenantA)
	var b storage.Batch
	for _, m := range []string{"debug_a", "debug_b", "debug_keep", "prod_a"} {
		b.Add(name(m), storage.Sample{T: s.now - 10*day, V: 1}, storage.Sample{T: s.now - 3*day, V: 2}, storage.Sample{T: s.now, V: 3})
	}
	appendBoth(t, store, model, tenantA, &b)
	for _, p := range []storage.RetentionPolicy{{Metric: "debug_*", Days: 7}, {Metric: "debug_keep", Days: 20}, {Metric: "debug_a", Days: 1}} {
		for _, st := range []storage.Store{store, model} {
			if err := st.SetRetention(ctx, tn, p); err != nil {
				t.Fatalf("set retention: %v", err)
			}
		}
		compare(t, store, model, tenantA, s.all())
	}
	got, err := store.Retention(ctx, tn)
	want, _ := model.Retention(ctx, tn)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("retention: got %v (%v), want %v", got, err, want)
	}
	// Older than the policy: refused.
	b.Reset()
	b.Add(name("debug_b"), storage.Sample{T: s.now - 9*day, V: 9}, storage.Sample{T: s.now - 2*day, V: 10})
	b.Add(name("debug_keep"), storage.Sample{T: s.now - 9*day, V: 9})
	appendBoth(t, store, model, tenantA, &b)
	for _, st := range []storage.Store{store, model} {
		if _, err := st.Cleanup(ctx); err != nil {
			t.Fatalf("cleanup: %v", err)
		}
	}
	compare(t, store, model, tenantA, s.all())
	for _, bad := range []storage.RetentionPolicy{{Metric: "", Days: 1}, {Metric: "a", Days: -1}, {Metric: "a", Days: 1 << 20}} {
		if err := store.SetRetention(ctx, tn, bad); storage.KindOf(err) != storage.KindInvalid {
			t.Fatalf("set retention %+v: got %v, want an invalid error", bad, err)
		}
	}
	if err := store.RemoveRetention(ctx, tn, "debug_a"); err != nil {
		t.Fatalf("remove retention: %v", err)
	}
	if err := store.RemoveRetention(ctx, tn, "debug_a"); storage.KindOf(err) != storage.KindNotFound {
		t.Fatalf("remove retention twice: got %v, want not found", err)
	}
}

func (s *suite) testConcurrent(t *testing.T) {
	store := s.newStore(t)
	model := NewModel()
	const writers, rounds = 4, 25
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			g := NewGenerator(Workload{Seed: uint64(w), Series: 50, Metrics: 2, Customers: 5})
			for i := range rounds {
				var b storage.Batch
				g.Scrape(&b, s.now-int64(rounds-i)*1000, 0, 50)
				if _, err := store.Append(context.Background(), storage.MustTenant(tenantA), &b); err != nil {
					t.Errorf("append: %v", err)
					return
				}
				if _, err := model.Append(context.Background(), storage.MustTenant(tenantA), &b); err != nil {
					t.Errorf("append to the model: %v", err)
				}
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			for range rounds {
				for _, err := range store.Select(context.Background(), storage.MustTenant(tenantA), s.all()) {
					if err != nil {
						t.Errorf("select: %v", err)
						return
					}
				}
				if _, err := store.LabelValues(context.Background(), storage.MustTenant(tenantA), "serial", s.all()); err != nil {
					t.Errorf("label values: %v", err)
				}
			}
		})
	}
	wg.Wait()
	compare(t, store, model, tenantA, s.all())
}

func (s *suite) testBackup(t *testing.T) {
	store, model := s.pair(t)
	s.fillBoth(t, store, model, tenantA)
	if h := store.Health(t.Context()); h.Status != storage.HealthOK || h.Backend == "" {
		t.Fatalf("health: %+v", h)
	}
	var w bytes.Buffer
	r, err := store.Backup(t.Context(), &w)
	if err != nil && storage.KindOf(err) == storage.KindUnsupported {
		return // the backend takes backups by its own means; its tests show them
	}
	if err != nil {
		t.Fatalf("backup: %v", err)
	}
	sum := sha256.Sum256(w.Bytes())
	if r.SHA256 != hex.EncodeToString(sum[:]) || r.Entries == 0 || r.Bytes != uint64(w.Len()) {
		t.Fatalf("backup of %d bytes with sha256 %x: report %+v", w.Len(), sum, r)
	}
}

func (s *suite) testClosed(t *testing.T) {
	store, model := s.pair(t)
	s.fillBoth(t, store, model, tenantA)
	for range 2 {
		if err := store.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
	var b storage.Batch
	b.Add(name("m"), storage.Sample{T: s.now, V: 1})
	if _, err := store.Append(t.Context(), storage.MustTenant(tenantA), &b); storage.KindOf(err) != storage.KindUnavailable {
		t.Fatalf("append to a closed store: got %v, want unavailable", err)
	}
	var last error
	for _, err := range store.Select(t.Context(), storage.MustTenant(tenantA), s.all()) {
		last = err
	}
	if storage.KindOf(last) != storage.KindUnavailable {
		t.Fatalf("select from a closed store: got %v, want unavailable", last)
	}
	if h := store.Health(t.Context()); h.Status == storage.HealthOK {
		t.Fatalf("health of a closed store: %+v", h)
	}
}

func (s *suite) testReopen(t *testing.T) {
	if s.opts.Reopen == nil {
		return // the store keeps nothing
	}
	store, model := s.pair(t)
	for range 3 {
		s.fillBoth(t, store, model, tenantA)
		var b storage.Batch
		b.Metadata = []storage.Metadata{{Metric: "m", Type: "gauge", Help: "h"}}
		b.Add(name("m"), storage.Sample{T: s.now - day, V: 1})
		appendBoth(t, store, model, tenantB, &b)
		store = s.opts.Reopen(t, store)
		compare(t, store, model, tenantA, s.all())
		compare(t, store, model, tenantB, s.all())
	}
	if md, err := store.Metadata(t.Context(), storage.MustTenant(tenantB), storage.MetadataQuery{}); err != nil || len(md) != 1 {
		t.Fatalf("metadata after reopening: %v, %v", md, err)
	}
}

// testRandom compares random operations with the model. The seed is fixed, so a
// failure repeats.
func (s *suite) testRandom(t *testing.T) {
	store, model := s.pair(t)
	rng := rand.New(rand.NewPCG(99, 100))
	r := &randomOps{suite: s, rng: rng}
	for i := range s.opts.RandomOps {
		tenant := []string{tenantA, tenantB}[rng.IntN(2)]
		switch op := rng.IntN(100); {
		case op < 60:
			appendBoth(t, store, model, tenant, r.batch())
		case op < 85:
			compare(t, store, model, tenant, r.selection())
		case op < 92:
			q := r.selection()
			if len(q.Matchers) == 0 {
				continue
			}
			if _, err := store.Delete(t.Context(), storage.MustTenant(tenant), q); err != nil {
				t.Fatalf("operation %d: delete: %v", i, err)
			}
			_, _ = model.Delete(t.Context(), storage.MustTenant(tenant), q)
		case op < 96:
			if _, err := store.Cleanup(t.Context()); err != nil {
				t.Fatalf("operation %d: cleanup: %v", i, err)
			}
		case op < 97 && s.opts.Reopen != nil:
			store = s.opts.Reopen(t, store)
		}
	}
	compare(t, store, model, tenantA, s.all())
	compare(t, store, model, tenantB, s.all())
}

type randomOps struct {
	*suite
	rng *rand.Rand
}

func (r *randomOps) batch() *storage.Batch {
	var b storage.Batch
	for range 1 + r.rng.IntN(20) {
		ls := r.labels()
		var xs []storage.Sample
		base := r.now - r.rng.Int64N(4*day)
		for i := range 1 + r.rng.IntN(30) {
			v := float64(r.rng.IntN(100))
			switch r.rng.IntN(30) {
			case 0:
				v = storage.StaleNaN
			case 1:
				v = specialValues()[r.rng.IntN(len(specialValues()))]
			case 2:
				v = r.rng.NormFloat64()
			}
			xs = append(xs, storage.Sample{T: base + int64(i)*1000*int64(r.rng.IntN(3)), V: v})
		}
		b.Add(ls, xs...)
	}
	return &b
}

func (r *randomOps) labels() storage.Labels {
	pairs := []string{"a", fmt.Sprint(r.rng.IntN(5))}
	if r.rng.IntN(2) == 0 {
		pairs = append(pairs, "b", fmt.Sprint(r.rng.IntN(5)))
	}
	return name("m"+fmt.Sprint(r.rng.IntN(3)), pairs...)
}

func (r *randomOps) selection() storage.Selection {
	q := storage.Selection{MinT: r.now - r.rng.Int64N(5*day), MaxT: r.now}
	q.MaxT = q.MinT + r.rng.Int64N(2*day)
	for range r.rng.IntN(3) {
		v := fmt.Sprint(r.rng.IntN(5))
		q.Matchers = append(q.Matchers, []*storage.Matcher{
			Eq("a", v), Ne("b", v), Re("b", "[0-2]"), NotRe("a", "3|4"), Eq("b", ""), Eq(storage.MetricName, "m"+fmt.Sprint(r.rng.IntN(3))),
		}[r.rng.IntN(6)])
	}
	return q
}
