package badger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	badgerdb "github.com/dgraph-io/badger/v4"

	"github.com/luminate/luminate/storage/badger/internal/block"
)

const (
	// flushGroups bounds one batch of blocks: some 2 MiB of them.
	flushGroups = 256
	// flushRetry is the pause after a failed flush.
	flushRetry = time.Second
)

// groupRef names a group of the head.
type groupRef struct {
	p *partition
	n uint32
}

// flusher writes groups as blocks. Groups are frozen, copied and encoded one by one,
// so that neither the committer nor readers wait for more than one group.
type flusher struct {
	db *DB

	mu     sync.Mutex
	queue  []groupRef
	signal chan struct{}

	work sync.Mutex // one batch at a time
	enc  *block.Encoder
	scan *scan
	hist block.HistogramSlots
	// blocks counts those that were encoded of the present group.
	blocks uint32
}

func newFlusher(db *DB) *flusher {
	return &flusher{db: db, signal: make(chan struct{}, 1), scan: &scan{db: db}}
}

// add queues a group that is due; the caller holds the head's lock.
func (f *flusher) add(p *partition, n uint32) {
	f.mu.Lock()
	f.queue = append(f.queue, groupRef{p: p, n: n})
	f.mu.Unlock()
}

// wake makes run look at the queue.
func (f *flusher) wake() {
	f.mu.Lock()
	n := len(f.queue)
	f.mu.Unlock()
	if n == 0 {
		return
	}
	select {
	case f.signal <- struct{}{}:
	default:
	}
}

// take removes up to n groups from the queue.
func (f *flusher) take(n int) []groupRef {
	f.mu.Lock()
	defer f.mu.Unlock()
	n = min(n, len(f.queue))
	out := slices.Clone(f.queue[:n])
	f.queue = slices.Delete(f.queue, 0, n)
	return out
}

func (f *flusher) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.signal:
		}
		for ctx.Err() == nil {
			groups := f.take(flushGroups)
			if len(groups) == 0 {
				break
			}
			if err := f.write(ctx, groups); err != nil {
				f.db.met.flushErrors.Inc()
				f.db.logger.Error("flush failed; the samples stay in memory and in the log", "err", err, "groups", len(groups))
				f.requeue(groups)
				select {
				case <-ctx.Done():
				case <-time.After(flushRetry):
				}
			}
		}
	}
}

func (f *flusher) requeue(groups []groupRef) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue = append(f.queue, groups...)
}

// flushAll writes every sample of the partitions that is in the head now.
func (f *flusher) flushAll(ctx context.Context, parts []*partition) error {
	var groups []groupRef
	for _, p := range parts {
		// Small partitions share batches.
		groups = append(groups, f.unwritten(p)...)
		if len(groups) < flushGroups {
			continue
		}
		if err := f.write(ctx, groups); err != nil {
			return err
		}
		groups = groups[:0]
	}
	return f.write(ctx, groups)
}

func (f *flusher) everything(ctx context.Context) error {
	return f.flushAll(ctx, f.db.allPartitions())
}

// unwritten lists the groups that hold samples.
func (f *flusher) unwritten(p *partition) (out []groupRef) {
	f.db.head.mu.RLock()
	defer f.db.head.mu.RUnlock()
	for n, g := range p.groups {
		if g != nil && (g.samples > 0 || g.frozen != nil) {
			out = append(out, groupRef{p: p, n: uint32(n)})
		}
	}
	return out
}

// write flushes groups: their samples are in blocks on stable storage, and out of
// the head, when it returns nil.
func (f *flusher) write(ctx context.Context, groups []groupRef) error {
	if len(groups) == 0 {
		return nil
	}
	f.work.Lock()
	defer f.work.Unlock()
	db := f.db
	db.disk.check() // others may fill the disk between two looks of maintenance
	if err := db.disk.flushable(); err != nil {
		return err
	}
	if f.enc == nil {
		f.enc = block.NewEncoder()
	}
	for batch := range slices.Chunk(groups, flushGroups) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := f.writeBatch(batch); err != nil {
			return fmt.Errorf("write blocks: %w", err)
		}
	}
	return nil
}

// writeBatch flushes groups in one batch: first the series that are in the log only,
// then blocks and marks.
func (f *flusher) writeBatch(groups []groupRef) error {
	db := f.db
	var frozen []groupRef
	parts := map[*partition]bool{}
	for _, ref := range groups {
		if !ref.p.dropped.Load() && f.freeze(ref) {
			frozen = append(frozen, ref)
			parts[ref.p] = true
		}
	}
	if len(frozen) == 0 {
		return nil
	}
	// Frozen samples are of series that exist by now.
	if err := db.persistSeries(slices.Collect(maps.Keys(parts))...); err != nil {
		return err
	}
	size, samples, blocks, err := f.writeFrozen(frozen)
	if err != nil {
		return err
	}
	db.head.mu.Lock()
	for i, ref := range frozen {
		if g := ref.p.group(ref.n); g != nil {
			db.head.release(ref.p, g, blocks[i])
		}
	}
	db.head.mu.Unlock()
	db.met.flushedGroups.Add(float64(len(frozen)))
	db.met.flushedSamples.Add(float64(samples))
	db.met.flushedBytes.Add(float64(size))
	return nil
}

// writeFrozen encodes and writes frozen groups; blocks is how many each became.
func (f *flusher) writeFrozen(frozen []groupRef) (size, samples int, blocks []uint32, err error) {
	f.db.kvMu.RLock()
	defer f.db.kvMu.RUnlock()
	wb := f.db.kv.NewWriteBatch()
	defer wb.Cancel()
	blocks = make([]uint32, len(frozen))
	for i, ref := range frozen {
		if ref.p.dropped.Load() {
			continue
		}
		f.blocks = 0
		bytes, count, err := f.encode(wb, ref)
		if err != nil {
			return 0, 0, nil, err
		}
		blocks[i] = f.blocks
		size += bytes
		samples += count
	}
	return size, samples, blocks, f.db.commitBatch(wb)
}

// freeze sets a group's samples aside; true also for one that a failed flush left
// frozen.
func (f *flusher) freeze(ref groupRef) bool {
	h := &f.db.head
	h.mu.Lock()
	defer h.mu.Unlock()
	g := ref.p.group(ref.n)
	if g == nil {
		return false
	}
	g.queued = false
	return h.freeze(ref.p, g) || g.frozen != nil
}

// encode adds the blocks of a frozen group to the batch, and behind them the mark
// that says up to which LSN the group is written.
func (f *flusher) encode(wb *badgerdb.WriteBatch, ref groupRef) (bytes, samples int, err error) {
	p := ref.p
	f.scan.p, f.scan.used, f.scan.hists = p, 0, f.scan.hists[:0]
	lsn, tombs := f.copyFrozen(ref)
	f.scan.tombs = tombs
	f.scan.out.mask = 0
	f.scan.merge(ref.n, math.MaxUint64, math.MinInt64, math.MaxInt64)
	out := &f.scan.out
	samples = out.samples()
	if err := f.encodeFloats(wb, p, ref.n, lsn, 0, out, math.MinInt64, math.MaxInt64, &bytes); err != nil {
		return 0, 0, err
	}
	if err := f.encodeHistograms(wb, p, ref.n, lsn, 0, out, &bytes); err != nil {
		return 0, 0, err
	}
	key := p.flushedKey(ref.n)
	return bytes, samples, wb.Set(key, sealValue(key, binary.BigEndian.AppendUint64(nil, lsn)))
}

// copyFrozen decodes a frozen group into pieces. What a delete hid meanwhile is left
// out, so that it never reaches the disk.
func (f *flusher) copyFrozen(ref groupRef) (lsn uint64, tombs []tombstone) {
	h := &f.db.head
	h.mu.RLock()
	defer h.mu.RUnlock()
	g := ref.p.group(ref.n)
	if g == nil || g.frozen == nil {
		return 0, nil
	}
	z := g.frozen
	f.scan.readOpen(z.lsn, math.MaxUint64, z.streams, z.sts, z.late, z.hists)
	return z.lsn, *ref.p.tombstones.Load()
}

// encodeFloats writes the floats of out in [mint, maxt], in several blocks when one
// cannot hold them.
func (f *flusher) encodeFloats(wb *badgerdb.WriteBatch, p *partition, n uint32, lsn uint64, gen uint16, out *groupColumns, mint, maxt int64, bytes *int) error {
	var cols block.Columns
	lo, hi, total := int64(math.MaxInt64), int64(math.MinInt64), 0
	for slot := range out.ts {
		from, to := cut(out.ts[slot], mint, maxt)
		if from == to {
			continue
		}
		ts := out.ts[slot][from:to]
		cols.TS[slot], cols.VS[slot] = ts, out.vs[slot][from:to]
		if out.sts[slot] != nil {
			for _, st := range out.sts[slot][from:to] {
				cols.ST[slot] = block.AppendST(cols.ST[slot], st)
			}
		}
		lo, hi, total = min(lo, ts[0]), max(hi, ts[len(ts)-1]), total+len(ts)
	}
	if total == 0 {
		return nil
	}
	b, err := f.enc.EncodeFloats(nil, lsn, &cols)
	if errors.Is(err, block.ErrTooLarge) || (err == nil && len(b) > maxValueBytes) {
		if lo == hi {
			return fmt.Errorf("one time of a group has %d samples and %d bytes: %w", total, len(b), err)
		}
		mid := lo + (hi-lo)/2
		return errors.Join(f.encodeFloats(wb, p, n, lsn, gen, out, lo, mid, bytes),
			f.encodeFloats(wb, p, n, lsn, gen, out, mid+1, hi, bytes))
	}
	if err != nil {
		return fmt.Errorf("encode floats: %w", err)
	}
	*bytes += len(b)
	f.blocks++
	return wb.Set(p.blockKey(rowFloats, p.blockKeyOf(n, lo, hi, lsn, gen)), b)
}

// maxValueBytes keeps blocks below Badger's limit for values inside its tree.
const maxValueBytes = 512 << 10

func (p *partition) blockKeyOf(n uint32, mint, maxt int64, lsn uint64, gen uint16) blockKey {
	return blockKey{group: n, t0: uint32(mint - p.mint()), t1: uint32(maxt - p.mint()), lsn: lsn, gen: gen}
}

func (f *flusher) encodeHistograms(wb *badgerdb.WriteBatch, p *partition, n uint32, lsn uint64, gen uint16, out *groupColumns, bytes *int) error {
	any := false
	for slot := range out.hists {
		f.hist[slot] = f.hist[slot][:0]
		for _, h := range out.hists[slot] {
			f.hist[slot] = append(f.hist[slot], block.HistogramSample(h))
			any = true
		}
	}
	if !any {
		return nil
	}
	hist := f.hist
	err := f.encodeHistogramRange(wb, p, n, lsn, gen, &hist, bytes)
	for slot := range f.hist {
		clear(f.hist[slot][:cap(f.hist[slot])])
	}
	return err
}

func (f *flusher) encodeHistogramRange(wb *badgerdb.WriteBatch, p *partition, n uint32, lsn uint64, gen uint16, slots *block.HistogramSlots, bytes *int) error {
	lo, hi := int64(math.MaxInt64), int64(math.MinInt64)
	for _, hs := range slots {
		if len(hs) > 0 {
			lo, hi = min(lo, hs[0].T), max(hi, hs[len(hs)-1].T)
		}
	}
	if lo > hi {
		return nil
	}
	b, err := f.enc.EncodeHistograms(nil, lsn, slots)
	if errors.Is(err, block.ErrTooLarge) || (err == nil && len(b) > maxValueBytes && lo < hi) {
		mid := lo + (hi-lo)/2
		var left, right block.HistogramSlots
		for slot, hs := range slots {
			k, _ := slices.BinarySearchFunc(hs, mid+1, func(h block.HistogramSample, t int64) int {
				if h.T < t {
					return -1
				}
				return 1
			})
			left[slot], right[slot] = hs[:k], hs[k:]
		}
		if lo == hi {
			return fmt.Errorf("histograms of one time are too large for a block: %w", err)
		}
		return errors.Join(f.encodeHistogramRange(wb, p, n, lsn, gen, &left, bytes),
			f.encodeHistogramRange(wb, p, n, lsn, gen, &right, bytes))
	}
	if err != nil {
		return fmt.Errorf("encode histograms: %w", err)
	}
	*bytes += len(b)
	f.blocks++
	return wb.Set(p.blockKey(rowHists, p.blockKeyOf(n, lo, hi, lsn, gen)), b)
}
