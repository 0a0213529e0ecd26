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

func TestMemAgainstNaive(t *testing.T) {
	for _, n := range []int{0, 1, 40, 2500} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, uint64(n)))
			m := NewMem()
			ref := fillRandom(t, r, m, n)
			checkReader(t, r, m, ref, 160)
		})
	}
}

// The value order is built at one size and used at another.
func TestMemGrowsBetweenQueries(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	m := NewMem()
	ref := fillRandom(t, r, m, 1200)
	checkReader(t, r, m, ref, 24)
	for id, ls := range fillMore(t, r, m, 700) {
		ref.labels[id] = ls
	}
	checkReader(t, r, m, ref, 24)
}

func fillMore(t *testing.T, r *rand.Rand, m *Mem, n int) map[uint32]storage.Labels {
	return fillRandom(t, r, m, n).labels
}

func TestExtents(t *testing.T) {
	m := NewMem()
	create := func(metric string, i int) uint32 {
		ls := storage.LabelsFromStrings(metricName, metric, "i", fmt.Sprint(i))
		id, err := m.Create(hashOf(ls), ls)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	owner := map[uint32]string{}
	for i := range 2000 {
		for _, metric := range []string{"a", "b"} {
			g := create(metric, i) / GroupSize
			if have, ok := owner[g]; ok && have != metric {
				t.Fatalf("group %d holds %s and %s", g, have, metric)
			}
			owner[g] = metric
		}
	}
	if id := create("c", 0); id != m.IDBound()-1 || id%GroupSize != 0 {
		t.Fatalf("a new metric began at %d", id)
	}
	before := m.NextGroup()
	m.Seal(before + 100)
	if g := create("a", 5000) / GroupSize; g < before+100 {
		t.Fatalf("after Seal a series went to group %d, want at least %d", g, before+100)
	}
	if no, err := m.MetricID(before + 104); err != nil || no != 0 {
		t.Fatalf("metric of the new group: %d, %v", no, err)
	}
}

func TestInsert(t *testing.T) {
	a := storage.LabelsFromStrings(metricName, "m", "a", "1")
	b := storage.LabelsFromStrings(metricName, "m", "a", "2")
	other := storage.LabelsFromStrings(metricName, "other", "a", "1")
	m := NewMem()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	conflict := func(err error) {
		t.Helper()
		if !errors.Is(err, ErrConflict) {
			t.Fatalf("got %v, want a conflict", err)
		}
	}
	ok(m.Insert(130, hashOf(a), a))
	ok(m.Insert(130, hashOf(a), a))
	conflict(m.Insert(131, hashOf(a), a))         // hash has another id
	conflict(m.Insert(130, hashOf(b), b))         // id has another hash
	conflict(m.Insert(131, hashOf(other), other)) // group has another metric
	conflict(m.Insert(130, hashOf(a), b))         // labels differ
	conflict(m.Insert(MaxSeriesID, hashOf(b), b))
	if m.SeriesCount() != 1 {
		t.Fatalf("%d series, want 1", m.SeriesCount())
	}
	if no, err := m.MetricID(2); err != nil || no != 2 {
		t.Fatalf("metric %d, %v", no, err)
	}
	ok(m.Insert(5, hashOf(b), b))
	if no, err := m.MetricID(2); err != nil || no != 0 {
		t.Fatalf("metric %d, %v", no, err)
	}
	// Free ids below the highest of the extent are not given out again.
	c := storage.LabelsFromStrings(metricName, "m", "a", "3")
	if id, err := m.Create(hashOf(c), c); err != nil || id != 131 {
		t.Fatalf("created %d, %v, want 131", id, err)
	}
	if _, err := m.Create(hashOf(c), c); !errors.Is(err, ErrConflict) {
		t.Fatalf("created twice: %v", err)
	}
}

func TestRefusedLabels(t *testing.T) {
	m := NewMem()
	long := strings.Repeat("x", bytesLen)
	for _, ls := range []string{
		"\x01", "\x01a", "\x01a\x00", "\x00\x01a", "\x01b\x01v\x01a\x01v", "\x01a\x01v\x01a\x01w", "\x05a",
		string(storage.LabelsFromStrings("a", long)),
	} {
		if _, err := m.Create(hashOf([]byte(ls)), []byte(ls)); !errors.Is(err, ErrLabels) {
			t.Errorf("%.20q: got %v, want ErrLabels", ls, err)
		}
	}
	if m.SeriesCount() != 0 || m.names.len() != 1 {
		t.Fatal("refused labels left something behind")
	}
	empty, err := m.Create(hashOf(nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	if ls, err := m.AppendLabels(nil, empty); err != nil || len(ls) != 0 {
		t.Fatalf("labels of the empty series: %q, %v", ls, err)
	}
}

func TestDirtyRecords(t *testing.T) {
	m := NewMem()
	add := func(metric string, from, to int) {
		for i := from; i < to; i++ {
			ls := storage.LabelsFromStrings(metricName, metric, "i", fmt.Sprint(i))
			if _, err := m.Create(hashOf(ls), ls); err != nil {
				t.Fatal(err)
			}
		}
	}
	add("a", 0, 600) // groups 0..7 and the run 8..15
	add("b", 0, 10)  // group 16
	all := m.DirtyRecords(false, 0)
	want := []RecordRef{{0, 0, 512}, {0, 512, 88}, {16, 1024, 10}}
	if !slices.Equal(all, want) {
		t.Fatalf("dirty %v, want %v", all, want)
	}
	if full := m.DirtyRecords(true, 0); !slices.Equal(full, want[:1]) {
		t.Fatalf("full %v", full)
	}
	add("b", 10, 11)
	m.MarkWritten(all...)
	if left := m.DirtyRecords(false, 0); !slices.Equal(left, []RecordRef{{16, 1024, 11}}) {
		t.Fatalf("left %v", left)
	}
	add("a", 600, 601)
	if left := m.DirtyRecords(false, 1); !slices.Equal(left, []RecordRef{{0, 512, 89}}) {
		t.Fatalf("left %v", left)
	}
}

func TestSelectStopsWithContext(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	m := NewMem()
	fillRandom(t, r, m, 5000)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := m.Select(ctx, labels.MustNewMatcher(labels.MatchRegexp, "serial", "s.*7")); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}
