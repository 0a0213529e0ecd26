package badger

import (
	"bytes"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

// FuzzRecords gives arbitrary bytes to every reader of the engine's own records: they
// may refuse, but neither panic nor take memory that the bytes do not justify. What
// they take must come back the same when it is written and read again.
func FuzzRecords(f *testing.F) {
	ex := storage.Exemplar{Labels: storage.LabelsFromStrings("trace_id", "x"), T: 5, V: 1.5}
	f.Add(appendHistogramRecord(nil, 1, 2, []histogramRow{{ref: 3, h: storage.HistogramSample{T: 4, H: tsdbutil.GenerateTestHistogram(1)}}}))
	f.Add(appendExemplarRecord(nil, 1, -2, []exemplarRow{{ref: 9, e: ex}}))
	f.Add(appendMetadataRecord(nil, 7, []storage.Metadata{{Metric: "m", Type: "counter", Help: "h"}}))
	f.Add(appendDeleteRecord(nil, deleteRecord{tenant: 1, id: "x", mint: -5, maxt: 5, createdAt: time.Unix(1, 2), matchers: []*storage.Matcher{storagetest.Re("a", "b.*")}}))
	t := tombstone{lsn: 1, mint: 2, maxt: 3, ids: roaring.BitmapOf(1, 2, 70000), receipt: "r"}
	if b, err := t.encode(); err == nil {
		f.Add(b)
	}
	f.Add(encodePolicies([]storage.RetentionPolicy{{Metric: "a*", Days: 3}}))
	f.Add(partitionState{kind: partitionClosed, lsn: 5, from: 1}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if tenant, day, rows, err := readExemplarRecord(b); err == nil {
			again := appendExemplarRecord(nil, tenant, day, rows)
			if _, _, rows2, err := readExemplarRecord(again); err != nil || len(rows2) != len(rows) {
				t.Fatalf("exemplar record does not come back: %v", err)
			}
		}
		if tenant, ms, err := readMetadataRecord(b); err == nil {
			again := appendMetadataRecord(nil, tenant, ms)
			if _, ms2, err := readMetadataRecord(again); err != nil || len(ms2) != len(ms) {
				t.Fatalf("metadata record does not come back: %v", err)
			}
		}
		if d, err := readDeleteRecord(b); err == nil {
			if d2, err := readDeleteRecord(appendDeleteRecord(nil, d)); err != nil || len(d2.matchers) != len(d.matchers) || d2.mint != d.mint {
				t.Fatalf("delete record does not come back: %v", err)
			}
		}
		_, _, _, _ = readHistogramRecord(b)
		_, _ = decodeTombstone(1, b)
		_, _ = decodePolicies(b)
		_, _ = decodePartitionState(b)
		var x exemplarStore
		_ = x.decodeGroup(1, b, 10)
	})
}

// FuzzBlockKey: what is parsed comes back, and keys sort as their fields do.
func FuzzBlockKey(f *testing.F) {
	p := newPartition(newTenant(3, "t"), 20000)
	f.Add(p.blockKey(rowFloats, blockKey{group: 1, t0: 2, t1: 3, lsn: 4, gen: 5}), uint32(6))
	f.Fuzz(func(t *testing.T, key []byte, later uint32) {
		k, err := parseBlockKey(key)
		if err != nil {
			return
		}
		built := p.blockKey(rowFloats, k)
		if again, err := parseBlockKey(built); err != nil || again != k {
			t.Fatalf("%+v comes back as %+v, %v", k, again, err)
		}
		if later > k.t0 {
			next := k
			next.t0 = later
			if bytes.Compare(built, p.blockKey(rowFloats, next)) >= 0 {
				t.Fatalf("%+v does not sort before %+v", k, next)
			}
		}
	})
}

// FuzzRestore gives arbitrary bytes as an archive.
func FuzzRestore(f *testing.F) {
	f.Add([]byte(archiveMagic))
	f.Add(append([]byte(archiveMagic), 1, 0, 0, 0, 4, 0, 0, 0, 0, 1, 2, 3, 4))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := &archiveReader{r: bytes.NewReader(b), sum: discardHash{}}
		if a.begin() != nil {
			return
		}
		w := &restorer{dir: t.TempDir()}
		for range 16 {
			typ, payload, _, err := a.next()
			if err != nil {
				return
			}
			if typ == frameFile {
				_ = w.beginFile(string(payload))
			}
		}
		_ = w.closeFile()
	})
}

// FuzzEntries gives arbitrary bytes as a frame of entries: what an archive holds of
// the database is checked entry by entry before it is written.
func FuzzEntries(f *testing.F) {
	db := openTest(f, testConfig(f.TempDir()))
	var b storage.Batch
	b.Add(storage.LabelsFromStrings("__name__", "m", "a", "1"), storage.Sample{T: time.Now().UnixMilli(), V: 1.5})
	storagetest.MustAppend(f, db, "t", &b)
	var archive bytes.Buffer
	if _, err := db.Backup(f.Context(), &archive); err != nil {
		f.Fatal(err)
	}
	a := &archiveReader{r: &archive, sum: discardHash{}}
	if err := a.begin(); err != nil {
		f.Fatal(err)
	}
	for {
		typ, payload, _, err := a.next()
		if err != nil || typ == frameEnd {
			break
		}
		if typ == frameEntries {
			f.Add(bytes.Clone(payload))
		}
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		n := 0
		err := eachEntry(payload, func(key, value []byte) error {
			n += len(key) + len(value)
			return nil
		})
		if n > len(payload) {
			t.Fatalf("%d bytes of entries in %d (%v)", n, len(payload), err)
		}
	})
}

// discardHash spares the fuzzer SHA-256.
type discardHash struct{}

func (discardHash) Write(p []byte) (int, error) { return len(p), nil }
func (discardHash) Sum(b []byte) []byte         { return b }
func (discardHash) Reset()                      {}
func (discardHash) Size() int                   { return 0 }
func (discardHash) BlockSize() int              { return 1 }
