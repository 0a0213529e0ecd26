package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/mux"
	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
	"github.com/luminate/luminate/tenancy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	promwrite "github.com/prometheus/prometheus/prompb"

	"github.com/golang/snappy"
)

const authSecret = "a-secret-of-at-least-32-bytes-for-tests"

// authServer is the whole program behind the listener, in this process.
type authServer struct {
	*httptest.Server
	app *app
	log *lockedBuffer
	reg *prometheus.Registry
}

// newAuthServer serves store with authentication by authSecret; edit may change
// the configuration.
func newAuthServer(t testing.TB, store storage.Store, edit func(*Config)) *authServer {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Auth.JWTSecret = authSecret
	cfg.Server.Listen = "0.0.0.0:8080" // so that /metrics and profiles are not open
	cfg.Log.Level = "debug"
	if edit != nil {
		edit(&cfg)
	}
	s := &authServer{log: &lockedBuffer{}, reg: prometheus.NewRegistry()}
	log := slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	g, err := newGuards(&cfg, store, log, s.reg)
	if err != nil {
		t.Fatal(err)
	}
	p := newProbes("model", time.Now())
	s.app = &app{store: g.wrap(store), done: func() error { return nil }, tasks: g.tasks(store)}
	if err := s.app.build(&cfg, g, log, s.reg, p); err != nil {
		t.Fatal(err)
	}
	p.serve(store, g.gate.Ready)
	stop := s.app.start(context.Background())
	s.Server = httptest.NewServer(outerHandler(&cfg, p, s.app.router))
	t.Cleanup(func() {
		s.Close()
		stop()
		if err := s.app.promql.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func mintFor(t testing.TB, g tenancy.Grant) string {
	t.Helper()
	if g.TTL == 0 {
		g.TTL = time.Hour
	}
	token, _, err := tenancy.Mint([]byte(authSecret), g, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return token
}

var everyScope = []tenancy.Scope{tenancy.ScopeRead, tenancy.ScopeWrite, tenancy.ScopeAdmin}

// call sends a request and returns status and body.
func (s *authServer) call(t testing.TB, method, path, body string, headers ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b.String()
}

// registered lists every method and template of the router.
func registered(t testing.TB, r *mux.Router) [][2]string {
	t.Helper()
	var out [][2]string
	err := r.Walk(func(route *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		template, err := route.GetPathTemplate()
		if err != nil {
			return err
		}
		methods, err := route.GetMethods()
		for _, m := range methods {
			out = append(out, [2]string{m, template})
		}
		return err
	})
	if err != nil || len(out) < 60 {
		t.Fatalf("%d routes, %v", len(out), err)
	}
	return out
}

// pathOf fills a template's variables.
func pathOf(template, tenant string) string {
	return strings.NewReplacer("{tenant}", tenant, "{t}", tenant, "{name}", "canary_total", "{key}", "customer_id", "{id}", "none", "{profile}", "goroutine").Replace(template)
}

// TestEveryRoute asks every registered route with every kind of wrong caller, and
// with the right one.
func TestEveryRoute(t *testing.T) {
	s := newAuthServer(t, storagetest.NewModel(), nil)
	expired, _, err := tenancy.Mint([]byte(authSecret), tenancy.Grant{Tenant: "a", Scopes: everyScope, TTL: time.Minute}, time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	full := mintFor(t, tenancy.Grant{Tenant: "a", Scopes: everyScope})
	header, payload, _ := strings.Cut(full, ".")
	_ = header
	claims, _, _ := strings.Cut(payload, ".")
	none := "eyJhbGciOiJub25lIn0." + claims + "."
	tampered := full[:len(full)-4] + "AAAA"
	for _, route := range registered(t, s.app.router) {
		method, template := route[0], route[1]
		scope, ok := tenancy.ScopeOf(method, template)
		if !ok {
			t.Errorf("%s %s has no scope", method, template)
			continue
		}
		if template == "/debug/pprof/profile" || template == "/debug/pprof/trace" {
			continue // take their time; the table holds for them as for the others
		}
		path := pathOf(template, "a")
		if scope == tenancy.ScopeNone {
			if status, _ := s.call(t, method, path, ""); status == 401 || status == 403 {
				t.Errorf("%s %s needs no token and answers %d", method, template, status)
			}
			continue
		}
		var other []tenancy.Scope
		for _, x := range []tenancy.Scope{tenancy.ScopeRead, tenancy.ScopeWrite, tenancy.ScopeAdmin} {
			if x != scope {
				other = append(other, x)
			}
		}
		type ask struct {
			name    string
			want    int
			headers []string
		}
		asks := []ask{
			{"no token", 401, nil},
			{"expired", 401, []string{"Authorization", "Bearer " + expired}},
			{"alg none", 401, []string{"Authorization", "Bearer " + none}},
			{"tampered", 401, []string{"Authorization", "Bearer " + tampered}},
			{"header against claim", 403, []string{"Authorization", "Bearer " + full, "X-Scope-OrgID", "b"}},
			{"repeated header", 400, []string{"Authorization", "Bearer " + full, "X-Scope-OrgID", "a", "X-Scope-OrgID", "a"}},
		}
		if scope != tenancy.ScopeAny {
			asks = append(asks, ask{"wrong scope", 403, []string{"Authorization", "Bearer " + mintFor(t, tenancy.Grant{Tenant: "a", Scopes: other})}})
		}
		for _, a := range asks {
			status, body := s.call(t, method, path, "", a.headers...)
			if status == 429 && a.want == 401 { // the address has had its share of failures
				status = 401
			}
			if status != a.want {
				t.Errorf("%s %s, %s: %d %s, want %d", method, template, a.name, status, body, a.want)
			}
			if strings.Contains(body, full) {
				t.Errorf("%s %s, %s: the answer shows the token", method, template, a.name)
			}
		}
		if strings.Contains(template, "{tenant}") {
			if status, _ := s.call(t, method, pathOf(template, "b"), "{}", "Authorization", "Bearer "+full); status != 403 {
				t.Errorf("%s %s for another tenant: %d, want 403", method, template, status)
			}
		}
		right := []tenancy.Scope{scope}
		if scope == tenancy.ScopeAny {
			right = []tenancy.Scope{tenancy.ScopeRead}
		}
		status, body := s.call(t, method, path, "", "Authorization", "Bearer "+mintFor(t, tenancy.Grant{Tenant: "a", Scopes: right}))
		if status == 401 || status == 403 || status >= 500 && status != 501 {
			t.Errorf("%s %s with the right token: %d %s", method, template, status, body)
		}
	}
}

// TestUnknownRouteDoesNotStart registers a route that is not in the table.
func TestUnknownRouteDoesNotStart(t *testing.T) {
	cfg := DefaultConfig()
	g, err := newGuards(&cfg, storagetest.NewModel(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	r := mux.NewRouter()
	r.HandleFunc("/api/v1/unheard-of", func(http.ResponseWriter, *http.Request) {}).Methods("GET")
	if err := g.gate.Check(r); err == nil || !strings.Contains(err.Error(), "unheard-of") {
		t.Errorf("a route that is not in the table: %v", err)
	}
}

// canary stores, for a tenant and customer, what no one else may see: in names,
// labels, exemplars and metadata.
func canary(t testing.TB, store storage.Store, tenant, customer, mark string, now int64) {
	t.Helper()
	var b storage.Batch
	b.Labels = append(b.Labels, storage.LabelsFromStrings("__name__", "canary_total", "customer_id", customer, "secret", mark)...)
	b.AddSample(now, 0, 42)
	b.Exemplars = append(b.Exemplars, storage.Exemplar{Labels: storage.LabelsFromStrings("trace_id", mark), T: now, V: 1})
	b.EndSeries()
	b.Add(storage.LabelsFromStrings("__name__", "only_"+mark, "customer_id", customer, "label_"+mark, "x"), storage.Sample{T: now, V: 1})
	b.Metadata = append(b.Metadata, storage.Metadata{Metric: "only_" + mark, Type: "gauge", Help: mark})
	storagetest.MustAppend(t, store, tenant, &b)
}

// readRequests are a request to every route that shows data, over all time and
// with selectors that fit the canary.
func readRequests(t testing.TB, s *authServer, now int64) map[string][4]string { // name: method, path, type, body
	t.Helper()
	at := fmt.Sprintf("&time=%d", now/1000)
	span := fmt.Sprintf("start=%d&end=%d", now/1000-600, now/1000+60)
	match := "&match[]=" + url.QueryEscape(`{__name__=~".+"}`)
	const any = `{__name__=~".+"}`
	out := map[string][4]string{
		"remote read":         {"POST", "/api/v1/read", "application/x-protobuf", remoteRead(now, promwrite.ReadRequest_SAMPLES)},
		"remote read, prefix": {"POST", "/prometheus/api/v1/read", "application/x-protobuf", remoteRead(now, promwrite.ReadRequest_SAMPLES)},
		"remote read, chunks": {"POST", "/api/v1/read", "application/x-protobuf", remoteRead(now, promwrite.ReadRequest_STREAMED_XOR_CHUNKS)},
		"native range":        {"POST", "/api/v1/query", "application/json", fmt.Sprintf(`{"queryType":"range","metricName":"canary_total","timeRange":{"start":%d,"end":%d}}`, now-60_000, now+1000)},
		"native aggregate":    {"POST", "/api/v1/query", "application/json", fmt.Sprintf(`{"queryType":"aggregate","metricName":"canary_total","timeRange":{"start":%d,"end":%d},"aggregation":"sum","groupBy":["secret"]}`, now-60_000, now+1000)},
		"native rate":         {"POST", "/api/v1/query", "application/json", fmt.Sprintf(`{"queryType":"rate","metricName":"canary_total","timeRange":{"start":%d,"end":%d},"groupBy":["secret"],"interval":"1m"}`, now-60_000, now+1000)},
		"native selector":     {"POST", "/api/v1/query", "application/json", fmt.Sprintf(`{"queryType":"aggregate","selector":"{secret=~\".+\"}","timeRange":{"start":%d,"end":%d},"aggregation":"count","groupBy":["secret"]}`, now-60_000, now+1000)},
	}
	for _, prefix := range []string{"/api/v1", "/prometheus/api/v1"} {
		out[prefix+" query"] = [4]string{"GET", prefix + "/query?query=" + url.QueryEscape(any) + at}
		out[prefix+" query, sum"] = [4]string{"GET", prefix + "/query?query=" + url.QueryEscape(`sum by (secret) (canary_total)`) + at}
		out[prefix+" query, or"] = [4]string{"GET", prefix + "/query?query=" + url.QueryEscape(`canary_total{customer_id!="x"} or label_replace(canary_total,"a","$1","secret","(.*)")`) + at}
		out[prefix+" query, topk"] = [4]string{"GET", prefix + "/query?query=" + url.QueryEscape(`topk(5, canary_total)`) + at}
		out[prefix+" query, subquery"] = [4]string{"GET", prefix + "/query?query=" + url.QueryEscape(`max_over_time(canary_total[5m:1m])`) + at}
		out[prefix+" query_range"] = [4]string{"GET", prefix + "/query_range?query=" + url.QueryEscape(any) + "&step=15&" + span}
		out[prefix+" series"] = [4]string{"GET", prefix + "/series?" + span + match}
		out[prefix+" exemplars"] = [4]string{"GET", prefix + "/query_exemplars?query=canary_total&" + span}
		out[prefix+" tsdb"] = [4]string{"GET", prefix + "/status/tsdb"}
		out[prefix+" rules"] = [4]string{"GET", prefix + "/rules"}
		out[prefix+" alerts"] = [4]string{"GET", prefix + "/alerts"}
		out[prefix+" targets"] = [4]string{"GET", prefix + "/targets"}
		out[prefix+" label secret"] = [4]string{"GET", prefix + "/label/secret/values?" + span}
		out[prefix+" label name"] = [4]string{"GET", prefix + "/label/__name__/values"}
		for _, p := range []string{
			"/labels", "/metadata", "/targets/metadata", "/scrape_pools", "/alertmanagers", "/notifications", "/status/walreplay",
		} {
			out[prefix+p] = [4]string{"GET", prefix + p}
		}
	}
	for _, p := range []string{
		"/federate?" + match[1:], "/prometheus/federate?" + match[1:], "/api/v1/metrics", "/api/v1/metrics?detail=1", "/api/v1/metrics/canary_total/dimensions",
		"/api/v1/metrics/canary_total/dimensions/secret/values", "/api/v1/cardinality/metrics", "/api/v1/cardinality/label_names",
		"/api/v1/cardinality/label_values?label_names[]=secret", "/api/v1/cardinality/active_series?selector=" + url.QueryEscape(any),
		"/api/v1/refused", "/api/v1/whoami", "/api/v1/admin/tenants", "/api/v1/admin/retention", "/api/v1/status/config", "/api/v1/status/flags",
	} {
		out[p] = [4]string{"GET", p}
	}
	covered := func(method, template string) bool {
		for _, x := range out {
			path, _, _ := strings.Cut(x[1], "?")
			if x[0] == method && path == strings.NewReplacer("{name}", "canary_total", "{key}", "secret").Replace(template) {
				return true
			}
		}
		return strings.Contains(template, "/label/{name}")
	}
	for _, route := range registered(t, s.app.router) {
		if scope, _ := tenancy.ScopeOf(route[0], route[1]); scope != tenancy.ScopeRead || route[0] == "POST" && covered("GET", route[1]) {
			continue
		}
		if !covered(route[0], route[1]) && !slices.Contains([]string{"format_query", "parse_query", "features", "buildinfo", "runtimeinfo", "config", "flags"}, route[1][strings.LastIndex(route[1], "/")+1:]) {
			t.Errorf("%s %s is read and has no canary request", route[0], route[1])
		}
	}
	return out
}

func remoteRead(now int64, kind promwrite.ReadRequest_ResponseType) string {
	req := promwrite.ReadRequest{
		AcceptedResponseTypes: []promwrite.ReadRequest_ResponseType{kind},
		Queries: []*promwrite.Query{{StartTimestampMs: now - 60_000, EndTimestampMs: now + 1000, Matchers: []*promwrite.LabelMatcher{
			{Type: promwrite.LabelMatcher_RE, Name: "__name__", Value: ".+"}}}},
	}
	b, err := req.Marshal()
	if err != nil {
		panic(err)
	}
	return string(snappy.Encode(nil, b))
}

// send makes a canary request and returns the answer as plain text.
func (s *authServer) send(t testing.TB, x [4]string, token string, headers ...string) (int, string) {
	t.Helper()
	headers = append(headers, "Authorization", "Bearer "+token)
	if x[2] != "" {
		headers = append(headers, "Content-Type", x[2])
	}
	if x[2] == "application/x-protobuf" {
		headers = append(headers, "Content-Encoding", "snappy", "X-Prometheus-Remote-Read-Version", "0.1.0")
	}
	status, body := s.call(t, x[0], x[1], x[3], headers...)
	if plain, err := snappy.Decode(nil, []byte(body)); err == nil && x[2] == "application/x-protobuf" {
		body = string(plain)
	}
	return status, body
}

// testCanary stores canaries of two tenants, and of two customers of one, and asks
// every route that shows data: nobody sees another's.
func testCanary(t *testing.T, store storage.Store) {
	now := time.Now().Add(-10 * time.Second).UnixMilli()
	canary(t, store, "a", "mine", "MARKMINE", now)
	canary(t, store, "a", "acme", "MARKACME", now)
	canary(t, store, "b", "theirs", "MARKTHEIRS", now)
	canary(t, store, "ab", "theirs", "MARKTHEIRS", now) // a prefix of it is another tenant
	canary(t, store, "a.b", "theirs", "MARKTHEIRS", now)
	s := newAuthServer(t, store, func(c *Config) { c.Auth.JWTSecret = authSecret })
	whole := mintFor(t, tenancy.Grant{Tenant: "a", Scopes: everyScope})
	scoped := mintFor(t, tenancy.Grant{Tenant: "a", Scopes: everyScope, Matchers: []string{`customer_id="acme"`}})
	foreign := mintFor(t, tenancy.Grant{Tenant: "c", Scopes: everyScope})
	several := mintFor(t, tenancy.Grant{Tenants: []string{"a", "c"}, Scopes: everyScope})
	shows := 0
	for name, x := range readRequests(t, s, now) {
		status, body := s.send(t, x, whole)
		if status/100 != 2 {
			t.Errorf("%s: %d %s", name, status, body)
		}
		if strings.Contains(body, "MARKTHEIRS") {
			t.Errorf("%s shows tenant a what is of others: %s", name, body)
		}
		if strings.Contains(body, "MARKMINE") {
			shows++
		}
		if _, body = s.send(t, x, foreign); strings.Contains(body, "MARK") {
			t.Errorf("%s shows tenant c a canary: %s", name, body)
		}
		status, body = s.send(t, x, scoped)
		if strings.Contains(body, "MARKMINE") || strings.Contains(body, "MARKTHEIRS") {
			t.Errorf("%s shows the customer what is of others: %d %s", name, status, body)
		}
		if status, body = s.send(t, x, several, "X-Scope-OrgID", "a|c"); strings.Contains(body, "MARKTHEIRS") {
			t.Errorf("%s over a and c shows b: %d %s", name, status, body)
		} else if strings.Contains(x[1], "/query") && status != 200 {
			t.Errorf("%s over a and c: %d %s", name, status, body)
		}
	}
	if shows < 25 {
		t.Errorf("only %d requests show the tenant its own canary: the test would not see a leak", shows)
	}
	status, body := s.send(t, [4]string{"GET", "/api/v1/query?query=" + url.QueryEscape(`sum by (__tenant_id__) (canary_total)`)}, several, "X-Scope-OrgID", "a|c")
	if status != 200 || !strings.Contains(body, `"__tenant_id__":"a"`) {
		t.Errorf("federated sum: %d %s", status, body)
	}
	if status, body = s.send(t, [4]string{"POST", "/api/v1/admin/backup"}, whole); status != 403 {
		t.Errorf("a backup of every tenant by an admin of one: %d %.100s", status, body)
	}
}

func TestCanaryOnModel(t *testing.T) { testCanary(t, storagetest.NewModel()) }

func TestCanaryOnBadger(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Storage.Badger.Dir = t.TempDir()
	store, _, err := openStore(t.Context(), &cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), newProbes("badger", time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	testCanary(t, store)
}

// TestSecretsAreNotShown looks for the secret and a token in all that the program
// says.
func TestSecretsAreNotShown(t *testing.T) {
	s := newAuthServer(t, storagetest.NewModel(), nil)
	token := mintFor(t, tenancy.Grant{Tenant: "a", Subject: "me", Scopes: everyScope})
	auth := []string{"Authorization", "Bearer " + token}
	all := ""
	for _, path := range []string{"/api/v1/status/config", "/api/v1/status/flags", "/metrics", "/", "/api/v1/whoami", "/debug/pprof/cmdline", "/api/v1/query?query=" + url.QueryEscape("{")} {
		_, body := s.call(t, "GET", path, "", auth...)
		all += body
	}
	_, body := s.call(t, "GET", "/api/v1/query?query=1", "", "Authorization", "Bearer "+token+"x")
	_, _ = s.call(t, "POST", "/api/v1/admin/cleanup", "", auth...)
	all += body + s.log.String()
	for _, secret := range []string{authSecret, token, token[strings.LastIndex(token, ".")+1:]} {
		if strings.Contains(all, secret) {
			t.Errorf("%.12s… is shown", secret)
		}
	}
	if n := strings.Count(s.log.String(), "msg=audit "); n != 1 || !strings.Contains(s.log.String(), "action=cleanup") {
		t.Errorf("%d audit lines for one call, or what it did is not in it", n)
	}
	for _, want := range []string{`route=/api/v1/whoami status=200`, `tenant=a`, `route=/api/v1/query status=401`} {
		if !strings.Contains(s.log.String(), want) {
			t.Errorf("the access log lacks %q", want)
		}
	}
	if n, err := testutil.GatherAndCount(s.reg, "luminate_http_requests_total"); err != nil || n == 0 {
		t.Errorf("no request is counted: %v", err)
	}
}

// TestWhoami shows a caller what it is.
func TestWhoami(t *testing.T) {
	s := newAuthServer(t, storagetest.NewModel(), nil)
	_, body := s.call(t, "GET", "/api/v1/whoami", "", "Authorization", "Bearer "+mintFor(t, tenancy.Grant{
		Tenant: "a", Subject: "me", Scopes: []tenancy.Scope{tenancy.ScopeRead}, Matchers: []string{`c="d"`},
	}))
	var who struct {
		Tenant, Subject string
		Authenticated   bool
		Matchers        []string
		Expires         time.Time
		Limits          struct{ Limits tenancy.Limits }
		Usage           tenancy.TenantUsage
	}
	if err := json.Unmarshal([]byte(body), &who); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if who.Tenant != "a" || who.Subject != "me" || !who.Authenticated || len(who.Matchers) != 1 || time.Until(who.Expires) < 50*time.Minute ||
		who.Limits.Limits.MaxActiveSeries != 2_000_000 || who.Limits.Limits.SamplesPerSecond != 500_000 || len(who.Usage.Limits) == 0 {
		t.Errorf("%s", body)
	}
	off := newAuthServer(t, storagetest.NewModel(), func(c *Config) { c.Auth.JWTSecret, c.Server.Listen = "", "127.0.0.1:8080" })
	_, body = off.call(t, "GET", "/api/v1/whoami", "")
	if err := json.Unmarshal([]byte(body), &who); err != nil || who.Limits.Limits.MaxActiveSeries != 0 || who.Tenant != "default" {
		t.Errorf("without authentication: %v %s", err, body)
	}
}

// TestRefusedRequestsAreListed meets a limit and reads why.
func TestRefusedRequestsAreListed(t *testing.T) {
	limits := keep(t, "limits.yaml", "defaults: {samplesPerSecond: 1, samplesBurst: 2, maxActiveSeries: 1}\n")
	s := newAuthServer(t, storagetest.NewModel(), func(c *Config) { c.Limits.File = limits })
	auth := []string{"Authorization", "Bearer " + mintFor(t, tenancy.Grant{Tenant: "a", Scopes: everyScope}), "Content-Type", "application/json"}
	if status, body := s.call(t, "POST", "/api/v1/write", oneMetric, auth...); status != 207 || !strings.Contains(body, "CARDINALITY_EXCEEDED") {
		t.Errorf("a series over the limit: %d %s", status, body)
	}
	if status, body := s.call(t, "POST", "/api/v1/write", oneMetric, auth...); status != 429 || !strings.Contains(body, "RATE_LIMIT_EXCEEDED") {
		t.Errorf("over the rate: %d %s", status, body)
	}
	resp, err := s.Client().Do(remoteWrite(t, s.URL, auth[1], writeBody(t, "m", 0, 2, time.Now())))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if h := resp.Header; resp.StatusCode != 429 || h.Get("Retry-After") == "" || h.Get("X-RateLimit-Limit") != "1" || h.Get("X-RateLimit-Reset") == "" {
		t.Errorf("remote write over the rate: %d %v", resp.StatusCode, h)
	}
	_, body := s.call(t, "GET", "/api/v1/refused", "", auth...)
	for _, want := range []string{`"limit":"samples-per-second"`, `"setting":"limits.samplesPerSecond"`, "max-active-series", "limits.maxActiveSeries"} {
		if !strings.Contains(body, want) {
			t.Errorf("%s is not in %s", want, body)
		}
	}
}

// writeBody encodes a remote write of n series, numbered from first, at t.
func writeBody(t testing.TB, metric string, first, n int, at time.Time) []byte {
	t.Helper()
	req := promwrite.WriteRequest{}
	for i := first; i < first+n; i++ {
		req.Timeseries = append(req.Timeseries, promwrite.TimeSeries{
			Labels: []promwrite.Label{
				{Name: "__name__", Value: metric}, {Name: "customer_id", Value: fmt.Sprintf("customer-%d", i%20_000)},
				{Name: "instance", Value: fmt.Sprintf("10.0.%d.%d:9090", i>>8&255, i&255)}, {Name: "serial", Value: fmt.Sprintf("%010d", i)},
			},
			Samples: []promwrite.Sample{{Timestamp: at.UnixMilli(), Value: float64(i)}},
		})
	}
	b, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return snappy.Encode(nil, b)
}

// remoteWrite is a remote write 1.0 request.
func remoteWrite(t testing.TB, url, authorization string, body []byte) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", url+"/api/v1/write", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	req.Header.Set("Authorization", authorization)
	return req
}
