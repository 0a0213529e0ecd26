package storage

import (
	"math"

	"github.com/prometheus/prometheus/util/kahansum"
)

// Accumulator aggregates the values of one group at one step. The zero value is
// empty. It follows the aggregation loop of Prometheus's promql/engine.go at
// v0.316, in which the order of additions is the order of Add.
type Accumulator struct {
	seen   bool
	count  float64
	v, c   float64   // sum, min, max, variance: value and its compensation
	mean   meanState // AggAvg; for AggStddev its mean field alone
	values []float64 // AggQuantile
	t      int64     // AggFirst, AggLast
}

// Add adds value v, of a sample at t where that matters (AggFirst, AggLast).
func (a *Accumulator) Add(op AggOp, t int64, v float64) {
	first := !a.seen
	a.seen = true
	a.count++
	switch op {
	case AggSum:
		if first {
			a.v = v
			return
		}
		a.v, a.c = kahansum.Inc(v, a.v, a.c)
	case AggAvg:
		a.mean.add(v)
	case AggMin:
		if first || a.v > v || math.IsNaN(a.v) {
			a.v = v
		}
	case AggMax:
		if first || a.v < v || math.IsNaN(a.v) {
			a.v = v
		}
	case AggStddev, AggStdvar:
		a.addVariance(first, v)
	case AggQuantile:
		a.values = append(a.values, v)
	case AggFirst:
		if first || t < a.t || t == a.t && CompareValues(v, a.v) > 0 {
			a.t, a.v = t, v
		}
	case AggLast:
		if first || t > a.t || t == a.t && CompareValues(v, a.v) > 0 {
			a.t, a.v = t, v
		}
	case AggCount, AggGroup, AggTopK, AggBottomK:
		// The count says it all; topk and bottomk do not accumulate.
	}
}

// addVariance is Welford's method as the engine has it: a first value that is
// not finite makes the whole result NaN.
func (a *Accumulator) addVariance(first bool, v float64) {
	if first {
		a.mean.mean = v
		if math.IsNaN(v) || math.IsInf(v, 0) {
			a.v = math.NaN()
		}
		return
	}
	delta := v - a.mean.mean
	a.mean.mean += delta / a.count
	a.v += delta * (v - a.mean.mean)
}

// Value returns the aggregate, Absent if nothing was added.
func (a *Accumulator) Value(agg Aggregate) float64 {
	if !a.seen {
		return Absent
	}
	switch agg.Op {
	case AggSum:
		return a.v + a.c
	case AggAvg:
		return a.mean.value()
	case AggCount:
		return a.count
	case AggGroup:
		return 1
	case AggStdvar:
		return a.v / a.count
	case AggStddev:
		return math.Sqrt(a.v / a.count)
	case AggQuantile:
		return Quantile(agg.Arg, a.values)
	default:
		return a.v
	}
}
