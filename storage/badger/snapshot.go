package badger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"time"

	"github.com/luminate/luminate/storage/badger/internal/block"
	"github.com/luminate/luminate/storage/badger/internal/wal"
)

// The sections of a snapshot.
const (
	sectionGroups   = 1 // groups of one partition
	sectionSequence = 2 // the number of Badger's last write before the snapshot
)

// sectionBytes is about how large sections get.
const sectionBytes = 1 << 20

// snapshot saves the head, so that the log before it can go. Without force it does
// nothing when nothing was appended since the last one.
func (db *DB) snapshot(force bool) error {
	db.snapMu.Lock()
	defer db.snapMu.Unlock()
	return db.snapshotLocked(force)
}

func (db *DB) snapshotLocked(force bool) error {
	start := db.applied.Load()
	log := db.wal.Load()
	if !force && log.Size() == db.snapWAL.Load() {
		return nil
	}
	if err := db.disk.flushable(); err != nil {
		return err
	}
	began := time.Now()
	defer func() { db.met.snapSeconds.Observe(time.Since(began).Seconds()) }()
	err := db.writeSnapshot(start)
	if err == nil {
		err = db.removeDropMarks(start)
	}
	if err == nil {
		if force {
			err = log.Rotate()
		}
		err = errors.Join(err, log.TruncateBefore(start+1))
	}
	db.snapAt.Store(db.now().UnixMilli())
	db.snapWAL.Store(log.Size())
	if err != nil {
		db.met.snapshotErrors.Inc()
		return fmt.Errorf("snapshot: %w", err)
	}
	db.met.snapshots.Inc()
	return nil
}

// writeSnapshot puts everything that the log holds up to start elsewhere: metadata,
// series and exemplars into Badger, samples into a file.
func (db *DB) writeSnapshot(start uint64) error {
	parts := db.allPartitions()
	for _, tn := range db.allTenants() {
		if err := db.persistMetadata(tn); err != nil {
			return err
		}
	}
	if err := db.persistSeries(parts...); err != nil {
		return err
	}
	for _, p := range parts {
		if err := db.persistExemplars(p); err != nil {
			return err
		}
	}
	// While the flusher rests nothing is frozen but what it failed to write.
	db.flush.work.Lock()
	defer db.flush.work.Unlock()
	w, err := wal.CreateSnapshot(filepath.Join(db.cfg.Dir, snapshotDir), start)
	if err != nil {
		return err
	}
	db.sequenceMu.Lock()
	sequence := binary.BigEndian.AppendUint64(nil, db.sequence)
	db.sequenceMu.Unlock()
	if err := w.Section(sectionSequence, sequence); err != nil {
		return errors.Join(err, w.Abort())
	}
	for _, p := range parts {
		if err := db.snapshotPartition(w, p); err != nil {
			return errors.Join(err, w.Abort())
		}
	}
	return w.Commit()
}

// snapshotPartition writes the groups that hold samples. Each is copied on its own,
// with the LSN that the partition had then.
func (db *DB) snapshotPartition(w *wal.SnapshotWriter, p *partition) error {
	h := &db.head
	var buf []byte
	flush := func() error {
		if len(buf) == 0 {
			return nil
		}
		err := w.Section(sectionGroups, buf)
		buf = buf[:0]
		return err
	}
	for n := uint32(0); ; n++ {
		h.mu.RLock()
		if int(n) >= len(p.groups) {
			h.mu.RUnlock()
			return flush()
		}
		if g := p.groups[n]; g != nil && (g.samples > 0 || g.frozen != nil) {
			if len(buf) == 0 {
				buf = binary.LittleEndian.AppendUint32(buf, p.tenant.id)
				buf = binary.LittleEndian.AppendUint32(buf, uint32(p.day))
			}
			buf = h.appendGroup(buf, n, g, p.applied)
		}
		h.mu.RUnlock()
		if len(buf) >= sectionBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
}

// appendGroup writes one group: number, watermark, age, then what is open, then what
// is frozen with its LSN. The caller holds h.mu.
func (h *head) appendGroup(b []byte, n uint32, g *group, applied uint64) []byte {
	b = binary.AppendUvarint(b, uint64(n))
	b = binary.AppendUvarint(b, applied)
	b = binary.AppendVarint(b, g.since)
	b = h.appendOpen(b, g.streams, g.sts, g.late, g.hists)
	f := g.frozen
	if f == nil {
		return append(b, 0)
	}
	b = append(b, 1)
	b = binary.AppendUvarint(b, f.lsn)
	return h.appendOpen(b, f.streams, f.sts, f.late, f.hists)
}

func (h *head) appendOpen(b []byte, streams []block.Stream, sts map[uint8][]block.STRun, late []lateSample, hists []headHistogram) []byte {
	b = binary.AppendUvarint(b, uint64(len(streams)))
	for i := range streams {
		b = streams[i].AppendSnapshot(b, h.arena)
	}
	b = binary.AppendUvarint(b, uint64(len(sts)))
	for slot, runs := range sts {
		b = append(b, slot)
		b = binary.AppendUvarint(b, uint64(len(runs)))
		for _, r := range runs {
			b = binary.AppendUvarint(b, uint64(r.Count))
			b = binary.AppendVarint(b, r.ST)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(late)))
	for _, l := range late {
		b = append(b, l.slot)
		b = appendVarints(b, l.t, l.st)
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(l.v))
	}
	b = binary.AppendUvarint(b, uint64(len(hists)))
	for _, x := range hists {
		b = append(b, x.slot)
		b = appendHistogram(b, x.h)
	}
	return b
}

// restoreSection puts the groups of a section into the head.
func (db *DB) restoreSection(payload []byte) error {
	r := recordReader{b: payload}
	tenant, day := r.uint32(), int32(r.uint32())
	for len(r.b) > 0 {
		n, lsn, since := uint32(r.uvarint()), r.uvarint(), r.varint()
		g := &group{target: db.head.firstTarget(n), flushed: lsn, since: since}
		if err := db.head.readOpen(&r, g); err != nil {
			return err
		}
		if frozen := r.take(1); frozen != nil && frozen[0] == 1 {
			f := &group{}
			lsn := r.uvarint()
			if err := db.head.readOpen(&r, f); err != nil {
				return err
			}
			g.frozen = &frozenGroup{lsn: lsn, streams: f.streams, sts: f.sts, late: f.late, hists: f.hists, samples: f.samples}
		}
		if err := r.err("snapshot group"); err != nil {
			return err
		}
		p := db.replayPartition(tenant, day, lsn)
		if p == nil || !db.restoreGroup(p, n, g) {
			db.head.dropGroup(g)
		}
	}
	return nil
}

// restoreGroup installs a group, unless its samples have reached blocks since.
func (db *DB) restoreGroup(p *partition, n uint32, g *group) bool {
	h := &db.head
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addGroups(p, []uint32{n})
	old := p.groups[n]
	if old.samples > 0 || old.flushed >= g.flushed {
		return false
	}
	if f := g.frozen; f != nil && old.flushed >= f.lsn {
		h.dropFrozen(f)
		g.frozen = nil
	}
	g.inBlocks, g.blocksGuessed, g.blocksMax = old.inBlocks, old.blocksGuessed, old.blocksMax
	g.blocks, g.counted = old.blocks, old.counted
	p.groups[n] = g
	if g.frozen != nil {
		g.queued = true
		h.ready(p, n)
	}
	return true
}

func (h *head) readOpen(r *recordReader, g *group) error {
	before := h.arena.UsedBytes()
	slots := r.uvarint()
	if slots > block.GroupSize {
		return fmt.Errorf("read snapshot group: %w", errDamaged)
	}
	g.growTo(int(slots))
	for i := range g.streams {
		rest, err := g.streams[i].RestoreSnapshot(h.arena, r.b)
		if err != nil {
			return err
		}
		r.b = rest
		g.samples += uint32(g.streams[i].Len())
	}
	h.bytes.Add(h.arena.UsedBytes() - before)
	for range r.count() {
		slot := r.slot()
		for range r.count() {
			if g.sts == nil {
				g.sts = map[uint8][]block.STRun{}
			}
			g.sts[slot] = append(g.sts[slot], block.STRun{Count: uint32(r.uvarint()), ST: r.varint()})
		}
	}
	for range r.count() {
		l := lateSample{slot: r.slot(), t: r.varint(), st: r.varint(), v: math.Float64frombits(r.uint64())}
		g.late = append(g.late, l)
	}
	for range r.count() {
		slot := r.slot()
		x, err := r.histogram()
		if err != nil {
			return err
		}
		g.hists = append(g.hists, headHistogram{slot: slot, h: x})
	}
	h.addOther(int64(len(g.late)*lateSampleBytes + len(g.hists)*headHistogramBytes))
	g.samples += uint32(len(g.late) + len(g.hists))
	return r.err("snapshot group")
}

func (r *recordReader) slot() uint8 {
	p := r.take(1)
	if p == nil || p[0] >= block.GroupSize {
		r.b, r.bad = nil, true
		return 0
	}
	return p[0]
}

// dropGroup gives a group's memory back.
func (h *head) dropGroup(g *group) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropFrozen(&frozenGroup{streams: g.streams, late: g.late, hists: g.hists})
	if g.frozen != nil {
		h.dropFrozen(g.frozen)
	}
}

// dropFrozen gives memory back; the caller holds h.mu.
func (h *head) dropFrozen(f *frozenGroup) {
	before := h.arena.UsedBytes()
	for i := range f.streams {
		f.streams[i].Reset(h.arena)
	}
	h.bytes.Add(h.arena.UsedBytes() - before)
	h.addOther(-int64(len(f.late)*lateSampleBytes + len(f.hists)*headHistogramBytes))
}

// persistMetadata writes the metadata that is in the log only.
func (db *DB) persistMetadata(tn *tenant) error {
	tn.mu.Lock()
	rows := map[string][]byte{}
	for metric := range tn.unsaved {
		rows[metric] = appendMetadata(nil, tn.metadata[metric])
	}
	tn.mu.Unlock()
	if len(rows) == 0 {
		return nil
	}
	db.kvMu.RLock()
	defer db.kvMu.RUnlock()
	wb := db.kv.NewWriteBatch()
	defer wb.Cancel()
	for metric, row := range rows {
		key := metadataKey(tn.id, metric)
		if err := wb.Set(key, sealValue(key, row)); err != nil {
			return fmt.Errorf("write metadata: %w", err)
		}
	}
	if err := db.commitBatch(wb); err != nil {
		return fmt.Errorf("write metadata: %w", err)
	}
	tn.mu.Lock()
	defer tn.mu.Unlock()
	for metric, row := range rows {
		if string(appendMetadata(nil, tn.metadata[metric])) == string(row) {
			delete(tn.unsaved, metric)
		}
	}
	return nil
}

// removeDropMarks forgets the days that were dropped before the log that is left.
func (db *DB) removeDropMarks(start uint64) error {
	var keys [][]byte
	err := db.scan([]byte{keyPartition}, func(key, value []byte, err error) error {
		if err != nil {
			return nil // recovery reports it
		}
		if s, err := decodePartitionState(value); err == nil && s.kind == partitionDropped && s.lsn <= start {
			keys = append(keys, append([]byte(nil), key...))
		}
		return nil
	})
	if err != nil || len(keys) == 0 {
		return err
	}
	return db.remove(keys...)
}
