package index

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/luminate/luminate/storage"
)

// tinyLimits make many blocks and split records of few series.
var tinyLimits = packLimits{block: 700, record: 6000, hashes: 50}

func pack(t testing.TB, m *Mem, s *kv, limits packLimits) *Packed {
	t.Helper()
	stats, err := m.writePacked(context.Background(), s, s, limits)
	if err != nil {
		t.Fatal(err)
	}
	m.MarkWritten(stats.Records...)
	if left := m.DirtyRecords(false, 0); len(left) != 0 {
		t.Fatalf("still dirty: %v", left)
	}
	p, err := OpenPacked(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	if p.Generation() != stats.Generation {
		t.Fatalf("generation %d, want %d", p.Generation(), stats.Generation)
	}
	return p
}

func load(t testing.TB, s *kv) *Mem {
	t.Helper()
	m, err := LoadMem(context.Background(), s, LoadConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestPackedAgainstNaive(t *testing.T) {
	for _, n := range []int{0, 1, 40, 1800} {
		for name, limits := range map[string]packLimits{"tiny": tinyLimits, "usual": {blockTarget, maxRecord, hashBlockLen}} {
			t.Run(fmt.Sprintf("%d_%s", n, name), func(t *testing.T) {
				r := rand.New(rand.NewPCG(4, uint64(n)))
				m, s := NewMem(), newKV()
				ref := fillRandom(t, r, m, n)
				checkReader(t, r, pack(t, m, s, limits), ref, 64)
				checkReader(t, r, load(t, s), ref, 16)
			})
		}
	}
}

// A closed partition is loaded, grows, and is packed again; the older packed form stays readable meanwhile.
func TestReopenAndPackAgain(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	m, s := NewMem(), newKV()
	ref := fillRandom(t, r, m, 1500)
	old := pack(t, m, s, tinyLimits)
	again := load(t, s)
	if left := again.DirtyRecords(false, 0); len(left) != 0 {
		t.Fatalf("dirty after load: %v", left)
	}
	if again.NextGroup() != m.NextGroup() {
		t.Fatalf("next group %d, want %d", again.NextGroup(), m.NextGroup())
	}
	all := &naive{labels: map[uint32]storage.Labels{}}
	for id, ls := range ref.labels {
		all.labels[id] = ls
	}
	for id, ls := range fillRandom(t, r, again, 700).labels {
		all.labels[id] = ls
	}
	fresh := pack(t, again, s, tinyLimits)
	checkReader(t, r, fresh, all, 16)
	if got, err := old.Select(context.Background()); err != nil || got.GetCardinality() != 1500 {
		t.Fatalf("old generation: %v, %v", got.GetCardinality(), err)
	}
	if _, ok, err := old.View(s); ok || err != nil {
		t.Fatalf("view of a new generation through the old: %v, %v", ok, err)
	}
	view, ok, err := fresh.View(s)
	if !ok || err != nil {
		t.Fatalf("view: %v, %v", ok, err)
	}
	checkReader(t, r, view, all, 2)
	if err := DeleteStale(s, s); err != nil {
		t.Fatal(err)
	}
	checkReader(t, r, fresh, all, 4)
	for _, k := range s.keys() {
		if k[0] >= KindPostings && k[4] != byte(fresh.Generation()) {
			t.Fatalf("stale key %x", k)
		}
	}
	if got := load(t, s); got.SeriesCount() != 2200 {
		t.Fatalf("loaded %d series", got.SeriesCount())
	}
}

// Records written while the partition is open, then a crash: the rest comes from the log, in any mixture.
func TestRecoverOpenPartition(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	m, s := NewMem(), newKV()
	ref := fillRandom(t, r, m, 1200)
	for _, rec := range m.DirtyRecords(true, 0) {
		written, err := m.WriteRecord(s, rec)
		if err != nil || written != rec {
			t.Fatalf("wrote %v as %v, %v", rec, written, err)
		}
	}
	back := load(t, s)
	if n := back.SeriesCount(); n == 0 || n == 1200 {
		t.Fatalf("%d series were in records; the test needs some", n)
	}
	ids := ref.ids()
	r.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	for _, id := range ids {
		if err := back.Insert(id, hashOf(ref.labels[id]), ref.labels[id]); err != nil {
			t.Fatal(err)
		}
	}
	checkReader(t, r, back, ref, 16)
	checkReader(t, r, pack(t, back, s, tinyLimits), ref, 16)
}

func TestLargeLabelsSplitRecords(t *testing.T) {
	m, s := NewMem(), newKV()
	ref := &naive{labels: map[uint32]storage.Labels{}}
	r := rand.New(rand.NewPCG(7, 7))
	for i := range 100 {
		b := make([]byte, 30000)
		for j := range b {
			b[j] = 'a' + byte(r.IntN(26))
		}
		ls := storage.LabelsFromStrings(metricName, "m", "big", string(b), "i", fmt.Sprint(i))
		id, err := m.Create(hashOf(ls), ls)
		if err != nil {
			t.Fatal(err)
		}
		ref.labels[id] = ls
	}
	p := pack(t, m, s, packLimits{blockTarget, maxRecord, hashBlockLen})
	for k, v := range s.values {
		if len(v) > maxRecord+100 {
			t.Fatalf("key %x has %d bytes", k[:min(len(k), 20)], len(v))
		}
	}
	checkReader(t, r, p, ref, 5)
	checkReader(t, r, load(t, s), ref, 5)
}

func TestDroppedMetric(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	m, s := NewMem(), newKV()
	ref := fillRandom(t, r, m, 900)
	pack(t, m, s, tinyLimits)
	gone := ref.Select(labels.MustNewMatcher(labels.MatchEqual, metricName, "metric_4"))
	id, err := m.MetricID(gone.Minimum() / GroupSize)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range s.keys() {
		if k[0] == KindSeries && strings.HasPrefix(k[1:], string(appendU32s(nil, id))) {
			delete(s.values, k)
		}
	}
	s.sorted = nil
	if _, err := LoadMem(context.Background(), s, LoadConfig{}); !errors.Is(err, ErrDamaged) {
		t.Fatalf("load without records: %v", err)
	}
	left, err := LoadMem(context.Background(), s, LoadConfig{Incomplete: true})
	if err != nil {
		t.Fatal(err)
	}
	if left.NextGroup() != m.NextGroup() {
		t.Fatalf("ids of the dropped metric may be given out again")
	}
	for _, id := range gone.ToArray() {
		delete(ref.labels, id)
	}
	checkReader(t, r, left, ref, 20)
	checkReader(t, r, pack(t, left, s, tinyLimits), ref, 20)
}

// askAll asks everything; an error is fine, a wrong answer is not.
func askAll(t *testing.T, s *kv, ref *naive, what string) (failed bool) {
	t.Helper()
	ctx := context.Background()
	p, err := OpenPacked(context.Background(), s)
	if err != nil {
		return checkDamage(t, err, what)
	}
	fail := func(err error) bool {
		failed = failed || err != nil && checkDamage(t, err, what)
		return err != nil
	}
	for _, ms := range [][]*labels.Matcher{
		nil,
		{labels.MustNewMatcher(labels.MatchEqual, metricName, "metric_4")},
		{labels.MustNewMatcher(labels.MatchEqual, "region", "")},
		{labels.MustNewMatcher(labels.MatchRegexp, "customer", "customer-00[01].*")},
		{labels.MustNewMatcher(labels.MatchNotRegexp, "serial", ".*7.*")},
	} {
		if got, err := p.Select(ctx, ms...); !fail(err) && !got.Equals(ref.Select(ms...)) {
			t.Fatalf("%s: select %v is wrong without an error", what, ms)
		}
	}
	for _, id := range ref.ids() {
		for _, name := range []string{"customer", "serial"} {
			v := ref.labels[id].Get(name)
			m := labels.MustNewMatcher(labels.MatchEqual, name, v)
			if got, err := p.Select(ctx, m); !fail(err) && !got.Equals(ref.Select(m)) {
				t.Fatalf("%s: select %v is wrong without an error", what, m)
			}
		}
		if got, ok, err := p.Find(ctx, hashOf(ref.labels[id])); !fail(err) && (!ok || got != id) {
			t.Fatalf("%s: find %d: %d %v", what, id, got, ok)
		}
	}
	for _, name := range ref.LabelNames(nil) {
		if got, err := p.LabelValues(ctx, name, nil, 0); !fail(err) && !slices.Equal(got, ref.LabelValues(name, nil, 0)) {
			t.Fatalf("%s: values of %s are wrong without an error", what, name)
		}
	}
	if got, err := p.Metrics(ctx, nil); !fail(err) && !slices.Equal(got, ref.Metrics(nil)) {
		t.Fatalf("%s: metrics are wrong without an error", what)
	}
	n := 0
	err = p.ForEach(ctx, nil, func(id uint32, _ Hash128, ls []byte) error {
		if n++; string(ls) != string(ref.labels[id]) {
			t.Fatalf("%s: labels of %d are wrong without an error", what, id)
		}
		return nil
	})
	if !fail(err) && n != len(ref.labels) {
		t.Fatalf("%s: %d series without an error", what, n)
	}
	if m, err := LoadMem(ctx, s, LoadConfig{}); !fail(err) && int(m.SeriesCount()) != len(ref.labels) {
		t.Fatalf("%s: loaded %d series without an error", what, m.SeriesCount())
	}
	return failed
}

func checkDamage(t *testing.T, err error, what string) bool {
	t.Helper()
	if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrNotPacked) {
		t.Fatalf("%s: unexpected error %v", what, err)
	}
	return true
}

// Every key is lost once and flipped once; each time either an error says so or the answers are right.
func TestDamage(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	m, s := NewMem(), newKV()
	ref := fillRandom(t, r, m, 120)
	pack(t, m, s, packLimits{block: 500, record: 4000, hashes: 30})
	if askAll(t, s, ref, "intact") {
		t.Fatal("errors on intact keys")
	}
	for _, k := range s.keys() {
		lost := s.clone()
		delete(lost.values, k)
		if !askAll(t, lost, ref, fmt.Sprintf("lost key %x", k)) {
			t.Errorf("the loss of key %x went unnoticed", k)
		}
		flipped := s.clone()
		v := slices.Clone(s.values[k])
		v[r.IntN(len(v))] ^= 1 << r.IntN(8)
		flipped.values[k] = v
		if !askAll(t, flipped, ref, fmt.Sprintf("flipped key %x", k)) {
			t.Errorf("a flipped bit under key %x went unnoticed", k)
		}
	}
}

func TestOpenPackedOfNothing(t *testing.T) {
	if _, err := OpenPacked(context.Background(), newKV()); !errors.Is(err, ErrNotPacked) {
		t.Fatalf("got %v", err)
	}
	if m := load(t, newKV()); m.SeriesCount() != 0 {
		t.Fatalf("%d series", m.SeriesCount())
	}
}

func TestPackedCache(t *testing.T) {
	ctx := context.Background()
	r := rand.New(rand.NewPCG(18, 18))
	c := NewPackedCache[int](2)
	stores, mems := []*kv{newKV(), newKV(), newKV()}, []*Mem{NewMem(), NewMem(), NewMem()}
	for i, s := range stores {
		fillRandom(t, r, mems[i], 100+i)
		pack(t, mems[i], s, tinyLimits)
	}
	open := func(i int) *Packed {
		t.Helper()
		p, err := c.Open(ctx, i, stores[i])
		if err != nil {
			t.Fatal(err)
		}
		if p.SeriesCount() != mems[i].SeriesCount() {
			t.Fatalf("partition %d has %d series, want %d", i, p.SeriesCount(), mems[i].SeriesCount())
		}
		return p
	}
	first := open(0)
	if open(0).packedParts != first.packedParts {
		t.Fatal("the second query read the index again")
	}
	open(1)
	open(0)
	open(2) // in place of 1
	if open(0).packedParts != first.packedParts || c.take(1) != nil {
		t.Fatal("the index used last was dropped")
	}
	fillRandom(t, r, mems[0], 10)
	pack(t, mems[0], stores[0], tinyLimits)
	if open(0).packedParts == first.packedParts {
		t.Fatal("an old packed form was served")
	}
	c.Forget(0)
	if c.take(0) != nil {
		t.Fatal("still there")
	}
	if _, err := c.Open(ctx, 3, newKV()); !errors.Is(err, ErrNotPacked) {
		t.Fatalf("got %v", err)
	}
}
