package badger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	badgerdb "github.com/dgraph-io/badger/v4"

	"github.com/luminate/luminate/storage/badger/internal/index"
)

// packedSource is index.Source over the index rows of a partition. Values carry the
// index's own checksums.
type packedSource struct {
	txn    *badgerdb.Txn
	prefix []byte
}

func (s *packedSource) key(kind byte, suffix []byte) []byte {
	return append(append(slices.Clone(s.prefix), kind), suffix...)
}

func (s *packedSource) Get(kind byte, suffix []byte) (value []byte, ok bool, err error) {
	defer damageOf(&err)
	item, err := s.txn.Get(s.key(kind, suffix))
	if errors.Is(err, badgerdb.ErrKeyNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	value, err = item.ValueCopy(nil)
	return value, err == nil, err
}

func (s *packedSource) Scan(kind byte, prefix, from []byte, fn func(suffix, value []byte) (bool, error)) error {
	return s.scan(kind, prefix, from, func(suffix []byte, item *badgerdb.Item) (more bool, err error) {
		err = item.Value(func(v []byte) error {
			more, err = fn(suffix, v)
			return err
		})
		return more, err
	})
}

func (s *packedSource) ScanKeys(kind byte, prefix, from []byte, fn func(suffix []byte) (bool, error)) error {
	return s.scan(kind, prefix, from, func(suffix []byte, _ *badgerdb.Item) (bool, error) { return fn(suffix) })
}

func (s *packedSource) scan(kind byte, prefix, from []byte, fn func(suffix []byte, item *badgerdb.Item) (bool, error)) (err error) {
	defer damageOf(&err)
	o := badgerdb.DefaultIteratorOptions
	o.Prefix, o.PrefetchValues = s.key(kind, prefix), false
	it := s.txn.NewIterator(o)
	defer it.Close()
	cut := len(s.prefix) + 1
	start := o.Prefix
	if from := s.key(kind, from); bytes.Compare(from, start) > 0 {
		start = from
	}
	for it.Seek(start); it.Valid(); it.Next() {
		item := it.Item()
		more, err := fn(item.Key()[cut:], item)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// packedSink is index.Sink into a write batch.
type packedSink struct {
	wb     *badgerdb.WriteBatch
	prefix []byte
}

func (s *packedSink) key(kind byte, suffix []byte) []byte {
	return append(append(slices.Clone(s.prefix), kind), suffix...)
}

func (s *packedSink) Put(kind byte, suffix, value []byte) error {
	return s.wb.Set(s.key(kind, suffix), value)
}
func (s *packedSink) Delete(kind byte, suffix []byte) error { return s.wb.Delete(s.key(kind, suffix)) }

// packedIndexes is how many closed partitions keep what was read of their index: names, the metric of each group, and a
// few series records, less than a MiB together for a million series.
const packedIndexes = 32

// packedIndex opens the index of a closed partition; done releases it.
func (db *DB) packedIndex(ctx context.Context, p *partition) (r index.Reader, done func(), err error) {
	txn := db.view()
	packed, err := db.packed.Open(ctx, p, &packedSource{txn: txn, prefix: p.rowPrefix(rowIndex)})
	if err != nil {
		txn.Discard()
		db.met.damaged.Inc()
		return nil, nil, fmt.Errorf("day %d of tenant %q: %w", p.day, p.tenant.name, err)
	}
	return packed, txn.Discard, nil
}

// closePartition writes what is left of a partition, packs its index and frees its
// memory. It does nothing when samples arrive meanwhile.
func (db *DB) closePartition(ctx context.Context, p *partition) error {
	db.snapMu.Lock()
	defer db.snapMu.Unlock()
	if err := db.flush.flushAll(ctx, []*partition{p}); err != nil {
		return err
	}
	if err := db.persistSeries(p); err != nil {
		return err
	}
	if err := db.persistExemplars(p); err != nil {
		return err
	}
	series, err := db.packIndex(ctx, p)
	if err != nil {
		return fmt.Errorf("pack index of day %d of tenant %q: %w", p.day, p.tenant.name, err)
	}
	return db.exclusive(ctx, "close day", func() error { return db.unload(p, series) })
}

// packIndex writes the packed index and returns how many series it holds.
func (db *DB) packIndex(ctx context.Context, p *partition) (series uint64, err error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.idx == nil {
		return 0, errors.New("not open")
	}
	txn := db.view()
	defer txn.Discard()
	db.kvMu.RLock()
	defer db.kvMu.RUnlock()
	wb := db.kv.NewWriteBatch()
	defer wb.Cancel()
	prefix := p.rowPrefix(rowIndex)
	if _, err := p.idx.WritePacked(ctx, &packedSource{txn: txn, prefix: prefix}, &packedSink{wb: wb, prefix: prefix}); err != nil {
		return 0, err
	}
	if err := db.commitBatch(wb); err != nil {
		return 0, err
	}
	return p.idx.SeriesCount(), nil
}

// complete tells whether the rows hold every series of an open partition, which was
// packed with so many.
func (p *partition) complete(series uint64) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.idx != nil && p.idx.SeriesCount() == series && len(p.unlogged)+len(p.unpersisted) == 0
}

// unload frees a partition whose rows are complete; the committer runs it, so nothing
// is appended beside it.
func (db *DB) unload(p *partition, series uint64) error {
	if p.dropped.Load() || !p.complete(series) {
		return nil
	}
	db.head.mu.RLock()
	busy := len(p.exemplars.dirty) > 0
	for _, g := range p.groups {
		busy = busy || g != nil && (g.samples > 0 || g.frozen != nil)
	}
	lsn := max(p.applied, db.applied.Load())
	db.head.mu.RUnlock()
	if busy {
		return nil
	}
	state := partitionState{kind: partitionClosed, lsn: lsn, from: p.from}
	if err := db.put(partitionKey(p.day, p.tenant.id), state.encode()); err != nil {
		return fmt.Errorf("close day %d of tenant %q: %w", p.day, p.tenant.name, err)
	}
	p.mu.Lock()
	p.idx, p.unlogged, p.unpersisted, p.closedLSN = nil, nil, nil, lsn
	p.changed()
	p.mu.Unlock()
	db.head.mu.Lock()
	p.groups, p.exemplars = nil, exemplarStore{}
	p.epoch++
	db.head.mu.Unlock()
	db.openParts.Add(-1)
	db.openSeries.Add(-int64(series))
	return nil
}
