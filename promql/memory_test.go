package promql

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/luminate/luminate/tenancy"
)

// TestQueryMemory runs a query that reads more than it may, and checks that all is
// given back.
func TestQueryMemory(t *testing.T) {
	store, end := wideStore(t, "m_total")
	for _, planner := range []bool{false, true} {
		memory := tenancy.NewQueryMemory(tenancy.QueryMemoryLimits{PerQuery: 50_000}, prometheus.NewRegistry())
		srv := serve(t, store, func(c *Config) { c.Planner, c.Memory = planner, memory })
		for range 3 {
			resp, body := get(t, srv.URL+"/api/v1/query?query=m_total&time="+seconds(end))
			if resp.StatusCode != 422 || !strings.Contains(body, "max-query-memory") {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
		}
		// Pushed, the same data fits: only results are held.
		resp, body := get(t, srv.URL+"/api/v1/query?query=sum(m_total)&time="+seconds(end))
		if (resp.StatusCode == 200) != planner {
			t.Errorf("planner %v: %d %s", planner, resp.StatusCode, body)
		}
		for _, path := range []string{"/api/v1/series?match[]=m_total", "/federate?match[]=m_total"} {
			if resp, body := get(t, srv.URL+path); resp.StatusCode != 422 || !strings.Contains(body, "max-query-memory") {
				t.Errorf("%s: %d %s", path, resp.StatusCode, body)
			}
		}
		if n := memory.Reserved(); n != 0 {
			t.Errorf("planner %v: %d bytes are still reserved", planner, n)
		}
	}
}

// TestReads holds the ranges that are estimated before a query runs against what
// the engine asks for.
func TestReads(t *testing.T) {
	g := gridRange{start: 1_000_000, end: 1_600_000, step: 60_000, lookback: 300_000, subqueryStep: 30_000, ok: true}
	check := func(text string, want ...[3]int64) {
		t.Helper()
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(text)
		if err != nil {
			t.Fatal(err)
		}
		got := g.reads(expr)
		if len(got) != len(want) {
			t.Fatalf("%s: %d reads, want %d", text, len(got), len(want))
		}
		for i, r := range got {
			if have := [3]int64{r.selection.MinT, r.selection.MaxT, r.points}; have != want[i] {
				t.Errorf("%s: got %v, want %v", text, have, want[i])
			}
		}
	}
	check("m", [3]int64{700_001, 1_600_000, 11})
	check("m offset 1m + sum(n)", [3]int64{640_001, 1_540_000, 11}, [3]int64{700_001, 1_600_000, 11})
	check("rate(m[1m] offset -1m)", [3]int64{1_000_001, 1_660_000, 11})
	check("m @ 900", [3]int64{600_001, 900_000, 1})
	check("max_over_time(m[10m:1m])", [3]int64{100_001, 1_600_000, 21})
	check("max_over_time(rate(m[2m])[10m:])", [3]int64{280_001, 1_600_000, 41})
	check("1 + 2")
}
