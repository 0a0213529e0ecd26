package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// checkReader compares every answer of x with the naive index.
func checkReader(t *testing.T, r *rand.Rand, x Reader, ref *naive, rounds int) {
	t.Helper()
	ctx := context.Background()
	if int(x.SeriesCount()) != len(ref.labels) {
		t.Fatalf("series: got %d, want %d", x.SeriesCount(), len(ref.labels))
	}
	checkSeries(t, x, ref)
	checkDiscovery(t, r, x, ref, nil)
	for i := range rounds {
		ms := make([]*labels.Matcher, r.IntN(4))
		for j := range ms {
			ms[j] = randomMatcher(r)
		}
		got, err := x.Select(ctx, ms...)
		if err != nil {
			t.Fatalf("select %v: %v", ms, err)
		}
		want := ref.Select(ms...)
		if !got.Equals(want) {
			t.Fatalf("select %v: got %d series, want %d; too many %v, missing %v", ms, got.GetCardinality(), want.GetCardinality(),
				roaring.AndNot(got, want).ToArray(), roaring.AndNot(want, got).ToArray())
		}
		if i%8 == 0 {
			checkDiscovery(t, r, x, ref, got)
		}
		got.Add(1 << 30) // the answer is ours
	}
}

func checkSeries(t *testing.T, x Reader, ref *naive) {
	t.Helper()
	seen := 0
	err := x.ForEach(context.Background(), nil, func(id uint32, hash Hash128, ls []byte) error {
		seen++
		if !bytes.Equal(ls, ref.labels[id]) || hash != hashOf(ls) {
			return fmt.Errorf("series %d: got %q, want %q", id, ls, ref.labels[id])
		}
		return nil
	})
	if err != nil || seen != len(ref.labels) {
		t.Fatalf("for each: %d series, %v", seen, err)
	}
	metrics := map[string]uint32{}
	for i, id := range ref.ids() {
		ls := ref.labels[id]
		no, err := x.MetricID(id / GroupSize)
		name, err2 := x.MetricName(id / GroupSize)
		if err != nil || err2 != nil || name != ls.Metric() {
			t.Fatalf("metric of %d: got %q, %v, %v, want %q", id, name, err, err2, ls.Metric())
		}
		if have, ok := metrics[name]; ok && have != no {
			t.Fatalf("metric %q has numbers %d and %d", name, have, no)
		}
		metrics[name] = no
		if i%17 != 0 {
			continue
		}
		got, err := x.AppendLabels([]byte("x"), id)
		if err != nil || string(got) != "x"+string(ls) {
			t.Fatalf("labels of %d: got %q, %v, want %q", id, got, err, ls)
		}
		h, err := x.Hash(id)
		if err != nil || h != hashOf(ls) {
			t.Fatalf("hash of %d: %v", id, err)
		}
		if back, ok, err := x.Find(context.Background(), h); err != nil || !ok || back != id {
			t.Fatalf("find %d: %d %v %v", id, back, ok, err)
		}
	}
	if _, ok, err := x.Find(context.Background(), Hash128{Hi: 5, Lo: 6}); ok || err != nil {
		t.Fatalf("find of an unknown hash: %v %v", ok, err)
	}
	for _, id := range []uint32{x.IDBound() + 5, 1 << 31, 1<<32 - 1} {
		if _, err := x.AppendLabels(nil, id); !errors.Is(err, ErrUnknownSeries) {
			t.Fatalf("labels of unknown series %d: %v", id, err)
		}
	}
}

func checkDiscovery(t *testing.T, r *rand.Rand, x Reader, ref *naive, ids *roaring.Bitmap) {
	t.Helper()
	ctx := context.Background()
	names, err := x.LabelNames(ctx, ids)
	if want := ref.LabelNames(ids); err != nil || !slices.Equal(names, want) {
		t.Fatalf("label names: got %q, %v, want %q", names, err, want)
	}
	metrics, err := x.Metrics(ctx, ids)
	if want := ref.Metrics(ids); err != nil || !slices.Equal(metrics, want) {
		t.Fatalf("metrics: got %v, %v, want %v", metrics, err, want)
	}
	counts, err := x.LabelCounts(ctx, ids)
	if want := ref.LabelCounts(ids); err != nil || !slices.Equal(counts, want) {
		t.Fatalf("label counts: got %v, %v, want %v", counts, err, want)
	}
	for _, name := range []string{metricName, "customer", "region", "zone", "rare3", "nothere"} {
		limit := r.IntN(5)
		vs, err := x.LabelValues(ctx, name, ids, limit)
		if want := ref.LabelValues(name, ids, limit); err != nil || !slices.Equal(vs, want) {
			t.Fatalf("values of %s: got %q, %v, want %q", name, vs, err, want)
		}
		top, n, err := x.ValueCounts(ctx, name, ids, limit)
		if want, wantN := ref.ValueCounts(name, ids, limit); err != nil || n != wantN || !slices.Equal(top, want) {
			t.Fatalf("value counts of %s: got %v of %d, %v, want %v of %d", name, top, n, err, want, wantN)
		}
	}
	by := [][]string{{}, {"region"}, {"region", metricName, "nothere"}, {"zone", "customer"}, {"serial", "region"}}[r.IntN(5)]
	without := r.IntN(2) == 0
	gs, err := x.GroupBy(ctx, ids, by, without)
	if err != nil {
		t.Fatal(err)
	}
	want := ref.GroupBy(ids, by, without)
	if len(gs.Of) != len(want) {
		t.Fatalf("group by %v: %d series, want %d", by, len(gs.Of), len(want))
	}
	seen := map[string]bool{}
	for i, g := range gs.Of {
		if string(gs.Labels[g]) != want[i] {
			t.Fatalf("group by %v without=%v: series %d is in %q, want %q", by, without, i, gs.Labels[g], want[i])
		}
	}
	for _, ls := range gs.Labels {
		if seen[string(ls)] {
			t.Fatalf("group by %v: two groups %q", by, ls)
		}
		seen[string(ls)] = true
	}
}
