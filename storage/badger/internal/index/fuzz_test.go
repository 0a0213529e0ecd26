package index

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/luminate/luminate/storage"
)

// payloads returns the payloads of one kind of a small packed index, as seeds.
func payloads(f *testing.F, kind byte) [][]byte {
	f.Helper()
	r := rand.New(rand.NewPCG(10, 10))
	m, s := NewMem(), newKV()
	fillRandom(f, r, m, 200)
	pack(f, m, s, tinyLimits)
	var out [][]byte
	for _, k := range s.keys() {
		if k[0] != kind {
			continue
		}
		payload, err := open(nil, kind, []byte(k[1:]), s.values[k])
		if err != nil {
			f.Fatal(err)
		}
		out = append(out, payload)
	}
	return out
}

// What decodes must be readable without a panic.
func FuzzSeriesRecord(f *testing.F) {
	for _, p := range payloads(f, KindSeries) {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		recordParts(payload)
		var r seriesRecord
		if !r.decode(RecordIDs, payload) {
			return
		}
		var buf []byte
		for id := uint32(RecordIDs); id < 2*RecordIDs; id++ {
			if slot, ok := r.slot(id); ok {
				buf = r.appendLabels(buf[:0], slot)
				if err := storage.Labels(buf).Validate(); err != nil && !bytes.Contains([]byte(err.Error()), []byte("UTF-8")) {
					t.Fatal(err)
				}
				r.hash(slot)
			}
		}
	})
}

func FuzzPostingsBlock(f *testing.F) {
	for _, p := range payloads(f, KindPostings) {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		const bound = 1 << 20
		var b postingsBlock
		if !b.decode(payload) {
			return
		}
		u := union{bound: bound}
		r := b.reader()
		for r.next() {
			if p, ok := r.e.posting(bound); ok {
				if p.n == 0 {
					t.Fatal("an entry without series")
				}
				u.add(p)
			}
		}
		r.ok()
		if got := u.bitmap(); !got.IsEmpty() && got.Maximum() >= bound {
			t.Fatal("an id beyond the bound")
		}
	})
}

func FuzzHashBlock(f *testing.F) {
	for _, p := range payloads(f, KindHashes) {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		position, prevLast, block, ok := decodeHashBlock(payload)
		if !ok {
			return
		}
		again := appendHashBlock(nil, position, prevLast, block)
		p2, l2, b2, ok := decodeHashBlock(again)
		if !ok || p2 != position || l2 != prevLast || len(b2) != len(block) {
			t.Fatal("the block does not come back")
		}
	})
}

func FuzzNamesAndMeta(f *testing.F) {
	for _, p := range append(payloads(f, KindNames), payloads(f, KindMeta)...) {
		f.Add(p)
	}
	f.Fuzz(func(_ *testing.T, payload []byte) {
		decodeNames(payload)
		var r metaRecord
		r.decode(payload)
	})
}

// FuzzKeyOrder checks that keys of postings order as their values do, and that a seek finds them.
func FuzzKeyOrder(f *testing.F) {
	f.Add([]byte("a"), []byte("a\x00"))
	f.Add([]byte("a\x00"), []byte("a\x00\xff"))
	f.Add([]byte("a\x01"), []byte("a"))
	f.Add([]byte(""), []byte("\x00\x01"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		c := bytes.Compare(a[:min(len(a), maxKeyValue)], b[:min(len(b), maxKeyValue)])
		ka, kb := postingsKey(1, 2, a, 7), postingsKey(1, 2, b, 7)
		if got := bytes.Compare(ka, kb); got != c {
			t.Fatalf("keys of %q and %q compare %d, want %d", a, b, got, c)
		}
		if got := bytes.Compare(ka, postingsSeek(1, 2, b)); (got >= 0) != (c >= 0) {
			t.Fatalf("the key of %q against a seek to %q: %d", a, b, got)
		}
	})
}

// FuzzCreate feeds label bytes; what is accepted comes back.
func FuzzCreate(f *testing.F) {
	f.Add([]byte("\x01a\x01v"))
	f.Add([]byte(storage.LabelsFromStrings(metricName, "m", "a", "b")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, ls []byte) {
		m := NewMem()
		id, err := m.Create(hashOf(ls), ls)
		if err != nil {
			return
		}
		got, err := m.AppendLabels(nil, id)
		if err != nil || !sameLabels(got, ls) {
			t.Fatalf("got %q, %v, want %q", got, err, ls)
		}
		if ids, err := m.Select(context.Background(), labels.MustNewMatcher(labels.MatchEqual, "nothere", "")); err != nil ||
			storage.Labels(ls).Get("nothere") == "" && !ids.Contains(id) {
			t.Fatalf("select: %v, %v", ids, err)
		}
	})
}

// sameLabels allows lengths that are not in their shortest form.
func sameLabels(a, b []byte) bool {
	var x, y [][2]string
	for n, v := range storage.Labels(a).All() {
		x = append(x, [2]string{n, v})
	}
	for n, v := range storage.Labels(b).All() {
		y = append(y, [2]string{n, v})
	}
	if len(x) != len(y) {
		return false
	}
	for i := range x {
		if x[i] != y[i] {
			return false
		}
	}
	return true
}
