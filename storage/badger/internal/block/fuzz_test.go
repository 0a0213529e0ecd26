package block

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"testing"
)

// feed takes numbers from fuzzed bytes; behind their end everything is zero.
type feed struct{ b []byte }

func (f *feed) byte() byte {
	if len(f.b) == 0 {
		return 0
	}
	c := f.b[0]
	f.b = f.b[1:]
	return c
}

func (f *feed) uint64() uint64 {
	var p [8]byte
	f.b = f.b[copy(p[:], f.b):]
	return binary.LittleEndian.Uint64(p[:])
}

// sample returns the next sample of a series: mostly regular time, values near the last, decimals, or any bits.
func (f *feed) sample(t int64, v float64) (int64, float64) {
	c := f.byte()
	step := int64(15000)
	switch c & 3 {
	case 1:
		step = int64(f.byte()) + 1
	case 2:
		step = int64(f.uint64()>>4) + 1
	}
	if next := t + step; next > t {
		t = next
	} else {
		t++
	}
	switch c >> 2 & 7 {
	case 1:
		v += float64(int8(f.byte()))
	case 2:
		v += float64(int8(f.byte())) / math.Pow10(int(f.byte()%17))
	case 3:
		v = math.Float64frombits(f.uint64())
	case 4:
		v = float64(int64(f.uint64()) >> (f.byte() & 63))
	case 5:
		v = specials[int(f.byte())%len(specials)]
	case 6:
		v = float64(int64(f.uint64())>>(f.byte()&63)) / math.Pow10(int(f.byte()%17))
	}
	return t, v
}

func fuzzSeeds(f *testing.F) {
	r := rand.New(rand.NewPCG(31, 32))
	for _, n := range []int{0, 1, 10, 100, 2000} {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		f.Add(b)
	}
}

func FuzzStream(f *testing.F) {
	fuzzSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		in := feed{b}
		a := NewArena(false)
		var s Stream
		var ts []int64
		var vs []float64
		at, v := int64(in.uint64())>>1, 0.0
		for len(in.b) > 0 && at < math.MaxInt64-1<<20 {
			at, v = in.sample(at, v)
			s.Append(a, at, v)
			ts, vs = append(ts, at), append(vs, v)
		}
		gotT, got := s.Decode(a, nil, nil)
		sameSamples(t, ts, gotT, vs, got)
		var c Stream
		rest, err := c.RestoreSnapshot(a, s.AppendSnapshot(nil, a))
		if err != nil || len(rest) > 0 {
			t.Fatalf("restore: %v, %d bytes left", err, len(rest))
		}
		gotT, got = c.Decode(a, nil, nil)
		sameSamples(t, ts, gotT, vs, got)
		if c.exp != s.exp || c.lastDelta != s.lastDelta || c.lastBits != s.lastBits || c.lastT != s.lastT || c.size != s.size {
			t.Fatalf("restored %+v, was %+v", c, s)
		}
		s.Reset(a)
		c.Reset(a)
		if a.UsedBytes() != 0 {
			t.Fatalf("%d bytes in use", a.UsedBytes())
		}
	})
}

func FuzzRestoreSnapshot(f *testing.F) {
	fuzzSeeds(f)
	a := NewArena(false)
	r := rand.New(rand.NewPCG(33, 34))
	for _, shape := range keys(shapes) {
		var s Stream
		for i, v := range shapes[shape](r, 60) {
			s.Append(a, int64(i)*1000+r.Int64N(1000), v)
		}
		f.Add(s.AppendSnapshot(nil, a))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a := NewArena(false)
		var s Stream
		if _, err := s.RestoreSnapshot(a, b); err != nil {
			if !errors.Is(err, ErrDamaged) || s != (Stream{}) || a.UsedBytes() != 0 {
				t.Fatalf("after %v: %+v, %d bytes in use", err, s, a.UsedBytes())
			}
			return
		}
		ts, vs := s.Decode(a, nil, nil)
		if len(ts) != s.Len() || !ascending(ts, 0, true) {
			t.Fatalf("%d samples of %d: %v", len(ts), s.Len(), ts)
		}
		if s.Len() == 0 || s.MaxT() > math.MaxInt64-2 {
			return
		}
		// What was taken must go on like any stream.
		for _, v := range []float64{vs[0], 12.5} {
			ts, vs = append(ts, ts[len(ts)-1]+1), append(vs, v)
			s.Append(a, ts[len(ts)-1], vs[len(ts)-1])
		}
		gotT, got := s.Decode(a, nil, nil)
		sameSamples(t, ts, gotT, vs, got)
	})
}

func FuzzFloatBlockRoundTrip(f *testing.F) {
	fuzzSeeds(f)
	e := NewEncoder()
	f.Fuzz(func(t *testing.T, b []byte) {
		in := feed{b}
		var c Columns
		var last int
		for len(in.b) > 0 {
			slot := int(in.byte()) % GroupSize
			n := int(in.byte())%100 + 1
			mode := in.byte()
			at, v := int64(in.uint64())>>1, 0.0
			c.TS[slot], c.VS[slot], c.ST[slot] = nil, nil, nil
			for range n {
				if at > math.MaxInt64-1<<60 {
					break
				}
				at, v = in.sample(at, v)
				c.TS[slot], c.VS[slot] = append(c.TS[slot], at), append(c.VS[slot], v)
				if mode&1 != 0 {
					c.ST[slot] = AppendST(c.ST[slot], int64(in.byte()))
				}
			}
			if mode&2 != 0 && len(c.TS[last]) == len(c.TS[slot]) {
				c.TS[slot] = c.TS[last]
			}
			last = slot
		}
		if c.Slots() == 0 {
			return
		}
		roundTrip(t, e, &c)
	})
}

// FuzzOpenBlock feeds damaged blocks, once as they are and once under a checksum that fits, so that everything behind the
// checksum is tried, too.
func FuzzOpenBlock(f *testing.F) {
	fuzzSeeds(f)
	r := rand.New(rand.NewPCG(35, 36))
	e := NewEncoder()
	for range 20 {
		b, err := e.EncodeFloats(nil, r.Uint64(), randomColumns(r))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:len(b)-checksumBytes])
	}
	for _, series := range []int{1, 3} {
		b, err := e.EncodeFloats(nil, 1, mixColumns(r, 5, series))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:len(b)-checksumBytes])
	}
	for _, name := range keys(histogramShapes) {
		var slots HistogramSlots
		slots[1], slots[7] = histogramShapes[name](r, 20), histogramShapes[name](r, 1)
		b, err := e.EncodeHistograms(nil, 1, &slots)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:len(b)-checksumBytes])
	}
	var c Columns
	var h HistogramChunks
	f.Fuzz(func(t *testing.T, b []byte) {
		openAny(t, b, &c, &h)
		openAny(t, binary.LittleEndian.AppendUint32(b[:len(b):len(b)], crc32.Checksum(b, castagnoli)), &c, &h)
	})
}

func openAny(t *testing.T, b []byte, c *Columns, h *HistogramChunks) {
	if f, err := OpenFloats(b); err == nil {
		for _, want := range []uint64{math.MaxUint64, f.Slots & -f.Slots} {
			if err := f.Decode(c, want); err == nil {
				for i := range c.TS {
					if len(c.TS[i]) != len(c.VS[i]) || want>>i&1 != 0 && len(c.TS[i]) != f.Count(i) {
						t.Fatalf("slot %d: %d times, %d values, %d declared", i, len(c.TS[i]), len(c.VS[i]), f.Count(i))
					}
				}
			} else if !errors.Is(err, ErrDamaged) || c.Slots() != 0 {
				t.Fatalf("got %v, slots %x", err, c.Slots())
			}
		}
	} else if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
		t.Fatal(err)
	}
	if f, err := OpenHistograms(b); err == nil {
		if err := f.Decode(h, math.MaxUint64); err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
	} else if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
		t.Fatal(err)
	}
}
