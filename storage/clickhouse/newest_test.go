package clickhouse

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

// TestCountReadsNoValues: who has a sample is counted by ids alone, unless a staleness marker lies in the range; NaN is a
// value like others.
func TestCountReadsNoValues(t *testing.T) {
	s, model, tenant := openFor(t, func(*Config) {}), storagetest.NewModel(), storage.MustTenant("a")
	now := time.Now().UnixMilli()
	labels := func(n string) storage.Labels {
		return storage.LabelsFromStrings(storage.MetricName, "m", "n", n, "parity", map[bool]string{true: "even", false: "odd"}[n < "c"])
	}
	write := func(n string, t64 int64, v float64) {
		t.Helper()
		var b storage.Batch
		b.Add(labels(n), storage.Sample{T: t64, V: v})
		storagetest.MustAppend(t, model, "a", &b)
		storagetest.MustAppend(t, s, "a", &b)
	}
	g := storage.Grid{
		Matchers: []*storage.Matcher{storagetest.Eq(storage.MetricName, "m")}, Start: now, End: now, Window: 60_000, Func: storage.FuncLast,
		Aggregates: []storage.Aggregate{{Op: storage.AggCount}, {Op: storage.AggGroup}}, Grouping: []string{"parity"},
	}
	check := func(what string, values bool) {
		t.Helper()
		want, err := model.Evaluate(t.Context(), tenant, g)
		if err != nil {
			t.Fatal(err)
		}
		for _, few := range []int{fewSeries, 0} {
			s.fewSeries = few
			got, err := s.Evaluate(t.Context(), tenant, g)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if d := storagetest.DiffGrids(got, want, 0); d != "" {
				t.Fatalf("%s: %s", what, d)
			}
			sql := got.Queries[len(got.Queries)-1]
			if !strings.Contains(sql, "FROM samples") || strings.Contains(sql, "image") != values {
				t.Fatalf("%s: values read: want %v, in %s", what, values, sql)
			}
		}
	}
	for i, n := range []string{"a", "b", "c", "d"} {
		write(n, now-int64(i)*1000, 1)
		write(n, now-int64(i)*1000-15_000, 2)
	}
	write("d", now-500, math.NaN())
	write("e", now-60_000, 1) // before the window, as is its marker
	write("e", now-60_000, storage.StaleNaN)
	check("samples and NaN", false)
	write("b", now-10, storage.StaleNaN)
	check("a marker", true)
	write("b", now-5, 7)
	check("back again", true)
	g.Offset = 100
	check("before all of that", false)
	g.Offset, g.Aggregates = 0, append(g.Aggregates, storage.Aggregate{Op: storage.AggMax})
	check("values matter", true)
}
