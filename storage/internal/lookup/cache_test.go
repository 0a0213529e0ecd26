package lookup

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"go.uber.org/goleak"

	"github.com/luminate/luminate/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func values(n int) Answer {
	var a Answer
	for i := range n {
		a.Values = append(a.Values, fmt.Sprintf("value-%06d", i))
	}
	return a
}

// TestCacheIsBounded fills a cache with far more than its limit and looks at its
// size, as it counts it and as its metric tells, after every step.
func TestCacheIsBounded(t *testing.T) {
	const limit = 64 << 10
	reg := prometheus.NewRegistry()
	c := New(limit, "test_", reg)
	for i := range 1000 {
		c.Put(fmt.Sprintf("key %d", i), values(i%150))
		if n := c.Bytes(); n > limit || n < 0 {
			t.Fatalf("after %d answers: %d bytes, the limit is %d", i+1, n, limit)
		}
	}
	if c.Bytes() < limit/2 {
		t.Errorf("only %d of %d bytes are used", c.Bytes(), limit)
	}
	want := fmt.Sprintf("# HELP test_discovery_cache_bytes Bytes of answers of discovery (label names, values, series, metadata) that are kept.\n# TYPE test_discovery_cache_bytes gauge\ntest_discovery_cache_bytes %d\n", c.Bytes())
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "test_discovery_cache_bytes"); err != nil {
		t.Error(err)
	}
	if testutil.ToFloat64(c.metrics.evicted) == 0 {
		t.Error("nothing was given up")
	}
	var sum int64
	for e := c.order.Front(); e != nil; e = e.Next() {
		sum += e.Value.(*entry).bytes
	}
	if sum != c.used || len(c.entries) != c.order.Len() {
		t.Errorf("counted %d bytes, held %d; %d entries of %d", c.used, sum, len(c.entries), c.order.Len())
	}
}

func TestCacheKeepsWhatIsUsed(t *testing.T) {
	c := New(8*(entryBytes+100), "test_", prometheus.NewRegistry())
	for i := range 8 {
		c.Put(fmt.Sprint(i), Answer{Values: []string{fmt.Sprint(i)}})
	}
	for i := range 100 {
		if a, ok := c.Get("0"); !ok || a.Values[0] != "0" {
			t.Fatalf("after %d more: %v %t", i, a, ok)
		}
		c.Put(fmt.Sprint("new", i), Answer{})
	}
	if _, ok := c.Get("1"); ok {
		t.Error("what was not used is still there")
	}
	c.Put("0", Answer{Values: []string{"again"}})
	if a, _ := c.Get("0"); a.Values[0] != "again" {
		t.Errorf("replaced answer: %v", a)
	}
	c.Put("large", values(100))
	if _, ok := c.Get("large"); ok {
		t.Error("an answer of more than an eighth of the cache was kept")
	}
}

func TestNoCache(t *testing.T) {
	c := New(0, "test_", prometheus.NewRegistry())
	c.Put("a", values(1))
	if _, ok := c.Get("a"); ok || c.Bytes() != 0 {
		t.Error("a cache of 0 bytes keeps an answer")
	}
}

// TestKeysDiffer: selections that differ anywhere have different keys.
func TestKeysDiffer(t *testing.T) {
	m := func(kind labels.MatchType, name, value string) *storage.Matcher {
		return labels.MustNewMatcher(kind, name, value)
	}
	eq, ne, re := labels.MatchEqual, labels.MatchNotEqual, labels.MatchRegexp
	seen := map[string]int{}
	for i, ms := range [][]*storage.Matcher{
		nil,
		{m(eq, "a", "")}, {m(eq, "", "a")}, {m(ne, "a", "")}, {m(re, "a", "")},
		{m(eq, "a", "b")}, {m(eq, "ab", "")}, {m(eq, "a", "b"), m(eq, "c", "d")}, {m(eq, "a", "b\x00\x01c\x01d")},
		{m(eq, "a", "bc"), m(eq, "", "d")}, {m(eq, "c", "d"), m(eq, "a", "b")},
	} {
		k := string(Key(nil).Text("tenant").Number(3).Matchers(ms))
		if j, ok := seen[k]; ok {
			t.Errorf("selections %d and %d have the same key", i, j)
		}
		seen[k] = i
	}
	if string(Key(nil).Text("a").Text("b")) == string(Key(nil).Text("ab").Text("")) {
		t.Error("parts run into each other")
	}
}
