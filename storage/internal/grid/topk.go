package grid

import (
	"math"
	"slices"
	"unsafe"

	"github.com/luminate/luminate/storage"
)

// candidate is a series that may be among the k best of a cell.
type candidate struct {
	v      float64
	series uint32
}

const candidateBytes = int64(unsafe.Sizeof(candidate{}))

// k returns how many the aggregate wants, 0 for none; more than any number of series is math.MaxInt32.
func (p *Plan) k() int {
	arg := p.grid.Aggregates[0].Arg
	switch {
	case math.IsNaN(arg) || arg < 1:
		return 0
	case arg >= math.MaxInt32:
		return math.MaxInt32
	default:
		return int(arg)
	}
}

// better tells whether a stands strictly before b: NaN is worst.
func (p *Plan) better(a, b float64) bool {
	switch {
	case a != a:
		return false
	case b != b:
		return true
	case p.grid.Aggregates[0].Op == storage.AggTopK:
		return a > b
	default:
		return a < b
	}
}

// addCandidates enters a series' values into the cells of its group.
func (s *shard) addCandidates(series uint32, base int, values []float64) error {
	k := s.p.k()
	for i, v := range values {
		if isAbsent(v) {
			continue
		}
		s.counts[base+i]++
		if k == 0 {
			continue
		}
		if err := s.addCandidate(base+i, k, candidate{v: v, series: series}); err != nil {
			return err
		}
	}
	return nil
}

// addCandidate keeps a cell's candidates below 2k or, where many tie for the last place, twice their number. The first
// of a pruned list is its worst, so that most series are refused at one glance.
func (s *shard) addCandidate(cell, k int, c candidate) error {
	list := s.best[cell]
	if len(list) >= k && s.counts[cell]&prunedBit != 0 && s.p.better(list[0].v, c.v) {
		return nil
	}
	if len(list) == cap(list) {
		if len(list) > k {
			list = s.prune(cell, k)
		}
		if 2*len(list) > cap(list) {
			size := max(4, 2*len(list))
			if size > 2*k && len(list) < 2*k {
				size = 2 * k
			}
			// Both copies exist for a moment.
			if err := s.p.budget.Take(int64(size) * candidateBytes); err != nil {
				return err
			}
			s.p.budget.Give(int64(cap(list)) * candidateBytes)
			s.taken += int64(size-cap(list)) * candidateBytes
			list = append(make([]candidate, 0, size), list...)
		}
	}
	s.best[cell] = append(list, c)
	return nil
}

// prunedBit marks in a cell's count that its list was pruned.
const prunedBit = 1 << 63

// prune drops what is worse than the k-th best and puts that one first.
func (s *shard) prune(cell, k int) []candidate {
	list := s.best[cell]
	if len(list) <= k {
		return list
	}
	slices.SortStableFunc(list, func(a, b candidate) int {
		switch {
		case s.p.better(a.v, b.v):
			return -1
		case s.p.better(b.v, a.v):
			return 1
		default:
			return 0
		}
	})
	worst := list[k-1].v
	n := k
	for n < len(list) && !s.p.better(worst, list[n].v) {
		n++
	}
	list = list[:n]
	list[0], list[k-1] = list[k-1], list[0]
	s.counts[cell] |= prunedBit
	s.best[cell] = list
	return list
}

// mergeCandidates enters the candidates of a later chunk.
func (s *shard) mergeCandidates(base int, o *shard) error {
	k := s.p.k()
	for i, list := range o.best {
		s.counts[base+i] += o.counts[i] &^ prunedBit
		for _, c := range list {
			if err := s.addCandidate(base+i, k, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// pickSeries returns the series that some cell of the group keeps, with their values, in order of their numbers.
func (s *shard) pickSeries(group uint32) (series []uint32, rows [][]float64, err error) {
	k := s.p.k()
	if k == 0 {
		return nil, nil, nil
	}
	base := s.base(group)
	at := map[uint32]int{}
	for i := range s.p.steps {
		for _, c := range s.prune(base+i, k) {
			n, ok := at[c.series]
			if !ok {
				if err := s.p.budget.Take(int64(s.p.steps)*8 + 64); err != nil {
					return nil, nil, err
				}
				n = len(series)
				at[c.series] = n
				series = append(series, c.series)
				row := make([]float64, s.p.steps)
				for j := range row {
					row[j] = storage.Absent
				}
				rows = append(rows, row)
			}
			rows[n][i] = c.v
		}
	}
	return series, rows, nil
}
