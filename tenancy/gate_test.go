package tenancy

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/mux"

	"github.com/luminate/luminate/storage"
)

// testRoutes are one of each kind, as the program registers them.
var testRoutes = []struct{ method, path string }{
	{"POST", "/api/v1/write"}, {"GET", "/api/v1/write"}, {"POST", "/api/v1/push"}, {"POST", "/api/v1/read"},
	{"GET", "/api/v1/query"}, {"POST", "/api/v1/query"}, {"GET", "/api/v1/label/{name}/values"},
	{"GET", "/api/v1/whoami"}, {"GET", "/api/v1/refused"}, {"GET", "/api/v1/admin/tenants"},
	{"DELETE", "/api/v1/admin/tenants/{tenant}"}, {"PUT", "/api/v1/admin/limits/{tenant}"}, {"POST", "/api/v1/admin/backup"},
	{"GET", "/livez"}, {"GET", "/metrics"}, {"GET", "/debug/pprof/{profile}"},
}

type gateUnderTest struct {
	gate *Gate
	mux  *mux.Router
	log  *bytes.Buffer
	seen Identity // of the last request that reached a handler
}

func newTestGate(t testing.TB, v *Verifier, l *Limiter, edit func(*GateConfig)) *gateUnderTest {
	t.Helper()
	cfg := DefaultGateConfig()
	cfg.AuthRequired = v != nil
	if edit != nil {
		edit(&cfg)
	}
	g := &gateUnderTest{mux: mux.NewRouter(), log: &bytes.Buffer{}}
	var err error
	g.gate, err = NewGate(cfg, v, l, slog.New(slog.NewTextHandler(g.log, nil)), nil)
	if err != nil {
		t.Fatal(err)
	}
	g.mux.Use(g.gate.Middleware)
	for _, r := range testRoutes {
		g.mux.HandleFunc(r.path, func(w http.ResponseWriter, r *http.Request) {
			g.seen, _ = FromContext(r.Context())
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusOK)
		}).Methods(r.method)
	}
	if err := g.gate.Check(g.mux); err != nil {
		t.Fatal(err)
	}
	return g
}

// ask sends a request; headers are "Name: value".
func (g *gateUnderTest) ask(method, path string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader("{}"))
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		r.Header.Add(k, v)
	}
	w := httptest.NewRecorder()
	g.seen = Identity{}
	g.mux.ServeHTTP(w, r)
	return w
}

func bearer(t testing.TB, g Grant) string {
	return "Authorization: Bearer " + mint(t, []byte(testSecret), g)
}

func secretVerifier(t testing.TB) *Verifier {
	return newTestVerifier(t, func(c *AuthConfig) { c.Secret = testSecret })
}

func TestTenantOfARequest(t *testing.T) {
	g := newTestGate(t, secretVerifier(t), nil, nil)
	scopes := []Scope{ScopeRead, ScopeWrite}
	one := bearer(t, Grant{Tenant: "a", Scopes: scopes, TTL: time.Hour})
	agent := bearer(t, Grant{Tenants: []string{"a", "b"}, Scopes: scopes, TTL: time.Hour})
	both := bearer(t, Grant{Tenant: "a", Tenants: []string{"b"}, Scopes: scopes, TTL: time.Hour})
	any := bearer(t, Grant{Tenants: []string{"*"}, Scopes: scopes, TTL: time.Hour})
	long := strings.Repeat("x", 151)
	for i, c := range []struct {
		path, token string
		headers     []string
		status      int
		tenants     string
	}{
		{"/api/v1/query", one, nil, 200, "a"},
		{"/api/v1/query", one, []string{"X-Scope-OrgID: a"}, 200, "a"},
		{"/api/v1/query", one, []string{"x-scope-orgid: b"}, 403, ""},
		{"/api/v1/query", one, []string{"X-Scope-OrgID: A"}, 403, ""},
		{"/api/v1/query", one, []string{"X-Scope-OrgID: a|b"}, 403, ""},
		{"/api/v1/query", one, []string{"X-Scope-OrgID: a", "X-Scope-OrgID: a"}, 400, ""},
		{"/api/v1/query", one, []string{"X-Scope-OrgID: a", "x-scope-orgid: b"}, 400, ""},
		{"/api/v1/query", one, []string{"X-Scope-OrgID: "}, 400, ""},
		{"/api/v1/query", one, []string{"X-Scope-OrgID: ."}, 400, ""},
		{"/api/v1/query", one, []string{"X-Scope-OrgID: .."}, 400, ""},
		{"/api/v1/query", one, []string{"X-Scope-OrgID: a/../b"}, 400, ""},
		{"/api/v1/query", one, []string{"X-Scope-OrgID: a, b"}, 400, ""},
		{"/api/v1/query", one, []string{"X-Scope-OrgID: " + long}, 400, ""},
		{"/api/v1/query", one, []string{"X-Scope-OrgID: a|"}, 400, ""},
		{"/api/v1/query", one, []string{"THANOS-TENANT: a"}, 200, "a"},
		{"/api/v1/query", one, []string{"THANOS-TENANT: b"}, 403, ""},
		{"/api/v1/query", agent, nil, 400, ""},
		{"/api/v1/query", agent, []string{"X-Scope-OrgID: b"}, 200, "b"},
		{"/api/v1/query", agent, []string{"X-Scope-OrgID: c"}, 403, ""},
		{"/api/v1/query", agent, []string{"X-Scope-OrgID: a|b"}, 200, "a|b"},
		{"/api/v1/query", agent, []string{"X-Scope-OrgID: a|b|c"}, 403, ""},
		{"/api/v1/query", agent, []string{"X-Scope-OrgID: a|a"}, 200, "a"},
		{"/api/v1/query", both, nil, 200, "a"},
		{"/api/v1/query", both, []string{"X-Scope-OrgID: b"}, 200, "b"},
		{"/api/v1/query", any, nil, 400, ""},
		{"/api/v1/query", any, []string{"X-Scope-OrgID: whatever"}, 200, "whatever"},
		{"/api/v1/query", any, []string{"X-Scope-OrgID: " + strings.Repeat("a|", 64) + "b"}, 400, ""},
		{"/api/v1/push", agent, []string{"X-Scope-OrgID: a"}, 200, "a"},
		{"/api/v1/push", agent, []string{"X-Scope-OrgID: a|b"}, 400, ""},
		{"/api/v1/push", agent, nil, 400, ""},
		{"/api/v1/whoami", agent, nil, 200, ""},
	} {
		method := "GET"
		if strings.HasSuffix(c.path, "push") {
			method = "POST"
		}
		w := g.ask(method, c.path, append(c.headers, c.token)...)
		got := g.seen.Tenant.String()
		if len(g.seen.Federated) > 0 {
			got = fmt.Sprint(g.seen.Federated[0], "|", g.seen.Federated[1])
		}
		if w.Code != c.status || got != c.tenants {
			t.Errorf("%d: %s %v: %d %q, want %d %q: %s", i, c.path, c.headers, w.Code, got, c.status, c.tenants, w.Body)
		}
	}
}

func TestListedTenants(t *testing.T) {
	listed := func(c *GateConfig) { c.ListedOnly, c.Tenants = true, []string{"a", "default"} }
	for name, v := range map[string]*Verifier{"off": nil, "on": secretVerifier(t)} {
		g := newTestGate(t, v, nil, listed)
		token := bearer(t, Grant{Tenants: []string{"*"}, Scopes: []Scope{ScopeRead}, TTL: time.Hour})
		if w := g.ask("GET", "/api/v1/query", token, "X-Scope-OrgID: a"); w.Code != 200 {
			t.Errorf("%s: a listed tenant: %d", name, w.Code)
		}
		if w := g.ask("GET", "/api/v1/query", token, "X-Scope-OrgID: typo"); w.Code != 403 {
			t.Errorf("%s: a tenant that is not listed: %d", name, w.Code)
		}
	}
	g := newTestGate(t, secretVerifier(t), nil, listed)
	if w := g.ask("GET", "/api/v1/query", bearer(t, Grant{Tenant: "gone", Scopes: []Scope{ScopeRead}, TTL: time.Hour})); w.Code != 403 {
		t.Errorf("a token of a tenant that is not listed: %d", w.Code)
	}
}

func TestWithoutAuthentication(t *testing.T) {
	g := newTestGate(t, nil, nil, nil)
	for _, c := range []struct {
		method, path string
		header       string
		status       int
		tenant       string
	}{
		{"GET", "/api/v1/query", "X: y", 200, "default"},
		{"GET", "/api/v1/query", "X-Scope-OrgID: team", 200, "team"},
		{"GET", "/api/v1/query", "X-Scope-OrgID: a|b", 200, "a"},
		{"POST", "/api/v1/write", "X-Scope-OrgID: a|b", 400, ""},
		{"POST", "/api/v1/write", "X-Scope-OrgID: ..", 400, ""},
		{"DELETE", "/api/v1/admin/tenants/z", "X: y", 200, "default"},
		{"GET", "/metrics", "X: y", 200, ""},
	} {
		w := g.ask(c.method, c.path, c.header)
		if w.Code != c.status || g.seen.Tenant.String() != c.tenant || g.seen.Authenticated {
			t.Errorf("%s %s %s: %d %+v", c.method, c.path, c.header, w.Code, g.seen)
		}
	}
	shut := newTestGate(t, nil, nil, func(c *GateConfig) { c.AuthRequired = true })
	if w := shut.ask("GET", "/api/v1/query"); w.Code != 401 || shut.gate.Ready() == nil {
		t.Errorf("authentication without a key: %d, ready %v", w.Code, shut.gate.Ready())
	}
}

func TestScopes(t *testing.T) {
	g := newTestGate(t, secretVerifier(t), nil, nil)
	allowed := map[string]string{ // scope of the token: routes it opens
		"read":     "GET/api/v1/query POST/api/v1/query POST/api/v1/read GET/api/v1/label/{name}/values GET/api/v1/refused",
		"write":    "POST/api/v1/write GET/api/v1/write POST/api/v1/push",
		"admin":    "GET/api/v1/admin/tenants DELETE/api/v1/admin/tenants/{tenant} PUT/api/v1/admin/limits/{tenant} GET/metrics GET/debug/pprof/{profile}",
		"operator": "GET/api/v1/admin/tenants DELETE/api/v1/admin/tenants/{tenant} PUT/api/v1/admin/limits/{tenant} POST/api/v1/admin/backup GET/metrics GET/debug/pprof/{profile}",
	}
	for scope, routes := range allowed {
		token := bearer(t, Grant{Tenant: "a", Scopes: []Scope{Scope(scope)}, TTL: time.Hour})
		for _, r := range testRoutes {
			want := http.StatusForbidden
			if strings.Contains(" "+routes+" ", " "+r.method+r.path+" ") || r.path == "/livez" || r.path == "/api/v1/whoami" {
				want = http.StatusOK
			}
			path := strings.NewReplacer("{tenant}", "a", "{name}", "x", "{profile}", "heap").Replace(r.path)
			if w := g.ask(r.method, path, token); w.Code != want {
				t.Errorf("scope %s: %s %s: %d, want %d", scope, r.method, r.path, w.Code, want)
			}
		}
	}
	admin := bearer(t, Grant{Tenant: "a", Scopes: []Scope{ScopeAdmin}, TTL: time.Hour})
	operator := bearer(t, Grant{Scopes: []Scope{ScopeOperator}, TTL: time.Hour})
	if w := g.ask("DELETE", "/api/v1/admin/tenants/b", admin); w.Code != 403 {
		t.Errorf("an admin of a deletes b: %d", w.Code)
	}
	if w := g.ask("DELETE", "/api/v1/admin/tenants/b", operator); w.Code != 200 {
		t.Errorf("an operator deletes b: %d", w.Code)
	}
	if w := g.ask("GET", "/api/v1/admin/tenants", operator, "X-Scope-OrgID: b"); w.Code != 200 || g.seen.Tenant.String() != "b" {
		t.Errorf("an operator chooses b: %d", w.Code)
	}
	if w := g.ask("GET", "/api/v1/query", operator, "X-Scope-OrgID: b"); w.Code != 403 {
		t.Errorf("an operator without the scope read reads b: %d", w.Code)
	}
	narrowed := reader()
	narrowed.Matchers, narrowed.Scopes = []string{`c="x"`}, []Scope{ScopeRead, ScopeAdmin}
	if w := g.ask("GET", "/api/v1/refused", bearer(t, narrowed)); w.Code != 403 {
		t.Errorf("a narrowed token sees the whole tenant's refusals: %d", w.Code)
	}
	open := newTestGate(t, secretVerifier(t), nil, func(c *GateConfig) { c.OpenInternals = true })
	if w := open.ask("GET", "/metrics"); w.Code != 200 {
		t.Errorf("/metrics on loopback: %d", w.Code)
	}
}

func TestHowATokenIsSent(t *testing.T) {
	g := newTestGate(t, secretVerifier(t), nil, nil)
	token := mint(t, []byte(testSecret), reader())
	basic := func(s string) string { return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	for header, status := range map[string]int{
		"Authorization: Bearer " + token:     200,
		"Authorization: bearer " + token:     200,
		basic("anybody:" + token):            200,
		basic(":" + token):                   200,
		basic(token):                         401,
		basic("a:b"):                         401,
		"Authorization: Basic !!!":           401,
		"Authorization: Token " + token:      401,
		"Authorization: " + token:            401,
		"Authorization: Bearer":              401,
		"Cookie: token=" + token:             401,
		"X: y":                               401,
		"Authorization: Bearer " + token[1:]: 401,
	} {
		w := g.ask("GET", "/api/v1/query", header)
		if w.Code != status {
			t.Errorf("%.40s: %d, want %d", header, w.Code, status)
		}
		if status == 401 && len(w.Header()["Www-Authenticate"]) != 2 {
			t.Errorf("%.40s: challenges %v", header, w.Header()["Www-Authenticate"])
		}
	}
	if w := g.ask("GET", "/api/v1/query", "Authorization: Bearer "+token, "Authorization: Bearer "+token); w.Code != 401 {
		t.Errorf("two Authorization headers: %d", w.Code)
	}
	if w := g.ask("GET", "/api/v1/query?access_token="+token); w.Code != 401 {
		t.Errorf("a token in the URL: %d", w.Code)
	}
}

// TestAnswersHaveTheFormOfTheirAPI checks the error bodies.
func TestAnswersHaveTheFormOfTheirAPI(t *testing.T) {
	g := newTestGate(t, secretVerifier(t), nil, nil)
	var prom struct{ Status, ErrorType, Error string }
	w := g.ask("GET", "/api/v1/query")
	if err := json.Unmarshal(w.Body.Bytes(), &prom); err != nil || prom.Status != "error" || prom.ErrorType != "unauthorized" || prom.Error == "" {
		t.Errorf("Prometheus: %s", w.Body)
	}
	var native struct {
		Error struct{ Code, Message string }
	}
	for _, path := range []string{"/api/v1/query", "/api/v1/write"} {
		w = g.ask("POST", path, "Content-Type: application/json; charset=utf-8")
		if err := json.Unmarshal(w.Body.Bytes(), &native); err != nil || native.Error.Code != "UNAUTHORIZED" {
			t.Errorf("native %s: %s", path, w.Body)
		}
	}
	w = g.ask("POST", "/api/v1/write", "Content-Type: application/x-protobuf")
	if strings.HasPrefix(w.Body.String(), "{") || w.Code != 401 {
		t.Errorf("remote write: %d %s", w.Code, w.Body)
	}
}

func TestRepeatedFailuresAreSlowed(t *testing.T) {
	clk := newClock()
	g := newTestGate(t, secretVerifier(t), nil, func(c *GateConfig) { c.Now = clk.Now })
	token := bearer(t, reader())
	codes := map[int]int{}
	for range 50 {
		codes[g.ask("GET", "/api/v1/query", "Authorization: Bearer a.b.c").Code]++
	}
	if codes[401] != failureBurst || codes[429] != 50-failureBurst {
		t.Errorf("50 failures: %v", codes)
	}
	w := g.ask("GET", "/api/v1/query", "Authorization: Bearer a.b.c")
	if w.Header().Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
	}
	if w := g.ask("GET", "/api/v1/query", token); w.Code != 200 {
		t.Errorf("a right token from the same address: %d", w.Code)
	}
	r := httptest.NewRequest("GET", "/api/v1/query", nil)
	r.RemoteAddr = "[2001:db8::1]:1"
	rec := httptest.NewRecorder()
	g.mux.ServeHTTP(rec, r)
	if rec.Code != 401 {
		t.Errorf("another address: %d", rec.Code)
	}
	clk.add(10 * time.Second)
	if w := g.ask("GET", "/api/v1/query", "Authorization: Bearer a.b.c"); w.Code != 401 {
		t.Errorf("after a while: %d", w.Code)
	}
	s := newSlowdown()
	s.maximum = 16
	for i := range 1000 {
		s.failed(fmt.Sprintf("10.0.%d.%d:80", i/250, i%250), clk.Now())
	}
	if len(s.byAddr) > 16 {
		t.Errorf("%d addresses are tracked", len(s.byAddr))
	}
}

func TestAuditLines(t *testing.T) {
	g := newTestGate(t, secretVerifier(t), nil, nil)
	token := mint(t, []byte(testSecret), Grant{Subject: "alice", Tenant: "a", Scopes: []Scope{ScopeAdmin}, TTL: time.Hour})
	g.ask("DELETE", "/api/v1/admin/tenants/a", "Authorization: Bearer "+token, "X-Request-Id: r1")
	g.ask("DELETE", "/api/v1/admin/tenants/b", "Authorization: Bearer "+token)
	g.ask("GET", "/api/v1/whoami", "Authorization: Bearer "+token)
	lines := strings.Split(strings.TrimSpace(g.log.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines: %s", len(lines), g.log)
	}
	for i, want := range [][]string{
		{"msg=audit", "method=DELETE", "path=/api/v1/admin/tenants/a", "status=200", "tenant=a", "subject=alice", "request_id=r1", "remote="},
		{"audit: refused", "path=/api/v1/admin/tenants/b", "status=403"},
	} {
		for _, part := range want {
			if !strings.Contains(lines[i], part) {
				t.Errorf("line %d lacks %q: %s", i, part, lines[i])
			}
		}
	}
	if strings.Contains(g.log.String(), token) {
		t.Error("a token is in the log")
	}
}

func TestUnlistedRouteDoesNotStart(t *testing.T) {
	g := newTestGate(t, nil, nil, nil)
	handler := func(http.ResponseWriter, *http.Request) {}
	for name, add := range map[string]func(*mux.Router){
		"unknown path":   func(r *mux.Router) { r.HandleFunc("/api/v1/new", handler).Methods("GET") },
		"unknown method": func(r *mux.Router) { r.HandleFunc("/livez", handler).Methods("DELETE") },
		"no method":      func(r *mux.Router) { r.HandleFunc("/livez", handler) },
		"subrouter":      func(r *mux.Router) { r.PathPrefix("/x").Subrouter().HandleFunc("/y", handler).Methods("GET") },
	} {
		r := mux.NewRouter()
		add(r)
		if err := g.gate.Check(r); err == nil {
			t.Errorf("%s: the router passes", name)
		}
	}
	// A gate that was never checked, or a route that came later, stays shut.
	fresh := mux.NewRouter()
	fresh.Use(g.gate.Middleware)
	fresh.HandleFunc("/livez", handler).Methods("GET")
	w := httptest.NewRecorder()
	fresh.ServeHTTP(w, httptest.NewRequest("GET", "/livez", nil))
	if w.Code != 403 {
		t.Errorf("a route that Check did not see: %d", w.Code)
	}
}

// FuzzTenantHeader sends any header value with a token of tenant a: whatever comes
// through is for a.
func FuzzTenantHeader(f *testing.F) {
	g := newTestGate(f, secretVerifier(f), nil, nil)
	token := mint(f, []byte(testSecret), Grant{Tenant: "a", Scopes: []Scope{ScopeRead}, TTL: time.Hour})
	for _, s := range []string{"a", "b", "a|b", "a ", "A", "", "..", "a\x00", "a%62", "*", "a|a"} {
		f.Add(s)
	}
	a := storage.MustTenant("a")
	f.Fuzz(func(t *testing.T, header string) {
		r := httptest.NewRequest("GET", "/api/v1/query", nil)
		r.Header["Authorization"] = []string{"Bearer " + token}
		r.Header["X-Scope-Orgid"] = []string{header}
		w := httptest.NewRecorder()
		g.seen = Identity{}
		g.mux.ServeHTTP(w, r)
		if w.Code == 200 && (g.seen.Tenant != a || g.seen.Federated != nil) {
			t.Fatalf("header %q made tenant %q %v", header, g.seen.Tenant, g.seen.Federated)
		}
	})
}

func newRecorder() *httptest.ResponseRecorder { return httptest.NewRecorder() }
