package index

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
)

// PackStats tells what WritePacked wrote.
type PackStats struct {
	Generation                         uint32
	Records                            []RecordRef // for MarkWritten, once they are durable
	SeriesBytes, PostingBytes, AllKeys int
	HashBytes                          int
}

// WriteRecord writes the packed record that ref names, as it is now, and returns its reference with the number of
// series written: what MarkWritten takes once the sink's writes are durable.
func (m *Mem) WriteRecord(sink Sink, ref RecordRef) (RecordRef, error) {
	var e recordEncoder
	written, _, _, err := m.writeRecord(sink, &e, ref, maxRecord)
	return written, err
}

func (m *Mem) writeRecord(sink Sink, e *recordEncoder, ref RecordRef, maxBytes int) (written RecordRef, keys, size int, err error) {
	if ref.MetricID >= m.groups.n || m.groups.at(ref.MetricID).owner == 0 {
		return ref, 0, 0, unknownSeries(ref.MetricID * GroupSize)
	}
	owner := m.groups.at(ref.MetricID).owner - 1
	ref.Series = 0
	for parts := uint32(1); ; parts *= 2 {
		keys, size, ref.Series = 0, 0, 0
		var pending [][2][]byte
		span, fits := RecordIDs/parts, true
		for part := range parts {
			payload, n := e.encode(m, owner, ref.FirstID, ref.FirstID+part*span, ref.FirstID+(part+1)*span)
			if fits = len(payload) <= maxBytes || span == 1; !fits {
				break
			}
			if n == 0 {
				continue
			}
			key := seriesKey(ref.MetricID, ref.FirstID, parts, part)
			pending = append(pending, [2][]byte{key, seal(KindSeries, key, payload)})
			ref.Series += uint32(n)
		}
		if !fits {
			continue
		}
		if parts > 1 { // behind its parts, the record itself only tells how many they are
			key := seriesKey(ref.MetricID, ref.FirstID, 1, 0)
			pending = append(pending, [2][]byte{key, seal(KindSeries, key, binary.AppendUvarint(nil, uint64(parts)))})
		}
		for _, kv := range pending {
			keys++
			size += len(kv[0]) + len(kv[1])
			if err := sink.Put(KindSeries, kv[0], kv[1]); err != nil {
				return ref, keys, size, err
			}
		}
		return ref, keys, size, nil
	}
}

// DeleteStale deletes what an unfinished WritePacked, or the generation before the present one, left behind. It must
// not run while a Packed of an older generation is in use.
func DeleteStale(src Source, sink Sink) error {
	meta, err := readMeta(src)
	if err != nil {
		return err
	}
	for _, kind := range []byte{KindPostings, KindHashes, KindNames} {
		err := src.ScanKeys(kind, nil, nil, func(suffix []byte) (bool, error) {
			if len(suffix) >= 4 && meta.generation != 0 && binary.BigEndian.Uint32(suffix) == meta.generation {
				return true, nil
			}
			return true, sink.Delete(kind, slices.Clone(suffix))
		})
		if err != nil {
			return fmt.Errorf("delete stale index keys: %w", err)
		}
	}
	return nil
}

// WritePacked writes the whole index in packed form: the records that are dirty, then postings, hashes and names of a
// new generation, at last the meta key that makes the generation the present one. src is what is stored already. A
// Packed of the generation before stays readable until DeleteStale.
//
// It needs the read lock, and no series may be added between it and the use of the packed form.
func (m *Mem) WritePacked(ctx context.Context, src Source, sink Sink) (PackStats, error) {
	return m.writePacked(ctx, src, sink, packLimits{block: blockTarget, record: maxRecord, hashes: hashBlockLen})
}

// packLimits are the sizes at which values are closed: bytes of a block, bytes of a record, hashes in a block.
type packLimits struct{ block, record, hashes int }

func (m *Mem) writePacked(ctx context.Context, src Source, sink Sink, limits packLimits) (PackStats, error) {
	if err := DeleteStale(src, sink); err != nil {
		return PackStats{}, err
	}
	old, err := readMeta(src)
	if err != nil {
		return PackStats{}, err
	}
	w := packWriter{m: m, sink: sink, limits: limits, meta: metaRecord{
		generation: old.generation + 1, series: m.SeriesCount(), bound: m.IDBound(), stamp: rand.Uint64(),
	}}
	if w.meta.generation == 0 {
		w.meta.generation = 1
	}
	w.stats.Generation = w.meta.generation
	for _, step := range []func(context.Context) error{w.records, w.postings, w.hashes} {
		if err := step(ctx); err != nil {
			return w.stats, fmt.Errorf("write packed index: %w", err)
		}
	}
	key, value := w.meta.encode()
	w.stats.AllKeys++
	return w.stats, sink.Put(KindMeta, key, value)
}

type packWriter struct {
	m      *Mem
	sink   Sink
	limits packLimits
	meta   metaRecord
	stats  PackStats
	names  []packedName
}

func (w *packWriter) records(ctx context.Context) error {
	var e recordEncoder
	for _, ref := range w.m.DirtyRecords(false, 0) {
		if err := ctx.Err(); err != nil {
			return err
		}
		written, keys, size, err := w.m.writeRecord(w.sink, &e, ref, w.limits.record)
		if err != nil {
			return err
		}
		w.stats.Records = append(w.stats.Records, written)
		w.stats.AllKeys += keys
		w.stats.SeriesBytes += size
	}
	return nil
}

// postings writes, under name 0, the set of all series, then the labels in order of their names.
func (w *packWriter) postings(ctx context.Context) error {
	m := w.m
	all := m.allBitmap()
	if err := w.label(packedName{}, func(pw *postingsWriter) error {
		return addSet(pw, nil, all)
	}); err != nil {
		return err
	}
	numbers := make([]uint32, m.names.len())
	for i := range numbers {
		numbers[i] = uint32(i) + 1
	}
	slices.SortFunc(numbers, func(a, b uint32) int { return cmp.Compare(m.names.str(&m.sym, a), m.names.str(&m.sym, b)) })
	for _, no := range numbers {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.labelOf(ctx, no, all); err != nil {
			return err
		}
	}
	return w.writeNames()
}

// labelOf writes one label: under the empty value the series that lack it, then its values.
func (w *packWriter) labelOf(ctx context.Context, no uint32, all *roaring.Bitmap) error {
	m := w.m
	name := m.names.str(&m.sym, no)
	having, err := m.having(ctx, name)
	if err != nil {
		return err
	}
	n := packedName{name: []byte(name), series: having.GetCardinality()}
	order := m.sortedValues(no)
	x := m.label[no-1]
	for _, v := range order {
		if m.posting(no, v).n > 0 {
			n.values++
			n.bytes += uint64(len(x.value(&m.sym, v)))
		}
	}
	return w.label(n, func(pw *postingsWriter) error {
		if err := addSet(pw, nil, roaring.AndNot(all, having)); err != nil {
			return err
		}
		for i, v := range order {
			if i%ctxEvery == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			if p := m.posting(no, v); p.n > 0 {
				if err := pw.add(x.value(&m.sym, v), p); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func addSet(pw *postingsWriter, value []byte, set *roaring.Bitmap) error {
	if set.IsEmpty() {
		return nil
	}
	return pw.add(value, posting{n: set.GetCardinality(), bitmap: set})
}

func (w *packWriter) label(n packedName, fill func(*postingsWriter) error) error {
	pw := postingsWriter{sink: w.sink, target: w.limits.block, gen: w.meta.generation, name: uint32(len(w.names))}
	if err := fill(&pw); err != nil {
		return err
	}
	if err := pw.flush(false); err != nil {
		return err
	}
	n.blocks, n.last = pw.blocks, pw.last
	w.names = append(w.names, n)
	w.stats.PostingBytes += pw.bytes
	w.stats.AllKeys += int(pw.blocks)
	return nil
}

func (w *packWriter) writeNames() error {
	w.meta.names = uint32(len(w.names))
	var buf, prev []byte
	flush := func() error {
		key := namesKey(w.meta.generation, w.meta.nameChunks)
		w.meta.nameChunks++
		w.stats.AllKeys++
		err := w.sink.Put(KindNames, key, seal(KindNames, key, buf))
		buf, prev = buf[:0], nil
		return err
	}
	for _, n := range w.names {
		buf = appendFrontCoded(buf, prev, n.name)
		prev = n.name
		for _, v := range []uint64{n.series, n.values, n.bytes, uint64(n.blocks)} {
			buf = binary.AppendUvarint(buf, v)
		}
		buf = appendBytes(buf, n.last)
		if len(buf) >= w.limits.block {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if len(buf) > 0 {
		return flush()
	}
	return nil
}

type hashEntry struct {
	hi uint64
	id uint32
}

// hashBlockLen is the number of hashes in a block.
const hashBlockLen = 2048

// hashes writes the upper halves of the hashes in order, with their ids; the series records hold the lower halves.
func (w *packWriter) hashes(ctx context.Context) error {
	m := w.m
	all := make([]hashEntry, 0, m.series)
	for id := range m.records.n {
		if m.has(id) {
			all = append(all, hashEntry{m.hashes.at(id).Hi, id})
		}
	}
	slices.SortFunc(all, func(a, b hashEntry) int {
		if c := cmp.Compare(a.hi, b.hi); c != 0 {
			return c
		}
		return cmp.Compare(a.id, b.id)
	})
	var buf []byte
	prevLast := uint64(0)
	for ; len(all) > 0; w.meta.hashBlocks++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		block := all[:min(w.limits.hashes, len(all))]
		all = all[len(block):]
		last := block[len(block)-1].hi
		key := hashesKey(w.meta.generation, last, w.meta.hashBlocks)
		buf = appendHashBlock(buf[:0], w.meta.hashBlocks, prevLast, block)
		value := seal(KindHashes, key, buf)
		w.stats.HashBytes += len(key) + len(value)
		w.stats.AllKeys++
		if err := w.sink.Put(KindHashes, key, value); err != nil {
			return err
		}
		prevLast = last
	}
	w.meta.lastHash = prevLast
	return nil
}

// The payload of a block of hashes: position, the last hash of the block before, number, the hashes as differences
// (the first from the last of the block before), then four bytes of id for each.
func appendHashBlock(dst []byte, position uint32, prevLast uint64, block []hashEntry) []byte {
	dst = binary.AppendUvarint(dst, uint64(position))
	dst = binary.BigEndian.AppendUint64(dst, prevLast)
	dst = binary.AppendUvarint(dst, uint64(len(block)))
	for _, e := range block {
		dst = binary.AppendUvarint(dst, e.hi-prevLast)
		prevLast = e.hi
	}
	for _, e := range block {
		dst = binary.BigEndian.AppendUint32(dst, e.id)
	}
	return dst
}

func decodeHashBlock(payload []byte) (position uint32, prevLast uint64, block []hashEntry, ok bool) {
	d := decoder{b: payload}
	position = d.u32()
	if p := d.take(8); p != nil {
		prevLast = binary.BigEndian.Uint64(p)
	}
	block = make([]hashEntry, d.count(5))
	hi := prevLast
	for i := range block {
		step := d.uvarint()
		if hi+step < hi {
			return 0, 0, nil, false
		}
		hi += step
		block[i].hi = hi
	}
	for i := range block {
		if b := d.take(4); b != nil {
			block[i].id = binary.BigEndian.Uint32(b)
		}
	}
	return position, prevLast, block, !d.bad && len(d.b) == 0 && len(block) > 0
}
