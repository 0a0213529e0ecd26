package index

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/luminate/luminate/storage"
)

// Readers under the read lock share the lazily built value orders; one writer adds series between them.
func TestConcurrentReaders(t *testing.T) {
	var mu sync.RWMutex
	m := NewMem()
	r := rand.New(rand.NewPCG(11, 11))
	fillRandom(t, r, m, 1000)
	var wg sync.WaitGroup
	done := make(chan struct{})
	for i := range 3 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(12, uint64(i)))
			for {
				select {
				case <-done:
					return
				default:
				}
				mu.RLock()
				ids, err := m.Select(context.Background(), randomMatcher(r), labels.MustNewMatcher(labels.MatchRegexp, "serial", "s1.*"))
				if err == nil {
					_, err = m.LabelValues(context.Background(), "serial", nil, 3)
				}
				if err == nil {
					err = m.ForEach(context.Background(), ids, func(_ uint32, h Hash128, ls []byte) error {
						if hashOf(ls) != h {
							t.Error("labels and hash differ")
						}
						return nil
					})
				}
				mu.RUnlock()
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 1000 {
		ls := randomLabels(r)
		mu.Lock()
		if _, ok := m.Lookup(hashOf(ls)); !ok {
			if _, err := m.Create(hashOf(ls), ls); err != nil {
				t.Error(err)
			}
		}
		mu.Unlock()
	}
	close(done)
	wg.Wait()
}

func TestConcurrentPacked(t *testing.T) {
	m, s := NewMem(), newKV()
	ref := fillRandom(t, rand.New(rand.NewPCG(13, 13)), m, 1500)
	p := pack(t, m, s, tinyLimits)
	ids := ref.ids()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(14, uint64(i)))
			for range 100 {
				id := ids[r.IntN(len(ids))]
				got, err := p.AppendLabels(nil, id)
				if err != nil || string(got) != string(ref.labels[id]) {
					t.Errorf("labels of %d: %q, %v", id, got, err)
				}
				if _, err := p.Select(context.Background(), randomMatcher(r)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// Records that travel in a snapshot arrive as a whole and stay to be written.
func TestInsertRecord(t *testing.T) {
	m, s := NewMem(), newKV()
	r := rand.New(rand.NewPCG(15, 15))
	ref := fillRandom(t, r, m, 800)
	dirty := m.DirtyRecords(false, 0)
	for _, rec := range dirty {
		if _, err := m.WriteRecord(s, rec); err != nil {
			t.Fatal(err)
		}
	}
	back := NewMem()
	for range 2 { // twice changes nothing
		for _, k := range s.keys() {
			if err := back.InsertRecord([]byte(k[1:]), s.values[k]); err != nil {
				t.Fatal(err)
			}
		}
	}
	checkReader(t, r, back, ref, 10)
	if got := back.DirtyRecords(false, 0); len(got) != len(dirty) {
		t.Fatalf("%d dirty records, want %d", len(got), len(dirty))
	}
	if b := back.Bytes(); b < 800*100 || b > 10<<20 {
		t.Fatalf("%d bytes for 800 series", b)
	}
	other := storage.LabelsFromStrings(metricName, "other", "a", "b")
	clash := NewMem()
	if err := clash.Insert(ref.ids()[0], hashOf(other), other); err != nil {
		t.Fatal(err)
	}
	failed := false
	for _, k := range s.keys() {
		failed = failed || clash.InsertRecord([]byte(k[1:]), s.values[k]) != nil
	}
	if !failed {
		t.Fatal("a record over another metric's group was accepted")
	}
}
