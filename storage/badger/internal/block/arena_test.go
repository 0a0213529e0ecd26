package block

import (
	"math/rand/v2"
	"testing"
)

func TestArenaReusesAndReleases(t *testing.T) {
	for _, offHeap := range []bool{false, true} {
		a := NewArena(offHeap)
		streams := make([]Stream, 9000)
		load := func() {
			for i := range streams {
				for k := range 40 {
					streams[i].Append(a, int64(k)*1000, float64(i*k)+0.25)
				}
			}
		}
		drop := func() {
			for i := range streams {
				streams[i].Reset(a)
			}
		}
		load()
		full := a.Bytes()
		if full < 3*slabBytes || a.UsedBytes() > full || a.UsedBytes() < full-slabBytes {
			t.Fatalf("%d bytes held, %d in use", full, a.UsedBytes())
		}
		drop()
		if a.UsedBytes() != 0 || a.Bytes() != slabBytes {
			t.Fatalf("empty arena holds %d bytes, %d in use; one slab is kept", a.Bytes(), a.UsedBytes())
		}
		load()
		if a.Bytes() != full {
			t.Fatalf("%d bytes held, %d the first time", a.Bytes(), full)
		}
		for i := range streams {
			ts, vs := streams[i].Decode(a, nil, nil)
			if len(ts) != 40 || vs[39] != float64(i*39)+0.25 {
				t.Fatalf("stream %d: %v", i, vs)
			}
		}
		a.Close()
		if a.Bytes() != 0 || a.UsedBytes() != 0 {
			t.Fatalf("closed arena holds %d bytes, %d in use", a.Bytes(), a.UsedBytes())
		}
		var s Stream
		s.Append(a, 1, 2)
		if _, v := s.Last(); v != 2 || a.UsedBytes() != segmentBytes {
			t.Fatal("a closed arena is not usable again")
		}
		a.Close()
	}
}

// Streams come, grow and go at random; none may ever see another's bytes.
func TestArenaChurn(t *testing.T) {
	r := rand.New(rand.NewPCG(51, 52))
	a := NewArena(false)
	const n = 3000
	streams := make([]Stream, n)
	want := make([][]float64, n)
	check := func(i int) {
		ts, vs := streams[i].Decode(a, nil, nil)
		if len(vs) != len(want[i]) {
			t.Fatalf("stream %d has %d samples, want %d", i, len(vs), len(want[i]))
		}
		for k := range vs {
			if vs[k] != want[i][k] || ts[k] != int64(k)*1000 {
				t.Fatalf("stream %d sample %d is %v, want %v", i, k, vs[k], want[i][k])
			}
		}
	}
	held := int64(0)
	for range 60_000 {
		i := r.IntN(n)
		if len(want[i]) > 60 || r.IntN(40) == 0 {
			check(i)
			streams[i].Reset(a)
			want[i] = nil
			continue
		}
		for range r.IntN(8) {
			v := r.NormFloat64()
			streams[i].Append(a, int64(len(want[i]))*1000, v)
			want[i] = append(want[i], v)
		}
		held = max(held, a.UsedBytes())
	}
	for i := range streams {
		check(i)
	}
	if a.Bytes() > held+2*slabBytes {
		t.Errorf("%d bytes held for a peak of %d", a.Bytes(), held)
	}
	for i := range streams {
		streams[i].Reset(a)
	}
	if a.UsedBytes() != 0 || a.Bytes() != slabBytes {
		t.Errorf("%d bytes held, %d in use after all streams went", a.Bytes(), a.UsedBytes())
	}
}
