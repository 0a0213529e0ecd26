package block

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
)

func TestLoadStreams(t *testing.T) {
	r := rand.New(rand.NewPCG(61, 62))
	a := NewArena(false)
	e := NewEncoder()
	var loaded Columns
	for round := range 3 {
		var want Columns
		streams := make([]Stream, 60)
		for i := range streams {
			if i%7 == round {
				continue
			}
			ts := clocks["jitter"](r, 1+r.IntN(150))
			vs := shapes[keys(shapes)[r.IntN(len(shapes))]](r, len(ts))
			want.TS[i], want.VS[i] = ts, vs
			for k := range ts {
				streams[i].Append(a, ts[k], vs[k])
			}
		}
		loaded.LoadStreams(a, streams, math.MaxUint64)
		sameColumns(t, &want, &loaded, want.Slots())
		roundTrip(t, e, &loaded)
	}
	// What a kept slice is extended by must not run into the neighbour.
	before := loaded.VS[1][0]
	loaded.VS[0] = append(loaded.VS[0], 1)
	if math.Float64bits(loaded.VS[1][0]) != math.Float64bits(before) {
		t.Error("appending to one slot changed the next")
	}
}

func TestAppendST(t *testing.T) {
	var runs []STRun
	for _, st := range []int64{0, 0, 5, 5, 5, 0} {
		runs = AppendST(runs, st)
	}
	want := []STRun{{2, 0}, {3, 5}, {1, 0}}
	if len(runs) != len(want) {
		t.Fatalf("got %v, want %v", runs, want)
	}
	for i := range want {
		if runs[i] != want[i] {
			t.Fatalf("got %v, want %v", runs, want)
		}
	}
}

// One opened block serves many goroutines, and streams may be read side by side.
func TestConcurrentReaders(t *testing.T) {
	r := rand.New(rand.NewPCG(63, 64))
	c := randomColumns(r)
	b, err := NewEncoder().EncodeFloats(nil, 1, c)
	if err != nil {
		t.Fatal(err)
	}
	f, err := OpenFloats(b)
	if err != nil {
		t.Fatal(err)
	}
	a := NewArena(true)
	defer a.Close()
	var s Stream
	ts, vs := clocks["fixed"](r, 500), shapes["counter"](r, 500)
	for i := range ts {
		s.Append(a, ts[i], vs[i])
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var got Columns
			for range 20 {
				if err := f.Decode(&got, math.MaxUint64); err != nil {
					t.Error(err)
					return
				}
				sum := 0
				for i := range got.TS {
					sum += len(got.TS[i])
				}
				if gotT, _ := s.Decode(a, nil, nil); len(gotT) != 500 || sum != f.Samples() {
					t.Errorf("%d and %d samples", len(gotT), sum)
				}
			}
		})
	}
	wg.Wait()
}
