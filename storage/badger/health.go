package badger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger/internal/wal"
)

// diskGuard refuses writes before a full disk can kill Badger, which maps its files:
// writing to a mapped page that has no block on the disk is a SIGBUS.
type diskGuard struct {
	db    *DB
	probe atomic.Pointer[diskProbe]
	free  atomic.Int64
	total atomic.Int64
	low   atomic.Bool

	mu     sync.Mutex
	reason error // of a broken log, for good
	read   atomic.Bool
}

// diskProbe measures a file system.
type diskProbe func(dir string) (free, total uint64, err error)

func (d *diskGuard) init(db *DB) {
	d.db = db
	d.setProbe(wal.FreeBytes)
}

func (d *diskGuard) setProbe(p diskProbe) { d.probe.Store(&p) }

// check measures the free space. Writes come back by themselves when there is a
// tenth more than the floor, so that they do not flutter at it.
func (d *diskGuard) check() {
	free, total, err := (*d.probe.Load())(d.db.cfg.Dir)
	if err != nil {
		if !errors.Is(err, errors.ErrUnsupported) {
			d.db.logger.Error("free disk space cannot be measured", "err", err)
		}
		return
	}
	d.free.Store(int64(min(free, 1<<62)))
	d.total.Store(int64(min(total, 1<<62)))
	floor := d.db.cfg.MinFreeBytes
	switch {
	case d.free.Load() < floor && d.low.CompareAndSwap(false, true):
		d.db.logger.Error("the disk is nearly full: writes are refused, reads go on; free space or lower the retention",
			"freeBytes", free, "floorBytes", floor, "setting", "storage.badger.minFreeBytes")
	case d.free.Load() >= floor+floor/10 && d.low.CompareAndSwap(true, false):
		d.db.logger.Info("there is disk space again: writes are taken", "freeBytes", free)
	}
	d.gauge()
}

func (d *diskGuard) gauge() {
	if d.db.met == nil {
		return
	}
	v := 0.0
	if d.low.Load() || d.read.Load() {
		v = 1
	}
	d.db.met.readOnly.Set(v)
}

// full notes that the log met a full disk.
func (d *diskGuard) full(err error) {
	if d.low.CompareAndSwap(false, true) {
		d.db.logger.Error("the disk is full: writes are refused until there is space again", "err", err)
	}
	d.gauge()
}

// broken notes that the log cannot be written any more.
func (d *diskGuard) broken(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reason == nil {
		d.reason = err
		d.read.Store(true)
		d.db.logger.Error("the write-ahead log failed: the store is read-only until it is restarted", "err", err)
	}
	d.gauge()
}

// err is why the store is read-only for good, or nil.
func (d *diskGuard) err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reason
}

// flushable refuses writes to Badger at half the floor: between it and the floor the
// head can still become blocks, which gives space back when the log is cut.
func (d *diskGuard) flushable() error {
	floor := d.db.cfg.MinFreeBytes / 2
	if free := d.free.Load(); d.total.Load() > 0 && free < floor {
		return unavailable("flush", "%d bytes of disk are free, at least %d are needed", free, floor)
	}
	return nil
}

// checkMinimumSpace refuses to open Badger where it would die at once.
func (db *DB) checkMinimumSpace() error {
	const least = 40 << 20 // a memtable's log, mapped at twice its size, and the manifest
	if db.cfg.MinFreeBytes == 0 || db.disk.total.Load() == 0 || db.disk.free.Load() >= least {
		return nil
	}
	return unavailable("open", "%d bytes of disk are free, at least %d are needed to open the store", db.disk.free.Load(), least)
}

// writable tells why writes are refused now, or nil.
func (db *DB) writable(op string) error {
	if db.disk.read.Load() {
		return unavailable(op, "the store is read-only until it is restarted: %w", db.disk.err())
	}
	if db.disk.low.Load() {
		return storage.LimitErrorf(storage.KindUnavailable, op, "disk-space", "storage.badger.minFreeBytes",
			"the disk is nearly full: %d bytes are free, writes are refused below %d", db.disk.free.Load(), db.cfg.MinFreeBytes)
	}
	if n := db.head.bytes.Load(); n > 2*db.cfg.HeadMaxBytes {
		return storage.LimitErrorf(storage.KindUnavailable, op, "head-memory", "storage.badger.headMaxBytes",
			"%d bytes of samples wait to be written as blocks", n)
	}
	return nil
}

// Health implements storage.Store.
func (db *DB) Health(context.Context) storage.Health {
	h := storage.Health{Backend: "badger", Status: storage.HealthOK, DiskFreeBytes: uint64(max(db.disk.free.Load(), 0))}
	if db.closed.Load() {
		h.Status, h.Error = storage.HealthDown, "the store is closed"
		return h
	}
	h.DiskUsedBytes = uint64(max(db.diskUsed.Load(), 0))
	if msg := db.tableDamage.Load(); msg != nil {
		h.Error = *msg // reads and writes go on
	}
	if err := db.writable("append"); err != nil {
		h.Status, h.Error = storage.HealthReadOnly, err.Error()
	}
	return h
}

// measureUsed adds up the directory. Badger maps its log and memtable files larger
// than what they hold, so sizes are those of allocated blocks where the system tells.
func (db *DB) measureUsed() error {
	var sum int64
	err := filepath.WalkDir(db.cfg.Dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().IsRegular() {
			sum += allocated(info)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("measure %s: %w", db.cfg.Dir, err)
	}
	db.diskUsed.Store(sum)
	return nil
}
