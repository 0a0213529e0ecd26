package grid

import (
	"math"

	"github.com/luminate/luminate/storage"
)

// state is one cell of an aggregate.
type state[S any] interface {
	*S
	add(n uint64, t int64, v float64)
	merge(o *S, n, on uint64)
	value(n uint64) float64
}

// column holds one aggregate's cells. counts are the shared counts of the same cells, before the addition.
type column interface {
	// addSteps adds one series' values, Absent where it has none, to the cells of its group, which begin at base.
	addSteps(base int, counts []uint64, values []float64)
	// addSamples adds all samples of a window to a cell.
	addSamples(cell int, count uint64, ts []int64, vs []float64)
	merge(cell int, count uint64, from column, fromCell int, fromCount uint64)
	value(cell int, count uint64) float64
}

type cells[S any, P state[S]] []S

func (c cells[S, P]) addSteps(base int, counts []uint64, values []float64) {
	own := c[base : base+len(values)]
	counts = counts[:len(values)]
	for i, v := range values {
		if !isAbsent(v) {
			P(&own[i]).add(counts[i], 0, v)
		}
	}
}

func (c cells[S, P]) addSamples(cell int, count uint64, ts []int64, vs []float64) {
	s := P(&c[cell])
	for i, v := range vs {
		s.add(count+uint64(i), ts[i], v)
	}
}

func (c cells[S, P]) merge(cell int, count uint64, from column, fromCell int, fromCount uint64) {
	o := from.(cells[S, P])
	if count == 0 {
		c[cell] = o[fromCell]
		return
	}
	P(&c[cell]).merge(&o[fromCell], count, fromCount)
}

func (c cells[S, P]) value(cell int, count uint64) float64 { return P(&c[cell]).value(count) }

func isAbsent(v float64) bool { return math.Float64bits(v) == math.Float64bits(storage.Absent) }

// newColumn returns n empty cells; nil for aggregates that collect values or series instead.
func newColumn(op storage.AggOp, n int) column {
	switch op {
	case storage.AggSum:
		return make(cells[sumState, *sumState], n)
	case storage.AggAvg:
		return make(cells[meanState, *meanState], n)
	case storage.AggCount:
		return make(cells[countState, *countState], n)
	case storage.AggMin:
		return make(cells[minState, *minState], n)
	case storage.AggMax:
		return make(cells[maxState, *maxState], n)
	case storage.AggStddev:
		return make(cells[deviationState, *deviationState], n)
	case storage.AggStdvar:
		return make(cells[varianceState, *varianceState], n)
	case storage.AggGroup:
		return make(cells[groupState, *groupState], n)
	case storage.AggFirst:
		return make(cells[firstState, *firstState], n)
	case storage.AggLast:
		return make(cells[lastState, *lastState], n)
	default:
		return nil
	}
}
