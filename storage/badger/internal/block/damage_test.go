package block

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"testing"
)

// smallBlocks are a float and a histogram block, each with all that the formats have.
func smallBlocks(t testing.TB) map[string][]byte {
	t.Helper()
	r := rand.New(rand.NewPCG(41, 42))
	var c Columns
	ts := clocks["jitter"](r, 20)
	for i, shape := range []string{"constant", "counter", "random", "counter then stale", "special", "two decimals", "pages"} {
		c.TS[i*5], c.VS[i*5] = ts, shapes[shape](r, len(ts))
	}
	c.TS[63], c.VS[63], c.ST[63] = clocks["gaps"](r, 3), []float64{1, 2, 3}, []STRun{{3, 9}}
	e := NewEncoder()
	floats, err := e.EncodeFloats(nil, 1<<40, &c)
	if err != nil {
		t.Fatal(err)
	}
	var slots HistogramSlots
	slots[1], slots[60] = histogramShapes["kinds in turn"](r, 20), histogramShapes["integer"](r, 2)
	hists, err := e.EncodeHistograms(nil, 1<<40, &slots)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"floats": floats, "histograms": hists}
}

func openEither(name string, b []byte) error {
	if name == "floats" {
		_, err := OpenFloats(b)
		return err
	}
	_, err := OpenHistograms(b)
	return err
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	for name, b := range smallBlocks(t) {
		if err := openEither(name, b); err != nil {
			t.Fatal(err)
		}
		for i := range len(b) * 8 {
			b[i/8] ^= 1 << (i % 8)
			if err := openEither(name, b); !errors.Is(err, ErrDamaged) {
				t.Fatalf("%s: bit %d flipped: %v", name, i, err)
			}
			b[i/8] ^= 1 << (i % 8)
		}
	}
}

func TestEveryTruncationIsFound(t *testing.T) {
	for name, b := range smallBlocks(t) {
		for n := range b {
			if err := openEither(name, b[:n]); !errors.Is(err, ErrDamaged) {
				t.Fatalf("%s: %d of %d bytes: %v", name, n, len(b), err)
			}
		}
	}
}

// Behind a checksum that fits, damage may go unnoticed or be reported, but never does more harm.
func TestDamageUnderFittingChecksum(t *testing.T) {
	var c Columns
	var h HistogramChunks
	for name, b := range smallBlocks(t) {
		found := 0
		for i := range (len(b) - checksumBytes) * 8 {
			bad := slices.Clone(b)
			bad[i/8] ^= 1 << (i % 8)
			body := bad[:len(bad)-checksumBytes]
			binary.LittleEndian.PutUint32(bad[len(body):], crc32.Checksum(body, castagnoli))
			openAny(t, bad, &c, &h)
			if openEither(name, bad) != nil {
				found++
			}
		}
		if found == 0 {
			t.Errorf("%s: no damage found in %d bits", name, len(b)*8)
		}
	}
}

func TestForeignVersionAndKind(t *testing.T) {
	blocks := smallBlocks(t)
	if _, err := OpenHistograms(blocks["floats"]); !errors.Is(err, ErrVersion) {
		t.Errorf("floats as histograms: %v", err)
	}
	if _, err := OpenFloats(blocks["histograms"]); !errors.Is(err, ErrVersion) {
		t.Errorf("histograms as floats: %v", err)
	}
	b := slices.Clone(blocks["floats"])
	b[0]++
	b = appendChecksum(b[:len(b)-checksumBytes], 0)
	if _, err := OpenFloats(b); !errors.Is(err, ErrVersion) {
		t.Errorf("version %d: %v", b[0], err)
	}
}

func TestSnapshotDamage(t *testing.T) {
	r := rand.New(rand.NewPCG(43, 44))
	a := NewArena(false)
	var s Stream
	ts := clocks["jitter"](r, 80)
	for i, v := range shapes["mixed exponents"](r, 80) {
		s.Append(a, ts[i], v)
	}
	snap := s.AppendSnapshot(nil, a)
	held := a.UsedBytes()
	for n := range snap {
		var c Stream
		if _, err := c.RestoreSnapshot(a, snap[:n]); !errors.Is(err, ErrDamaged) {
			t.Fatalf("%d of %d bytes: %v", n, len(snap), err)
		}
		if a.UsedBytes() != held {
			t.Fatalf("%d of %d bytes: %d bytes of segments leaked", n, len(snap), a.UsedBytes()-held)
		}
	}
	for i := range len(snap) * 8 {
		bad := slices.Clone(snap)
		bad[i/8] ^= 1 << (i % 8)
		var c Stream
		if _, err := c.RestoreSnapshot(a, bad); err == nil { // the bytes of a value may be anything
			if gotT, _ := c.Decode(a, nil, nil); !ascending(gotT, 0, true) || len(gotT) != c.Len() {
				t.Fatalf("bit %d flipped: %d samples of %d", i, len(gotT), c.Len())
			}
			c.Reset(a)
		}
	}
}
