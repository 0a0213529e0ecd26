package badger

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger/internal/block"
	"github.com/luminate/luminate/storage/badger/internal/wal"
)

// head holds the samples that are not in blocks yet, of all partitions. One arena
// and one lock serve all of them, so that ten thousand small tenants do not each
// own slabs. The committer takes the lock for each commit, the flusher for moments;
// readers take it shared for one group at a time.
type head struct {
	mu    sync.RWMutex
	arena *block.Arena
	// bytes is the memory of samples: segments, late samples, histograms.
	bytes atomic.Int64
	other int64 // of it, outside the arena

	times  []int64 // scratch of remove
	values []float64

	flushSamples int
	exemplars    int                          // kept for each series
	ready        func(p *partition, n uint32) // a group is due; called with mu held
	now          func() int64
}

// group is 64 neighbouring series of one metric on one day.
type group struct {
	target  uint16 // samples for each series at which the group is due
	queued  bool   // the flusher knows
	streams []block.Stream
	sts     map[uint8][]block.STRun // start timestamps of streams; most groups have none
	late    []lateSample
	hists   []headHistogram
	samples uint32 // in all of the above
	frozen  *frozenGroup
	since   int64  // clock at the first sample that is not frozen
	flushed uint64 // records up to this LSN are in blocks
	epoch   uint64 // partition's epoch at the last release
	// inBlocks tells that blocks may hold samples of the group; none after blocksMax.
	// After a start blocksMax is a guess, the end of the day, until a read knows better.
	inBlocks      bool
	blocksGuessed bool
	blocksMax     int64
	// blocks is how many blocks the group has, where counted: so a table that ends
	// early is noticed by what is missing.
	blocks  uint32
	counted bool
}

// blocksReach tells whether a block of the group may hold a sample at or after mint,
// what is frozen not counted. A group that is not in the head may have any.
func (g *group) blocksReach(mint int64) bool {
	return g == nil || g.inBlocks && g.blocksMax >= mint
}

// frozenGroup is what the flusher is writing; it stays readable until it is written.
type frozenGroup struct {
	lsn     uint64 // of the partition when it was frozen
	streams []block.Stream
	sts     map[uint8][]block.STRun
	late    []lateSample
	hists   []headHistogram
	samples uint32
}

// lateSample is a float that came out of order, or again with another value.
type lateSample struct {
	slot  uint8
	t, st int64
	v     float64
}

type headHistogram struct {
	slot uint8
	h    storage.HistogramSample
}

const (
	lateSampleBytes    = 32
	headHistogramBytes = 1024 // a guess; spans and buckets differ
	millisForever      = math.MaxInt64
)

// applySamples appends the samples of one log record. Groups that hold the record
// already, in a block or a snapshot, are left alone. The caller holds h.mu.
func (h *head) applySamples(p *partition, s *wal.Samples, lsn uint64) (orphans int) {
	now := h.now()
	groups := p.groups
	before := h.arena.UsedBytes()
	for i, ref := range s.Ref {
		n := ref / block.GroupSize
		if int(n) >= len(groups) || groups[n] == nil {
			orphans++
			continue
		}
		g := groups[n]
		slot := int(ref % block.GroupSize)
		if lsn <= g.flushed {
			continue
		}
		if slot >= len(g.streams) {
			g.growTo(slot + 1)
		}
		var st int64
		if len(s.ST) > 0 {
			st = s.ST[i]
		}
		h.appendSample(g, slot, s.T[i], s.V[i], st)
		if g.samples == 1 {
			g.since = now
		}
		if !g.queued && g.samples >= uint32(g.target)*uint32(len(g.streams)) {
			g.queued = true
			h.ready(p, n)
		}
	}
	h.bytes.Add(h.arena.UsedBytes() - before)
	return orphans
}

func (h *head) appendSample(g *group, slot int, t int64, v float64, st int64) {
	s := &g.streams[slot]
	if s.Len() == 0 || t > s.MaxT() {
		if st != 0 || g.sts != nil {
			g.appendST(slot, s.Len(), st)
		}
		s.Append(h.arena, t, v)
		g.samples++
		return
	}
	if lastT, lastV := s.Last(); t == lastT && st == 0 && math.Float64bits(lastV) == math.Float64bits(v) {
		return // a repeat; of equal values the greater start timestamp wins, and 0 is the least
	}
	g.late = append(g.late, lateSample{slot: uint8(slot), t: t, st: st, v: v})
	h.addOther(lateSampleBytes)
	g.samples++
}

// appendST records the start timestamp of the next sample of a stream of n.
func (g *group) appendST(slot, n int, st int64) {
	runs := g.sts[uint8(slot)]
	if runs == nil && st == 0 {
		return
	}
	if g.sts == nil {
		g.sts = map[uint8][]block.STRun{}
	}
	if runs == nil && n > 0 {
		runs = append(runs, block.STRun{Count: uint32(n)})
	}
	g.sts[uint8(slot)] = block.AppendST(runs, st)
}

// growTo makes room for slots, in steps, since most groups of small metrics stay small.
func (g *group) growTo(slots int) {
	if slots > cap(g.streams) {
		size := 4
		for size < slots {
			size *= 2
		}
		grown := make([]block.Stream, slots, size)
		copy(grown, g.streams)
		g.streams = grown
		return
	}
	g.streams = g.streams[:slots]
}

func (h *head) addOther(n int64) {
	h.other += n
	h.bytes.Add(n)
}

// applyHistograms appends histograms of one log record; the caller holds h.mu.
func (h *head) applyHistograms(p *partition, rows []histogramRow, lsn uint64) (orphans int) {
	for _, r := range rows {
		g := p.group(r.ref / block.GroupSize)
		if g == nil {
			orphans++
			continue
		}
		if lsn <= g.flushed {
			continue
		}
		slot := int(r.ref % block.GroupSize)
		if slot >= len(g.streams) {
			g.growTo(slot + 1)
		}
		g.hists = append(g.hists, headHistogram{slot: uint8(slot), h: r.h})
		h.addOther(headHistogramBytes)
		if g.samples++; g.samples == 1 {
			g.since = h.now()
		}
		if !g.queued && g.samples >= uint32(g.target)*uint32(len(g.streams)) {
			g.queued = true
			h.ready(p, r.ref/block.GroupSize)
		}
	}
	return orphans
}

// freeze sets the group's samples aside for the flusher; false if there is nothing
// to write, or an earlier freeze still is. The caller holds h.mu.
func (h *head) freeze(p *partition, g *group) bool {
	if g.frozen != nil || g.samples == 0 {
		return false
	}
	g.frozen = &frozenGroup{lsn: p.applied, streams: g.streams, sts: g.sts, late: g.late, hists: g.hists, samples: g.samples}
	g.streams = make([]block.Stream, len(g.streams))
	g.sts, g.late, g.hists, g.samples = nil, nil, nil, 0
	g.target = uint16(h.flushSamples)
	return true
}

// release drops what was frozen, now that it is in so many blocks. The caller holds
// h.mu.
func (h *head) release(p *partition, g *group, blocks uint32) {
	f := g.frozen
	if f == nil {
		return
	}
	if g.counted = p.rewriting == 0 && (g.counted || !g.inBlocks); g.counted {
		g.blocks += blocks
	}
	g.blocksMax = f.maxT(g.blocksMax, g.inBlocks)
	g.inBlocks = true
	before := h.arena.UsedBytes()
	for i := range f.streams {
		f.streams[i].Reset(h.arena)
	}
	h.bytes.Add(h.arena.UsedBytes() - before)
	h.addOther(-int64(len(f.late)*lateSampleBytes + len(f.hists)*headHistogramBytes))
	g.flushed = f.lsn
	g.frozen = nil
	p.epoch++
	g.epoch = p.epoch
}

// maxT returns the time of the last sample, of several blocks of which known is the last so far.
func (f *frozenGroup) maxT(last int64, known bool) int64 {
	if !known {
		last = math.MinInt64
	}
	for i := range f.streams {
		if f.streams[i].Len() > 0 {
			last = max(last, f.streams[i].MaxT())
		}
	}
	for _, s := range f.late {
		last = max(last, s.t)
	}
	for _, s := range f.hists {
		last = max(last, s.h.T)
	}
	return last
}

// forget drops all samples of a partition without writing them. The caller holds h.mu.
func (h *head) forget(p *partition) {
	before := h.arena.UsedBytes()
	var other int64
	for _, g := range p.groups {
		if g == nil {
			continue
		}
		for i := range g.streams {
			g.streams[i].Reset(h.arena)
		}
		other += int64(len(g.late)*lateSampleBytes + len(g.hists)*headHistogramBytes)
		if f := g.frozen; f != nil {
			for i := range f.streams {
				f.streams[i].Reset(h.arena)
			}
			other += int64(len(f.late)*lateSampleBytes + len(f.hists)*headHistogramBytes)
			g.frozen = nil
		}
	}
	h.bytes.Add(h.arena.UsedBytes() - before)
	h.addOther(-other)
	p.groups = nil
	p.epoch++
}

// remove takes the samples of the wanted slots in [mint, maxt] out of what is not
// frozen, and returns the slots that lost some. The caller holds h.mu.
func (h *head) remove(g *group, want uint64, mint, maxt int64) (hit uint64) {
	before := h.arena.UsedBytes()
	for slot := range g.streams {
		s := &g.streams[slot]
		if want>>slot&1 == 0 || s.Len() == 0 || s.MaxT() < mint {
			continue
		}
		ts, vs := s.Decode(h.arena, h.times[:0], h.values[:0])
		h.times, h.values = ts, vs
		if ts[len(ts)-1] < mint || ts[0] > maxt {
			continue
		}
		sts := expandST(nil, g.sts[uint8(slot)], len(ts))
		kept := 0
		for _, t := range ts {
			if t < mint || t > maxt {
				kept++
			}
		}
		if kept == len(ts) {
			continue
		}
		hit |= 1 << slot
		g.samples -= uint32(len(ts) - kept)
		s.Reset(h.arena)
		delete(g.sts, uint8(slot))
		for i, t := range ts {
			if t >= mint && t <= maxt {
				continue
			}
			if sts != nil {
				g.appendST(slot, s.Len(), sts[i])
			}
			s.Append(h.arena, t, vs[i])
		}
	}
	h.bytes.Add(h.arena.UsedBytes() - before)
	return hit | h.removeOther(g, want, mint, maxt)
}

// removeOther is remove for late samples and histograms.
func (h *head) removeOther(g *group, want uint64, mint, maxt int64) (hit uint64) {
	n := len(g.late)
	g.late = slices.DeleteFunc(g.late, func(s lateSample) bool {
		gone := want>>s.slot&1 != 0 && s.t >= mint && s.t <= maxt
		if gone {
			hit |= 1 << s.slot
		}
		return gone
	})
	h.addOther(-int64(n-len(g.late)) * lateSampleBytes)
	g.samples -= uint32(n - len(g.late))
	n = len(g.hists)
	g.hists = slices.DeleteFunc(g.hists, func(s headHistogram) bool {
		gone := want>>s.slot&1 != 0 && s.h.T >= mint && s.h.T <= maxt
		if gone {
			hit |= 1 << s.slot
		}
		return gone
	})
	h.addOther(-int64(n-len(g.hists)) * headHistogramBytes)
	g.samples -= uint32(n - len(g.hists))
	return hit
}

// expandST turns runs into one start timestamp for each of n samples, nil without runs.
func expandST(dst []int64, runs []block.STRun, n int) []int64 {
	if len(runs) == 0 {
		return nil
	}
	dst = slices.Grow(dst[:0], n)
	for _, r := range runs {
		for range r.Count {
			dst = append(dst, r.ST)
		}
	}
	return dst
}
