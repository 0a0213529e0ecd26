package badger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	badgerdb "github.com/dgraph-io/badger/v4"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger/internal/wal"
)

// RecoveryReport tells what the last start found.
type RecoveryReport struct {
	Duration        time.Duration
	ReplayedRecords uint64
	ReplayedBytes   int64
	// TornBytes were cut from the log's end: a write that was never acknowledged.
	TornBytes int64
	// LostRecords are log records that could not be read; the damaged files are kept.
	LostRecords uint64
	LostUnknown bool // there may be more: the log's end is damaged
	// OrphanSamples were in the log, but not the record of their series.
	OrphanSamples uint64
	DamagedFiles  []string // kept beside the log, or snapshots that were not used
	DamagedRows   int      // rows of series, exemplars or settings that could not be read
	// LostWrites tells that Badger dropped the newest writes of a memtable, and
	// DamagedTables that a table fails its checksums: answers are incomplete.
	LostWrites, DamagedTables bool
}

// Clean tells whether everything acknowledged was there.
func (r RecoveryReport) Clean() bool {
	return r.LostRecords == 0 && !r.LostUnknown && r.OrphanSamples == 0 && r.DamagedRows == 0 && len(r.DamagedFiles) == 0 &&
		!r.LostWrites && !r.DamagedTables
}

// Recovery returns the report of Open.
func (db *DB) Recovery() RecoveryReport { return db.recovery }

// replay is the state of one recovery.
type replay struct {
	db      *DB
	samples wal.Samples
	dec     wal.SamplesDecoder
	series  wal.SeriesDecoder
	states  map[partitionID]partitionState
	maxLSN  uint64
	prev    uint64
	gap     bool
}

type partitionID struct {
	tenant uint32
	day    int32
}

// recover reads what the last process left: Badger's rows, the newest snapshot, the
// log behind it.
func (db *DB) recover() error {
	began := time.Now()
	r := &replay{db: db, states: map[partitionID]partitionState{}}
	db.replay = r
	defer func() { db.replay = nil }()
	for _, step := range []func() error{r.checkStore, r.readTenants, r.readSettings, r.readPartitions} {
		if err := step(); err != nil {
			return err
		}
	}
	start, err := r.readSnapshot()
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	cfg := wal.DefaultConfig()
	cfg.Sync = wal.SyncMode(db.cfg.WALSync)
	log, report, err := wal.Open(filepath.Join(db.cfg.Dir, walDir), cfg, start, db.logger, r.apply)
	if err != nil {
		return fmt.Errorf("replay log: %w", err)
	}
	db.wal.Store(log)
	log.AdvanceLSN(max(r.maxLSN, start))
	r.note(report)
	r.finish(log.LastLSN())
	db.recovery.Duration = time.Since(began)
	db.met.lostRecords.Add(float64(db.recovery.LostRecords))
	db.met.lostSamples.Add(float64(db.recovery.OrphanSamples))
	rep := &db.recovery
	attrs := []any{
		"duration", rep.Duration, "records", rep.ReplayedRecords, "bytes", rep.ReplayedBytes, "tornBytes", rep.TornBytes,
		"partitions", db.openParts.Load(), "series", db.openSeries.Load(),
	}
	if rep.Clean() {
		db.logger.Info("recovered", attrs...)
		return nil
	}
	db.logger.Error("recovered with losses: see the runbook on damaged data", append(attrs,
		"lostRecords", rep.LostRecords, "orphanSamples", rep.OrphanSamples, "damagedRows", rep.DamagedRows, "damagedFiles", rep.DamagedFiles,
		"lostWrites", rep.LostWrites, "damagedTables", rep.DamagedTables)...)
	return nil
}

// checkStore looks for what Badger lost without saying so.
func (r *replay) checkStore() error {
	holes, err := r.db.readSequence()
	if err != nil {
		return fmt.Errorf("read sequence of writes: %w", err)
	}
	if holes > 0 {
		r.lostWrites(fmt.Sprintf("the sequence of writes has %d holes", holes))
	}
	if r.db.kvBytes() <= checkAtOpenBytes {
		r.db.checkTables()
	}
	if r.db.tableDamage.Load() != nil {
		r.db.recovery.DamagedTables = true
	}
	return nil
}

// checkAtOpenBytes is up to which size the tables are checked before the store is
// ready; larger ones are checked afterwards.
const checkAtOpenBytes = 1 << 30

func (r *replay) lostWrites(what string) {
	r.db.recovery.LostWrites = true
	r.db.met.damaged.Inc()
	r.db.logger.Error("the key-value store has lost writes: blocks, series or settings are missing; restore a backup", "cause", what)
}

func (r *replay) note(w wal.RecoveryReport) {
	rep := &r.db.recovery
	rep.ReplayedRecords, rep.ReplayedBytes, rep.TornBytes = w.Records, w.Bytes, w.TornBytes
	rep.LostRecords = w.LostRecords
	for _, d := range w.Damages {
		rep.LostUnknown = rep.LostUnknown || d.LostUnknown
		name := d.Kept
		if name == "" {
			name = d.Segment
		}
		if !slices.Contains(rep.DamagedFiles, name) {
			rep.DamagedFiles = append(rep.DamagedFiles, name)
		}
	}
	for _, err := range w.RepairErrors {
		r.db.logger.Error("a damaged log segment could not be repaired", "err", err)
	}
}

// readTenants loads names and numbers. Losing one would lose all its data, so damage
// here is an error.
func (r *replay) readTenants() error {
	db := r.db
	err := db.scan([]byte{keyTenantGone}, func(key, _ []byte, err error) error {
		if err != nil || len(key) != 5 {
			return errors.Join(err, fmt.Errorf("mark of a deleted tenant: %w", errDamaged))
		}
		id := binary.BigEndian.Uint32(key[1:])
		db.gone[id] = true
		db.nextTenant = max(db.nextTenant, id+1)
		return nil
	})
	if err != nil {
		return err
	}
	return db.scan([]byte{keyTenant}, func(key, value []byte, err error) error {
		if err != nil {
			return err
		}
		name, err := storage.ParseTenant(string(key[1:]))
		if err != nil || len(value) != 4 {
			return errors.Join(err, fmt.Errorf("tenant %q: %w", key[1:], errDamaged))
		}
		tn := newTenant(binary.BigEndian.Uint32(value), name.String())
		db.tenants[tn.name], db.byID[tn.id] = tn, tn
		db.nextTenant = max(db.nextTenant, tn.id+1)
		return nil
	})
}

// readSettings loads retention policies, metadata and the first day.
func (r *replay) readSettings() error {
	db := r.db
	value, err := db.get([]byte{keyFirstDay})
	switch {
	case err == nil && len(value) == 4:
		db.firstDay.Store(dayOfPart(binary.BigEndian.Uint32(value)))
	case !errors.Is(err, badgerdb.ErrKeyNotFound):
		return fmt.Errorf("read first day: %w", errors.Join(err, errDamaged))
	}
	err = db.scan([]byte{keyRetention}, func(key, value []byte, err error) error {
		if err != nil || len(key) != 5 {
			return errors.Join(err, fmt.Errorf("retention policies: %w", errDamaged))
		}
		if tn := db.byID[binary.BigEndian.Uint32(key[1:])]; tn != nil {
			policies, err := decodePolicies(value)
			if err != nil {
				return err
			}
			tn.policies.Store(&policies)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return db.scan([]byte{keyMetadata}, func(key, value []byte, err error) error {
		var m storage.Metadata
		if err == nil && len(key) < 5 {
			err = fmt.Errorf("key %x: %w", key, errDamaged)
		}
		if err == nil {
			rd := recordReader{b: value}
			m = rd.metadata(string(key[5:]))
			err = rd.err("metadata")
		}
		if err != nil {
			db.recovery.DamagedRows++
			db.logger.Error("metadata of a metric is damaged and lost", "err", err)
			return nil
		}
		if tn := db.byID[binary.BigEndian.Uint32(key[1:])]; tn != nil {
			tn.putMetadata([]storage.Metadata{m}, false)
		}
		return nil
	})
}

// readPartitions makes the partitions, and loads those that are open.
func (r *replay) readPartitions() error {
	db := r.db
	err := db.scan([]byte{keyPartition}, func(key, value []byte, err error) error {
		day, tenant, ok := parsePartitionKey(key)
		if err != nil || !ok {
			return errors.Join(err, fmt.Errorf("state of a partition: %w", errDamaged))
		}
		state, err := decodePartitionState(value)
		if err != nil {
			return err
		}
		r.maxLSN = max(r.maxLSN, state.lsn)
		r.states[partitionID{tenant, day}] = state
		return nil
	})
	if err != nil {
		return err
	}
	for id, state := range r.states {
		tn := db.byID[id.tenant]
		if tn == nil || id.day < db.firstDay.Load() {
			continue
		}
		if state.kind == partitionDropped {
			tn.dropped[id.day] = state.lsn
			continue
		}
		p := newPartition(tn, id.day)
		p.applied, p.from = state.lsn, state.from
		if err := r.readTombstones(p); err != nil {
			return err
		}
		if state.kind == partitionClosed {
			p.closedLSN = state.lsn
		} else if err := r.loadOpen(p); err != nil {
			return fmt.Errorf("load day %d of tenant %q: %w", p.day, tn.name, err)
		}
		tn.parts[p.day] = p
	}
	return nil
}

func (r *replay) loadOpen(p *partition) error {
	db := r.db
	idx, rows, err := db.readSeries(p)
	if err != nil {
		return err
	}
	p.idx, p.seriesSeq = idx, rows
	if p.groups, err = db.readGroups(p, idx); err != nil {
		return err
	}
	for _, g := range p.groups {
		if g != nil {
			r.maxLSN = max(r.maxLSN, g.flushed)
		}
	}
	db.openParts.Add(1)
	db.openSeries.Add(int64(idx.SeriesCount()))
	return db.loadExemplars(p)
}

func (r *replay) readTombstones(p *partition) error {
	prefix := p.rowPrefix(rowTombstone)
	var list []tombstone
	err := r.db.scan(prefix, func(key, value []byte, err error) error {
		if err != nil || len(key) != len(prefix)+8 {
			return errors.Join(err, fmt.Errorf("tombstone: %w", errDamaged))
		}
		t, err := decodeTombstone(binary.BigEndian.Uint64(key[len(prefix):]), value)
		if err != nil {
			return err
		}
		r.maxLSN = max(r.maxLSN, t.lsn)
		list = append(list, t)
		return nil
	})
	p.tombstones.Store(&list)
	return err
}

// readSnapshot fills the head from the newest sound snapshot and returns its LSN.
func (r *replay) readSnapshot() (start uint64, err error) {
	snap, problems, err := wal.OpenNewestSnapshot(filepath.Join(r.db.cfg.Dir, snapshotDir))
	for _, p := range problems {
		r.db.recovery.DamagedFiles = append(r.db.recovery.DamagedFiles, filepath.Base(p.Path))
		r.db.logger.Error("a snapshot is damaged and was set aside", "file", p.Path, "err", p.Err)
	}
	if err != nil || snap == nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	for {
		typ, payload, err := snap.Next()
		if errors.Is(err, io.EOF) {
			return snap.LSN(), nil
		}
		if err != nil {
			return 0, err
		}
		switch {
		case typ == sectionGroups:
			err = r.db.restoreSection(payload)
		case typ == sectionSequence && len(payload) == 8:
			if n := binary.BigEndian.Uint64(payload); n > r.db.sequence {
				r.lostWrites(fmt.Sprintf("the snapshot was made after write %d, the last one there is %d", n, r.db.sequence))
			}
		default:
			err = fmt.Errorf("section of type %d: %w", typ, errDamaged)
		}
		if err != nil {
			return 0, err
		}
	}
}

// finish sets what the engine needs to go on.
func (r *replay) finish(last uint64) {
	db := r.db
	db.applied.Store(last)
	for _, p := range db.allPartitions() {
		p.applied = last
		if p.idx == nil {
			continue
		}
		if r.gap || db.recovery.DamagedRows > 0 {
			p.idx.Seal(max(p.idx.NextGroup(), uint32(len(p.groups))))
		}
		for n, g := range p.groups {
			if g == nil || p.idx.GroupMask(uint32(n)) != 0 {
				continue
			}
			db.recovery.OrphanSamples += uint64(g.samples)
			db.head.dropGroup(g)
			p.groups[n] = nil
		}
	}
	db.snapAt.Store(db.now().UnixMilli())
}

// replayPartition is replay.partition for the snapshot's groups.
func (db *DB) replayPartition(tenant uint32, day int32, lsn uint64) *partition {
	p, err := db.replay.partition(tenant, day, lsn)
	if err != nil {
		db.logger.Error("a partition of the snapshot cannot be opened", "day", day, "err", err)
		db.recovery.DamagedRows++
		return nil
	}
	return p
}
