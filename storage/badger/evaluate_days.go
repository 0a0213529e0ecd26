package badger

import (
	"cmp"
	"context"
	"slices"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger/internal/block"
	"github.com/luminate/luminate/storage/badger/internal/index"
	"github.com/luminate/luminate/storage/internal/grid"
)

// daysEvaluation evaluates series over several partitions. A series has another
// number on each day; its hash finds them. Series are visited in the order of the
// newest day that has them, their home, since neighbours there mostly were
// neighbours the days before.
type daysEvaluation struct {
	*evaluation
	parts []*partition // oldest first
	table hashTable
	refs  [][]uint32 // by partition and series: number there + 1, 0 = none
	of    []uint32   // group of each series; empty if there is one
	names []storage.Labels
	known map[string]uint32 // groups by their labels
	units []homeUnit
}

// homeUnit is series [first, first+n), of one group of their home partition.
type homeUnit struct {
	first uint32
	n     uint32
}

// joinedBytes is the memory of a series without its numbers on each day.
const joinedBytes = 16 + 8 + 4

func (e *evaluation) days(ctx context.Context) (*storage.GridResult, error) {
	d := &daysEvaluation{evaluation: e, parts: e.x.parts, known: map[string]uint32{}, refs: make([][]uint32, len(e.x.parts))}
	for i := len(d.parts) - 1; i >= 0; i-- {
		if err := d.addPart(ctx, i); err != nil {
			if ctxErr := storage.ContextError(ctx, "evaluate"); ctxErr != nil {
				return nil, ctxErr
			}
			return nil, err
		}
	}
	for i, refs := range d.refs {
		d.refs[i] = append(refs, make([]uint32, len(d.table.hashes)-len(refs))...)
	}
	chunks := e.plan.Chunks(len(d.units), grid.DefaultCut, d.span)
	return grid.Evaluate(ctx, e.plan, chunks, uint32(len(d.names)), func() grid.Worker { return newDaysWorker(d) }, d)
}

// addPart enters the selected series of a partition.
func (d *daysEvaluation) addPart(ctx context.Context, part int) error {
	return d.db.withIndex(ctx, d.parts[part], func(r index.Reader) error {
		ids, err := r.Select(ctx, d.g.Matchers...)
		if err != nil {
			return err
		}
		groups, err := d.groups(ctx, r, ids)
		if err != nil {
			return err
		}
		if err := d.budget.Take(int64(ids.GetCardinality()) * int64(joinedBytes+4*len(d.parts))); err != nil {
			return err
		}
		numbers := d.mergeGroups(groups.Labels)
		refs := make([]uint32, len(d.table.hashes), len(d.table.hashes)+int(ids.GetCardinality()))
		rank, home := 0, ^uint32(0)
		it := ids.Iterator()
		for it.HasNext() {
			id := it.Next()
			if rank%4096 == 0 {
				if err := storage.ContextError(ctx, "evaluate"); err != nil {
					return err
				}
			}
			hash, err := r.Hash(id)
			if err != nil {
				return err
			}
			series, known := d.table.add(hash)
			if known {
				refs[series] = id + 1
			} else {
				refs = append(refs, id+1)
				if len(groups.Of) > 0 {
					d.of = append(d.of, numbers[groups.Of[rank]])
				}
				if id/block.GroupSize != home {
					home = id / block.GroupSize
					d.units = append(d.units, homeUnit{first: series})
				}
				d.units[len(d.units)-1].n++
			}
			rank++
		}
		d.refs[part] = refs
		return nil
	})
}

// mergeGroups numbers the groups of one day among those of all days.
func (d *daysEvaluation) mergeGroups(labels [][]byte) []uint32 {
	numbers := make([]uint32, len(labels))
	for i, ls := range labels {
		n, ok := d.known[string(ls)]
		if !ok {
			n = uint32(len(d.names))
			d.known[string(ls)] = n
			d.names = append(d.names, ls)
		}
		numbers[i] = n
	}
	return numbers
}

func (d *daysEvaluation) span(i int) (lo, hi uint32) {
	return spanOf(d.of, d.units[i].first, int(d.units[i].n))
}

// GroupLabels implements grid.Source.
func (d *daysEvaluation) GroupLabels(group uint32) (storage.Labels, error) {
	return d.names[group], nil
}

// SeriesLabels implements grid.Source.
func (d *daysEvaluation) SeriesLabels(series []uint32) ([]storage.Labels, error) {
	return eachSeries(series, d.seriesLabels)
}

func (d *daysEvaluation) seriesLabels(series uint32) (storage.Labels, error) {
	for i, refs := range d.refs {
		if refs[series] != 0 {
			return d.db.labelsOf(d.parts[i], refs[series]-1)
		}
	}
	return nil, errDamaged // every series came from some partition
}

// daysWorker is one goroutine of a daysEvaluation. It joins the days' samples of the
// series of one unit.
type daysWorker struct {
	*daysEvaluation
	scans  []*scan
	wanted []wantedSlot
	ts     [block.GroupSize][]int64
	vs     [block.GroupSize][]float64
	taken  int64 // of the budget, for ts and vs
}

// wantedSlot says where a series of a unit stands on one day.
type wantedSlot struct {
	id uint32
	at uint8 // in the unit
}

func newDaysWorker(d *daysEvaluation) *daysWorker {
	w := &daysWorker{daysEvaluation: d}
	for _, p := range d.parts {
		w.scans = append(w.scans, d.db.newScan(p))
	}
	return w
}

// Close implements grid.Worker.
func (w *daysWorker) Close() {
	for _, s := range w.scans {
		s.close()
	}
}

// Chunk implements grid.Worker.
func (w *daysWorker) Chunk(ctx context.Context, c grid.Chunk, s *grid.Shard) error {
	for i := c.From; i < c.To; i++ {
		u := &w.units[i]
		for k := range int(u.n) {
			w.ts[k], w.vs[k] = w.ts[k][:0], w.vs[k][:0]
		}
		for part := range w.parts {
			if err := storage.ContextError(ctx, "evaluate"); err != nil {
				return err
			}
			if err := w.read(ctx, part, u); err != nil {
				return err
			}
			if err := w.account(); err != nil {
				return err
			}
		}
		s.NextColumns()
		series, samples := 0, 0
		for k := range int(u.n) {
			if len(w.ts[k]) == 0 {
				continue
			}
			series++
			samples += len(w.ts[k])
			n := u.first + uint32(k)
			if err := s.Add(n, groupAt(w.of, n), w.ts[k], w.vs[k]); err != nil {
				return err
			}
		}
		if err := w.count(series, samples, 0); err != nil {
			return err
		}
	}
	return nil
}

// account takes the memory of the joined samples from the budget.
func (w *daysWorker) account() error {
	held := int64(0)
	for k := range w.ts {
		held += 8 * int64(cap(w.ts[k])+cap(w.vs[k]))
	}
	if held <= w.taken {
		return nil
	}
	if err := w.budget.Take(held - w.taken); err != nil {
		return err
	}
	w.taken = held
	return nil
}

// read appends one day's samples of a unit's series.
func (w *daysWorker) read(ctx context.Context, part int, u *homeUnit) error {
	w.wanted = w.wanted[:0]
	for k := range int(u.n) {
		if ref := w.refs[part][int(u.first)+k]; ref != 0 {
			w.wanted = append(w.wanted, wantedSlot{id: ref - 1, at: uint8(k)})
		}
	}
	slices.SortFunc(w.wanted, func(a, b wantedSlot) int { return cmp.Compare(a.id, b.id) })
	for rest := w.wanted; len(rest) > 0; {
		group, want, n := rest[0].id/block.GroupSize, uint64(0), 0
		for n < len(rest) && rest[n].id/block.GroupSize == group {
			want |= 1 << (rest[n].id % block.GroupSize)
			n++
		}
		mint, err := w.x.mint(ctx, w.parts[part], group)
		if err != nil {
			return err
		}
		g, err := w.scans[part].group(group, want, mint, w.x.s.MaxT)
		if err != nil {
			return err
		}
		if err := w.supported(g); err != nil {
			return err
		}
		w.bytes.Add(g.bytes)
		for _, x := range rest[:n] {
			slot := x.id % block.GroupSize
			if g.mask>>slot&1 != 0 {
				w.ts[x.at], w.vs[x.at] = append(w.ts[x.at], g.ts[slot]...), append(w.vs[x.at], g.vs[slot]...)
			}
		}
		rest = rest[n:]
	}
	return nil
}

// hashTable numbers hashes in order of their first add.
type hashTable struct {
	hashes []index.Hash128
	slots  []uint32 // number + 1; open addressing, a power of two
}

// add returns the hash's number and whether it was known.
func (t *hashTable) add(h index.Hash128) (n uint32, known bool) {
	if 2*(len(t.hashes)+1) > len(t.slots) {
		t.grow()
	}
	mask := uint64(len(t.slots) - 1)
	i := h.Lo & mask
	for ; t.slots[i] != 0; i = (i + 1) & mask {
		if t.hashes[t.slots[i]-1] == h {
			return t.slots[i] - 1, true
		}
	}
	t.hashes = append(t.hashes, h)
	t.slots[i] = uint32(len(t.hashes))
	return uint32(len(t.hashes)) - 1, false
}

func (t *hashTable) grow() {
	t.slots = make([]uint32, max(64, 2*len(t.slots)))
	mask := uint64(len(t.slots) - 1)
	for n, h := range t.hashes {
		i := h.Lo & mask
		for t.slots[i] != 0 {
			i = (i + 1) & mask
		}
		t.slots[i] = uint32(n) + 1
	}
}
