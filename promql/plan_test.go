package promql

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	promengine "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

// planOf returns the plan of a query without running it.
func planOf(t *testing.T, text string) *planRun {
	t.Helper()
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(text)
	if err != nil {
		t.Fatal(err)
	}
	r := &planRun{expr: expr}
	r.find(gridRange{start: 1000, end: 61_000, step: 15_000, lookback: 300_000, ok: true})
	return r
}

func TestGridOf(t *testing.T) {
	check := func(text, want string) {
		t.Helper()
		gs := planOf(t, text).grids()
		if len(gs) != 1 {
			t.Fatalf("%s: %d grids", text, len(gs))
		}
		g := gs[0].grid
		got := fmt.Sprintf("%v %v/%v %v(%v) by %v without %v window %d offset %d", g.Matchers, g.Aggregates[0].Op, g.Aggregates[0].Arg,
			g.Func, g.FuncArg, g.Grouping, g.Without, g.Window, g.Offset)
		if got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", text, got, want)
		}
		if err := g.Validate(); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	check("sum(m)", `[__name__="m"] sum/0 last(0) by [] without false window 300000 offset 0`)
	check("sum by (a, b) (rate(m{x!~\"y\"}[5m] offset -1m))",
		`[x!~"y" __name__="m"] sum/0 rate(0) by [a b] without false window 300000 offset -60000`)
	check("(avg without (a) ((m)))", `[__name__="m"] avg/0 last(0) by [a __name__ __type__ __unit__] without true window 300000 offset 0`)
	check("quantile(0.9, quantile_over_time(0.5, m[1m]))", `[__name__="m"] quantile/0.9 quantile_over_time(0.5) by [] without false window 60000 offset 0`)
	check("topk((3), increase(m[1m]))", `[__name__="m"] topk/3 increase(0) by [] without false window 60000 offset 0`)
	check("count by (__name__) (m)", `[__name__="m"] count/0 last(0) by [__name__] without false window 300000 offset 0`)
	check("sum(sum by (a) (m)) / 3", `[__name__="m"] sum/0 last(0) by [a] without false window 300000 offset 0`)
}

func TestNotPushed(t *testing.T) {
	check := func(text, reason string) {
		t.Helper()
		r := planOf(t, text)
		if n := len(r.grids()); n != 0 {
			t.Errorf("%s: %d grids", text, n)
		}
		for _, p := range r.parts {
			if strings.Contains(p.reason, reason) {
				return
			}
		}
		t.Errorf("%s: no part says %q", text, reason)
	}
	check("sum(m @ 5)", "@")
	check("sum(rate(m[5m] @ start()))", "@")
	check("max_over_time(sum(m)[5m:1m])", "subquery")
	check("sum(rate(m[5m:1m]))", "subquery")
	check("sum({a=\"b\"})", "names no metric")
	check("sum({__name__=~\"m.*\"})", "names no metric")
	check("sum({__name__!=\"m\", a=\"b\"})", "names no metric")
	check("sum(deriv(m[5m]))", "deriv is not evaluated")
	check("sum(timestamp(m))", "timestamp is not evaluated")
	check("sum(m * 2)", "neither a selector nor")
	check("sum by (__name__) (rate(m[5m]))", "drops")
	check("count_values(\"x\", m)", "count_values is not evaluated")
	check("topk(0, m)", "out of range")
	check("topk(scalar(n), m)", "not a constant")
	check("quantile(2, m)", "out of range")
	check("sum(quantile_over_time(-1, m[5m]))", "not a constant in range")
	if r := planOf(t, "sum(rate(m[5m]))"); len(r.grids()) != 1 {
		t.Error("the control is not pushed")
	}
}

// wideStore holds 300 series of one metric, more than the planner's threshold.
func wideStore(t *testing.T, metric string) (*storagetest.Model, int64) {
	t.Helper()
	store, end := storagetest.NewModel(), testEnd()
	b := new(storage.Batch)
	for i := range 300 {
		ls := storage.LabelsFromStrings("__name__", metric, "customer", fmt.Sprint(i%7), "n", fmt.Sprint(i))
		b.Add(ls, storage.Sample{T: end - 60_000, V: float64(i)}, storage.Sample{T: end, V: float64(3 * i)})
	}
	appendAll(t, store, b)
	return store, end
}

// ask runs a query and returns its body and its explanation.
func ask(t *testing.T, base, query string, end int64, header ...string) (string, explanation) {
	t.Helper()
	resp, body := get(t, base+"/api/v1/query?explain=1&query="+url.QueryEscape(query)+"&time="+seconds(end), header...)
	if resp.StatusCode != 200 {
		t.Fatalf("%s: %d %s", query, resp.StatusCode, body)
	}
	var got struct {
		Data struct {
			Explain explanation `json:"explain"`
		} `json:"data"`
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	return body, got.Data.Explain
}

func TestExplain(t *testing.T) {
	store, end := wideStore(t, "gauge")
	srv := serve(t, store, nil)
	query := "sum by (customer) (rate(gauge[5m])) / on () group_left sum(deriv(gauge[5m]))"
	body, x := ask(t, srv.URL, query, end)
	if !x.Planner || len(x.Parts) != 2 || len(x.Selections) != 1 {
		t.Fatalf("got %+v", x)
	}
	if p := x.Parts[0]; !p.Pushed || p.Function != "rate" || p.Aggregate != "sum" || p.Series != 300 || p.Samples != 600 || p.Groups != 7 {
		t.Errorf("pushed part: %+v", p)
	}
	if p := x.Parts[1]; p.Pushed || p.Reason == "" || p.Expr != "sum(deriv(gauge[5m]))" {
		t.Errorf("part that is not pushed: %+v", p)
	}
	if s := x.Selections[0]; s.Series != 300 || s.Samples != 600 || s.Selector != `{__name__="gauge"}` {
		t.Errorf("selection: %+v", s)
	}
	if !strings.Contains(body, `might not be a counter`) || !strings.Contains(body, `(1:25)`) {
		t.Errorf("the engine's info with its position is missing: %s", body)
	}
	off, x := ask(t, srv.URL, query, end, plannerHeader, "off")
	if x.Planner || len(x.Parts) != 0 || len(x.Selections) != 2 {
		t.Errorf("switched off: %+v", x)
	}
	if !strings.Contains(off, `(1:25)`) {
		t.Errorf("unplanned: %s", off)
	}
	if resp, _ := get(t, srv.URL+"/api/v1/query?explain=maybe&query=1"); resp.StatusCode != 400 {
		t.Errorf("a bad explain: %d", resp.StatusCode)
	}
}

func TestSmallSelectionsAreRead(t *testing.T) {
	store, end := wideStore(t, "m_total")
	srv := serve(t, store, nil)
	if _, x := ask(t, srv.URL, `sum(m_total{customer="1"})`, end); x.Parts[0].Pushed || !strings.HasPrefix(x.Parts[0].Reason, "small") {
		t.Errorf("got %+v", x.Parts)
	}
	if _, x := ask(t, srv.URL, `sum(m_total)`, end); !x.Parts[0].Pushed {
		t.Errorf("got %+v", x.Parts)
	}
}

// TestTopKOrder checks that a preselected topk keeps the order of values.
func TestTopKOrder(t *testing.T) {
	store, end := wideStore(t, "m_total")
	srv := serve(t, store, nil)
	body, x := ask(t, srv.URL, "topk(3, m_total)", end)
	if !x.Parts[0].Pushed || x.Parts[0].Groups != 3 {
		t.Errorf("got %+v", x.Parts)
	}
	last := -1
	for _, v := range []string{`"897"`, `"894"`, `"891"`} {
		at := strings.Index(body, v)
		if at <= last {
			t.Errorf("%s stands at %d, after %d: %s", v, at, last, body)
		}
		last = at
	}
	if !strings.Contains(body, `"__name__":"m_total"`) {
		t.Errorf("the name is gone: %s", body)
	}
}

// TestEvaluateFails lets Evaluate alone fail with every kind: what the storage
// cannot do is read, everything else is the query's error.
func TestEvaluateFails(t *testing.T) {
	store, end := wideStore(t, "m_total")
	for _, k := range storage.Kinds() {
		faulty := storagetest.NewFaulty(store, func(method string) storagetest.Fault {
			if method == "Evaluate" {
				return storagetest.FailWith(k)(method)
			}
			return storagetest.Fault{}
		})
		srv := serve(t, faulty, nil)
		resp, body := get(t, srv.URL+"/api/v1/query?explain=1&query=sum(m_total)&time="+seconds(end))
		if k == storage.KindUnsupported || k == storage.KindTooLarge {
			if resp.StatusCode != 200 || !strings.Contains(body, `"134550"`) || !strings.Contains(body, `"pushed":false`) {
				t.Errorf("%v: %d %s", k, resp.StatusCode, body)
			}
		} else if _, code := kindError(k); resp.StatusCode != code {
			t.Errorf("%v: got %d %s, want %d", k, resp.StatusCode, body, code)
		}
		if faulty.Calls("Evaluate") != 1 {
			t.Errorf("%v: Evaluate was called %d times", k, faulty.Calls("Evaluate"))
		}
	}
}

// TestOneSlot runs a planned query where there is one slot and no queue: planning
// and evaluation share it.
func TestOneSlot(t *testing.T) {
	store, end := wideStore(t, "m_total")
	srv := serve(t, store, func(c *Config) { c.MaxConcurrent, c.MaxQueued = 1, 0 })
	for range 3 {
		if body, x := ask(t, srv.URL, "sum(m_total) + count(m_total)", end); !x.Parts[0].Pushed || !strings.Contains(body, `"134850"`) {
			t.Errorf("%s", body)
		}
	}
}

func TestEvaluateTimesOut(t *testing.T) {
	store, end := wideStore(t, "m_total")
	faulty := storagetest.NewFaulty(store, func(method string) storagetest.Fault {
		if method == "Evaluate" {
			return storagetest.Fault{Delay: time.Minute}
		}
		return storagetest.Fault{}
	})
	srv := serve(t, faulty, func(c *Config) { c.Timeout = 20 * time.Millisecond })
	resp, body := get(t, srv.URL+"/api/v1/query?query=sum(m_total)&time="+seconds(end))
	if resp.StatusCode != 503 || !strings.Contains(body, `"errorType":"timeout"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

// TestQueryInterface covers what promengine.Query has besides Exec.
func TestQueryInterface(t *testing.T) {
	store, end := wideStore(t, "m_total")
	e := NewEngine(promengine.EngineOpts{MaxSamples: 1000, Timeout: time.Minute}, PlannerOptions{Enabled: true})
	defer e.Close()
	over := NewQueryable(store, QueryableOptions{Tenant: func(context.Context) storage.Tenant { return testTenant }})
	q, err := e.NewInstantQuery(t.Context(), over, nil, "sum(m_total)", time.UnixMilli(end))
	if err != nil {
		t.Fatal(err)
	}
	q.Cancel() // before Exec: nothing to cancel
	if q.String() != "sum(m_total)" || q.Statement() == nil {
		t.Errorf("got %q %v", q.String(), q.Statement())
	}
	res := q.Exec(t.Context())
	if res.Err != nil {
		t.Fatal(res.Err)
	}
	// Without the planner the engine would hold 300 samples; here it is one.
	if got := q.Stats().Samples.PeakSamples; got > 2 {
		t.Errorf("the engine held %d samples", got)
	}
	// What the storage read is counted all the same.
	if st := q.Stats().Samples; st.SamplesRead < 300 || st.TotalSeries < 300 {
		t.Errorf("%d samples of %d series were counted", st.SamplesRead, st.TotalSeries)
	}
	q.Close()
	if _, err := e.NewInstantQuery(t.Context(), over, nil, "sum(", time.UnixMilli(end)); err == nil {
		t.Error("a query that cannot be parsed was built")
	}
}
