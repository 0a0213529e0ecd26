package storage

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/util/kahansum"
)

// EvalWindow applies f to the samples of one window (after, upto], which hold no
// staleness markers unless f is FuncLast. prev is the newest sample before the
// window, used by FuncNativeRate only (nil if there is none within
// NativeRateLookback of the first sample). ok is false where the series has no
// value at the step.
//
// It is the reference: formulas and the order of additions are those of
// Prometheus's promql/functions.go at v0.316, without start timestamps.
func EvalWindow(f Func, arg float64, samples []Sample, after, upto int64, prev *Sample) (v float64, ok bool) {
	if len(samples) == 0 {
		return 0, false
	}
	switch f {
	case FuncLast:
		v = samples[len(samples)-1].V
		return v, !IsStale(v)
	case FuncRate:
		return extrapolatedRate(samples, after, upto, true, true)
	case FuncIncrease:
		return extrapolatedRate(samples, after, upto, true, false)
	case FuncDelta:
		return extrapolatedRate(samples, after, upto, false, false)
	case FuncIrate:
		return instantValue(samples, true)
	case FuncIdelta:
		return instantValue(samples, false)
	case FuncNativeRate:
		return nativeRate(samples, after, upto, prev)
	default:
		return overTime(f, arg, samples), true
	}
}

// extrapolatedRate is upstream's function of the same name for floats.
func extrapolatedRate(samples []Sample, after, upto int64, isCounter, isRate bool) (float64, bool) {
	n := len(samples) - 1
	if n < 1 {
		return 0, false
	}
	first, last := samples[0], samples[n]
	result := last.V - first.V
	if isCounter {
		prev := first.V
		for _, s := range samples[1:] {
			if s.V < prev {
				result += prev
			}
			prev = s.V
		}
	}
	toStart := float64(first.T-after) / 1000
	toEnd := float64(upto-last.T) / 1000
	sampled := float64(last.T-first.T) / 1000
	average := sampled / float64(n)
	threshold := average * 1.1
	if toStart >= threshold {
		toStart = average / 2
	}
	if isCounter {
		toZero := toStart
		if result > 0 && first.V >= 0 {
			toZero = sampled * (first.V / result)
		}
		toStart = min(toStart, toZero)
	}
	if toEnd >= threshold {
		toEnd = average / 2
	}
	factor := 1.0
	if sampled != 0 {
		factor = (sampled + toStart + toEnd) / sampled
	}
	if isRate {
		factor /= float64(upto-after) / 1000
	}
	return result * factor, true
}

// instantValue is irate (rate true) and idelta: the last two samples.
func instantValue(samples []Sample, rate bool) (float64, bool) {
	n := len(samples)
	if n < 2 || samples[n-1].T == samples[n-2].T {
		return 0, false
	}
	a, b := samples[n-2], samples[n-1]
	v := b.V - a.V
	if rate {
		if b.V < a.V {
			v = b.V
		}
		v /= float64(b.T-a.T) / 1000
	}
	return v, true
}

// nativeRate sums the increases, a fall being a restart from zero, over the
// window's seconds. A lone first sample without a predecessor adds nothing.
func nativeRate(samples []Sample, after, upto int64, prev *Sample) (float64, bool) {
	var sum, c float64
	last := samples[0]
	if prev != nil {
		sum, c = kahansum.Inc(increase(prev.V, last.V), sum, c)
	} else if len(samples) == 1 {
		return 0, false
	}
	for _, s := range samples[1:] {
		sum, c = kahansum.Inc(increase(last.V, s.V), sum, c)
		last = s
	}
	return (sum + c) / (float64(upto-after) / 1000), true
}

func increase(from, to float64) float64 {
	if to < from {
		return to
	}
	return to - from
}

// overTime is the *_over_time family, changes, resets and integral.
func overTime(f Func, arg float64, samples []Sample) float64 {
	switch f {
	case FuncAvgOverTime:
		return meanOf(samples)
	case FuncSumOverTime:
		var sum, c float64
		for _, s := range samples {
			sum, c = kahansum.Inc(s.V, sum, c)
		}
		return kahanTotal(sum, c)
	case FuncCountOverTime:
		return float64(len(samples))
	case FuncMinOverTime:
		v := samples[0].V
		for _, s := range samples {
			if s.V < v || math.IsNaN(v) {
				v = s.V
			}
		}
		return v
	case FuncMaxOverTime:
		v := samples[0].V
		for _, s := range samples {
			if s.V > v || math.IsNaN(v) {
				v = s.V
			}
		}
		return v
	case FuncQuantileOverTime:
		vs := make([]float64, len(samples))
		for i, s := range samples {
			vs[i] = s.V
		}
		return Quantile(arg, vs)
	case FuncStddevOverTime:
		return math.Sqrt(varianceOf(samples))
	case FuncStdvarOverTime:
		return varianceOf(samples)
	case FuncLastOverTime:
		return samples[len(samples)-1].V
	case FuncFirstOverTime:
		return samples[0].V
	case FuncPresentOverTime:
		return 1
	case FuncChanges:
		return float64(changesOf(samples))
	case FuncResets:
		n := 0
		for i := 1; i < len(samples); i++ {
			if samples[i].V < samples[i-1].V {
				n++
			}
		}
		return float64(n)
	case FuncIntegral:
		var sum, c float64
		for i := 1; i < len(samples); i++ {
			a, b := samples[i-1], samples[i]
			sum, c = kahansum.Inc((a.V+b.V)/2*(float64(b.T-a.T)/1000), sum, c)
		}
		return kahanTotal(sum, c)
	default:
		panic("storage: no window function " + f.String())
	}
}

func changesOf(samples []Sample) int {
	n := 0
	for i := 1; i < len(samples); i++ {
		a, b := samples[i-1].V, samples[i].V
		if a != b && !(math.IsNaN(a) && math.IsNaN(b)) {
			n++
		}
	}
	return n
}

func kahanTotal(sum, c float64) float64 {
	if math.IsInf(sum, 0) {
		return sum
	}
	return sum + c
}

// meanOf is avg_over_time: a direct Kahan mean, incremental once the sum would
// overflow (upstream's funcAvgOverTime).
func meanOf(samples []Sample) float64 {
	var m meanState
	for _, s := range samples {
		m.add(s.V)
	}
	return m.value()
}

func varianceOf(samples []Sample) float64 {
	var count, mean, cMean, aux, cAux float64
	for _, s := range samples {
		count++
		delta := s.V - (mean + cMean)
		mean, cMean = kahansum.Inc(delta/count, mean, cMean)
		aux, cAux = kahansum.Inc(delta*(s.V-(mean+cMean)), aux, cAux)
	}
	return (aux + cAux) / count
}

// Quantile is PromQL's quantile with linear interpolation; it sorts vs (NaN
// first). No values, or a NaN q, give NaN; q below 0 or above 1 gives an infinity.
func Quantile(q float64, vs []float64) float64 {
	switch {
	case len(vs) == 0 || math.IsNaN(q):
		return math.NaN()
	case q < 0:
		return math.Inf(-1)
	case q > 1:
		return math.Inf(1)
	}
	slices.Sort(vs)
	n := float64(len(vs))
	rank := q * (n - 1)
	lower := math.Max(0, math.Floor(rank))
	upper := math.Min(n-1, lower+1)
	weight := rank - math.Floor(rank)
	if weight == 0 {
		return vs[int(lower)]
	}
	return vs[int(lower)]*(1-weight) + vs[int(upper)]*weight
}

// meanState is upstream's avg: Kahan sum over count, and an incremental mean from
// the value on at which the sum would overflow.
type meanState struct {
	count, sum, c, mean float64
	incremental         bool
}

func (m *meanState) add(v float64) {
	m.count++
	if m.count == 1 {
		m.sum, m.mean = v, v
		return
	}
	if !m.incremental {
		sum, c := kahansum.Inc(v, m.sum, m.c)
		if !math.IsInf(sum, 0) {
			m.sum, m.c = sum, c
			return
		}
		m.incremental = true
		m.mean = m.sum / (m.count - 1)
		m.c /= m.count - 1
	}
	q := (m.count - 1) / m.count
	m.mean, m.c = kahansum.Inc(v/m.count, q*m.mean, q*m.c)
}

func (m *meanState) value() float64 {
	if m.incremental {
		return m.mean + m.c
	}
	return m.sum/m.count + m.c/m.count
}
