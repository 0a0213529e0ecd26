package badger

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	badgerdb "github.com/dgraph-io/badger/v4"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger/internal/block"
)

// lsnLive is the LSN of samples that no tombstone hides: those that are still open
// in the head, from which deletes take samples out.
const lsnLive = math.MaxUint64

// groupColumns are the merged samples of one group: what is hidden, out of range or
// doubled is gone. It is valid during the call that receives it.
type groupColumns struct {
	group uint32
	mask  uint64 // slots that have samples
	ts    [block.GroupSize][]int64
	vs    [block.GroupSize][]float64
	sts   [block.GroupSize][]int64 // start timestamps: nil, or one for each sample
	hists [block.GroupSize][]storage.HistogramSample
	// chunks are histograms beside hists, where the scan keeps chunks.
	chunks [block.GroupSize][]storage.Chunk
	bytes  uint64 // of the blocks that were read
}

// samples counts floats and histograms.
func (g *groupColumns) samples() (n int) {
	for m := g.mask; m != 0; m &= m - 1 {
		slot := bits.TrailingZeros64(m)
		n += len(g.ts[slot]) + len(g.hists[slot])
	}
	return n
}

// piece is one source of a group's samples: a block, or a part of the head.
type piece struct {
	lsn  uint64
	cols block.Columns
}

type histogramPiece struct {
	lsn  uint64
	slot uint8
	h    storage.HistogramSample
}

// scan reads groups of one partition. It keeps its buffers from group to group and
// serves one goroutine.
type scan struct {
	db *DB
	p  *partition

	txn   *badgerdb.Txn
	its   [2]*badgerdb.Iterator // float and histogram blocks
	epoch uint64                // of the partition, before txn was opened

	guessed    bool // when the blocks of the group that is read end
	expect     blockCount
	keepChunks bool // hand out stored histogram chunks where nothing speaks against it

	pieces []*piece
	used   int
	hists  []histogramPiece
	kept   []chunkPiece
	chunks block.HistogramChunks
	raw    []block.HistogramSample
	late   []lateSample
	out    groupColumns
	times  []int64
	values []float64
	starts []int64
	order  []int
	tombs  []tombstone
	list   []storage.Series // of series
	labels []byte
}

// keptPieces and keptSamples bound the buffers of a scan that is kept for the next one.
const (
	keptPieces  = 4
	keptSamples = 1 << 14
)

// newScan returns a scan, with the buffers of an earlier one where there is one; close
// must be called.
func (db *DB) newScan(p *partition) *scan {
	s, ok := db.scans.Get().(*scan)
	if !ok {
		s = &scan{}
	}
	s.db, s.p, s.epoch, s.guessed, s.keepChunks = db, p, 0, false, false
	return s
}

// close releases the read transaction and gives the buffers back: what the scan handed
// out is not valid any more.
func (s *scan) close() {
	s.release()
	db := s.db
	s.db, s.p, s.tombs = nil, nil, nil
	clear(s.list[:cap(s.list)]) // they are others' now
	if s.keepable() {
		db.scans.Put(s)
	}
}

// keepable tells whether the buffers are small; after histograms they are let go.
func (s *scan) keepable() bool {
	if len(s.pieces) > keptPieces || cap(s.times) > keptSamples || cap(s.hists)+cap(s.kept)+cap(s.raw)+cap(s.late) > 0 {
		return false
	}
	for _, x := range s.pieces {
		if x.cols.Room() > keptSamples {
			return false
		}
	}
	return true
}

// release ends the read transaction.
func (s *scan) release() {
	for i, it := range s.its {
		if it != nil {
			it.Close()
			s.its[i] = nil
		}
	}
	if s.txn != nil {
		s.txn.Discard()
		s.txn = nil
	}
}

// open begins a read transaction that sees all that left the head before now.
func (s *scan) open() {
	s.release()
	s.db.head.mu.RLock()
	s.epoch = s.p.epoch
	s.db.head.mu.RUnlock()
	// An iterator pins the tables that it reads. No prefix may be dropped between
	// the transaction and its iterators: blocks that were rewritten since would be
	// too new for the one and gone from the other.
	s.db.kvMu.RLock()
	defer s.db.kvMu.RUnlock()
	s.txn = s.db.view()
	for i, row := range [...]byte{rowFloats, rowHists} {
		o := badgerdb.DefaultIteratorOptions
		o.Prefix, o.PrefetchValues = s.p.rowPrefix(row), false
		s.its[i] = s.txn.NewIterator(o)
	}
}

// scanGroups calls fn for every group of ids with the samples in [mint, maxt] of
// those series. It skips groups without any. fn must not keep what it is given.
func (p *partition) scanGroups(ctx context.Context, db *DB, ids *roaring.Bitmap, mint, maxt int64, fn func(*groupColumns) error) error {
	s := db.newScan(p)
	defer s.close()
	return forEachGroup(ids, func(n uint32, want uint64) error {
		if err := storage.ContextError(ctx, "select"); err != nil {
			return err
		}
		g, err := s.group(n, want, mint, maxt)
		if err != nil || g.mask == 0 {
			return err
		}
		return fn(g)
	})
}

// forEachGroup splits ids into groups and the wanted slots of each.
func forEachGroup(ids *roaring.Bitmap, fn func(n uint32, want uint64) error) error {
	var buf [1024]uint32
	it := ids.ManyIterator()
	cur, want := uint32(math.MaxUint32), uint64(0)
	for k := it.NextMany(buf[:]); k > 0; k = it.NextMany(buf[:]) {
		for _, id := range buf[:k] {
			if n := id / block.GroupSize; n != cur {
				if want != 0 {
					if err := fn(cur, want); err != nil {
						return err
					}
				}
				cur, want = n, 0
			}
			want |= 1 << (id % block.GroupSize)
		}
	}
	if want == 0 {
		return nil
	}
	return fn(cur, want)
}

// group reads one group. The head is copied before the transaction that reads the
// blocks begins, or again if samples left the head in between: so none is missed,
// and what is seen twice is merged away.
func (s *scan) group(n uint32, want uint64, mint, maxt int64) (g *groupColumns, err error) {
	defer damageOf(&err)
	s.used, s.hists, s.kept = 0, s.hists[:0], s.kept[:0]
	s.out.group, s.out.mask, s.out.bytes = n, 0, 0
	if mint > maxt {
		return &s.out, nil
	}
	stale, blocks := s.readHead(n, want, mint)
	if blocks {
		if stale || s.txn == nil {
			s.open()
		}
		if err := s.readBlocks(n, want, mint, maxt); err != nil {
			return nil, err
		}
	}
	s.tombs = *s.p.tombstones.Load()
	if err := s.settleChunks(n); err != nil {
		return nil, err
	}
	s.merge(n, want, mint, maxt)
	return &s.out, nil
}

func (s *scan) piece(lsn uint64) *piece {
	if s.used == len(s.pieces) {
		s.pieces = append(s.pieces, &piece{})
	}
	x := s.pieces[s.used]
	s.used++
	x.lsn = lsn
	return x
}

// readHead copies what the head holds; stale tells that samples have left the head
// since the transaction was opened, blocks that blocks may hold samples from mint on.
func (s *scan) readHead(n uint32, want uint64, mint int64) (stale, blocks bool) {
	h := &s.db.head
	h.mu.RLock()
	defer h.mu.RUnlock()
	g := s.p.group(n)
	s.guessed, s.expect = false, blockCount{}
	if g == nil {
		return s.p.epoch > s.epoch, true
	}
	s.readOpen(lsnLive, want, g.streams, g.sts, g.late, g.hists)
	if f := g.frozen; f != nil {
		s.readOpen(f.lsn, want, f.streams, f.sts, f.late, f.hists)
	}
	s.guessed = g.blocksGuessed
	s.expect = blockCount{of: g, epoch: g.epoch, blocks: g.blocks, counted: g.counted}
	return g.epoch > s.epoch, g.blocksReach(mint)
}

func (s *scan) readOpen(lsn uint64, want uint64, streams []block.Stream, sts map[uint8][]block.STRun, late []lateSample, hists []headHistogram) {
	any := false
	for m := want; m != 0 && !any; m &= m - 1 {
		i := bits.TrailingZeros64(m)
		any = i < len(streams) && streams[i].Len() > 0
	}
	if any {
		x := s.piece(lsn)
		x.cols.LoadStreams(s.db.head.arena, streams, want)
		for slot, runs := range sts {
			if want>>slot&1 != 0 {
				x.cols.ST[slot] = slices.Clone(runs)
			}
		}
	}
	s.late = s.late[:0]
	for _, l := range late {
		if want>>l.slot&1 != 0 {
			s.late = append(s.late, l)
		}
	}
	if len(s.late) > 0 {
		loadLate(&s.piece(lsn).cols, s.late)
	}
	for _, x := range hists {
		if want>>x.slot&1 != 0 {
			s.hists = append(s.hists, histogramPiece{lsn: lsn, slot: x.slot, h: x.h})
		}
	}
}

// loadLate turns late samples into columns, without doubles.
func loadLate(cols *block.Columns, late []lateSample) {
	cols.Reset()
	slices.SortFunc(late, func(a, b lateSample) int {
		switch {
		case a.slot != b.slot:
			return int(a.slot) - int(b.slot)
		case a.t != b.t:
			if a.t < b.t {
				return -1
			}
			return 1
		default:
			return -compareSamples(a.v, a.st, b.v, b.st) // the winner first
		}
	})
	hasST := slices.ContainsFunc(late, func(l lateSample) bool { return l.st != 0 })
	for i, l := range late {
		if i > 0 && late[i-1].slot == l.slot && late[i-1].t == l.t {
			continue
		}
		cols.TS[l.slot] = append(cols.TS[l.slot], l.t)
		cols.VS[l.slot] = append(cols.VS[l.slot], l.v)
		if hasST {
			cols.ST[l.slot] = block.AppendST(cols.ST[l.slot], l.st)
		}
	}
}

// readBlocks decodes the blocks that overlap [mint, maxt].
func (s *scan) readBlocks(n uint32, want uint64, mint, maxt int64) error {
	last, complete, found := int64(math.MinInt64), true, uint32(0)
	for i, row := range [...]byte{rowFloats, rowHists} {
		it := s.its[i]
		prefix := s.p.groupKey(row, n)
		for it.Seek(prefix); it.Valid(); it.Next() {
			item := it.Item()
			key := item.Key()
			if !bytes.HasPrefix(key, prefix) {
				break
			}
			k, err := parseBlockKey(key)
			if err != nil {
				return s.damaged(key, err)
			}
			from := s.p.mint() + int64(k.t0)
			if from > maxt {
				complete = false
				break // keys are in order of their first time
			}
			found++
			to := s.p.mint() + int64(k.t1)
			last = max(last, to)
			if to < mint {
				continue
			}
			err = item.Value(func(b []byte) error {
				s.out.bytes += uint64(len(b))
				if row == rowFloats {
					return s.readFloats(b, k, want)
				}
				return s.readHistograms(b, k, want, mint, maxt)
			})
			if err != nil {
				return s.damaged(key, err)
			}
		}
	}
	if !complete {
		return nil
	}
	if s.guessed {
		s.learn(n, last)
	}
	return s.checkBlocks(n, found)
}

// blockCount is what the head knew of a group's blocks before they were read.
type blockCount struct {
	of      *group // nil: nothing
	epoch   uint64
	blocks  uint32
	counted bool
}

// checkBlocks holds the number of a group's blocks against what was written: Badger's
// iterators go on behind a damaged part of a table without a word. Where nobody has
// counted yet, the number is taken for the reads to come; tables were verified at the
// start. What changed meanwhile is not judged.
func (s *scan) checkBlocks(n, found uint32) error {
	x := &s.expect
	if x.of == nil || x.counted && found >= x.blocks {
		return nil
	}
	h := &s.db.head
	h.mu.Lock()
	defer h.mu.Unlock()
	g := s.p.group(n)
	switch {
	case g != x.of || g.epoch != x.epoch || g.epoch > s.epoch || g.frozen != nil || s.p.rewriting > 0 || s.p.dropped.Load():
		return nil
	case !g.counted:
		g.blocks, g.counted = found, true
		return nil
	case !x.counted:
		return nil
	}
	return s.damaged(s.p.groupKey(rowFloats, n), fmt.Errorf("%d of the group's %d blocks are there: %w", found, x.blocks, errDamaged))
}

// learn notes up to when the blocks of a group reach, unless more were written since.
func (s *scan) learn(n uint32, last int64) {
	h := &s.db.head
	h.mu.Lock()
	defer h.mu.Unlock()
	if g := s.p.group(n); g != nil && g.blocksGuessed && g.epoch <= s.epoch {
		g.blocksGuessed, g.blocksMax = false, last
	}
}

// damaged reports a value that cannot be read: a query that meets it fails, since a
// short answer would be silent loss.
func (s *scan) damaged(key []byte, err error) error {
	s.db.met.damaged.Inc()
	return storage.Errorf(storage.KindInternal, "select", "block %x of tenant %q, day %d: %w", key, s.p.tenant.name, s.p.day, err)
}

func (s *scan) checkHeader(h block.Header, k blockKey) error {
	base := s.p.mint()
	if h.LSN != k.lsn || h.MinT != base+int64(k.t0) || h.MaxT != base+int64(k.t1) {
		return fmt.Errorf("block header does not fit its key: %w", errDamaged)
	}
	return nil
}

func (s *scan) readFloats(b []byte, k blockKey, want uint64) error {
	f, err := block.OpenFloats(b)
	if err != nil {
		return err
	}
	if err := s.checkHeader(f.Header, k); err != nil {
		return err
	}
	if f.Slots&want == 0 {
		return nil
	}
	return f.Decode(&s.piece(k.lsn).cols, want)
}

func (s *scan) readHistograms(b []byte, k blockKey, want uint64, mint, maxt int64) error {
	f, err := block.OpenHistograms(b)
	if err != nil {
		return err
	}
	if err := s.checkHeader(f.Header, k); err != nil {
		return err
	}
	if err := f.Decode(&s.chunks, want); err != nil {
		return err
	}
	for slot := range s.chunks.Slots {
		for i := range s.chunks.Slots[slot] {
			c := &s.chunks.Slots[slot][i]
			if c.MaxT < mint || c.MinT > maxt {
				continue
			}
			if s.keepChunks && c.MinT >= mint && c.MaxT <= maxt {
				s.keep(k.lsn, slot, i)
				continue
			}
			if err := s.decodeChunk(k.lsn, slot, c); err != nil {
				return err
			}
		}
	}
	return nil
}
