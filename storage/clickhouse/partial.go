package clickhouse

import (
	"github.com/prometheus/prometheus/util/kahansum"

	"github.com/luminate/luminate/storage"
)

// partial is what the samples of one series in one window add up to; partials of a
// group merge in any order.
type partial struct {
	count           uint64
	sum, c          float64 // sum and its compensation
	least, greatest uint64  // images; of NaN if all are
	first, last     uint64  // images of the samples at firstT and lastT
	firstT, lastT   int64
}

// merge adds a series' partial at a step.
func (gr *group) merge(step, steps int, x partial) {
	if gr.whole == nil {
		gr.whole = make([]partial, steps)
	}
	old := &gr.whole[step]
	if old.count == 0 {
		*old = x
		return
	}
	old.count += x.count
	old.sum, old.c = kahansum.Inc(x.sum, old.sum, old.c)
	if old.least < negInfImage || x.least >= negInfImage && x.least < old.least {
		old.least = x.least // a number before NaN
	}
	old.greatest = max(old.greatest, x.greatest)
	if x.firstT < old.firstT || x.firstT == old.firstT && x.first > old.first {
		old.firstT, old.first = x.firstT, x.first
	}
	if x.lastT > old.lastT || x.lastT == old.lastT && x.last > old.last {
		old.lastT, old.last = x.lastT, x.last
	}
}

// fromPartials is the group's answer.
func (gr *group) fromPartials(g *storage.Grid, steps int) storage.GridGroup {
	out := storage.GridGroup{Labels: gr.labels, Values: make([][]float64, len(g.Aggregates))}
	for a, agg := range g.Aggregates {
		out.Values[a] = absentValues(steps)
		for i, x := range gr.whole {
			if x.count > 0 {
				out.Values[a][i] = x.value(agg.Op)
			}
		}
	}
	return out
}

func (x partial) value(op storage.AggOp) float64 {
	switch op {
	case storage.AggSum:
		return x.sum + x.c
	case storage.AggAvg:
		return (x.sum + x.c) / float64(x.count)
	case storage.AggCount:
		return float64(x.count)
	case storage.AggMin:
		return storage.ValueOfImage(x.least)
	case storage.AggMax:
		return storage.ValueOfImage(x.greatest)
	case storage.AggFirst:
		return storage.ValueOfImage(x.first)
	case storage.AggLast:
		return storage.ValueOfImage(x.last)
	default: // AggGroup; the others are refused before
		return 1
	}
}
