package clickhouse

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/luminate/luminate/storage/internal/grid"
)

// TestGatherSorts: samples in any order, some twice, come out by series, by time, with
// the greatest image.
func TestGatherSorts(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		want := make([]map[int64]uint64, 5)
		g := gather{budget: grid.NewBudget(1<<20, "the test", nil), limit: 1 << 20}
		for range rng.IntN(400) {
			at, ts, image := rng.IntN(len(want)), rng.Int64N(60), rng.Uint64()
			if want[at] == nil {
				want[at] = map[int64]uint64{}
			}
			want[at][ts] = max(want[at][ts], image)
			g.at, g.ts, g.images = append(g.at, uint32(at)), append(g.ts, ts), append(g.images, image)
		}
		seen := 0
		err := g.each(span{from: 10, to: 10 + len(want)}, func(at int, ts []int64, vs []float64) error {
			seen++
			if !slices.IsSorted(ts) || len(ts) != len(want[at-10]) || len(vs) != len(ts) {
				t.Fatalf("series %d: %v, want %d times", at, ts, len(want[at-10]))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for at, m := range want {
			if m == nil {
				seen++
			}
			from := 0
			for i := range at {
				from = int(g.starts[i])
			}
			for i := range len(m) {
				if ts := g.sorted[from+i]; g.values[from+i] != m[ts] {
					t.Fatalf("series %d at %d: image %d, want %d", at, ts, g.values[from+i], m[ts])
				}
			}
		}
		if seen != len(want) {
			t.Fatalf("%d series, want %d", seen, len(want))
		}
	}
}

// TestRosterFindsItsSeries and nothing else, wherever the search begins.
func TestRosterFindsItsSeries(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	var keys []rosterKeys
	for range 1000 {
		k := rosterKeys{loc: rng.Uint32N(20), id: rng.Uint64()}
		keys = append(keys, k, k) // as of two days
	}
	r, err := newRoster(keys, dayRange{})
	if err != nil || len(r.ids) != 1000 {
		t.Fatalf("%d series, %v", len(r.ids), err)
	}
	for i, id := range r.ids {
		for _, near := range []int{0, i, i + 1, len(r.ids)} {
			if at, ok := r.find(id, near); !ok || at != i {
				t.Fatalf("series %d from %d: %d, %t", i, near, at, ok)
			}
		}
		if _, ok := r.find(rng.Uint64(), i); ok {
			t.Fatal("found a series that is not there")
		}
	}
	if _, err := newRoster([]rosterKeys{{1, 7}, {2, 7}}, dayRange{}); err == nil {
		t.Fatal("two series with one id are accepted")
	}
}

// TestRosterCacheIsBounded: the least recently used roster goes first.
func TestRosterCacheIsBounded(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxRosterBytes = 3 * 20 * 1024
	c := newRosterCache(cfg)
	put := func(metric string, series int) {
		keys := make([]rosterKeys, series)
		for i := range keys {
			keys[i].id = uint64(i)
		}
		r, err := newRoster(keys, dayRange{})
		if err != nil {
			t.Fatal(err)
		}
		key := rosterKey{metric: metric}
		c.put(key, c.entry(key), snapshot{roster: r, born: cfg.now()})
	}
	put("a", 1024)
	put("b", 1024)
	c.entry(rosterKey{metric: "a"})
	put("c", 1024)
	put("d", 1024)
	for metric, want := range map[string]bool{"a": true, "b": false, "c": true, "d": true} {
		if got := c.peek(rosterKey{metric: metric}).roster != nil; got != want {
			t.Errorf("%s is kept: %t", metric, got)
		}
	}
	put("huge", 100_000)
	if c.bytes() > cfg.MaxRosterBytes {
		t.Errorf("%d bytes are held", c.bytes())
	}
}
