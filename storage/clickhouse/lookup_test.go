package clickhouse_test

import (
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/clickhouse/chtest"
	"github.com/luminate/luminate/storage/storagetest"
)

// TestLookUpsOfOtherProcesses: what a process stores it sees at once; what another one
// stored, deleted or described it sees after the age of the cache, not before.
func TestLookUpsOfOtherProcesses(t *testing.T) {
	chtest.Start(t)
	cfg := testConfig(chtest.DSN(t))
	var clock atomic.Int64
	clock.Store(time.Now().UnixNano() / int64(cfg.DiscoveryCacheAge) * int64(cfg.DiscoveryCacheAge))
	cfg.Now = func() time.Time { return time.Unix(0, clock.Load()) }
	here, there := open(t, cfg), open(t, cfg)
	tn, now := storage.MustTenant("a"), clock.Load()/1e6
	write := func(s storage.Store, value string) {
		t.Helper()
		var b storage.Batch
		b.Add(storage.LabelsFromStrings(storage.MetricName, "m", "l", value), storage.Sample{T: now, V: 1})
		b.Metadata = []storage.Metadata{{Metric: "m", Type: "gauge", Help: value}}
		storagetest.MustAppend(t, s, "a", &b)
	}
	want := func(s storage.Store, help string, values ...string) {
		t.Helper()
		for range 2 {
			got, err := s.LabelValues(t.Context(), tn, "l", storage.Selection{MinT: now - 1000, MaxT: now + 1000})
			if err != nil || !slices.Equal(got, values) {
				t.Fatalf("values: %q (%v), want %q", got, err, values)
			}
			meta, err := s.Metadata(t.Context(), tn, storage.MetadataQuery{})
			if err != nil || len(meta) != 1 || meta[0].Help != help {
				t.Fatalf("metadata: %v (%v), want %q", meta, err, help)
			}
		}
	}
	later := func() { clock.Add(int64(cfg.DiscoveryCacheAge)) }
	write(here, "one")
	want(here, "one", "one")
	want(there, "one", "one")
	write(here, "two")
	want(here, "two", "one", "two")
	want(there, "one", "one")
	later()
	want(there, "two", "one", "two")
	want(here, "two", "one", "two")
	write(there, "three")
	want(there, "three", "one", "three", "two")
	want(here, "two", "one", "two")
	later()
	want(here, "three", "one", "three", "two")
	q := storage.Selection{Matchers: []*storage.Matcher{storagetest.Eq("l", "two")}, MinT: now - 400*24*3600*1000, MaxT: now + 24*3600*1000}
	if _, err := here.Delete(t.Context(), tn, q); err != nil {
		t.Fatal(err)
	}
	want(here, "three", "one", "three")
	later()
	want(there, "three", "one", "three")
}

// TestRosterLearnsOfOtherProcesses: an evaluation that keeps a metric's series in memory
// counts what another process stored, deleted and stored again since.
func TestRosterLearnsOfOtherProcesses(t *testing.T) {
	chtest.Start(t)
	cfg := testConfig(chtest.DSN(t))
	here, there := open(t, cfg), open(t, cfg)
	here.UseRosters(1)
	now := time.Now().UnixMilli()
	write := func(s storage.Store, zone string, from, to int) {
		t.Helper()
		var b storage.Batch
		for i := from; i < to; i++ {
			b.Add(storage.LabelsFromStrings(storage.MetricName, "m", "serial", fmt.Sprint(i), "zone", zone), storage.Sample{T: now, V: 1})
		}
		storagetest.MustAppend(t, s, "a", &b)
	}
	want := func(zones map[string]float64) {
		t.Helper()
		r, err := here.Evaluate(t.Context(), storage.MustTenant("a"), storage.Grid{
			Matchers: []*storage.Matcher{storagetest.Eq(storage.MetricName, "m")}, Start: now, End: now, Window: 60_000,
			Func: storage.FuncLast, Aggregates: []storage.Aggregate{{Op: storage.AggCount}}, Grouping: []string{"zone"},
		})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, g := range r.Groups {
			got[g.Labels.Get("zone")] = g.Values[0][0]
		}
		if !maps.Equal(got, zones) {
			t.Fatalf("got %v, want %v", got, zones)
		}
	}
	write(here, "north", 0, 50)
	want(map[string]float64{"north": 50})
	write(there, "north", 50, 60)
	write(there, "south", 60, 67)
	want(map[string]float64{"north": 60, "south": 7})
	south := storage.Selection{Matchers: []*storage.Matcher{storagetest.Eq("zone", "south")}, MinT: now - 1000, MaxT: now + 1000}
	if _, err := there.Delete(t.Context(), storage.MustTenant("a"), south); err != nil {
		t.Fatal(err)
	}
	want(map[string]float64{"north": 60})
	write(there, "south", 60, 65)
	want(map[string]float64{"north": 60, "south": 5})
}
