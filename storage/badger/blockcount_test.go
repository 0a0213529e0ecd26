package badger

import (
	"context"
	"errors"
	"testing"

	badgerdb "github.com/dgraph-io/badger/v4"

	"github.com/luminate/luminate/storage"
)

// anyBlock returns the key of a block of the only partition.
func anyBlock(t *testing.T, db *DB) []byte {
	t.Helper()
	p := db.allPartitions()[0]
	txn := db.view()
	defer txn.Discard()
	o := badgerdb.DefaultIteratorOptions
	o.Prefix, o.PrefetchValues = p.rowPrefix(rowFloats), false
	it := txn.NewIterator(o)
	defer it.Close()
	if it.Rewind(); !it.Valid() {
		t.Fatal("there is no block")
	}
	return it.Item().KeyCopy(nil)
}

func selectError(db *DB) error {
	for _, err := range db.Select(context.Background(), engineTenant, everything()) {
		if err != nil {
			return err
		}
	}
	return nil
}

// TestMissingBlockFailsReads takes a block away behind the store's back, as a damaged
// table does whose rest Badger leaves out: reads that need it fail, and do not answer
// short. Blocks that deletes take away are not missed.
func TestMissingBlockFailsReads(t *testing.T) {
	clock := newClock()
	cfg := testConfig(t.TempDir())
	cfg.Now = clock.now
	for _, reopen := range []bool{false, true} {
		cfg.Dir = t.TempDir()
		db := openTest(t, cfg)
		for i := range 3 {
			fill(t, db, "m", 100, 20, clock.ms.Load()-int64(3-i)*1_800_000)
			if err := db.flush.everything(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		if reopen { // nobody has counted yet
			db = reopenTest(t, db).(*DB)
		}
		if err := selectError(db); err != nil {
			t.Fatal(err)
		}
		s := everything()
		s.MinT, s.MaxT = clock.ms.Load()-4_000_000, clock.ms.Load()-3_500_000
		if _, err := db.Delete(context.Background(), engineTenant, s); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Cleanup(context.Background()); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the first read counts anew
			if err := selectError(db); err != nil {
				t.Fatalf("reopened %v: after a delete: %v", reopen, err)
			}
		}
		if err := db.remove(anyBlock(t, db)); err != nil {
			t.Fatal(err)
		}
		// A transaction that began before does not see it; scans open one of their own.
		if err := selectError(db); !errors.Is(err, errDamaged) {
			t.Errorf("reopened %v: select with a block missing: %v", reopen, err)
		}
		g := storage.Grid{
			Start: clock.ms.Load(), End: clock.ms.Load(), Window: 24 * 3_600_000, Func: storage.FuncSumOverTime,
			Aggregates: []storage.Aggregate{{Op: storage.AggSum}},
		}
		if _, err := db.Evaluate(context.Background(), engineTenant, g); !errors.Is(err, errDamaged) {
			t.Errorf("reopened %v: evaluate with a block missing: %v", reopen, err)
		}
	}
}
