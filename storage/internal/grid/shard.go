package grid

import (
	"unsafe"

	"github.com/luminate/luminate/storage"
)

// shard accumulates the groups [lo, hi) of one chunk, or of the whole answer.
type shard struct {
	p       *Plan
	lo, hi  uint32
	counts  []uint64 // by (group-lo)*steps+step
	columns []column // by aggregate; nil entries collect instead
	best    [][]candidate
	values  valueList
	taken   int64
}

// valueList holds the values behind quantiles with their cells, in order of arrival.
type valueList struct {
	cells  []uint64 // of the whole answer
	values []float64
	taken  int64
}

const valueBytes = int64(unsafe.Sizeof(uint64(0)) + unsafe.Sizeof(float64(0)))

func newShard(p *Plan, lo, hi uint32) (*shard, error) {
	n := int64(hi-lo) * int64(p.steps)
	s := &shard{p: p, lo: lo, hi: hi, taken: n * p.cellBytes}
	if err := p.budget.Take(s.taken); err != nil {
		return nil, err
	}
	s.counts = make([]uint64, n)
	if p.topk {
		s.best = make([][]candidate, n)
		return s, nil
	}
	s.columns = make([]column, len(p.grid.Aggregates))
	for a, agg := range p.grid.Aggregates {
		s.columns[a] = newColumn(agg.Op, int(n))
	}
	return s, nil
}

// Shard is where a chunk's series are added, in order, by one goroutine.
type Shard struct {
	*shard
	kernel *Kernel
}

// Add evaluates a series, whose number matters to topk and bottomk only, and adds it to a group of the chunk.
func (s *Shard) Add(series, group uint32, ts []int64, vs []float64) error {
	if s.p.grid.Func == storage.FuncNone {
		return s.addSamples(group, ts, vs)
	}
	if values := s.kernel.Eval(ts, vs); values != nil {
		return s.addValues(series, group, values)
	}
	return nil
}

// AddLast adds the value of a series to the only step of a grid with LastOnly.
func (s *Shard) AddLast(series, group uint32, v float64) error {
	if storage.IsStale(v) {
		return nil
	}
	s.kernel.out[0] = v
	return s.addValues(series, group, s.kernel.out)
}

func (s *shard) base(group uint32) int { return int(group-s.lo) * s.p.steps }

func (s *shard) addValues(series, group uint32, values []float64) error {
	base := s.base(group)
	if s.p.topk {
		return s.addCandidates(series, base, values)
	}
	counts := s.counts[base : base+len(values)]
	for _, c := range s.columns {
		if c != nil {
			c.addSteps(base, counts, values)
		}
	}
	n := 0
	for i, v := range values {
		if !isAbsent(v) {
			counts[i]++
			n++
		}
	}
	if !s.p.quantile {
		return nil
	}
	if err := s.values.reserve(s.p.budget, n); err != nil {
		return err
	}
	first := uint64(group) * uint64(s.p.steps)
	for i, v := range values {
		if !isAbsent(v) {
			s.values.cells, s.values.values = append(s.values.cells, first+uint64(i)), append(s.values.values, v)
		}
	}
	return nil
}

// addSamples hands all samples of each window to the aggregates.
func (s *Shard) addSamples(group uint32, ts []int64, vs []float64) error {
	k := s.kernel
	ts, vs = k.dropStale(ts, vs)
	if len(ts) == 0 || !k.windows(ts) {
		return nil
	}
	base := s.base(group)
	for i, hi := range k.hi {
		lo := k.lo[i]
		if lo == hi {
			continue
		}
		count := s.counts[base+i]
		for _, c := range s.columns {
			if c != nil {
				c.addSamples(base+i, count, ts[lo:hi], vs[lo:hi])
			}
		}
		s.counts[base+i] += uint64(hi - lo)
		if !s.p.quantile {
			continue
		}
		if err := s.values.reserve(s.p.budget, int(hi-lo)); err != nil {
			return err
		}
		cell := uint64(group)*uint64(s.p.steps) + uint64(i)
		for _, v := range vs[lo:hi] {
			s.values.cells, s.values.values = append(s.values.cells, cell), append(s.values.values, v)
		}
	}
	return nil
}

// reserve makes room for n values. Twice the size is taken when the list moves, since both copies exist then, and
// another 8 bytes for each value, which the final sort into cells needs.
func (l *valueList) reserve(b *Budget, n int) error {
	if len(l.values)+n <= cap(l.values) {
		return nil
	}
	size := max(1024, 2*cap(l.values), len(l.values)+n)
	want := int64(size) * (valueBytes + 8)
	if err := b.Take(want); err != nil {
		return err
	}
	cells, values := make([]uint64, len(l.cells), size), make([]float64, len(l.values), size)
	copy(cells, l.cells)
	copy(values, l.values)
	b.Give(l.taken)
	l.cells, l.values, l.taken = cells, values, want
	return nil
}

// merge appends a later chunk to the shard, which spans its groups.
func (s *shard) merge(o *shard) error {
	base := s.base(o.lo)
	if s.p.topk {
		return s.mergeCandidates(base, o)
	}
	for i, on := range o.counts {
		if on == 0 {
			continue
		}
		n := s.counts[base+i]
		for a, c := range s.columns {
			if c != nil {
				c.merge(base+i, n, o.columns[a], i, on)
			}
		}
		s.counts[base+i] = n + on
	}
	return nil
}

// free returns the shard's cells to the budget.
func (s *shard) free() {
	s.p.budget.Give(s.taken)
	s.counts, s.columns, s.best, s.taken = nil, nil, nil, 0
}

// NextColumns must be called before the memory of times that Add was given is written again.
func (s *Shard) NextColumns() { s.kernel.Reset() }
