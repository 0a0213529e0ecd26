package badger

import (
	"cmp"
	"math"
	"math/bits"
	"slices"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger/internal/block"
)

// compareSamples orders two floats at one time: the greater wins, of equal values
// the one with the greater start timestamp.
func compareSamples(v float64, st int64, w float64, su int64) int {
	if math.Float64bits(v) == math.Float64bits(w) {
		return cmp.Compare(st, su)
	}
	return storage.CompareValues(v, w)
}

// merge joins the pieces of a group into s.out.
func (s *scan) merge(n uint32, want uint64, mint, maxt int64) {
	s.times, s.values, s.starts = s.times[:0], s.values[:0], s.starts[:0]
	out := &s.out
	for m := want; m != 0; m &= m - 1 {
		slot := bits.TrailingZeros64(m)
		out.ts[slot], out.vs[slot], out.sts[slot], out.hists[slot], out.chunks[slot] = nil, nil, nil, nil, nil
		s.mergeSlot(n, slot, mint, maxt)
		if len(out.ts[slot]) > 0 {
			out.mask |= 1 << slot
		}
	}
	if len(s.hists) > 0 {
		s.mergeHistograms(n, mint, maxt)
	}
	for _, x := range s.kept {
		out.chunks[x.slot] = append(out.chunks[x.slot], storage.Chunk(x.c))
		out.mask |= 1 << x.slot
	}
}

// cut returns the part of ascending times that lies in [mint, maxt].
func cut(ts []int64, mint, maxt int64) (from, to int) {
	to = len(ts)
	if to == 0 {
		return 0, 0
	}
	if ts[0] < mint {
		from, _ = slices.BinarySearch(ts, mint)
	}
	if ts[to-1] > maxt {
		to, _ = slices.BinarySearch(ts, maxt+1)
	}
	return from, max(from, to)
}

// mergeSlot joins one series. Nearly always one piece has samples, or several that
// follow each other; only late samples need more.
func (s *scan) mergeSlot(n uint32, slot int, mint, maxt int64) {
	s.order = s.order[:0]
	for i, x := range s.pieces[:s.used] {
		if from, to := cut(x.cols.TS[slot], mint, maxt); from < to {
			s.order = append(s.order, i)
		}
	}
	if len(s.order) == 0 {
		return
	}
	out := &s.out
	if len(s.order) == 1 {
		x := s.pieces[s.order[0]]
		ts, vs, sts := s.visible(x, n, slot, mint, maxt)
		out.ts[slot], out.vs[slot], out.sts[slot] = ts, vs, sts
		return
	}
	slices.SortFunc(s.order, func(a, b int) int {
		return cmp.Compare(s.pieces[a].cols.TS[slot][0], s.pieces[b].cols.TS[slot][0])
	})
	start, hasST, ordered := len(s.times), false, true
	stBase := len(s.starts)
	for _, i := range s.order {
		ts, vs, sts := s.visible(s.pieces[i], n, slot, mint, maxt)
		if len(ts) == 0 {
			continue
		}
		if len(s.times) > start && s.times[len(s.times)-1] >= ts[0] {
			ordered = false
		}
		if sts != nil && !hasST {
			hasST = true
			s.starts = append(s.starts, make([]int64, len(s.times)-start)...)
		}
		s.times = append(s.times, ts...)
		s.values = append(s.values, vs...)
		switch {
		case sts != nil:
			s.starts = append(s.starts, sts...)
		case hasST:
			s.starts = append(s.starts, make([]int64, len(ts))...)
		}
	}
	end := len(s.times)
	ts, vs := s.times[start:end:end], s.values[start:end:end]
	var sts []int64
	if hasST {
		sts = s.starts[stBase:len(s.starts):len(s.starts)]
	}
	if !ordered {
		ts, vs, sts = sortSamples(ts, vs, sts)
	}
	out.ts[slot], out.vs[slot], out.sts[slot] = ts, vs, sts
}

// visible returns a piece's samples of a slot in [mint, maxt] that no tombstone hides.
func (s *scan) visible(x *piece, n uint32, slot int, mint, maxt int64) (ts []int64, vs []float64, sts []int64) {
	from, to := cut(x.cols.TS[slot], mint, maxt)
	ts, vs = x.cols.TS[slot][from:to], x.cols.VS[slot][from:to]
	if runs := x.cols.ST[slot]; runs != nil {
		sts = expandST(nil, runs, to)[from:to]
	}
	id := n*block.GroupSize + uint32(slot)
	for i := range s.tombs {
		if t := &s.tombs[i]; t.hides(x.lsn, id) && len(ts) > 0 && t.mint <= ts[len(ts)-1] && t.maxt >= ts[0] {
			ts, vs, sts = without(ts, vs, sts, t.mint, t.maxt)
		}
	}
	return ts, vs, sts
}

// without returns copies that lack the samples in [mint, maxt].
func without(ts []int64, vs []float64, sts []int64, mint, maxt int64) ([]int64, []float64, []int64) {
	from, to := cut(ts, mint, maxt)
	ts = slices.Concat(ts[:from], ts[to:])
	vs = slices.Concat(vs[:from], vs[to:])
	if sts != nil {
		sts = slices.Concat(sts[:from], sts[to:])
	}
	return ts, vs, sts
}

// sortSamples puts samples of one series into order of time, keeping the winner of
// each time. It works in place.
func sortSamples(ts []int64, vs []float64, sts []int64) ([]int64, []float64, []int64) {
	type sample struct {
		t, st int64
		v     float64
	}
	all := make([]sample, len(ts))
	for i := range ts {
		all[i] = sample{t: ts[i], v: vs[i]}
		if sts != nil {
			all[i].st = sts[i]
		}
	}
	slices.SortFunc(all, func(a, b sample) int {
		return cmp.Or(cmp.Compare(a.t, b.t), compareSamples(b.v, b.st, a.v, a.st))
	})
	k := 0
	for i, x := range all {
		if i > 0 && all[i-1].t == x.t {
			continue
		}
		ts[k], vs[k] = x.t, x.v
		if sts != nil {
			sts[k] = x.st
		}
		k++
	}
	if sts != nil {
		sts = sts[:k]
	}
	return ts[:k], vs[:k], sts
}

// mergeHistograms sorts the histograms into their slots; at one time the greatest
// wins, and any histogram over a float.
func (s *scan) mergeHistograms(n uint32, mint, maxt int64) {
	visible := s.hists[:0]
	for _, x := range s.hists {
		if x.h.T < mint || x.h.T > maxt {
			continue
		}
		id := n*block.GroupSize + uint32(x.slot)
		hidden := slices.ContainsFunc(s.tombs, func(t tombstone) bool {
			return t.hides(x.lsn, id) && x.h.T >= t.mint && x.h.T <= t.maxt
		})
		if !hidden {
			visible = append(visible, x)
		}
	}
	slices.SortFunc(visible, func(a, b histogramPiece) int {
		if c := cmp.Or(cmp.Compare(a.slot, b.slot), cmp.Compare(a.h.T, b.h.T)); c != 0 {
			return c
		}
		return cmp.Or(storage.CompareHistograms(b.h, a.h), cmp.Compare(b.h.ST, a.h.ST))
	})
	out := &s.out
	for i, x := range visible {
		if i > 0 && visible[i-1].slot == x.slot && visible[i-1].h.T == x.h.T {
			continue
		}
		h := x.h
		if h.H != nil { // the head's own object must not reach a caller, who may change it
			h.H = h.H.Copy()
		} else {
			h.FH = h.FH.Copy()
		}
		out.hists[x.slot] = append(out.hists[x.slot], h)
		out.mask |= 1 << x.slot
	}
	for slot := range out.hists {
		if len(out.hists[slot]) > 0 && len(out.ts[slot]) > 0 {
			s.dropFloatsUnder(slot)
		}
	}
}

// dropFloatsUnder removes floats at the times of histograms.
func (s *scan) dropFloatsUnder(slot int) {
	out := &s.out
	for _, h := range out.hists[slot] {
		if _, found := slices.BinarySearch(out.ts[slot], h.T); found {
			out.ts[slot], out.vs[slot], out.sts[slot] = without(out.ts[slot], out.vs[slot], out.sts[slot], h.T, h.T)
		}
	}
}
