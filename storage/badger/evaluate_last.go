package badger

import (
	"math/bits"

	"github.com/luminate/luminate/storage/badger/internal/block"
)

// lastSamples are the newest values of a group's series.
type lastSamples struct {
	mask uint64
	vs   [block.GroupSize]float64
}

// readLast finds each wanted series' newest sample in [mint, maxt] without decoding
// anything: the head knows its last samples. It returns false where that is not enough:
// samples after maxt, late or frozen samples, histograms, and blocks that may hold
// newer ones. Histograms and start timestamps of blocks that end before every series'
// newest sample do not matter to it.
func (s *scan) readLast(out *lastSamples, n uint32, want uint64, mint, maxt int64, refuseStarts bool) bool {
	h := &s.db.head
	h.mu.RLock()
	defer h.mu.RUnlock()
	g := s.p.group(n)
	if g == nil || g.frozen != nil || len(g.late) > 0 || len(g.hists) > 0 || refuseStarts && len(g.sts) > 0 {
		return false
	}
	blocks := g.blocksReach(mint)
	out.mask = 0
	for m := want; m != 0; m &= m - 1 {
		slot := bits.TrailingZeros64(m)
		if slot >= len(g.streams) || g.streams[slot].Len() == 0 {
			if blocks {
				return false
			}
			continue
		}
		t, v := g.streams[slot].Last()
		if t > maxt || blocks && t <= g.blocksMax {
			return false
		}
		if t >= mint {
			out.mask |= 1 << slot
			out.vs[slot] = v
		}
	}
	return true
}
