package promql

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/luminate/luminate/storage"
)

// gridStore counts the grids that it is asked, and cannot do what refuse says.
type gridStore struct {
	storage.Store
	grids  []storage.Grid
	refuse func(storage.Grid) bool
}

func (s *gridStore) Evaluate(ctx context.Context, t storage.Tenant, g storage.Grid) (*storage.GridResult, error) {
	s.grids = append(s.grids, g)
	if s.refuse != nil && s.refuse(g) {
		return nil, storage.Errorf(storage.KindUnsupported, "evaluate", "not this one")
	}
	return s.Store.Evaluate(ctx, t, g)
}

// TestEqualGridsAreEvaluatedOnce runs queries of several parts planned and
// unplanned, and counts the evaluations.
func TestEqualGridsAreEvaluatedOnce(t *testing.T) {
	base, end := wideStore(t, "m_total")
	s := &gridStore{Store: base}
	srv := serve(t, s, func(c *Config) { c.PlannerMinSeries, c.PlannerMinSamples = 0, 0 })
	check := func(query string, grids, aggregates, shared int) {
		t.Helper()
		s.grids = nil
		_, x := ask(t, srv.URL, query, end)
		n := 0
		for _, g := range s.grids {
			n += len(g.Aggregates)
		}
		with := 0
		for _, p := range x.Parts {
			if !p.Pushed {
				t.Errorf("%s: %+v", query, p)
			}
			if p.SharedWith != "" {
				with++
			}
		}
		if len(s.grids) != grids || n != aggregates || with != shared {
			t.Errorf("%s: %d grids of %d aggregates, %d parts shared: want %d, %d, %d", query, len(s.grids), n, with, grids, aggregates, shared)
		}
		result := func(header ...string) []string { // in an order of its own
			_, body := get(t, srv.URL+"/api/v1/query?query="+url.QueryEscape(query)+"&time="+seconds(end), header...)
			return slices.Sorted(slices.Values(strings.Split(body, `{"metric":`)))
		}
		planned, plain := result(), result(plannerHeader, "off")
		if strings.TrimRight(strings.Join(planned, ""), ",]}") == "" || len(planned) != len(plain) {
			t.Errorf("%s: %d and %d results", query, len(planned), len(plain))
			return
		}
		for i := range planned {
			if strings.Trim(planned[i], ",]}") != strings.Trim(plain[i], ",]}") {
				t.Errorf("%s:\nplanned %s\nplain   %s", query, planned[i], plain[i])
			}
		}
	}
	check(`sum(rate(m_total[5m])) / sum(rate(m_total[5m]))`, 1, 1, 1)
	check(`sum by (customer) (rate(m_total[5m])) / count by (customer) (rate(m_total[5m]))`, 1, 2, 1)
	check(`sum by (customer, n) (m_total{n=~"1.*",n!="7"}) + max by (n, customer) (m_total{n!="7",n=~"1.*"}) - min by (n, customer) (m_total{n=~"1.*",n!="7"})`, 1, 3, 2)
	check(`topk(2, m_total) and topk(2, m_total)`, 1, 1, 1)
	check(`topk(2, m_total) or topk(3, m_total)`, 2, 2, 0)
	check(`quantile(0.5, m_total) + quantile(0.9, m_total)`, 1, 2, 1)
	check(`sum(rate(m_total[5m])) / sum(rate(m_total[4m]))`, 2, 2, 0)
	check(`sum(m_total) / sum(m_total{n!="7"})`, 2, 2, 0)
	check(`sum(m_total) / sum(m_total offset 1s)`, 2, 2, 0)
	check(`sum by (n) (m_total) / ignoring (n) group_left sum(m_total)`, 2, 2, 0)
	check(`sum without (n) (m_total) / ignoring (customer) group_left sum by (n) (m_total{n="7"})`, 2, 2, 0)
}

// TestAggregateThatIsRefused: one of several aggregates that the store cannot do
// does not take the others with it.
func TestAggregateThatIsRefused(t *testing.T) {
	base, end := wideStore(t, "m_total")
	s := &gridStore{Store: base, refuse: func(g storage.Grid) bool {
		for _, a := range g.Aggregates {
			if a.Op == storage.AggStddev {
				return true
			}
		}
		return false
	}}
	srv := serve(t, s, nil)
	_, x := ask(t, srv.URL, `sum(m_total) + stddev(m_total) + max(m_total)`, end)
	for i, want := range []bool{true, false, true} {
		if p := x.Parts[i]; p.Pushed != want || (p.Reason == "") != want || p.SharedWith != "" {
			t.Errorf("part %d: %+v", i, p)
		}
	}
	if len(x.Selections) != 1 {
		t.Errorf("selections: %+v", x.Selections)
	}
}

// TestExplainOfARange: query_range explains, parts that a shared evaluation answered
// say so, a selector alone says how it was answered, and stats show the cost.
func TestExplainOfARange(t *testing.T) {
	base, end := wideStore(t, "m_total")
	srv := serve(t, base, nil)
	type answer struct {
		Data struct {
			Explain explanation
			Stats   struct {
				Samples struct {
					TotalQueryableSamples, PeakSamples int
					TotalQueryableSamplesPerStep       [][2]float64
				}
			}
		}
	}
	run := func(query string, header ...string) (out answer) {
		t.Helper()
		resp, body := get(t, fmt.Sprintf("%s/api/v1/query_range?explain=1&stats=all&query=%s&start=%s&end=%s&step=30", srv.URL, url.QueryEscape(query),
			seconds(end-300_000), seconds(end)), header...)
		if resp.StatusCode != 200 {
			t.Fatalf("%s: %d %s", query, resp.StatusCode, body)
		}
		if err := json.Unmarshal([]byte(body), &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	a := run(`sum(rate(m_total[5m])) / count(rate(m_total[5m]))`)
	parts := a.Data.Explain.Parts
	if len(parts) != 2 || parts[0].Series != 300 || parts[0].Samples != 600 || parts[1].SharedWith != "sum(rate(m_total[5m]))" || parts[1].Samples != 0 {
		t.Errorf("shared: %+v", parts)
	}
	direct, plain := run(`m_total offset 1s`), run(`m_total offset 1s`, plannerHeader, "off")
	if p := direct.Data.Explain.Parts; len(p) != 1 || p[0].Pushed || p[0].Reason == "" {
		t.Errorf("a selector alone: %+v", p)
	}
	if s := direct.Data.Explain.Selections; len(s) != 1 || s[0].Series != 300 || s[0].Samples != 300 {
		t.Errorf("a selector alone: %+v", s)
	}
	got, want := fmt.Sprint(direct.Data.Stats), fmt.Sprint(plain.Data.Stats)
	if direct.Data.Stats.Samples.TotalQueryableSamples == 0 || got != want {
		t.Errorf("statistics of a selector alone:\n%s\nof the engine:\n%s", got, want)
	}
}
