package index

import (
	"context"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
)

// readRecord decodes the record of a metric that holds id into r, whose memory it reuses. A missing key is damage:
// the directory said that there are series.
func (p *Packed) readRecord(r *seriesRecord, metricID, id uint32) error {
	first := id &^ (RecordIDs - 1)
	key := seriesKey(metricID, first, 1, 0)
	payload, err := p.recordPayload(r.payload, key)
	if err != nil {
		return err
	}
	if parts, ok := recordParts(payload); ok {
		key = seriesKey(metricID, first, parts, (id-first)/(RecordIDs/parts))
		if payload, err = p.recordPayload(payload, key); err != nil {
			return err
		}
	}
	if !r.decode(first, payload) {
		return damaged(KindSeries, key, "impossible field")
	}
	return nil
}

// recordParts tells whether a payload only says in how many parts the record is stored. A record is longer.
func recordParts(payload []byte) (uint32, bool) {
	if len(payload) >= 8*runGroups {
		return 0, false
	}
	d := decoder{b: payload}
	n := d.u32()
	return n, !d.bad && len(d.b) == 0 && n > 1 && n <= RecordIDs && RecordIDs%n == 0
}

// recordPayload may return buf's memory.
func (p *Packed) recordPayload(buf, key []byte) ([]byte, error) {
	value, ok, err := p.src.Get(KindSeries, key)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, damaged(KindSeries, key, "missing")
	}
	return open(buf, KindSeries, key, value)
}

// keptRecord returns the record that holds id; it is shared and not to be changed.
func (p *Packed) keptRecord(id uint32) (*seriesRecord, int, error) {
	m, err := p.dir.metric(id / GroupSize)
	if err != nil {
		return nil, 0, err
	}
	p.mu.Lock()
	for i, r := range p.records {
		if slot, ok := r.slot(id); ok {
			p.records = append(slices.Delete(p.records, i, i+1), r)
			p.mu.Unlock()
			return r, slot, nil
		}
	}
	p.mu.Unlock()
	r := &seriesRecord{}
	if err := p.readRecord(r, m.id, id); err != nil {
		return nil, 0, err
	}
	slot, ok := r.slot(id)
	if !ok {
		return nil, 0, unknownSeries(id)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.records) >= keptRecords {
		p.records = slices.Delete(p.records, 0, 1)
	}
	p.records = append(p.records, r)
	return r, slot, nil
}

// Hash implements Reader.
func (p *Packed) Hash(id uint32) (Hash128, error) {
	r, slot, err := p.keptRecord(id)
	if err != nil {
		return Hash128{}, err
	}
	return r.hash(slot), nil
}

// AppendLabels implements Reader. For many series ForEach is faster.
func (p *Packed) AppendLabels(dst []byte, id uint32) ([]byte, error) {
	r, slot, err := p.keptRecord(id)
	if err != nil {
		return dst, err
	}
	return r.appendLabels(dst, slot), nil
}

// Find implements Reader.
func (p *Packed) Find(ctx context.Context, hash Hash128) (uint32, bool, error) {
	var candidates []uint32
	gen := p.meta.generation
	next, started, ended := uint32(0), false, false
	err := p.src.Scan(KindHashes, appendU32s(nil, gen), hashesKey(gen, hash.Hi, 0), func(suffix, value []byte) (bool, error) {
		payload, err := open(nil, KindHashes, suffix, value)
		if err != nil {
			return false, err
		}
		position, prevLast, block, ok := decodeHashBlock(payload)
		if !ok {
			return false, damaged(KindHashes, suffix, "impossible field")
		}
		if started && position != next || !started && position > 0 && prevLast >= hash.Hi {
			return false, damaged(KindHashes, suffix, "a block before this one is missing")
		}
		started, next = true, position+1
		for _, e := range block {
			if e.hi == hash.Hi {
				candidates = append(candidates, e.id)
			}
		}
		ended = block[len(block)-1].hi > hash.Hi
		return !ended, ctx.Err()
	})
	if err != nil {
		return 0, false, err
	}
	if !ended && (started && next != p.meta.hashBlocks || !started && p.meta.hashBlocks > 0 && hash.Hi <= p.meta.lastHash) {
		return 0, false, damaged(KindHashes, appendU32s(nil, gen), "the last block is missing")
	}
	for _, id := range candidates {
		have, err := p.Hash(id)
		if err != nil {
			return 0, false, err
		}
		if have == hash {
			return id, true, nil
		}
	}
	return 0, false, nil
}

// eachSeries calls fn for the ids in order, with their position among them, their record, and their place in it. A
// record is decoded once for all its series: those of one window of ids are kept together, since groups of several
// metrics may alternate in it.
func (p *Packed) eachSeries(ctx context.Context, ids *roaring.Bitmap, fn func(i int, id uint32, r *seriesRecord, slot int) error) error {
	w := recordWindow{p: p, window: ^uint32(0), group: ^uint32(0)}
	return forEachID(ctx, ids, func(i int, id uint32) error {
		slot, err := w.seek(id)
		if err != nil {
			return err
		}
		return fn(i, id, w.rec, slot)
	})
}

// recordWindow holds the records of one window of RecordIDs ids.
type recordWindow struct {
	p             *Packed
	window, group uint32
	rec           *seriesRecord // of group
	records       [runGroups]seriesRecord
	owner         [runGroups]*dirMetric // of records; nil: none
	serial        uint64
}

// seek makes rec the record of a series and returns its place there; ids ascend.
func (w *recordWindow) seek(id uint32) (int, error) {
	if id/RecordIDs != w.window {
		w.window = id / RecordIDs
		clear(w.owner[:])
	}
	if g := id / GroupSize; g != w.group {
		m, err := w.p.dir.metric(g)
		if err != nil {
			return 0, err
		}
		w.group, w.rec = g, nil
		for i := range w.owner {
			if w.owner[i] == m {
				w.rec = &w.records[i]
			}
		}
	}
	if w.rec != nil {
		if slot, ok := w.rec.slot(id); ok {
			return slot, nil
		}
	}
	// Not read yet, or in another part of a split record.
	m, err := w.p.dir.metric(w.group)
	if err != nil {
		return 0, err
	}
	at := w.group % runGroups
	w.rec, w.owner[at] = &w.records[at], m
	if err := w.p.readRecord(w.rec, m.id, id); err != nil {
		return 0, err
	}
	w.serial++
	w.rec.serial = w.serial
	slot, ok := w.rec.slot(id)
	if !ok {
		return 0, unknownSeries(id)
	}
	return slot, nil
}

// ForEach implements Reader.
func (p *Packed) ForEach(ctx context.Context, ids *roaring.Bitmap, fn func(id uint32, hash Hash128, labels []byte) error) error {
	ids, err := p.orAll(ctx, ids)
	if err != nil {
		return err
	}
	var buf []byte
	return p.eachSeries(ctx, ids, func(_ int, id uint32, r *seriesRecord, slot int) error {
		buf = r.appendLabels(buf[:0], slot)
		return fn(id, r.hash(slot), buf)
	})
}

func (p *Packed) orAll(ctx context.Context, ids *roaring.Bitmap) (*roaring.Bitmap, error) {
	if ids != nil {
		return ids, nil
	}
	return p.allSeries(ctx)
}
