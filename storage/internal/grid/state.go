package grid

import (
	"math"
	"unsafe"

	"github.com/prometheus/prometheus/util/kahansum"

	"github.com/luminate/luminate/storage"
)

// The states are what storage.Accumulator keeps for one group at one step, without the count, which all aggregates
// share. add takes the count before v; merge appends what came later, with the counts of both sides.

type sumState struct{ v, c float64 }

func (s *sumState) add(n uint64, _ int64, v float64) {
	if n == 0 {
		s.v = v
		return
	}
	s.v, s.c = kahansum.Inc(v, s.v, s.c)
}

func (s *sumState) merge(o *sumState, _, _ uint64) {
	s.v, s.c = kahansum.Inc(o.v, s.v, s.c)
	s.c += o.c
}

func (s *sumState) value(uint64) float64 { return s.v + s.c }

// meanState is a Kahan sum until it would overflow, then an incremental mean.
type meanState struct {
	sum, c, mean float64
	incremental  bool
}

func (m *meanState) add(n uint64, _ int64, v float64) {
	if n == 0 {
		m.sum, m.mean = v, v
		return
	}
	count := float64(n + 1)
	if !m.incremental {
		sum, c := kahansum.Inc(v, m.sum, m.c)
		if !math.IsInf(sum, 0) {
			m.sum, m.c = sum, c
			return
		}
		m.incremental = true
		m.mean = m.sum / (count - 1)
		m.c /= count - 1
	}
	q := (count - 1) / count
	m.mean, m.c = kahansum.Inc(v/count, q*m.mean, q*m.c)
}

func (m *meanState) merge(o *meanState, n, on uint64) {
	if !m.incremental && !o.incremental {
		sum, c := kahansum.Inc(o.sum, m.sum, m.c)
		if !math.IsInf(sum, 0) {
			m.sum, m.c = sum, c+o.c
			return
		}
	}
	share := float64(n) / float64(n+on)
	oshare := float64(on) / float64(n+on)
	mean, c := m.parts(n)
	omean, oc := o.parts(on)
	m.incremental = true
	m.mean, m.c = kahansum.Inc(omean*oshare, mean*share, c*share)
	m.c += oc * oshare
}

// parts returns the mean and its compensation.
func (m *meanState) parts(n uint64) (mean, c float64) {
	if m.incremental {
		return m.mean, m.c
	}
	return m.sum / float64(n), m.c / float64(n)
}

func (m *meanState) value(n uint64) float64 {
	mean, c := m.parts(n)
	return mean + c
}

type minState struct{ v float64 }

func (s *minState) add(n uint64, _ int64, v float64) {
	if n == 0 || s.v > v || s.v != s.v {
		s.v = v
	}
}

func (s *minState) merge(o *minState, _, _ uint64) { s.add(1, 0, o.v) }
func (s *minState) value(uint64) float64           { return s.v }

type maxState struct{ v float64 }

func (s *maxState) add(n uint64, _ int64, v float64) {
	if n == 0 || s.v < v || s.v != s.v {
		s.v = v
	}
}

func (s *maxState) merge(o *maxState, _, _ uint64) { s.add(1, 0, o.v) }
func (s *maxState) value(uint64) float64           { return s.v }

// varianceState is Welford's method; a first value that is not finite makes the result NaN.
type varianceState struct{ mean, v float64 }

func (s *varianceState) add(n uint64, _ int64, v float64) {
	if n == 0 {
		s.mean = v
		if math.IsNaN(v) || math.IsInf(v, 0) {
			s.v = math.NaN()
		}
		return
	}
	delta := v - s.mean
	s.mean += delta / float64(n+1)
	s.v += delta * (v - s.mean)
}

func (s *varianceState) merge(o *varianceState, n, on uint64) {
	delta, total := o.mean-s.mean, float64(n+on)
	s.mean += delta * (float64(on) / total)
	s.v += o.v + delta*(delta*(float64(n)*(float64(on)/total)))
}

func (s *varianceState) value(n uint64) float64 { return s.v / float64(n) }

type deviationState struct{ varianceState }

func (s *deviationState) merge(o *deviationState, n, on uint64) {
	s.varianceState.merge(&o.varianceState, n, on)
}
func (s *deviationState) value(n uint64) float64 { return math.Sqrt(s.varianceState.value(n)) }

// firstState and lastState are the sample with the least or greatest time, of several the greatest value.
type firstState struct {
	t int64
	v float64
}

func (s *firstState) add(n uint64, t int64, v float64) {
	if n == 0 || t < s.t || t == s.t && storage.CompareValues(v, s.v) > 0 {
		s.t, s.v = t, v
	}
}

func (s *firstState) merge(o *firstState, _, _ uint64) { s.add(1, o.t, o.v) }
func (s *firstState) value(uint64) float64             { return s.v }

type lastState struct {
	t int64
	v float64
}

func (s *lastState) add(n uint64, t int64, v float64) {
	if n == 0 || t > s.t || t == s.t && storage.CompareValues(v, s.v) > 0 {
		s.t, s.v = t, v
	}
}

func (s *lastState) merge(o *lastState, _, _ uint64) { s.add(1, o.t, o.v) }
func (s *lastState) value(uint64) float64            { return s.v }

// countState and groupState keep nothing: the count says it all.
type countState struct{}

func (*countState) add(uint64, int64, float64)        {}
func (*countState) merge(*countState, uint64, uint64) {}
func (*countState) value(n uint64) float64            { return float64(n) }

type groupState struct{}

func (*groupState) add(uint64, int64, float64)        {}
func (*groupState) merge(*groupState, uint64, uint64) {}
func (*groupState) value(uint64) float64              { return 1 }

const countBytes = int64(unsafe.Sizeof(uint64(0)))

// stateBytes is the memory of one cell of an aggregate, without what quantile and topk collect.
func stateBytes(op storage.AggOp) int64 {
	switch op {
	case storage.AggSum:
		return int64(unsafe.Sizeof(sumState{}))
	case storage.AggAvg:
		return int64(unsafe.Sizeof(meanState{}))
	case storage.AggMin, storage.AggMax:
		return int64(unsafe.Sizeof(minState{}))
	case storage.AggStddev, storage.AggStdvar:
		return int64(unsafe.Sizeof(varianceState{}))
	case storage.AggFirst, storage.AggLast:
		return int64(unsafe.Sizeof(firstState{}))
	case storage.AggTopK, storage.AggBottomK:
		return int64(unsafe.Sizeof([]candidate{}))
	default:
		return 0
	}
}
