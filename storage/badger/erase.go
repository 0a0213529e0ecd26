package badger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	badgerdb "github.com/dgraph-io/badger/v4"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger/internal/block"
)

// eraseDeletes rewrites the blocks that hold hidden samples without them, drops the
// old ones and then the tombstones. Until the end of it the tombstones hide what is
// still there, so it may stop anywhere and begin again.
func (db *DB) eraseDeletes(ctx context.Context) (erased int, err error) {
	var parts []*partition
	var hidden [][]tombstone
	for _, p := range db.allPartitions() {
		if tombs := *p.tombstones.Load(); len(tombs) > 0 {
			parts, hidden = append(parts, p), append(hidden, tombs)
		}
	}
	if len(parts) == 0 {
		return 0, nil
	}
	// What is frozen must become blocks first; what the log holds must not be
	// replayed after its tombstone is gone, so the log is cut, too.
	if err := db.flush.flushAll(ctx, parts); err != nil {
		return 0, err
	}
	if err := db.snapshot(true); err != nil {
		return 0, err
	}
	receipts := map[*tenant]map[string]bool{}
	for i, p := range parts {
		tombs := hidden[i]
		if err := db.eraseFrom(ctx, p, tombs); err != nil {
			return erased, fmt.Errorf("erase deletes of day %d of tenant %q: %w", p.day, p.tenant.name, err)
		}
		if receipts[p.tenant] == nil {
			receipts[p.tenant] = map[string]bool{}
		}
		for _, t := range tombs {
			receipts[p.tenant][t.receipt] = true
		}
	}
	for tn, ids := range receipts {
		for id := range ids {
			done, err := db.markErased(tn, id)
			if err != nil {
				return erased, err
			}
			if done {
				erased++
			}
		}
	}
	return erased, nil
}

// markErased completes a receipt of which no tombstone is left.
func (db *DB) markErased(tn *tenant, id string) (bool, error) {
	for _, p := range tn.partitions(math.MinInt64, math.MaxInt64) {
		if slices.ContainsFunc(*p.tombstones.Load(), func(t tombstone) bool { return t.receipt == id }) {
			return false, nil
		}
	}
	row, err := db.readReceipt(tn, id)
	if errors.Is(err, badgerdb.ErrKeyNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	now := db.now().UTC()
	row.ErasedAt = &now
	return true, db.putReceipt(tn, id, row)
}

// eraseFrom frees what the tombstones hide in one partition.
func (db *DB) eraseFrom(ctx context.Context, p *partition, tombs []tombstone) error {
	db.snapMu.Lock()
	defer db.snapMu.Unlock()
	defer db.beginRewrite(p)()
	all := tombs[0].ids.Clone()
	for _, t := range tombs[1:] {
		all.Or(t.ids)
	}
	var old [][]byte
	err := forEachGroup(all, func(n uint32, _ uint64) error {
		if err := storage.ContextError(ctx, "cleanup"); err != nil {
			return err
		}
		keys, err := db.rewriteGroup(p, n, tombs)
		old = append(old, keys...)
		return err
	})
	if err != nil {
		return err
	}
	if err := db.dropMany(old); err != nil {
		return err
	}
	keys := make([][]byte, len(tombs))
	for i, t := range tombs {
		keys[i] = p.tombstoneKey(t.lsn)
	}
	if err := db.remove(keys...); err != nil {
		return err
	}
	return db.exclusive(ctx, "cleanup", func() error {
		var left []tombstone // those of deletes that came meanwhile
		for _, t := range *p.tombstones.Load() {
			if !slices.ContainsFunc(tombs, func(o tombstone) bool { return o.lsn == t.lsn }) {
				left = append(left, t)
			}
		}
		p.tombstones.Store(&left)
		p.changed()
		return nil
	})
}

// beginRewrite says that blocks of the partition are going to be replaced or dropped;
// the returned function, that it is over. Blocks are not counted meanwhile, and are
// counted anew afterwards by what a read finds that begins then.
func (db *DB) beginRewrite(p *partition) (end func()) {
	h := &db.head
	h.mu.Lock()
	defer h.mu.Unlock()
	p.rewriting++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		p.rewriting--
		p.epoch++
		for _, g := range p.groups {
			if g != nil && g.inBlocks {
				g.epoch, g.blocks, g.counted = p.epoch, 0, false
			}
		}
	}
}

// rewriteGroup writes the blocks of a group again without what the tombstones hide,
// and returns the keys of those that it replaced.
func (db *DB) rewriteGroup(p *partition, n uint32, tombs []tombstone) (old [][]byte, err error) {
	f := db.flush
	f.work.Lock()
	defer f.work.Unlock()
	if f.enc == nil {
		f.enc = block.NewEncoder()
	}
	db.kvMu.RLock()
	defer db.kvMu.RUnlock()
	txn := db.view()
	defer txn.Discard()
	wb := db.kv.NewWriteBatch()
	defer wb.Cancel()
	s := f.scan
	s.p = p
	size := 0
	for _, row := range [...]byte{rowFloats, rowHists} {
		prefix := p.groupKey(row, n)
		o := badgerdb.DefaultIteratorOptions
		o.Prefix, o.PrefetchValues = prefix, false
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			key := it.Item().KeyCopy(nil)
			k, err := parseBlockKey(key)
			if err != nil {
				return nil, err
			}
			if !affected(p, k, tombs) {
				continue
			}
			s.used, s.hists, s.tombs = 0, s.hists[:0], tombs
			s.out.mask = 0
			err = it.Item().Value(func(b []byte) error {
				if row == rowFloats {
					return s.readFloats(bytes.Clone(b), k, math.MaxUint64)
				}
				return s.readHistograms(b, k, math.MaxUint64, math.MinInt64, math.MaxInt64)
			})
			if err != nil {
				return nil, s.damaged(key, err)
			}
			s.merge(n, math.MaxUint64, math.MinInt64, math.MaxInt64)
			err = errors.Join(
				f.encodeFloats(wb, p, n, k.lsn, k.gen+1, &s.out, math.MinInt64, math.MaxInt64, &size),
				f.encodeHistograms(wb, p, n, k.lsn, k.gen+1, &s.out, &size))
			if err != nil {
				return nil, err
			}
			old = append(old, key)
		}
	}
	return old, db.commitBatch(wb)
}

// affected tells whether a tombstone may hide something of a block.
func affected(p *partition, k blockKey, tombs []tombstone) bool {
	return slices.ContainsFunc(tombs, func(t tombstone) bool {
		return k.lsn < t.lsn && t.mint <= p.mint()+int64(k.t1) && t.maxt >= p.mint()+int64(k.t0)
	})
}
