package badger

import (
	"errors"
	"fmt"

	badgerdb "github.com/dgraph-io/badger/v4"

	"github.com/luminate/luminate/storage/badger/internal/block"
	"github.com/luminate/luminate/storage/badger/internal/wal"
)

// partition returns the partition that a record or snapshot of this LSN is for, nil
// when it was deleted, dropped or closed since.
func (r *replay) partition(tenant uint32, day int32, lsn uint64) (*partition, error) {
	db := r.db
	tn := db.byID[tenant]
	if tn == nil {
		if !db.gone[tenant] {
			db.recovery.DamagedRows++
			db.logger.Error("the log names a tenant that is not registered", "number", tenant)
		}
		return nil, nil
	}
	p := tn.part(day)
	if lsn <= tn.droppedAt(day) || day < db.firstDay.Load() {
		return nil, nil
	}
	if p != nil && (lsn <= p.from || p.idx == nil && lsn <= p.closedLSN) {
		return nil, nil
	}
	return db.ensurePartition(tn, day)
}

// apply replays one record.
func (r *replay) apply(rec wal.Record) error {
	if r.prev != 0 && rec.LSN != r.prev+1 {
		r.gap = true // records are missing: series may be, too
	}
	r.prev = rec.LSN
	r.db.applied.Store(rec.LSN)
	err := r.applyRecord(rec)
	if errors.Is(err, wal.ErrCorrupt) || errors.Is(err, errDamaged) {
		// Its checksum is right, so this is a bug of the writer; what can be read is.
		r.db.recovery.LostRecords++
		r.db.logger.Error("a log record makes no sense and is skipped", "lsn", rec.LSN, "type", rec.Type, "err", err)
		return nil
	}
	return err
}

func (r *replay) applyRecord(rec wal.Record) error {
	switch rec.Type {
	case wal.TypeSamples:
		return r.applySamples(rec)
	case wal.TypeSeries:
		return r.applySeries(rec)
	case wal.TypeHistogram:
		tenant, day, rows, err := readHistogramRecord(rec.Payload)
		if err != nil {
			return err
		}
		return r.withPartition(tenant, day, rec.LSN, func(p *partition) {
			r.db.recovery.OrphanSamples += uint64(r.db.head.applyHistograms(p, rows, rec.LSN))
		})
	case wal.TypeExemplar:
		tenant, day, rows, err := readExemplarRecord(rec.Payload)
		if err != nil {
			return err
		}
		return r.withPartition(tenant, day, rec.LSN, func(p *partition) { r.db.head.applyExemplars(p, rows) })
	case wal.TypeMetadata:
		tenant, ms, err := readMetadataRecord(rec.Payload)
		if tn := r.db.byID[tenant]; err == nil && tn != nil {
			tn.putMetadata(ms, true)
		}
		return err
	case wal.TypeDelete:
		return r.applyDelete(rec)
	default:
		return fmt.Errorf("log record of type %d: %w", rec.Type, errDamaged)
	}
}

func (r *replay) withPartition(tenant uint32, day int32, lsn uint64, fn func(*partition)) error {
	p, err := r.partition(tenant, day, lsn)
	if err != nil || p == nil {
		return err
	}
	h := &r.db.head
	h.mu.Lock()
	defer h.mu.Unlock()
	fn(p)
	p.applied = max(p.applied, lsn)
	return nil
}

func (r *replay) applySamples(rec wal.Record) error {
	hd, err := wal.ReadRecordHeader(rec.Payload)
	if err != nil {
		return err
	}
	p, err := r.partition(hd.Tenant, hd.Day, rec.LSN)
	if err != nil || p == nil {
		return err
	}
	r.samples.Reset(hd.Tenant, hd.Day)
	if err := r.dec.Decode(rec.Payload, &r.samples); err != nil {
		return err
	}
	if r.gap {
		r.dropOrphans(p)
	}
	h := &r.db.head
	h.mu.Lock()
	defer h.mu.Unlock()
	r.db.recovery.OrphanSamples += uint64(h.applySamples(p, &r.samples, rec.LSN))
	p.applied = max(p.applied, rec.LSN)
	return nil
}

// dropOrphans takes out samples whose series record was lost, and counts them.
func (r *replay) dropOrphans(p *partition) {
	s := &r.samples
	k := 0
	for i, ref := range s.Ref {
		if p.idx.GroupMask(ref/block.GroupSize)>>(ref%block.GroupSize)&1 == 0 {
			r.db.recovery.OrphanSamples++
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
}

func (r *replay) applySeries(rec wal.Record) error {
	hd, err := wal.ReadRecordHeader(rec.Payload)
	if err != nil {
		return err
	}
	p, err := r.partition(hd.Tenant, hd.Day, rec.LSN)
	if err != nil || p == nil {
		return err
	}
	db := r.db
	var groups []uint32
	err = r.series.Decode(rec.Payload, func(_ wal.RecordHeader, id uint32, labels []byte) error {
		hash := db.hash(labels)
		if have, ok := p.idx.Lookup(hash); ok && have == id {
			return nil
		}
		if err := p.idx.Insert(id, hash, labels); err != nil {
			return fmt.Errorf("%w: %w", err, errDamaged)
		}
		p.unpersisted = append(p.unpersisted, id)
		db.openSeries.Add(1)
		if g := id / block.GroupSize; len(groups) == 0 || groups[len(groups)-1] != g {
			groups = append(groups, g)
		}
		return nil
	})
	db.head.mu.Lock()
	db.head.addGroups(p, groups)
	p.applied = max(p.applied, rec.LSN)
	db.head.mu.Unlock()
	return err
}

func (r *replay) applyDelete(rec wal.Record) error {
	d, err := readDeleteRecord(rec.Payload)
	if err != nil {
		return err
	}
	tn := r.db.byID[d.tenant]
	if tn == nil {
		return nil
	}
	row, err := r.db.readReceipt(tn, d.id)
	if err == nil && row.ErasedAt != nil {
		return nil // done, and the tombstones gone
	}
	if err != nil && !errors.Is(err, badgerdb.ErrKeyNotFound) {
		return err
	}
	return r.db.applyDelete(tn, d, rec.LSN, row.MatchedSeries)
}
