package grid

import "github.com/luminate/luminate/storage"

// rate is rate, increase and delta. The formulas and their order are those of storage.EvalWindow; falls of a counter
// are found once for all windows.
func (k *Kernel) rate(ts []int64, vs []float64, counter, perSecond bool) (any bool) {
	var falls []int32
	if counter {
		falls = k.falls(vs)
	}
	for i, hi := range k.hi {
		lo := k.lo[i]
		if hi-lo < 2 {
			k.out[i] = storage.Absent
			continue
		}
		result := vs[hi-1] - vs[lo]
		if counter {
			for len(falls) > 0 && falls[0] <= lo {
				falls = falls[1:]
			}
			for _, at := range falls {
				if at >= hi {
					break
				}
				result += vs[at-1]
			}
		}
		k.out[i] = k.extrapolate(i, result, vs[lo], ts[lo], ts[hi-1], int(hi-lo), counter, perSecond)
		any = true
	}
	return any
}

// extrapolate scales the result over n samples from t0 to t1 to the whole window.
func (k *Kernel) extrapolate(step int, result, first float64, t0, t1 int64, n int, counter, perSecond bool) float64 {
	after, upto := k.p.after[step], k.p.upto[step]
	toStart := float64(t0-after) / 1000
	toEnd := float64(upto-t1) / 1000
	sampled := float64(t1-t0) / 1000
	average := sampled / float64(n-1)
	threshold := average * 1.1
	if toStart >= threshold {
		toStart = average / 2
	}
	if counter {
		toZero := toStart
		if result > 0 && first >= 0 {
			toZero = sampled * (first / result)
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
	if perSecond {
		factor /= float64(upto-after) / 1000
	}
	return result * factor
}

// instant is irate (perSecond) and idelta: the last two samples.
func (k *Kernel) instant(ts []int64, vs []float64, perSecond bool) (any bool) {
	for i, hi := range k.hi {
		if hi-k.lo[i] < 2 {
			k.out[i] = storage.Absent
			continue
		}
		a, b := vs[hi-2], vs[hi-1]
		v := b - a
		if perSecond {
			if b < a {
				v = b
			}
			v /= float64(ts[hi-1]-ts[hi-2]) / 1000
		}
		k.out[i], any = v, true
	}
	return any
}
