package badger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	badgerdb "github.com/dgraph-io/badger/v4"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger/internal/block"
	"github.com/luminate/luminate/storage/badger/internal/index"
)

func encodePolicies(ps []storage.RetentionPolicy) []byte {
	b := binary.AppendUvarint(nil, uint64(len(ps)))
	for _, p := range ps {
		b = appendBytes(b, p.Metric)
		b = binary.AppendUvarint(b, uint64(p.Days))
	}
	return b
}

func decodePolicies(b []byte) ([]storage.RetentionPolicy, error) {
	r := recordReader{b: b}
	ps := []storage.RetentionPolicy{}
	for range r.count() {
		ps = append(ps, storage.RetentionPolicy{Metric: r.string(), Days: int(r.uvarint())})
	}
	storage.SortRetention(ps)
	return ps, r.err("retention policies")
}

// Retention implements storage.Store.
func (db *DB) Retention(ctx context.Context, t storage.Tenant) ([]storage.RetentionPolicy, error) {
	if err := db.enter(ctx, "retention", t); err != nil {
		return nil, err
	}
	defer db.leave()
	tn := db.lookupTenant(t)
	if tn == nil {
		return nil, nil
	}
	return slices.Clone(*tn.policies.Load()), nil
}

// SetRetention implements storage.Store.
func (db *DB) SetRetention(ctx context.Context, t storage.Tenant, p storage.RetentionPolicy) error {
	if err := db.enter(ctx, "set retention", t); err != nil {
		return err
	}
	defer db.leave()
	if err := p.Validate(); err != nil {
		return err
	}
	return db.changePolicies(ctx, "set retention", t, func(ps []storage.RetentionPolicy) ([]storage.RetentionPolicy, error) {
		ps = slices.DeleteFunc(ps, func(x storage.RetentionPolicy) bool { return x.Metric == p.Metric })
		return append(ps, p), nil
	})
}

// RemoveRetention implements storage.Store.
func (db *DB) RemoveRetention(ctx context.Context, t storage.Tenant, metric string) error {
	if err := db.enter(ctx, "remove retention", t); err != nil {
		return err
	}
	defer db.leave()
	return db.changePolicies(ctx, "remove retention", t, func(ps []storage.RetentionPolicy) ([]storage.RetentionPolicy, error) {
		n := len(ps)
		ps = slices.DeleteFunc(ps, func(x storage.RetentionPolicy) bool { return x.Metric == metric })
		if len(ps) == n {
			return nil, storage.Errorf(storage.KindNotFound, "remove retention", "no policy for %q", metric)
		}
		return ps, nil
	})
}

// changePolicies stores the changed list before it holds.
func (db *DB) changePolicies(ctx context.Context, op string, t storage.Tenant, change func([]storage.RetentionPolicy) ([]storage.RetentionPolicy, error)) error {
	return internal(op, db.exclusive(ctx, op, func() error {
		tn := db.lookupTenant(t)
		var old []storage.RetentionPolicy
		if tn != nil {
			old = *tn.policies.Load()
		}
		next, err := change(slices.Clone(old))
		if err != nil {
			return err
		}
		if tn, err = db.ensureTenant(t); err != nil {
			return err
		}
		storage.SortRetention(next)
		if err := db.put(numberKey(keyRetention, tn.id), encodePolicies(next)); err != nil {
			return fmt.Errorf("write policies: %w", err)
		}
		tn.policies.Store(&next)
		return nil
	}))
}

// longest returns the oldest time that any metric of the tenant may be kept from.
func (c *clock) longest() int64 {
	days := c.days
	for _, p := range c.policies {
		if days == 0 || p.Days == 0 {
			days = 0
			break
		}
		days = max(days, p.Days)
	}
	if days == 0 {
		return c.first
	}
	return max(c.first, c.now-int64(days)*dayMillis)
}

// Cleanup implements storage.Store.
func (db *DB) Cleanup(ctx context.Context) (storage.CleanupReport, error) {
	if err := db.alive(ctx, "cleanup"); err != nil {
		return storage.CleanupReport{}, err
	}
	defer db.leave()
	rep, err := db.cleanup(ctx)
	return rep, internal("cleanup", err)
}

// cleanup drops what retention ended, frees whole metrics, and erases deletes.
func (db *DB) cleanup(ctx context.Context) (rep storage.CleanupReport, err error) {
	before := db.kvBytes()
	for _, p := range db.allPartitions() {
		if err := storage.ContextError(ctx, "cleanup"); err != nil {
			return rep, err
		}
		c := db.clock(p.tenant)
		if p.maxt() < c.longest() {
			if err := db.dropPartition(ctx, p); err != nil {
				return rep, err
			}
			rep.Partitions++
			continue
		}
		n, err := db.dropMetrics(ctx, p, c)
		if err != nil {
			return rep, err
		}
		rep.Metrics += n
	}
	if rep.DeletesErased, err = db.eraseDeletes(ctx); err != nil {
		return rep, err
	}
	if after := db.kvBytes(); after < before {
		rep.ReclaimedBytes = uint64(before - after)
	}
	return rep, nil
}

func (db *DB) kvBytes() int64 {
	lsm, vlog := db.kv.Size()
	return lsm + vlog
}

// dropPartition frees a day of a tenant. The mark of it comes first, so that neither
// log nor snapshot can bring the day back.
func (db *DB) dropPartition(ctx context.Context, p *partition) error {
	db.snapMu.Lock()
	defer db.snapMu.Unlock()
	err := db.exclusive(ctx, "drop day", func() error {
		db.quiesce(p)
		state := partitionState{kind: partitionDropped, lsn: db.applied.Load()}
		if err := db.put(partitionKey(p.day, p.tenant.id), state.encode()); err != nil {
			p.dropped.Store(false)
			return err
		}
		p.tenant.mu.Lock()
		p.tenant.dropped[p.day] = state.lsn
		if p.tenant.parts[p.day] == p {
			delete(p.tenant.parts, p.day)
		}
		p.tenant.mu.Unlock()
		db.forget(p)
		return nil
	})
	if err != nil {
		return err
	}
	if err := db.dropPrefixes(partitionPrefix(p.day, p.tenant.id)); err != nil {
		return fmt.Errorf("drop day %d of tenant %q: %w", p.day, p.tenant.name, err)
	}
	db.met.droppedParts.Inc()
	db.logger.Info("dropped a day", "tenant", p.tenant.name, "day", p.day)
	return nil
}

// quiesce keeps the flusher from a partition, and waits for what it is writing.
func (db *DB) quiesce(p *partition) {
	p.dropped.Store(true)
	db.kvMu.Lock()
	defer db.kvMu.Unlock()
}

// dropMetrics frees the blocks of metrics whose retention ended before the end of
// the day, where the day as a whole stays.
func (db *DB) dropMetrics(ctx context.Context, p *partition, c clock) (metrics int, err error) {
	if !c.perMetric() || c.shortest() <= p.maxt() {
		return 0, nil
	}
	var groups []uint32
	expired := map[string]bool{}
	err = db.withIndex(ctx, p, func(r index.Reader) error {
		for n := range (r.IDBound() + block.GroupSize - 1) / block.GroupSize {
			metric, err := r.MetricName(n)
			if errors.Is(err, index.ErrUnknownSeries) {
				continue
			}
			if err != nil {
				return err
			}
			if c.cutoff(metric) > p.maxt() {
				groups = append(groups, n)
				expired[metric] = false
			}
		}
		return nil
	})
	if err != nil || len(groups) == 0 {
		return 0, err
	}
	prefixes, err := db.presentGroups(p, groups)
	if err != nil || len(prefixes) == 0 {
		return 0, err
	}
	defer db.beginRewrite(p)()
	if err := db.dropMany(prefixes); err != nil {
		return 0, fmt.Errorf("drop metrics of day %d of tenant %q: %w", p.day, p.tenant.name, err)
	}
	return len(expired), nil
}

// shortest returns the newest cutoff that any metric may have.
func (c *clock) shortest() int64 {
	days := c.days
	for _, p := range c.policies {
		if p.Days > 0 && (days == 0 || p.Days < days) {
			days = p.Days
		}
	}
	if days == 0 {
		return c.first
	}
	return max(c.first, c.now-int64(days)*dayMillis)
}

// presentGroups returns the prefixes of those groups that have blocks or exemplars.
func (db *DB) presentGroups(p *partition, groups []uint32) (prefixes [][]byte, err error) {
	defer damageOf(&err)
	txn := db.view()
	defer txn.Discard()
	for _, row := range [...]byte{rowFloats, rowHists, rowExemplars} {
		o := badgerdb.DefaultIteratorOptions
		o.Prefix, o.PrefetchValues = p.rowPrefix(row), false
		it := txn.NewIterator(o)
		for _, n := range groups {
			prefix := p.groupKey(row, n)
			if it.Seek(prefix); it.ValidForPrefix(prefix) {
				prefixes = append(prefixes, prefix)
			}
		}
		it.Close()
	}
	return prefixes, nil
}

// dropMany drops prefixes in batches; each stops writes for a moment.
func (db *DB) dropMany(prefixes [][]byte) error {
	for batch := range slices.Chunk(prefixes, 256) {
		if err := db.dropPrefixes(batch...); err != nil {
			return err
		}
	}
	return nil
}

// enforceMaxBytes drops the oldest days while the directory is over its bound.
func (db *DB) enforceMaxBytes(ctx context.Context) error {
	if db.cfg.MaxBytes == 0 {
		return nil
	}
	for {
		if err := db.measureUsed(); err != nil {
			return err
		}
		if db.diskUsed.Load() <= db.cfg.MaxBytes {
			return nil
		}
		parts := db.allPartitions()
		if len(parts) == 0 || parts[0].day >= dayOf(db.now().UnixMilli()) {
			return nil // the current day stays
		}
		oldest := parts[0].day
		db.logger.Warn("the directory is over its bound: the oldest day is dropped",
			"usedBytes", db.diskUsed.Load(), "maxBytes", db.cfg.MaxBytes, "day", oldest, "setting", "storage.badger.maxBytes")
		if err := db.put([]byte{keyFirstDay}, binary.BigEndian.AppendUint32(nil, partOf(oldest+1))); err != nil {
			return err
		}
		db.firstDay.Store(oldest + 1)
		for _, p := range parts {
			if p.day > oldest {
				break
			}
			if err := db.dropPartition(ctx, p); err != nil {
				return err
			}
		}
		if err := db.snapshot(true); err != nil {
			return err
		}
	}
}
