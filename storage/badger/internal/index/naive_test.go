package index

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/zeebo/xxh3"

	"github.com/luminate/luminate/storage"
)

const testSeed = 42

func hashOf(b []byte) Hash128 { return xxh3.Hash128Seed(b, testSeed) }

// naive is the obviously correct index: every question is a loop over all series.
type naive struct {
	labels map[uint32]storage.Labels
}

func (n *naive) ids() []uint32 {
	var out []uint32
	for id := range n.labels {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

func (n *naive) Select(ms ...*labels.Matcher) *roaring.Bitmap {
	b := roaring.New()
	for id, ls := range n.labels {
		if storage.Matches(ls, ms) {
			b.Add(id)
		}
	}
	return b
}

// in tells whether id is among ids, nil being all.
func in(ids *roaring.Bitmap, id uint32) bool { return ids == nil || ids.Contains(id) }

func (n *naive) LabelNames(ids *roaring.Bitmap) []string {
	seen := map[string]bool{}
	for id, ls := range n.labels {
		for name := range ls.All() {
			if in(ids, id) {
				seen[name] = true
			}
		}
	}
	return sortedKeys(seen)
}

func (n *naive) LabelValues(name string, ids *roaring.Bitmap, limit int) []string {
	seen := map[string]bool{}
	for id, ls := range n.labels {
		if v := ls.Get(name); v != "" && in(ids, id) {
			seen[v] = true
		}
	}
	out := sortedKeys(seen)
	if limit > 0 && len(out) > limit {
		out = out[:limit]
	}
	return out
}

func (n *naive) counts(name string, ids *roaring.Bitmap) map[string]uint64 {
	c := map[string]uint64{}
	for id, ls := range n.labels {
		if in(ids, id) {
			c[ls.Get(name)]++
		}
	}
	return c
}

func (n *naive) Metrics(ids *roaring.Bitmap) []Count {
	var out []Count
	for name, c := range n.counts(metricName, ids) {
		out = append(out, Count{name, c})
	}
	slices.SortFunc(out, func(a, b Count) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (n *naive) ValueCounts(name string, ids *roaring.Bitmap, topN int) ([]Count, uint64) {
	c := n.counts(name, ids)
	delete(c, "")
	var out []Count
	for v, k := range c {
		out = append(out, Count{v, k})
	}
	slices.SortFunc(out, compareCounts)
	if topN > 0 && len(out) > topN {
		out = out[:topN]
	}
	return out, uint64(len(c))
}

func (n *naive) LabelCounts(ids *roaring.Bitmap) []LabelCount {
	var out []LabelCount
	for _, name := range n.LabelNames(ids) {
		c := n.counts(name, ids)
		delete(c, "")
		lc := LabelCount{Name: name, Values: uint64(len(c))}
		for v, k := range c {
			lc.Series += k
			lc.Bytes += uint64(len(v))
		}
		out = append(out, lc)
	}
	return out
}

func (n *naive) GroupBy(ids *roaring.Bitmap, names []string, without bool) []string {
	var out []string
	for _, id := range n.ids() {
		if in(ids, id) {
			out = append(out, string(storage.AppendGroupLabels(nil, n.labels[id], names, without)))
		}
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// randomLabels makes labels of few names, some with few values, some with many, some missing, some odd.
func randomLabels(r *rand.Rand) storage.Labels {
	m := map[string]string{}
	switch r.IntN(20) {
	case 0: // no metric
	default:
		m[metricName] = fmt.Sprintf("metric_%d", r.IntN(6)*r.IntN(6))
	}
	m["customer"] = fmt.Sprintf("customer-%06d", r.IntN(3000))
	m["region"] = []string{"", "eu", "us", "ap", "eu-west", "e"}[r.IntN(6)]
	m["job"] = []string{"", "api", "worker", "api\nx", "ü", "api.x"}[r.IntN(6)]
	m["serial"] = fmt.Sprintf("s%d", r.IntN(1<<20))
	if r.IntN(10) == 0 {
		m[fmt.Sprintf("rare%d", r.IntN(30))] = strings.Repeat("v", r.IntN(400))
	}
	if r.IntN(3) == 0 {
		m["zone"] = string(rune('a'+r.IntN(4))) + "\x00" + string(rune('a'+r.IntN(2)))
	}
	return storage.LabelsFromPrometheus(labels.FromMap(m))
}

func fillRandom(t testing.TB, r *rand.Rand, m *Mem, n int) *naive {
	ref := &naive{labels: map[uint32]storage.Labels{}}
	for len(ref.labels) < n {
		ls := randomLabels(r)
		if _, ok := m.Lookup(hashOf(ls)); ok {
			continue
		}
		id, err := m.Create(hashOf(ls), ls)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := ref.labels[id]; ok {
			t.Fatalf("id %d was given out twice", id)
		}
		ref.labels[id] = ls
	}
	return ref
}

// randomMatcher draws any kind of matcher, those that match the empty value included.
func randomMatcher(r *rand.Rand) *labels.Matcher {
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	name := pick(metricName, "customer", "region", "job", "serial", "zone", "rare3", "nothere")
	kind := labels.MatchType(r.IntN(4))
	var v string
	if kind == labels.MatchEqual || kind == labels.MatchNotEqual {
		v = pick("", "eu", "us", "e", "api", "api\nx", "metric_0", "metric_4", "customer-000007", "a\x00a", "missing")
	} else {
		v = pick("", ".*", ".+", "eu|us", "eu|", "|us|missing", "e.*", "(eu)?", "customer-0000.*", "customer-00(1|2)[0-9]+",
			"metric_(0|4)", "metric_.+", "s1.*", "s[0-9]*7", ".*x", "(?i)EU", "(?i:e)u", "a.b", "api.x", "[^e]*", "missing.*", "x*", "ü", "api(.x)?")
	}
	return labels.MustNewMatcher(kind, name, v)
}
