package badger

import (
	"encoding/binary"
	"errors"
	"fmt"

	badgerdb "github.com/dgraph-io/badger/v4"
)

// Badger replays the log of a memtable up to the first byte that it cannot read and
// drops the rest without a word. So every write of ours carries a row with the next
// number of a sequence, written last: a number that is missing at the next start
// tells that the writes from there on are gone.

// keptSequence is how many rows are kept; older writes are in tables for long.
const keptSequence = 1 << 14

func sequenceKey(n uint64) []byte { return binary.BigEndian.AppendUint64([]byte{keySequence}, n) }

// commitBatch completes and writes a batch. The caller holds kvMu shared.
func (db *DB) commitBatch(wb *badgerdb.WriteBatch) error {
	db.sequenceMu.Lock()
	defer db.sequenceMu.Unlock()
	n := db.sequence + 1
	key := sequenceKey(n)
	if err := wb.Set(key, sealValue(key, nil)); err != nil {
		return err
	}
	if n > keptSequence && n%64 == 0 {
		for old := n - keptSequence - 64; old < n-keptSequence; old++ {
			if err := wb.Delete(sequenceKey(old)); err != nil {
				return err
			}
		}
	}
	if err := wb.Flush(); err != nil {
		return err // the number is used again: it may be there or not
	}
	db.sequence = n
	return nil
}

// update changes a few keys at once; they are on stable storage when it returns.
func (db *DB) update(fn func(txn *badgerdb.Txn) error) error {
	db.kvMu.RLock()
	defer db.kvMu.RUnlock()
	db.sequenceMu.Lock()
	defer db.sequenceMu.Unlock()
	n := db.sequence + 1
	err := db.kv.Update(func(txn *badgerdb.Txn) error {
		if err := fn(txn); err != nil {
			return err
		}
		key := sequenceKey(n)
		return txn.Set(key, sealValue(key, nil))
	})
	if err == nil {
		db.sequence = n
	}
	return err
}

// put writes one sealed value.
func (db *DB) put(key, value []byte) error {
	return db.update(func(txn *badgerdb.Txn) error { return txn.Set(key, sealValue(key, value)) })
}

func (db *DB) remove(keys ...[]byte) error {
	return db.update(func(txn *badgerdb.Txn) error {
		for _, k := range keys {
			if err := txn.Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
}

// readSequence finds the last number, and holes before it.
func (db *DB) readSequence() (holes int, err error) {
	first := true
	err = db.scan([]byte{keySequence}, func(key, _ []byte, err error) error {
		if err != nil || len(key) != 9 {
			holes++
			return nil
		}
		n := binary.BigEndian.Uint64(key[1:])
		if !first && n != db.sequence+1 {
			holes++
		}
		first = false
		db.sequence = n
		return nil
	})
	return holes, err
}

// checkTables looks for damage that a reader of Badger would not see: an iterator
// that meets a damaged block ends early, without an error.
func (db *DB) checkTables() {
	err := db.verifyTables()
	if err == nil {
		db.tableDamage.Store(nil)
		return
	}
	msg := err.Error()
	if old := db.tableDamage.Swap(&msg); old == nil {
		db.met.damaged.Inc()
		db.logger.Error("a table of the key-value store is damaged: answers may be incomplete; restore a backup", "err", err)
	}
}

// verifyTables checks the checksums of Badger's tables.
func (db *DB) verifyTables() (err error) {
	defer func() {
		if r := recover(); r != nil { // Badger panics on some damage
			err = fmt.Errorf("verify tables: %v: %w", r, errDamaged)
		}
	}()
	if err := db.kv.VerifyChecksum(); err != nil {
		return fmt.Errorf("verify tables: %w", errors.Join(err, errDamaged))
	}
	return nil
}
