package badger

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/luminate/luminate/storage"
)

const (
	diskInterval    = time.Second
	cleanupInterval = time.Hour
	checkInterval   = 24 * time.Hour
)

// maintain looks at the disk, and does in turn what is due: snapshots, old and full
// groups, days to close, retention.
func (db *DB) maintain(ctx context.Context) {
	disk := time.NewTicker(diskInterval)
	defer disk.Stop()
	work := time.NewTicker(db.cfg.MaintenanceInterval)
	defer work.Stop()
	lastCleanup := db.now()
	lastCheck := db.now()
	if db.kvBytes() > checkAtOpenBytes {
		db.checkTables()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-disk.C:
			db.disk.check()
			db.relieve(ctx)
		case <-db.pressure:
			db.relieve(ctx)
		case <-work.C:
			db.round(ctx)
			if now := db.now(); now.Sub(lastCleanup) >= cleanupInterval {
				lastCleanup = now
				_, err := db.cleanup(ctx)
				db.report("cleanup", err)
			}
			if now := db.now(); now.Sub(lastCheck) >= checkInterval {
				lastCheck = now
				db.checkTables()
			}
		}
	}
}

// round does one round of what is due.
func (db *DB) round(ctx context.Context) {
	db.measureRates()
	db.report("flush of old samples", db.flushOld(ctx))
	db.report("closing of days", db.closeDays(ctx))
	since := db.now().UnixMilli() - db.snapAt.Load() // below 0: the clock was set back
	due := since >= db.cfg.SnapshotInterval.Milliseconds() || since < 0 ||
		db.wal.Load().Size()-db.snapWAL.Load() >= db.cfg.SnapshotBytes
	if due {
		db.report("snapshot", db.snapshot(false))
	}
	db.report("measuring the directory", db.measureUsed())
	db.report("maxBytes", db.enforceMaxBytes(ctx))
}

func (db *DB) report(what string, err error) {
	if err == nil || errors.Is(err, context.Canceled) || storage.KindOf(err) == storage.KindCanceled || db.closed.Load() {
		return
	}
	db.logger.Error("maintenance failed and will be tried again", "work", what, "err", err)
}

func (db *DB) measureRates() {
	for _, tn := range db.allTenants() {
		n := tn.written.Load()
		tn.rate.Store(math.Float64bits(float64(n-tn.rateBase) / db.cfg.MaintenanceInterval.Seconds()))
		tn.rateBase = n
	}
}

// flushOld writes the groups whose samples have been in memory for long. The limit
// differs from group to group, so that they do not fall due together.
func (db *DB) flushOld(ctx context.Context) error {
	now := db.now().UnixMilli()
	age := db.cfg.FlushAge.Milliseconds()
	var due []groupRef
	for _, p := range db.allPartitions() {
		db.head.mu.RLock()
		for n, g := range p.groups {
			if g == nil || g.samples == 0 && g.frozen == nil {
				continue
			}
			spread := age / 4 * int64(uint32(n)*2654435761>>24) / 256
			// since is ahead if the clock was set back: not to be waited for.
			if now-g.since >= age-spread || now < g.since {
				due = append(due, groupRef{p: p, n: uint32(n)})
			}
		}
		db.head.mu.RUnlock()
	}
	return db.flush.write(ctx, due)
}

// relieve flushes the fullest groups while the head is over its bound.
func (db *DB) relieve(ctx context.Context) {
	for ctx.Err() == nil && db.head.bytes.Load() > db.cfg.HeadMaxBytes {
		groups := db.fullest()
		if len(groups) == 0 {
			return
		}
		if err := db.flush.write(ctx, groups); err != nil {
			db.report("flush under memory pressure", err)
			return
		}
	}
}

// fullest returns the groups that hold about a quarter of the samples in memory.
func (db *DB) fullest() []groupRef {
	type candidate struct {
		ref groupRef
		n   uint32
	}
	var all []candidate
	total := uint64(0)
	for _, p := range db.allPartitions() {
		db.head.mu.RLock()
		for n, g := range p.groups {
			if g == nil {
				continue
			}
			k := g.samples
			if g.frozen != nil {
				k += g.frozen.samples
			}
			if k > 0 {
				all = append(all, candidate{ref: groupRef{p: p, n: uint32(n)}, n: k})
				total += uint64(k)
			}
		}
		db.head.mu.RUnlock()
	}
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Compare(b.n, a.n) })
	var out []groupRef
	sum := uint64(0)
	for _, c := range all {
		if sum >= total/4 && len(out) > 0 {
			break
		}
		out = append(out, c.ref)
		sum += uint64(c.n)
	}
	return out
}

// closeDays frees the memory of days that are over and quiet.
func (db *DB) closeDays(ctx context.Context) error {
	now := db.now().UnixMilli()
	quiet := db.cfg.CloseAfter.Milliseconds()
	for _, p := range db.allPartitions() {
		if !p.isOpen() || p.maxt()+quiet > now || p.lastWrite.Load()+quiet/4 > now {
			continue
		}
		if err := db.closePartition(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// Tenants implements storage.Store.
func (db *DB) Tenants(ctx context.Context) ([]storage.TenantStats, error) {
	if err := db.alive(ctx, "tenants"); err != nil {
		return nil, err
	}
	defer db.leave()
	today := dayOf(db.now().UnixMilli())
	stored := db.tenantBytes()
	var out []storage.TenantStats
	for _, tn := range db.allTenants() {
		parts := tn.partitions(math.MinInt64, math.MaxInt64)
		if len(parts) == 0 {
			continue
		}
		s := storage.TenantStats{Tenant: tn.name, SamplesPerSecond: tn.samplesPerSecond()}
		if ms := tn.lastWrite.Load(); ms != 0 {
			s.LastWrite = time.UnixMilli(ms).UTC()
		}
		for _, p := range parts {
			if p.day == today {
				p.mu.RLock()
				if p.idx != nil {
					s.ActiveSeries = p.idx.SeriesCount()
				}
				p.mu.RUnlock()
			}
		}
		s.Bytes = stored[tn.id]
		out = append(out, s)
	}
	return out, nil
}

// tenantBytes adds up the tables that hold one tenant's rows alone; small tenants
// share tables and are not known.
func (db *DB) tenantBytes() map[uint32]uint64 {
	out := map[uint32]uint64{}
	for _, t := range db.kv.Tables() {
		l, r := t.Left, t.Right
		if len(l) > 9 && len(r) > 9 && l[0] == keyPartitionRow && bytes.Equal(l[:9], r[:9]) {
			out[binary.BigEndian.Uint32(l[5:])] += uint64(t.OnDiskSize)
		}
	}
	return out
}
