package badger

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

// TestLookUpsOfClosedDays: the answer for a closed day comes from the cache, and a
// late series is in the next one.
func TestLookUpsOfClosedDays(t *testing.T) {
	clock := newClock()
	today := time.Now().UTC().Truncate(24 * time.Hour).Add(12 * time.Hour)
	clock.ms.Store(today.UnixMilli())
	cfg := testConfig(t.TempDir())
	cfg.Now = clock.now
	db := openTest(t, cfg)
	tn := storage.MustTenant("a")
	yesterday := today.Add(-24 * time.Hour).UnixMilli()
	write := func(value string) {
		t.Helper()
		var b storage.Batch
		b.Add(storage.LabelsFromStrings(storage.MetricName, "m", "l", value), storage.Sample{T: yesterday, V: 1})
		storagetest.MustAppend(t, db, "a", &b)
	}
	closeAll := func() {
		t.Helper()
		clock.ms.Store(today.Add(time.Hour * 2).UnixMilli())
		if err := db.closeDays(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := db.openParts.Load(); n != 0 {
			t.Fatalf("%d days are open", n)
		}
		clock.ms.Store(today.UnixMilli())
	}
	want := func(values ...string) {
		t.Helper()
		for range 2 {
			got, err := db.LabelValues(t.Context(), tn, "l", storage.Selection{MinT: yesterday - 1, MaxT: today.UnixMilli()})
			if err != nil || !slices.Equal(got, values) {
				t.Fatalf("values: %q (%v), want %q", got, err, values)
			}
		}
	}
	write("one")
	want("one")
	closeAll()
	want("one")
	before := db.lookups.Bytes()
	want("one")
	if after := db.lookups.Bytes(); before == 0 || after != before {
		t.Errorf("the cache had %d bytes and has %d after the same question", before, after)
	}
	write("late")
	want("late", "one")
	closeAll()
	want("late", "one")
}

// TestLookUpsSeeAcknowledgedWrites has writers that look up, at once after each
// acknowledged write of a new value, whether discovery shows it, while others ask too.
func TestLookUpsSeeAcknowledgedWrites(t *testing.T) {
	db := openTest(t, testConfig(t.TempDir()))
	tn := storage.MustTenant("a")
	now := time.Now().UnixMilli()
	all := storage.Selection{MinT: now - 1000, MaxT: now + 1000}
	ctx, stop := context.WithCancel(t.Context())
	var readers, writers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for ctx.Err() == nil {
				if _, err := db.LabelValues(ctx, tn, "l", all); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for w := range 4 {
		writers.Go(func() {
			for i := range 150 {
				value := fmt.Sprintf("%d-%d", w, i)
				var b storage.Batch
				b.Add(storage.LabelsFromStrings(storage.MetricName, "m", "l", value), storage.Sample{T: now, V: 1})
				if _, err := db.Append(t.Context(), tn, &b); err != nil {
					t.Error(err)
					return
				}
				got, err := db.LabelValues(t.Context(), tn, "l", all)
				if _, ok := slices.BinarySearch(got, value); err != nil || !ok {
					t.Errorf("%s was acknowledged and is not among %d values (%v)", value, len(got), err)
					return
				}
			}
		})
	}
	writers.Wait()
	stop()
	readers.Wait()
}

// TestMergeSorted compares the union of lists with a sorted set, and checks that none
// of them was changed.
func TestMergeSorted(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var lists, before [][]string
		set := map[string]bool{}
		for range rng.IntN(5) {
			var list []string
			for v := range 12 {
				if rng.IntN(3) == 0 {
					list = append(list, fmt.Sprintf("%02d", v))
					set[fmt.Sprintf("%02d", v)] = true
				}
			}
			lists, before = append(lists, list), append(before, slices.Clone(list))
		}
		var got []string
		for _, l := range lists {
			got = mergeSorted(got, l, strings.Compare)
		}
		if want := slices.Sorted(maps.Keys(set)); !slices.Equal(got, want) {
			t.Fatalf("%v: %v, want %v", lists, got, want)
		}
		for i := range lists {
			if !slices.Equal(lists[i], before[i]) {
				t.Fatalf("list %d was changed: %v, it was %v", i, lists[i], before[i])
			}
		}
	}
}
