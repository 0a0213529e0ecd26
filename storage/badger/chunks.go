package badger

import (
	"cmp"
	"slices"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger/internal/block"
)

// chunkPiece is a stored histogram chunk that lies in the range whole.
type chunkPiece struct {
	lsn  uint64
	slot uint8
	// after is the time of the last sample before the chunk in its block, which its
	// counter reset header speaks of; MinT where the chunk is the series' first there,
	// whose header speaks of nothing.
	after int64
	c     block.HistogramChunk // owns its Data

	decode bool // something speaks against handing it out
}

// follows tells whether a sample is the last before the chunk in its own block. A time
// of the chunk itself never is, also of the same LSN: what is being written out is seen
// in the head and in its block.
func (x *chunkPiece) follows(t int64, lsn uint64) bool {
	return t == x.after && t < x.c.MinT && lsn == x.lsn
}

// keep puts a chunk of s.chunks aside. Its bytes are copied: they are in a buffer,
// and whoever gets the chunk owns it.
func (s *scan) keep(lsn uint64, slot, i int) {
	of := s.chunks.Slots[slot]
	x := chunkPiece{lsn: lsn, slot: uint8(slot), after: of[i].MinT, c: of[i]}
	if i > 0 {
		x.after = of[i-1].MaxT
	}
	x.c.Data = slices.Clone(x.c.Data)
	s.kept = append(s.kept, x)
}

// decodeChunk adds a chunk's samples to the pieces of the group.
func (s *scan) decodeChunk(lsn uint64, slot int, c *block.HistogramChunk) (err error) {
	if s.raw, err = c.AppendSamples(s.raw[:0]); err != nil {
		return err
	}
	for _, h := range s.raw {
		s.hists = append(s.hists, histogramPiece{lsn: lsn, slot: uint8(slot), h: storage.HistogramSample(h)})
	}
	return nil
}

// settleChunks leaves in s.kept, by slot and time, what can be handed out as it is,
// and decodes the rest. A chunk stays whole if it is alone between the sample before
// it in its block and its own last: no tombstone, no late or double sample, no float
// and no other chunk. Then the series is as its block has it there, and what the
// header says of a counter reset is true.
func (s *scan) settleChunks(n uint32) error {
	if len(s.kept) == 0 {
		return nil
	}
	slices.SortFunc(s.kept, func(a, b chunkPiece) int {
		return cmp.Or(cmp.Compare(a.slot, b.slot), cmp.Compare(a.c.MinT, b.c.MinT))
	})
	s.markCrossing()
	for i := range s.kept {
		if x := &s.kept[i]; !x.decode {
			x.decode = s.disturbed(n, x)
		}
	}
	for i := range s.hists {
		s.markAround(&s.hists[i])
	}
	whole := s.kept[:0]
	for _, x := range s.kept {
		if !x.decode {
			whole = append(whole, x)
			continue
		}
		if err := s.decodeChunk(x.lsn, int(x.slot), &x.c); err != nil {
			return storage.Errorf(storage.KindInternal, "select", "histogram chunk of tenant %q, day %d: %w", s.p.tenant.name, s.p.day, err)
		}
	}
	s.kept = whole
	return nil
}

// markCrossing marks chunks of one series that cross each other, or that have
// another one between them and their predecessor.
func (s *scan) markCrossing() {
	var latest, second int // of the chunks before, those that end last; -1 none
	for i := range s.kept {
		x := &s.kept[i]
		if i == 0 || s.kept[i-1].slot != x.slot {
			latest, second = -1, -1
		}
		for _, j := range [...]int{latest, second} {
			if j < 0 {
				continue
			}
			y := &s.kept[j]
			if y.c.MaxT < x.after || x.follows(y.c.MaxT, y.lsn) {
				continue
			}
			x.decode = true
			y.decode = y.decode || y.c.MaxT >= x.c.MinT
		}
		switch {
		case latest < 0 || x.c.MaxT > s.kept[latest].c.MaxT:
			latest, second = i, latest
		case second < 0 || x.c.MaxT > s.kept[second].c.MaxT:
			second = i
		}
	}
}

// disturbed tells whether a tombstone or a float lies in the chunk's span.
func (s *scan) disturbed(n uint32, x *chunkPiece) bool {
	id := n*block.GroupSize + uint32(x.slot)
	for i := range s.tombs {
		if t := &s.tombs[i]; t.hides(x.lsn, id) && t.mint <= x.c.MaxT && t.maxt >= x.after {
			return true
		}
	}
	for _, p := range s.pieces[:s.used] {
		if from, to := cut(p.cols.TS[x.slot], x.after, x.c.MaxT); from < to {
			return true
		}
	}
	return false
}

// markAround marks the chunks in whose span a sample lies that is not the last of
// the chunk before.
func (s *scan) markAround(h *histogramPiece) {
	// Chunks that are not marked yet do not cross, so only neighbours can be meant.
	i, _ := slices.BinarySearchFunc(s.kept, h, func(x chunkPiece, h *histogramPiece) int {
		return cmp.Or(cmp.Compare(x.slot, h.slot), cmp.Compare(x.c.MinT, h.h.T))
	})
	for j := i - 1; j <= i+1; j++ {
		if j < 0 || j >= len(s.kept) || s.kept[j].slot != h.slot {
			continue
		}
		x := &s.kept[j]
		if h.h.T >= x.after && h.h.T <= x.c.MaxT && !x.follows(h.h.T, h.lsn) {
			x.decode = true
		}
	}
}
