package native

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	promlabels "github.com/prometheus/prometheus/model/labels"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
	"github.com/luminate/luminate/tenancy"
)

// fakeLimits keeps what it is given.
type fakeLimits struct{ set map[string]json.RawMessage }

func (f *fakeLimits) TenantLimits(_ context.Context, t storage.Tenant) (any, error) {
	if doc, ok := f.set[t.String()]; ok {
		return doc, nil
	}
	return map[string]any{"maxActiveSeries": 150_000}, nil
}

func (f *fakeLimits) SetTenantLimits(ctx context.Context, t storage.Tenant, doc json.RawMessage) (any, error) {
	if !strings.Contains(string(doc), "maxActiveSeries") {
		return nil, storage.Errorf(storage.KindInvalid, "limits", "unknown limit")
	}
	f.set = map[string]json.RawMessage{t.String(): doc}
	return f.TenantLimits(ctx, t)
}

func (f *fakeLimits) TenantUsage(context.Context, storage.Tenant) (any, error) {
	return map[string]any{"series": 3}, nil
}

func (f *fixture) as(change func(*tenancy.Identity)) *fixture {
	g := *f
	change(&g.id)
	return &g
}

func anonymous(id *tenancy.Identity) {
	*id = tenancy.Identity{Tenant: id.Tenant}
}

func operatorOf(id *tenancy.Identity) { id.Scopes = append(id.Scopes, tenancy.ScopeOperator) }

// destructive lists every route that changes or deletes.
var destructive = []struct{ method, path, body string }{
	{"POST", "/api/v1/admin/retention", `{"metric":"m","retentionDays":1}`},
	{"DELETE", "/api/v1/admin/retention?metric=m", ""},
	{"DELETE", "/api/v1/admin/tenants/acme", ""},
	{"DELETE", "/api/v1/admin/metrics/m", ""},
	{"POST", "/api/v1/admin/cleanup", ""},
	{"POST", "/api/v1/admin/backup", ""},
	{"PUT", "/api/v1/admin/limits/acme", `{"maxActiveSeries":1}`},
}

func TestDestructiveRoutesNeedAuthenticationOrAdminEnable(t *testing.T) {
	limits := func(c *Config) { c.Limits = &fakeLimits{} }
	for _, c := range destructive {
		closed := newFixture(t, limits).as(anonymous)
		if e := wantError(t, closed.do(c.method, c.path, c.body), 403, CodeForbidden); !strings.Contains(e.Message, "admin.enable") {
			t.Errorf("%s %s: %s", c.method, c.path, e.Message)
		}
		open := newFixture(t, limits, func(c *Config) { c.AdminEnable = true }).as(anonymous)
		if w := open.do(c.method, c.path, c.body); w.Code >= 300 && w.Code != 404 {
			t.Errorf("%s %s with admin.enable: %d %s", c.method, c.path, w.Code, w.Body)
		}
		reader := newFixture(t, limits).as(func(id *tenancy.Identity) { id.Scopes = []tenancy.Scope{tenancy.ScopeRead, tenancy.ScopeWrite} })
		wantError(t, reader.do(c.method, c.path, c.body), 403, CodeForbidden)
		narrowed := newFixture(t, limits).as(func(id *tenancy.Identity) {
			id.Matchers = []*storage.Matcher{promlabels.MustNewMatcher(promlabels.MatchEqual, "a", "b")}
		})
		if strings.Contains(c.path, "/metrics/") { // deletes only what the token sees
			if got := want[Receipt](t, narrowed.do(c.method, c.path, c.body), 202); got.Selector != `{__name__="m", a="b"}` && got.Selector != `{__name__="m",a="b"}` {
				t.Errorf("a narrowed token deletes %s", got.Selector)
			}
			continue
		}
		wantError(t, narrowed.do(c.method, c.path, c.body), 403, CodeForbidden)
	}
	for _, path := range []string{"/api/v1/admin/retention", "/api/v1/admin/tenants", "/api/v1/admin/limits/acme"} {
		if w := newFixture(t, limits).as(anonymous).do("GET", path, ""); w.Code != 200 {
			t.Errorf("GET %s without authentication: %d", path, w.Code)
		}
	}
}

func TestOnlyOperatorsTouchOtherTenants(t *testing.T) {
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/api/v1/admin/retention?tenant=other", ""},
		{"POST", "/api/v1/admin/retention?tenant=other", `{"metric":"m","retentionDays":1}`},
		{"DELETE", "/api/v1/admin/metrics/m?tenant=other", ""},
		{"DELETE", "/api/v1/admin/tenants/other", ""},
		{"GET", "/api/v1/admin/limits/other", ""},
		{"POST", "/api/v1/admin/backup", ""},
	} {
		f := newFixture(t, func(c *Config) { c.Limits = &fakeLimits{} })
		wantError(t, f.do(c.method, c.path, c.body), 403, CodeForbidden)
		if w := f.as(operatorOf).do(c.method, c.path, c.body); w.Code >= 300 {
			t.Errorf("%s %s as operator: %d %s", c.method, c.path, w.Code, w.Body)
		}
	}
	f := newFixture(t).as(operatorOf)
	wantError(t, f.do("GET", "/api/v1/admin/retention?tenant=a%2Fb", ""), 400, CodeInvalidQuery)
	f.do("POST", "/api/v1/admin/retention?tenant=other", `{"metric":"m","retentionDays":1}`)
	if ps, _ := f.store.Retention(t.Context(), f.id.Tenant); len(ps) != 0 {
		t.Errorf("the operator's own tenant got %v", ps)
	}
	if ps, _ := f.store.Retention(t.Context(), storage.MustTenant("other")); len(ps) != 1 {
		t.Errorf("the other tenant got %v", ps)
	}
}

func TestRetention(t *testing.T) {
	f := newFixture(t)
	for body, status := range map[string]int{
		`{"metric":"debug_*","retentionDays":7}`:          200,
		`{"metric":"debug_http","retentionDays":0}`:       200,
		`{"metric":"debug_*"}`:                            400,
		`{"metric":"","retentionDays":7}`:                 400,
		`{"metric":"m","retentionDays":-1}`:               400,
		`{"metric":"m","retentionDays":65536}`:            400,
		`{"metric":"m","retentionDays":1.5}`:              400,
		`{"metric":"m","retentionDays":1,"x":2}`:          400,
		`{"metric":"m","retentionDays":1} {}`:             400,
		``:                                                400,
		`{"metric":"` + strings.Repeat("m", 2<<20) + `"}`: 413,
	} {
		if w := f.do("POST", "/api/v1/admin/retention", body); w.Code != status {
			t.Errorf("%.60s: %d %s", body, w.Code, w.Body)
		}
	}
	got := want[[]RetentionPolicy](t, f.do("GET", "/api/v1/admin/retention", ""), 200)
	if mustJSON(got) != `[{"metric":"debug_http","retentionDays":0},{"metric":"debug_*","retentionDays":7}]` {
		t.Errorf("%s", mustJSON(got))
	}
	if w := f.do("DELETE", "/api/v1/admin/retention?metric=debug_http", ""); w.Code != 204 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := f.do("DELETE", "/api/v1/admin/retention", `{"metric":"debug_*","retentionDays":7}`); w.Code != 204 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	wantError(t, f.do("DELETE", "/api/v1/admin/retention", `{"metric":"debug_*"}`), 404, CodeNotFound)
	wantError(t, f.do("DELETE", "/api/v1/admin/retention", `{}`), 400, CodeInvalidQuery)
	if w := f.do("GET", "/api/v1/admin/retention", ""); strings.TrimSpace(w.Body.String()) != "[]" {
		t.Errorf("%s", w.Body)
	}
}

func TestShorterRetentionHidesAtOnce(t *testing.T) {
	f := newFixture(t)
	f.fill(func(b *storage.Batch) {
		b.Add(storage.LabelsFromStrings("__name__", "debug_x"), storage.Sample{T: day - 2*dayMillis, V: 1}, storage.Sample{T: day, V: 2})
	})
	f.do("POST", "/api/v1/admin/retention", `{"metric":"debug_*","retentionDays":1}`)
	wantLines(t, f.stored(), `{__name__="debug_x"} 00:00:00.000 2`)
	if got := want[CleanupResponse](t, f.do("POST", "/api/v1/admin/cleanup", ""), 200); got.Partitions != 0 {
		t.Errorf("%+v", got)
	}
}

func TestDeleteMetric(t *testing.T) {
	f := newFixture(t)
	latencies(f)
	got := want[Receipt](t, f.do("DELETE", "/api/v1/admin/metrics/api_latency?before=2024-12-31T00:01:00Z", ""), 202)
	if got.MatchedSeries != 3 || got.MaxTime != day+minute-1 || got.Selector != `{__name__="api_latency"}` || got.ID == "" {
		t.Errorf("%+v", got)
	}
	if n := len(f.stored()); n != 6 { // what was written a minute later, a stale marker among it
		t.Errorf("%d samples left: %v", n, f.stored())
	}
	again := want[Receipt](t, f.do("GET", "/api/v1/admin/deletes/"+got.ID, ""), 200)
	if mustJSON(again) != mustJSON(got) || again.State != storage.DeleteErased {
		t.Errorf("%+v", again)
	}
	wantError(t, f.do("GET", "/api/v1/admin/deletes/none", ""), 404, CodeNotFound)
	wantError(t, f.do("DELETE", "/api/v1/admin/metrics/api_latency?before=soon", ""), 400, CodeInvalidQuery)
	want[Receipt](t, f.do("DELETE", "/api/v1/admin/metrics/api_latency", ""), 202)
	if n := len(f.stored()); n != 0 {
		t.Errorf("%d samples left", n)
	}
}

func TestTenants(t *testing.T) {
	f := newFixture(t)
	latencies(f)
	other := f.as(func(id *tenancy.Identity) { id.Tenant = storage.MustTenant("other") })
	latencies(other)
	if got := want[[]TenantInfo](t, f.do("GET", "/api/v1/admin/tenants", ""), 200); len(got) != 1 || got[0].Tenant != "acme" || got[0].Series != 3 {
		t.Errorf("%+v", got)
	}
	if got := want[[]TenantInfo](t, f.as(operatorOf).do("GET", "/api/v1/admin/tenants", ""), 200); len(got) != 2 {
		t.Errorf("%+v", got)
	}
	want[TenantDeleted](t, f.do("DELETE", "/api/v1/admin/tenants/acme", ""), 200)
	if len(f.stored()) != 0 || len(other.stored()) == 0 {
		t.Error("the wrong tenant was deleted")
	}
}

func TestBackup(t *testing.T) {
	f := newFixture(t).as(operatorOf)
	latencies(f)
	w := f.do("POST", "/api/v1/admin/backup", "")
	res := w.Result()
	if w.Code != 200 || w.Body.Len() == 0 || len(res.Trailer.Get(backupSHA256Trailer)) != 64 {
		t.Errorf("%d, %d bytes, trailers %v", w.Code, w.Body.Len(), res.Trailer)
	}
	if d := res.Header.Get("Content-Disposition"); d != `attachment; filename="luminate-20241231T120000Z.backup"` {
		t.Error(d)
	}
	if at := testutil.ToFloat64(f.api.metrics.lastBackup); at != float64(testNow.Unix()) {
		t.Errorf("the last backup was at %v", at)
	}
	faulty := storagetest.NewFaulty(f.store, storagetest.FailWith(storage.KindUnavailable))
	f = newFixtureOver(t, faulty).as(operatorOf)
	wantError(t, f.do("POST", "/api/v1/admin/backup", ""), 503, CodeUnavailable)
	if at := testutil.ToFloat64(f.api.metrics.lastBackup); at != 0 {
		t.Errorf("a backup that failed counts as one at %v", at)
	}
}

// cutBackup fails after some bytes.
type cutBackup struct{ storage.Store }

func (cutBackup) Backup(_ context.Context, w io.Writer) (storage.BackupReport, error) {
	_, _ = w.Write([]byte("part"))
	return storage.BackupReport{}, storage.Errorf(storage.KindInternal, "backup", "disk error")
}

func TestBackupThatFailsMidwayIsCut(t *testing.T) {
	f := newFixture(t).as(operatorOf)
	f.api.store = cutBackup{f.store}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.router.ServeHTTP(w, r.WithContext(tenancy.NewContext(r.Context(), f.id)))
	}))
	defer srv.Close()
	client := srv.Client()
	defer client.CloseIdleConnections()
	res, err := client.Post(srv.URL+"/api/v1/admin/backup", "", nil)
	if err == nil {
		defer func() { _ = res.Body.Close() }()
		_, err = io.ReadAll(res.Body)
	}
	if err == nil {
		t.Error("the client cannot tell the part from the whole")
	}
}

func TestLimits(t *testing.T) {
	f := newFixture(t)
	wantError(t, f.do("GET", "/api/v1/admin/limits/acme", ""), 404, CodeNotFound)
	wantError(t, f.do("PUT", "/api/v1/admin/limits/acme", `{}`), 404, CodeNotFound)
	f = newFixture(t, func(c *Config) { c.Limits = &fakeLimits{} })
	if got := want[map[string]int](t, f.do("PUT", "/api/v1/admin/limits/acme", `{"maxActiveSeries":7}`), 200); got["maxActiveSeries"] != 7 {
		t.Errorf("%v", got)
	}
	if got := want[map[string]int](t, f.do("GET", "/api/v1/admin/limits/acme", ""), 200); got["maxActiveSeries"] != 7 {
		t.Errorf("%v", got)
	}
	wantError(t, f.do("PUT", "/api/v1/admin/limits/acme", `{"x":1}`), 400, CodeInvalidQuery)
	wantError(t, f.do("PUT", "/api/v1/admin/limits/acme", `{`), 400, CodeInvalidJSON)
}

func TestWhoami(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Limits = &fakeLimits{} }).as(func(id *tenancy.Identity) {
		id.Subject, id.Expires = "grafana", testNow.Add(time.Hour)
		id.Matchers = []*storage.Matcher{promlabels.MustNewMatcher(promlabels.MatchEqual, "customer_id", "a")}
		id.Federated = []storage.Tenant{id.Tenant, storage.MustTenant("b")}
	})
	golden(t, "whoami.json", f.do("GET", "/api/v1/whoami", "").Body.Bytes())
	golden(t, "whoami_anonymous.json", newFixture(t).as(anonymous).do("GET", "/api/v1/whoami", "").Body.Bytes())
}

func TestPage(t *testing.T) {
	f := newFixture(t)
	text := f.do("GET", "/", "", "Accept", "*/*")
	golden(t, "page.txt", text.Body.Bytes())
	html := f.do("GET", "/", "", "Accept", "text/html,application/xhtml+xml")
	golden(t, "page.html", html.Body.Bytes())
	if ct := html.Header().Get("Content-Type"); !strings.HasPrefix(ct, "text/html") {
		t.Error(ct)
	}
	w := f.do("GET", "/api/v1/openapi.yaml", "")
	if w.Code != 200 || !strings.HasPrefix(w.Body.String(), "openapi: 3.") {
		t.Errorf("%d %.50s", w.Code, w.Body)
	}
}

func TestRefusals(t *testing.T) {
	s := NewRefusals()
	acme := storage.MustTenant("acme")
	for i := range 250 {
		s.Record(acme, Refusal{Time: testNow, Series: string(rune('A' + i%26)), Message: strings.Repeat("x", 5000)})
	}
	got := s.List(acme)
	if len(got) != 100 || got[0].Series != string(rune('A'+249%26)) || got[99].Series != string(rune('A'+150%26)) || len(got[0].Message) > 1100 {
		t.Errorf("%d kept, newest %s, oldest %s", len(got), got[0].Series, got[99].Series)
	}
	for i := range 2000 {
		s.Record(storage.MustTenant("t"+formatUint(uint64(i))), Refusal{Time: testNow, Source: "remote_write", Series: "m", Reason: "too_old", Message: "old"})
	}
	if n := len(s.rings); n != 1000 {
		t.Errorf("%d tenants kept", n)
	}
	if got := s.List(storage.MustTenant("t1999")); len(got) != 1 || got[0].Reason != "too_old" {
		t.Errorf("%+v", got)
	}
	f := newFixture(t)
	f.write(`{"metrics":[` + metric("value", "null") + `]}`)
	golden(t, "refused.json", f.do("GET", "/api/v1/refused", "").Body.Bytes())
}
