package badger

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger/internal/block"
	"github.com/luminate/luminate/storage/badger/internal/index"
)

// exemplarStore holds the exemplars of a partition, by series; guarded by the head's
// lock. While the partition is open it is complete; Badger has a copy as of the last
// snapshot, one row for each group.
type exemplarStore struct {
	of    map[uint32][]storage.Exemplar // ascending by time
	dirty map[uint32]bool               // groups that Badger has an older copy of
}

// add keeps an exemplar unless it is there; the oldest goes when there are too many.
func (x *exemplarStore) add(ref uint32, e storage.Exemplar, limit int) (dropped bool) {
	list := x.of[ref]
	at, _ := slices.BinarySearchFunc(list, e.T, func(o storage.Exemplar, t int64) int { return cmp.Compare(o.T, t) })
	for ; at < len(list) && list[at].T == e.T; at++ {
		if list[at].V == e.V && bytes.Equal(list[at].Labels, e.Labels) {
			return false
		}
	}
	if x.of == nil {
		x.of, x.dirty = map[uint32][]storage.Exemplar{}, map[uint32]bool{}
	}
	list = slices.Insert(list, at, e)
	if len(list) > limit {
		list, dropped = slices.Delete(list, 0, 1), true
	}
	x.of[ref] = list
	x.dirty[ref/block.GroupSize] = true
	return dropped
}

// applyExemplars keeps the exemplars of a log record; the caller holds h.mu.
func (h *head) applyExemplars(p *partition, rows []exemplarRow) (dropped int) {
	for _, r := range rows {
		if p.exemplars.add(r.ref, r.e, h.exemplars) {
			dropped++
		}
	}
	return dropped
}

// removeExemplars deletes the exemplars of ids in [mint, maxt]; the caller holds h.mu.
func (h *head) removeExemplars(p *partition, ids *roaring.Bitmap, mint, maxt int64) {
	for ref, list := range p.exemplars.of {
		if !ids.Contains(ref) {
			continue
		}
		n := len(list)
		list = slices.DeleteFunc(list, func(e storage.Exemplar) bool { return e.T >= mint && e.T <= maxt })
		if len(list) == n {
			continue
		}
		p.exemplars.dirty[ref/block.GroupSize] = true
		if len(list) == 0 {
			delete(p.exemplars.of, ref)
		} else {
			p.exemplars.of[ref] = list
		}
	}
}

// encodeGroup writes all exemplars of a group, nil if there are none.
func (x *exemplarStore) encodeGroup(n uint32) []byte {
	var b []byte
	for slot := range uint32(block.GroupSize) {
		list := x.of[n*block.GroupSize+slot]
		if len(list) == 0 {
			continue
		}
		b = append(b, byte(slot))
		b = binary.AppendUvarint(b, uint64(len(list)))
		for _, e := range list {
			b = appendExemplar(b, e)
		}
	}
	return b
}

func (x *exemplarStore) decodeGroup(n uint32, b []byte, limit int) error {
	r := recordReader{b: b}
	for len(r.b) > 0 {
		slot := r.take(1)
		for range r.count() {
			e := r.exemplar()
			if r.bad || slot[0] >= block.GroupSize {
				return fmt.Errorf("read exemplars: %w", errDamaged)
			}
			x.add(n*block.GroupSize+uint32(slot[0]), e, limit)
		}
	}
	return r.err("exemplars")
}

// loadExemplars fills the store of a partition that is being opened.
func (db *DB) loadExemplars(p *partition) error {
	var x exemplarStore
	prefix := p.rowPrefix(rowExemplars)
	err := db.scan(prefix, func(key, value []byte, err error) error {
		if err == nil && len(key) != len(prefix)+4 {
			err = errDamaged
		}
		if err == nil {
			err = x.decodeGroup(binary.BigEndian.Uint32(key[len(prefix):]), value, db.cfg.ExemplarsPerSeries)
		}
		if err != nil {
			db.met.damaged.Inc()
			db.recovery.DamagedRows++
			db.logger.Error("exemplars of a group are damaged and lost", "tenant", p.tenant.name, "day", p.day, "err", err)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read exemplars: %w", err)
	}
	x.dirty = map[uint32]bool{}
	db.head.mu.Lock()
	p.exemplars = x
	db.head.mu.Unlock()
	return nil
}

// persistExemplars brings Badger's copy up to date; the caller holds db.snapMu.
func (db *DB) persistExemplars(p *partition) error {
	rows := map[uint32][]byte{}
	db.head.mu.Lock()
	for n := range p.exemplars.dirty {
		rows[n] = p.exemplars.encodeGroup(n)
	}
	clear(p.exemplars.dirty)
	db.head.mu.Unlock()
	if len(rows) == 0 {
		return nil
	}
	if err := db.writeExemplars(p, rows); err != nil {
		db.head.mu.Lock()
		for n := range rows {
			p.exemplars.dirty[n] = true
		}
		db.head.mu.Unlock()
		return fmt.Errorf("write exemplars: %w", err)
	}
	return nil
}

// unloadExemplars writes what changed and frees the memory.
func (db *DB) unloadExemplars(p *partition) error {
	if err := db.persistExemplars(p); err != nil {
		return err
	}
	db.head.mu.Lock()
	p.exemplars = exemplarStore{}
	db.head.mu.Unlock()
	return nil
}

func (db *DB) writeExemplars(p *partition, rows map[uint32][]byte) error {
	db.kvMu.RLock()
	defer db.kvMu.RUnlock()
	wb := db.kv.NewWriteBatch()
	defer wb.Cancel()
	for n, row := range rows {
		key := p.groupKey(rowExemplars, n)
		var err error
		if row == nil {
			err = wb.Delete(key)
		} else {
			err = wb.Set(key, sealValue(key, row))
		}
		if err != nil {
			return err
		}
	}
	return db.commitBatch(wb)
}

// Exemplars implements storage.Store.
func (db *DB) Exemplars(ctx context.Context, t storage.Tenant, q storage.ExemplarQuery) ([]storage.ExemplarSeries, error) {
	if err := db.enter(ctx, "exemplars", t); err != nil {
		return nil, err
	}
	defer db.leave()
	limit := q.Limit
	if limit <= 0 || limit > db.cfg.MaxExemplars {
		limit = db.cfg.MaxExemplars
	}
	tn := db.lookupTenant(t)
	if tn == nil || q.MinT > q.MaxT {
		return nil, nil
	}
	found := map[string][]storage.Exemplar{}
	for _, p := range tn.partitions(q.MinT, q.MaxT) {
		if err := storage.ContextError(ctx, "exemplars"); err != nil {
			return nil, err
		}
		if err := db.partExemplars(ctx, p, q, found); err != nil {
			return nil, internal("exemplars", err)
		}
	}
	var out []storage.ExemplarSeries
	for ls, list := range found {
		slices.SortStableFunc(list, func(a, b storage.Exemplar) int { return cmp.Compare(a.T, b.T) })
		out = append(out, storage.ExemplarSeries{Labels: storage.Labels(ls), Exemplars: list})
	}
	slices.SortFunc(out, func(a, b storage.ExemplarSeries) int { return storage.CompareLabels(a.Labels, b.Labels) })
	for i := range out {
		if n := len(out[i].Exemplars); n >= limit {
			out[i].Exemplars = out[i].Exemplars[:limit]
			return out[:i+1], nil
		}
		limit -= len(out[i].Exemplars)
	}
	return out, nil
}

// partExemplars adds the matching exemplars of one day to found.
func (db *DB) partExemplars(ctx context.Context, p *partition, q storage.ExemplarQuery, found map[string][]storage.Exemplar) error {
	ids := roaring.New()
	for _, ms := range q.Selectors {
		some, err := db.selectIDs(ctx, p, ms)
		if err != nil {
			return err
		}
		ids.Or(some)
	}
	if ids.IsEmpty() {
		return nil
	}
	refs, err := db.exemplarsOf(p, ids, q.MinT, q.MaxT)
	if err != nil || len(refs) == 0 {
		return err
	}
	clock := db.clock(p.tenant)
	return db.withIndex(ctx, p, func(r index.Reader) error {
		for ref, list := range refs {
			ls, err := r.AppendLabels(nil, ref)
			if err != nil {
				return err
			}
			cutoff := clock.cutoff(storage.Labels(ls).Metric())
			list = slices.DeleteFunc(list, func(e storage.Exemplar) bool { return e.T < cutoff })
			if len(list) > 0 {
				found[string(ls)] = append(found[string(ls)], list...)
			}
		}
		return nil
	})
}

// exemplarsOf copies the exemplars of ids in [mint, maxt].
func (db *DB) exemplarsOf(p *partition, ids *roaring.Bitmap, mint, maxt int64) (map[uint32][]storage.Exemplar, error) {
	x := &p.exemplars
	if !p.isOpen() {
		x = &exemplarStore{}
		prefix := p.rowPrefix(rowExemplars)
		err := db.scan(prefix, func(key, value []byte, err error) error {
			if err != nil || len(key) != len(prefix)+4 {
				return errors.Join(err, errDamaged)
			}
			return x.decodeGroup(binary.BigEndian.Uint32(key[len(prefix):]), value, db.cfg.ExemplarsPerSeries)
		})
		if err != nil {
			db.met.damaged.Inc()
			return nil, fmt.Errorf("read exemplars: %w", err)
		}
	}
	db.head.mu.RLock()
	defer db.head.mu.RUnlock()
	out := map[uint32][]storage.Exemplar{}
	for ref, list := range x.of {
		if !ids.Contains(ref) {
			continue
		}
		for _, e := range list {
			if e.T >= mint && e.T <= maxt {
				out[ref] = append(out[ref], e)
			}
		}
	}
	return out, nil
}
