package badger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	badgerdb "github.com/dgraph-io/badger/v4"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger/internal/block"
	"github.com/luminate/luminate/storage/badger/internal/index"
	"github.com/luminate/luminate/storage/badger/internal/wal"
)

// partition is one UTC day of one tenant: it owns its series numbers, its index,
// its share of the head and its blocks. An open partition has index and head in
// memory; of a closed one only this struct is left.
type partition struct {
	tenant *tenant
	day    int32

	// mu guards the index. The committer alone changes it.
	mu          sync.RWMutex
	idx         *index.Mem // nil while closed
	unlogged    []uint32   // new series whose log record is not written yet
	unpersisted []uint32   // new series that are in the log only
	closedLSN   uint64     // when last closed

	from uint64 // see partitionState

	seriesSeq uint32 // number of the next row of series; guarded by the DB's persistMu

	// The rest is guarded by the head's lock.
	groups  []*group
	applied uint64 // LSN of the last record applied
	epoch   uint64 // counts what left the head for blocks
	// rewriting counts the clean-ups that replace or drop blocks now.
	rewriting int

	tombstones atomic.Pointer[[]tombstone]
	exemplars  exemplarStore
	lastWrite  atomic.Int64 // clock, ms
	dropped    atomic.Bool
	generation atomic.Uint64 // see changed
}

func newPartition(tn *tenant, day int32) *partition {
	p := &partition{tenant: tn, day: day}
	p.tombstones.Store(&[]tombstone{})
	p.changed()
	return p
}

// partitionKind says how Badger's rows of a partition are to be read.
type partitionKind byte

const (
	partitionOpen    partitionKind = 0 // the series rows, and what snapshot and log add
	partitionClosed  partitionKind = 1 // all series and samples up to lsn are in Badger, the index packed
	partitionDropped partitionKind = 2 // what the log has of it up to lsn is gone for good
)

// partitionState is what Badger keeps of a partition.
type partitionState struct {
	kind partitionKind
	lsn  uint64
	from uint64 // log records up to it are of an earlier, dropped life of the day
}

func (s partitionState) encode() []byte {
	b := binary.BigEndian.AppendUint64([]byte{byte(s.kind)}, s.lsn)
	return binary.BigEndian.AppendUint64(b, s.from)
}

func decodePartitionState(b []byte) (partitionState, error) {
	if len(b) != 17 || b[0] > byte(partitionDropped) {
		return partitionState{}, fmt.Errorf("state of a partition: %w", errDamaged)
	}
	return partitionState{
		kind: partitionKind(b[0]), lsn: binary.BigEndian.Uint64(b[1:]), from: binary.BigEndian.Uint64(b[9:]),
	}, nil
}

func (p *partition) mint() int64 { return dayStart(p.day) }
func (p *partition) maxt() int64 { return dayStart(p.day+1) - 1 }

// refOf returns the number of a known series, else noRef. The caller holds p.mu.
func (p *partition) refOf(h index.Hash128) uint32 {
	if p.idx != nil {
		if id, ok := p.idx.Lookup(h); ok {
			return id
		}
	}
	return noRef
}

// group returns a group of the head, nil if there is none. The caller holds the
// head's lock.
func (p *partition) group(n uint32) *group {
	if int(n) < len(p.groups) {
		return p.groups[n]
	}
	return nil
}

// addGroups makes head groups; the caller holds the head's lock.
func (h *head) addGroups(p *partition, numbers []uint32) {
	for _, n := range numbers {
		for int(n) >= len(p.groups) {
			p.groups = append(p.groups, nil)
		}
		if p.groups[n] == nil {
			p.groups[n] = &group{target: h.firstTarget(n)}
		}
	}
}

// firstTarget spreads the first flush of groups that were made together, so that
// they do not fall due together for ever after.
func (h *head) firstTarget(n uint32) uint16 {
	half := uint32(h.flushSamples+1) / 2
	spread := uint32(h.flushSamples) - half + 1
	return uint16(half + (n*2654435761>>16)%spread)
}

// createMissing gives every missing series of the share its number, making those
// that are new.
func (p *partition) createMissing(r *request, pr *partRequest) error {
	var groups []uint32
	var failed error
	created := 0
	p.mu.Lock()
	for i := range pr.missing {
		m := &pr.missing[i]
		id, ok := p.idx.Lookup(m.hash)
		if !ok {
			var err error
			id, err = p.idx.Create(m.hash, r.batch.At(m.series).Labels)
			if errors.Is(err, index.ErrLabels) || errors.Is(err, index.ErrFull) {
				r.reject(m, err)
				continue
			}
			if err != nil {
				failed = fmt.Errorf("create series: %w", err)
				break
			}
			p.unlogged = append(p.unlogged, id)
			p.unpersisted = append(p.unpersisted, id)
			created++
			if g := id / block.GroupSize; len(groups) == 0 || groups[len(groups)-1] != g {
				groups = append(groups, g)
			}
		}
		m.fill(pr, id)
	}
	if created > 0 {
		p.changed()
	}
	p.mu.Unlock()
	if len(r.rejected) > 0 {
		pr.dropRejected()
	}
	if created > 0 {
		db := r.db
		db.head.mu.Lock()
		db.head.addGroups(p, groups)
		db.head.mu.Unlock()
		db.openSeries.Add(int64(created))
		db.met.series.Add(float64(created))
	}
	return failed
}

// reject notes a series that the index cannot take.
func (r *request) reject(m *missingSeries, err error) {
	reason := storage.ReasonLabelLimit
	if errors.Is(err, index.ErrFull) {
		reason = storage.ReasonSeriesLimit
	}
	r.rejected = append(r.rejected, rejection{
		series: m.series, reason: reason, err: err,
		samples: m.to - m.from, histograms: m.histTo - m.histFrom, exemplars: m.exempTo - m.exempFrom,
	})
}

// dropRejected takes the rows of rejected series out of a share.
func (pr *partRequest) dropRejected() {
	s := &pr.samples
	k := 0
	for i, ref := range s.Ref {
		if ref == noRef {
			continue
		}
		s.Ref[k], s.T[k], s.V[k] = ref, s.T[i], s.V[i]
		if len(s.ST) > 0 {
			s.ST[k] = s.ST[i]
		}
		k++
	}
	s.Ref, s.T, s.V = s.Ref[:k], s.T[:k], s.V[:k]
	if len(s.ST) > 0 {
		s.ST = s.ST[:k]
	}
	pr.hists = slices.DeleteFunc(pr.hists, func(h histogramRow) bool { return h.ref == noRef })
	pr.exemplars = slices.DeleteFunc(pr.exemplars, func(e exemplarRow) bool { return e.ref == noRef })
}

func (m *missingSeries) fill(pr *partRequest, id uint32) {
	for i := m.from; i < m.to; i++ {
		pr.samples.Ref[i] = id
	}
	for i := m.histFrom; i < m.histTo; i++ {
		pr.hists[i].ref = id
	}
	for i := m.exempFrom; i < m.exempTo; i++ {
		pr.exemplars[i].ref = id
	}
}

// ensurePartition finds, makes or opens a partition; only the committer and
// recovery call it.
func (db *DB) ensurePartition(tn *tenant, day int32) (*partition, error) {
	p := tn.part(day)
	if p == nil {
		p = newPartition(tn, day)
		p.idx = index.NewMem()
		p.from = tn.droppedAt(day)
		p.applied = db.applied.Load()
		tn.mu.Lock()
		tn.parts[day] = p
		tn.mu.Unlock()
		db.openParts.Add(1)
		return p, nil
	}
	if p.idx != nil { // only the committer changes it
		return p, nil
	}
	if err := db.loadPartition(p); err != nil {
		return nil, fmt.Errorf("open day %d of tenant %q: %w", day, tn.name, err)
	}
	return p, nil
}

// loadPartition brings a closed partition back into memory, for late samples.
func (db *DB) loadPartition(p *partition) error {
	// From now on the packed index may be incomplete.
	state := partitionState{lsn: db.applied.Load(), from: p.from}
	if err := db.put(partitionKey(p.day, p.tenant.id), state.encode()); err != nil {
		return err
	}
	idx, rows, err := db.readSeries(p)
	if err != nil {
		return err
	}
	groups, err := db.readGroups(p, idx)
	if err != nil {
		return err
	}
	if err := db.loadExemplars(p); err != nil {
		return err
	}
	p.mu.Lock()
	p.idx, p.seriesSeq = idx, rows
	p.changed()
	p.mu.Unlock()
	db.head.mu.Lock()
	p.groups = groups
	p.applied = max(p.applied, db.applied.Load())
	p.epoch++
	for _, g := range groups {
		if g != nil { // what left the head before is in blocks that an older transaction may not see
			g.epoch = p.epoch
		}
	}
	db.head.mu.Unlock()
	db.openParts.Add(1)
	db.openSeries.Add(int64(idx.SeriesCount()))
	return nil
}

// readSeries rebuilds the index from the rows of series; rows is the number of the
// next one. Damaged rows are reported, and new series kept away from their numbers.
func (db *DB) readSeries(p *partition) (idx *index.Mem, rows uint32, err error) {
	idx = index.NewMem()
	var dec wal.SeriesDecoder
	lost := 0
	prefix := p.rowPrefix(rowSeries)
	err = db.scan(prefix, func(key, value []byte, err error) error {
		if len(key) == len(prefix)+4 {
			seq := binary.BigEndian.Uint32(key[len(prefix):])
			if seq != rows {
				lost++
			}
			rows = seq + 1
		}
		if err == nil {
			err = dec.Decode(value, func(_ wal.RecordHeader, id uint32, labels []byte) error {
				return idx.Insert(id, db.hash(labels), labels)
			})
		}
		if err != nil {
			lost++
			db.met.damaged.Inc()
			db.logger.Error("a row of series is damaged: its series are lost", "tenant", p.tenant.name, "day", p.day, "err", err)
			db.recovery.DamagedRows++
		}
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read series: %w", err)
	}
	if lost > 0 {
		bound, err := db.highestGroup(p)
		if err != nil {
			return nil, 0, err
		}
		idx.Seal(bound + 1)
	}
	return idx, rows, nil
}

// highestGroup returns the highest group that has a flush mark.
func (db *DB) highestGroup(p *partition) (n uint32, err error) {
	prefix := p.rowPrefix(rowFlushed)
	err = db.scan(prefix, func(key, _ []byte, _ error) error {
		if len(key) == len(prefix)+4 {
			n = max(n, binary.BigEndian.Uint32(key[len(prefix):]))
		}
		return nil
	})
	return n, err
}

// readGroups makes the head groups of an index, with the LSNs up to which they are
// in blocks.
func (db *DB) readGroups(p *partition, idx *index.Mem) ([]*group, error) {
	groups := make([]*group, idx.NextGroup())
	for n := range groups {
		if idx.GroupMask(uint32(n)) != 0 {
			groups[n] = &group{target: db.head.firstTarget(uint32(n))}
		}
	}
	damaged := false
	prefix := p.rowPrefix(rowFlushed)
	err := db.scan(prefix, func(key, value []byte, err error) error {
		if err == nil && (len(key) != len(prefix)+4 || len(value) != 8) {
			err = errDamaged
		}
		if err != nil {
			// Replaying what is in a block already does no harm.
			db.logger.Warn("a flush mark is damaged, samples may be replayed twice", "tenant", p.tenant.name, "day", p.day, "err", err)
			damaged = true
			return nil
		}
		if n := binary.BigEndian.Uint32(key[len(prefix):]); int(n) < len(groups) && groups[n] != nil {
			groups[n].flushed = binary.BigEndian.Uint64(value)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read flush marks: %w", err)
	}
	for _, g := range groups {
		if g != nil && (damaged || g.flushed > 0) {
			g.inBlocks, g.blocksGuessed, g.blocksMax = true, true, p.maxt()
		}
	}
	return groups, nil
}

// persistSeries writes the series that are in the log only as rows of their own, so
// that the log can be cut. It comes before any block: a block whose series were lost
// with the log's tail could come to belong to other series.
func (db *DB) persistSeries(parts ...*partition) error {
	db.persistMu.Lock()
	defer db.persistMu.Unlock()
	var todo []seriesRows
	for _, p := range parts {
		x, err := p.encodeUnpersisted()
		if err != nil {
			return fmt.Errorf("encode series: %w", err)
		}
		if len(x.rows) > 0 {
			todo = append(todo, x)
		}
	}
	if len(todo) == 0 {
		return nil
	}
	if err := db.writeSeriesRows(todo); err != nil {
		return fmt.Errorf("write series: %w", err)
	}
	for _, x := range todo {
		x.p.seriesSeq += uint32(len(x.rows))
		x.p.mu.Lock()
		x.p.unpersisted = append([]uint32(nil), x.p.unpersisted[x.series:]...)
		x.p.mu.Unlock()
	}
	return nil
}

// seriesRows are the encoded new series of a partition.
type seriesRows struct {
	p      *partition
	series int
	rows   [][]byte
}

func (p *partition) encodeUnpersisted() (seriesRows, error) {
	p.mu.RLock()
	n := len(p.unpersisted)
	ids := p.unpersisted[:n:n]
	p.mu.RUnlock()
	x := seriesRows{p: p, series: n}
	for rest := ids; len(rest) > 0; {
		row, used, err := p.encodeSeries(rest)
		if err != nil {
			return x, err
		}
		x.rows, rest = append(x.rows, row), rest[used:]
	}
	return x, nil
}

// encodeSeries makes one row of the first ids, and tells how many. The index is held
// no longer than that, for the committer waits for it.
func (p *partition) encodeSeries(ids []uint32) (row []byte, used int, err error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.idx == nil {
		return nil, 0, errors.New("the day was closed")
	}
	var enc wal.SeriesEncoder
	var labels []byte
	enc.Reset(p.tenant.id, p.day)
	for _, id := range ids {
		if labels, err = p.idx.AppendLabels(labels[:0], id); err != nil {
			return nil, 0, err
		}
		enc.Add(id, labels)
		if used++; enc.Size() >= maxSeriesRowBytes {
			break
		}
	}
	row, err = enc.AppendTo(nil)
	return row, used, err
}

// maxSeriesRowBytes bounds a row before compression, far below the largest value
// that Badger takes.
const maxSeriesRowBytes = 256 << 10

func (db *DB) writeSeriesRows(todo []seriesRows) error {
	db.kvMu.RLock()
	defer db.kvMu.RUnlock()
	wb := db.kv.NewWriteBatch()
	defer wb.Cancel()
	for _, x := range todo {
		if x.p.dropped.Load() {
			continue
		}
		state := partitionState{lsn: db.applied.Load(), from: x.p.from}
		key := partitionKey(x.p.day, x.p.tenant.id)
		if err := wb.Set(key, sealValue(key, state.encode())); err != nil {
			return err
		}
		for i, row := range x.rows {
			key := x.p.seriesKey(x.p.seriesSeq + uint32(i))
			if err := wb.Set(key, sealValue(key, row)); err != nil {
				return err
			}
		}
	}
	return db.commitBatch(wb)
}

// view opens a read transaction.
func (db *DB) view() *badgerdb.Txn { return db.kv.NewTransaction(false) }
