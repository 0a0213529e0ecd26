package deploy

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// grafana asks as Grafana's Prometheus data source does: with the tenant's header,
// forms over POST for queries, GET for the values of labels.
type grafana struct {
	t            *testing.T
	base, tenant string
	token        string // "" without authentication
	// What the dashboard's variables and intervals stand for.
	values     map[string]string
	span, step time.Duration
	rate       time.Duration
}

// answer is Prometheus's envelope.
type answer struct {
	Status, Error string
	Data          json.RawMessage
}

func (g *grafana) send(method, path string, form url.Values) (answer, error) {
	headers := []string{"X-Scope-OrgID", g.tenant, "User-Agent", "Grafana/12.2.0"}
	if g.token != "" {
		headers = append(headers, "Authorization", "Bearer "+g.token)
	}
	target, body := g.base+path, []byte(nil)
	if method == "POST" {
		headers = append(headers, "Content-Type", "application/x-www-form-urlencoded")
		body = []byte(form.Encode())
	} else if len(form) > 0 {
		target += "?" + form.Encode()
	}
	status, text, err := do(g.t.Context(), method, target, body, headers...)
	if err != nil {
		return answer{}, err
	}
	var a answer
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return a, fmt.Errorf("%s %s: %d: %.300s", method, target, status, text)
	}
	if status != 200 || a.Status != "success" {
		return a, fmt.Errorf("%s %s %v: %d: %s", method, target, form, status, a.Error)
	}
	return a, nil
}

// interpolate replaces variables as Grafana does: All of a query variable is its
// allValue, intervals are durations.
func (g *grafana) interpolate(expr string) string {
	duration := func(d time.Duration) string { return fmt.Sprintf("%dms", d.Milliseconds()) }
	expr = strings.NewReplacer("$__rate_interval", duration(g.rate), "$__interval", duration(g.step), "$__range", duration(g.span)).Replace(expr)
	return regexp.MustCompile(`\$\{?(\w+)\}?`).ReplaceAllStringFunc(expr, func(v string) string {
		name := strings.Trim(v, "${}")
		value, ok := g.values[name]
		if !ok {
			g.t.Errorf("%s: variable %s is not known", expr, name)
		}
		return value
	})
}

var labelValues = regexp.MustCompile(`^label_values\((?:(.+), *)?(\w+)\)$`)

// resolve looks up a variable's values, and sets it: All where it has that, else
// the first value.
func (g *grafana) resolve(v variable) error {
	if v.Type != "query" {
		if v.Type == "custom" {
			var q string
			_ = json.Unmarshal(v.Query, &q)
			g.values[v.Name] = strings.Split(q, ",")[0]
		}
		return nil
	}
	m := labelValues.FindStringSubmatch(v.Definition)
	if m == nil {
		return fmt.Errorf("variable %s: %q is not label_values()", v.Name, v.Definition)
	}
	now := time.Now()
	form := url.Values{"start": {unixSeconds(now.Add(-g.span))}, "end": {unixSeconds(now)}, "limit": {"40000"}}
	if m[1] != "" {
		form.Set("match[]", g.interpolate(m[1]))
	}
	a, err := g.send("GET", "/api/v1/label/"+m[2]+"/values", form)
	if err != nil {
		return err
	}
	var values []string
	if err := json.Unmarshal(a.Data, &values); err != nil || len(values) == 0 || !slices.IsSorted(values) {
		return fmt.Errorf("variable %s: values %.200s (%v)", v.Name, a.Data, err)
	}
	g.values[v.Name] = values[0]
	if v.IncludeAll {
		g.values[v.Name] = v.AllValue
	}
	return nil
}

// run sends a panel's query; what comes back without a value is an error.
func (g *grafana) run(x target) error {
	now := time.Now()
	form, path := url.Values{"query": {g.interpolate(x.Expr)}}, "/api/v1/query_range"
	if x.Instant {
		path = "/api/v1/query"
		form.Set("time", unixSeconds(now))
	} else {
		form.Set("start", unixSeconds(now.Add(-g.span)))
		form.Set("end", unixSeconds(now))
		form.Set("step", strconv.FormatFloat(g.step.Seconds(), 'f', -1, 64))
	}
	a, err := g.send("POST", path, form)
	if err != nil {
		return err
	}
	var data struct {
		ResultType string
		Result     []struct {
			Value  [2]any
			Values [][2]any
		}
	}
	if err := json.Unmarshal(a.Data, &data); err != nil {
		return err
	}
	if want := map[bool]string{true: "vector", false: "matrix"}[x.Instant]; data.ResultType != want {
		return fmt.Errorf("%s: result is a %s", form.Get("query"), data.ResultType)
	}
	for _, s := range data.Result {
		for _, v := range append(s.Values, s.Value) {
			text, _ := v[1].(string)
			if f, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(f) {
				return nil
			}
		}
	}
	return fmt.Errorf("%s: no data", form.Get("query"))
}

func unixSeconds(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64)
}

// noData are queries of panels that cannot have data on a healthy server without
// authentication, by file, panel and, where not all of them, letter of the query;
// the metrics themselves are held to metrics.md.
var noData = map[string]string{
	"tenants.json Tokens expire in": "without authentication there are no tokens",
	"tenants.json Limits file B":    "without authentication there are no keys",
}

// withTokens are the panels of noData that have data with authentication.
var withTokens = []string{"Tokens expire in", "Limits file"}

// noDataOnBadger are those that only ClickHouse has.
var noDataOnBadger = map[string]string{
	"cardinality.json New series on ClickHouse": "Badger has no rows",
}

// viewOf makes a client for a dashboard, with its variables resolved.
func viewOf(t *testing.T, base string, d dashboard) *grafana {
	t.Helper()
	g := &grafana{t: t, base: base, tenant: selfTenant, values: map[string]string{"datasource": "luminate"}, span: 10 * time.Second, step: time.Second, rate: 4 * time.Second}
	if notOfLuminate[d.file] {
		g.tenant, g.span, g.step, g.rate = "default", 90*time.Minute, time.Minute, 75*time.Second
	}
	for _, v := range d.Templating.List {
		eventually(t, time.Minute, func() error { return g.resolve(v) })
	}
	return g
}

// TestEveryPanelHasData runs every query of every dashboard as Grafana would, on a
// Luminate that holds its own metrics and the example customers.
func TestEveryPanelHasData(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the server")
	}
	t.Parallel()
	p := startObserved(t, "--storage.badger.snapshotInterval", "1s")
	testPanels(t, p.url, "storage-clickhouse.json", noDataOnBadger)
	checkLive(t, p, "luminate_clickhouse_")
	t.Run("in Grafana's terms", func(t *testing.T) { testGrafanasRequests(t, p.url) })
}

// TestPanelsOfTokens runs the queries that have data with authentication only, and
// looks for the metrics that checkLive lets pass there.
func TestPanelsOfTokens(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the server")
	}
	t.Parallel()
	dir := t.TempDir()
	secret, revoked := filepath.Join(dir, "secret"), filepath.Join(dir, "revoked")
	for path, text := range map[string]string{secret: strings.Repeat("secret", 8), revoked: "nobody\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := startLuminate(t, nil, "--auth.jwtSecretFile", secret, "--auth.revokedFile", revoked,
		"--metrics.selfScrape", "--metrics.selfScrapeTenant", selfTenant, "--metrics.selfScrapeInterval", "500ms")
	token, err := exec.Command(binary(t, "luminate"), "token", "--key", secret, "--tenant", selfTenant, "--scopes", "read", "--ttl", "30d", "--subject", "grafana").Output()
	if err != nil {
		t.Fatalf("luminate token: %v", err)
	}
	g := &grafana{t: t, base: p.url, tenant: selfTenant, token: strings.TrimSpace(string(token)), span: 10 * time.Second, step: time.Second, rate: 4 * time.Second,
		values: map[string]string{"job": ".+", "instance": ".+", "tenant": ".+"}}
	found := 0
	for _, d := range dashboards(t) {
		for _, panel := range d.Panels {
			if d.file != "tenants.json" || !slices.Contains(withTokens, panel.Title) {
				continue
			}
			found++
			for _, x := range panel.Targets {
				eventually(t, time.Minute, func() error { return g.run(x) })
			}
		}
	}
	if found != len(withTokens) {
		t.Errorf("%d of the panels %v are there", found, withTokens)
	}
	_, page, err := do(t.Context(), "GET", p.url+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name := range documentedMetrics(t) {
		if strings.HasPrefix(name, "luminate_auth_") && !strings.Contains(page, "\n"+name+"{") {
			t.Errorf("%s is not exported", name)
		}
	}
}

// testPanels runs the queries of every dashboard but that of the other backend.
func testPanels(t *testing.T, base, otherBackend string, exempt map[string]string) {
	t.Helper()
	exempt = maps.Clone(exempt)
	maps.Copy(exempt, noData)
	used := map[string]bool{}
	for _, d := range dashboards(t) {
		if d.file == otherBackend {
			continue
		}
		g := viewOf(t, base, d)
		for _, panel := range d.Panels {
			for _, x := range panel.Targets {
				key := d.file + " " + panel.Title
				if exempt[key] == "" {
					key += " " + x.RefID
				}
				if exempt[key] != "" {
					used[key] = true
					if err := g.run(x); err == nil {
						t.Errorf("%s has data: take it off the list", key)
					}
					continue
				}
				eventually(t, time.Minute, func() error {
					if err := g.run(x); err != nil {
						return fmt.Errorf("%s: panel %q: %w", d.file, panel.Title, err)
					}
					return nil
				})
			}
		}
	}
	for key := range exempt {
		if !used[key] {
			t.Errorf("%s is no panel", key)
		}
	}
}

// testGrafanasRequests sends what Grafana's Prometheus data source sends beside
// panel queries: when it is saved and tested, when Explore and the query editor
// open, and when a panel shows exemplars.
func testGrafanasRequests(t *testing.T, base string) {
	now := time.Now()
	from, to := now.Add(-time.Minute), now
	g := &grafana{t: t, base: base, tenant: selfTenant}
	ms := func(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }
	window := func(more ...string) url.Values {
		v := url.Values{"start": {unixSeconds(from)}, "end": {unixSeconds(to)}}
		for i := 0; i+1 < len(more); i += 2 {
			v.Add(more[i], more[i+1])
		}
		return v
	}
	f := func(method, path string, form url.Values, want string) {
		t.Helper()
		a, err := g.send(method, path, form)
		if err != nil {
			t.Error(err)
			return
		}
		if !strings.Contains(string(a.Data), want) {
			t.Errorf("%s %s %v: %.300s does not have %q", method, path, form, a.Data, want)
		}
	}
	f("POST", "/api/v1/query", url.Values{"query": {"1+1"}, "time": {"4"}, "timeout": {"2m"}}, `"scalar","result":[4,"2"]`)
	f("GET", "/api/v1/status/buildinfo", nil, `"version"`)
	f("GET", "/api/v1/metadata", nil, `"luminate_http_requests_total"`)
	f("GET", "/api/v1/metadata", url.Values{"limit": {"40000"}}, `"luminate_up"`)
	f("GET", "/api/v1/rules", nil, `"groups":[]`)
	f("POST", "/api/v1/labels", window("limit", "40000"), `"instance"`)
	f("GET", "/api/v1/labels", window("match[]", "luminate_up"), `"job"`)
	f("GET", "/api/v1/label/__name__/values", window("limit", "40000"), `"luminate_up"`)
	f("GET", "/api/v1/label/__name__/values", window("match[]", `{__name__=~".*(?i:goroutines).*"}`), `"go_goroutines"`)
	f("POST", "/api/v1/series", window("match[]", `luminate_build_info{job=~".+"}`, "limit", "40000"), `"goversion"`)
	f("POST", "/api/v1/query_exemplars", url.Values{"query": {"luminate_http_request_duration_seconds_bucket"}, "start": {ms(from)}, "end": {ms(to)}}, `[]`)
	f("POST", "/api/v1/format_query", url.Values{"query": {"sum(up)by(job)"}}, `sum by (job) (up)`)
	a, err := g.send("GET", "/api/v1/status/buildinfo", nil)
	if err != nil || strings.Contains(string(a.Data), `"features"`) {
		t.Errorf("buildinfo: %s (%v): with features Grafana takes it for a Mimir with a ruler", a.Data, err)
	}
	for _, d := range dashboards(t) {
		for _, p := range d.Panels {
			for _, x := range p.Targets {
				if !x.Exemplar || notOfLuminate[d.file] {
					continue
				}
				view := &grafana{t: t, base: base, tenant: selfTenant, span: time.Minute, step: time.Second, rate: 4 * time.Second,
					values: map[string]string{"job": ".+", "instance": ".+", "tenant": ".+"}}
				if _, err := view.send("POST", "/api/v1/query_exemplars", url.Values{"query": {view.interpolate(x.Expr)}, "start": {ms(from)}, "end": {ms(to)}}); err != nil {
					t.Errorf("%s: panel %q: %v", d.file, p.Title, err)
				}
			}
		}
	}
}
