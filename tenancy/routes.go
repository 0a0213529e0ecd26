package tenancy

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/gorilla/mux"
)

// style is the form of a route's errors.
type style uint8

const (
	styleText       style = iota // one line, as remote write has it
	stylePrometheus              // Prometheus's envelope
	styleNative                  // the native API's form
	styleByBody                  // native for a JSON body; else as the other API on the path has it
)

// load says which limits a route meets.
type load uint8

const (
	loadNone  load = iota
	loadWrite      // write requests/s, request bytes, samples
	loadQuery      // query requests/s, concurrency, query time
	loadCheap      // query requests/s alone: nothing of the store is read
)

// rule is what a route demands.
type rule struct {
	scope Scope
	style style
	load  load
	// whole routes show or change what is of the whole tenant, so a token that is
	// narrowed by matchers may not call them.
	whole bool
	// internal routes need no token on a loopback listener.
	internal bool
	audit    bool
}

// federates tells whether "a|b" is allowed in the tenant header.
func (r rule) federates() bool { return r.scope == ScopeRead }

// needsTenant tells whether a caller with several tenants must name one.
func (r rule) needsTenant() bool { return r.scope == ScopeRead || r.scope == ScopeWrite }

// tableRow is one line of the table: methods and templates, variables written {},
// that share a rule.
type tableRow struct {
	methods string
	paths   []string
	rule    rule
}

// promPrefixes are where the Prometheus API is served; the second is Mimir's.
var promPrefixes = []string{"/api/v1", "/prometheus/api/v1"}

// routeTable is the one place that says what a route demands.
func routeTable() []tableRow {
	write := rule{scope: ScopeWrite, style: styleText, load: loadWrite}
	prom := rule{scope: ScopeRead, style: stylePrometheus, load: loadQuery}
	promCheap := rule{scope: ScopeRead, style: stylePrometheus, load: loadCheap}
	native := rule{scope: ScopeRead, style: styleNative, load: loadQuery}
	admin := rule{scope: ScopeAdmin, style: styleNative, whole: true, audit: true}
	operator := rule{scope: ScopeOperator, style: styleNative, whole: true, audit: true}
	none := rule{scope: ScopeNone}
	internal := rule{scope: ScopeAdmin, style: styleText, internal: true}
	both := func(r rule, s style) rule { r.style = s; return r }
	return []tableRow{
		{"GET HEAD POST", []string{"/api/v1/write"}, both(write, styleByBody)},
		{"GET HEAD POST", []string{"/api/v1/push", "/api/prom/push"}, write},
		{"GET HEAD POST", []string{"/api/v1/otlp/v1/metrics", "/otlp/v1/metrics"}, write},
		{"POST", []string{"/api/v1/read", "/prometheus/api/v1/read"}, rule{scope: ScopeRead, style: styleText, load: loadQuery}},
		{"GET POST", []string{"/api/v1/query"}, both(prom, styleByBody)},
		{"GET POST", []string{"/prometheus/api/v1/query"}, prom},
		{"GET POST", promPaths("/query_range", "/query_exemplars", "/labels", "/series", "/query_explain"), prom},
		{"GET", promPaths("/label/{}/values", "/metadata", "/status/tsdb", "/rules", "/alerts"), prom},
		{"GET POST", promPaths("/format_query", "/parse_query"), promCheap},
		{"GET", promPaths(
			"/targets", "/targets/metadata", "/scrape_pools", "/alertmanagers", "/notifications",
			"/features", "/status/buildinfo", "/status/runtimeinfo", "/status/walreplay",
		), promCheap},
		{"GET", promPaths("/status/flags", "/status/config"), rule{scope: ScopeRead, style: stylePrometheus, load: loadCheap, whole: true}},
		{"POST PUT", promPaths("/admin/tsdb/delete_series"), both(rule{scope: ScopeAdmin, audit: true}, stylePrometheus)},
		{"POST PUT", promPaths("/admin/tsdb/clean_tombstones", "/admin/tsdb/snapshot"), both(admin, stylePrometheus)},
		{"GET", []string{"/federate", "/prometheus/federate"}, rule{scope: ScopeRead, style: styleText, load: loadQuery}},
		{"GET", []string{"/api/v1/metrics", "/api/v1/metrics/{}/dimensions", "/api/v1/metrics/{}/dimensions/{}/values"}, native},
		{"GET POST", []string{
			"/api/v1/cardinality/metrics", "/api/v1/cardinality/label_names", "/api/v1/cardinality/label_values",
			"/api/v1/cardinality/active_series", "/api/v1/query/explain", "/api/v1/explain",
		}, native},
		{"GET", []string{"/api/v1/refused"}, rule{scope: ScopeRead, style: styleNative, load: loadCheap, whole: true}},
		{"GET", []string{"/api/v1/whoami"}, rule{scope: ScopeAny, style: styleNative}},
		{"GET POST PUT DELETE", []string{"/api/v1/admin/retention", "/api/v1/admin/retention/{}"}, admin},
		{"GET PUT DELETE", []string{"/api/v1/admin/limits/{}"}, admin},
		{"GET", []string{"/api/v1/admin/tenants"}, admin},
		{"GET DELETE", []string{"/api/v1/admin/tenants/{}"}, admin},
		{"DELETE", []string{"/api/v1/admin/metrics/{}"}, rule{scope: ScopeAdmin, style: styleNative, audit: true}},
		{"GET", []string{"/api/v1/admin/deletes", "/api/v1/admin/deletes/{}"}, admin},
		{"POST", []string{"/api/v1/admin/cleanup"}, admin},
		{"GET POST", []string{"/api/v1/admin/backup"}, operator}, // holds every tenant
		{"GET HEAD", []string{"/livez", "/readyz", "/startupz", "/-/healthy", "/-/ready", "/api/v1/health"}, none},
		{"GET HEAD", []string{"/", "/api/v1/openapi.yaml"}, none},
		{"GET HEAD", []string{"/metrics"}, internal},
		{"GET POST", []string{
			"/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/profile", "/debug/pprof/symbol", "/debug/pprof/trace", "/debug/pprof/{}",
		}, internal},
	}
}

func promPaths(paths ...string) []string {
	var out []string
	for _, prefix := range promPrefixes {
		for _, p := range paths {
			out = append(out, prefix+p)
		}
	}
	return out
}

// ruleTable maps "METHOD template" to its rule.
func ruleTable() map[string]rule {
	m := map[string]rule{}
	for _, row := range routeTable() {
		for _, method := range strings.Fields(row.methods) {
			for _, path := range row.paths {
				m[method+" "+path] = row.rule
			}
		}
	}
	return m
}

var templateVariable = regexp.MustCompile(`\{[^{}]*\}`)

// templateKey is a route's key in the table; variables are {} whatever their name.
func templateKey(method, template string) string {
	return method + " " + templateVariable.ReplaceAllString(template, "{}")
}

// routeKey finds a rule at run time.
type routeKey struct {
	route  *mux.Route
	method string
}

// Check demands that every route of router stands in the table, and prepares the
// gate for it; it joins all that do not. A program calls it once, at start, after
// all routes are registered: a router that fails must not serve.
func (g *Gate) Check(router *mux.Router) error {
	table, rules := ruleTable(), map[routeKey]rule{}
	var errs []error
	err := router.Walk(func(route *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		if route.GetHandler() == nil {
			return nil // a subrouter; its routes are walked too
		}
		template, err := route.GetPathTemplate()
		if err != nil {
			errs = append(errs, fmt.Errorf("a route without a path: %w", err))
			return nil
		}
		methods, err := route.GetMethods()
		if err != nil || len(methods) == 0 {
			errs = append(errs, fmt.Errorf("route %s names no method", template))
			return nil
		}
		for _, method := range methods {
			r, ok := table[templateKey(method, template)]
			if !ok {
				errs = append(errs, fmt.Errorf("route %s %s is not in the table of scopes (tenancy/routes.go)", method, template))
				continue
			}
			rules[routeKey{route, method}] = r
		}
		return nil
	})
	if err = errors.Join(append(errs, err)...); err != nil {
		return fmt.Errorf("check routes: %w", err)
	}
	g.rules.Store(&rules)
	return nil
}

// ScopeOf returns the scope that the table demands of a route, for documents and
// tests.
func ScopeOf(method, template string) (Scope, bool) {
	r, ok := ruleTable()[templateKey(method, template)]
	return r.scope, ok
}

// isJSONBody tells a native request from others on a shared path. A query in the URL
// is PromQL, whatever type the body is said to have.
func isJSONBody(r *http.Request) bool {
	if r.Method != http.MethodPost || r.URL.Query().Has("query") {
		return false
	}
	media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return slices.Contains([]string{"application/json", "application/x-ndjson"}, strings.ToLower(strings.TrimSpace(media)))
}
