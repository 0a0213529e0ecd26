package grid

import (
	"math"
	"math/bits"
	"slices"
)

// quantile is storage.Quantile without sorting everything; it changes the order of vs.
func quantile(q float64, vs []float64) float64 {
	switch {
	case len(vs) == 0 || math.IsNaN(q):
		return math.NaN()
	case q < 0:
		return math.Inf(-1)
	case q > 1:
		return math.Inf(1)
	}
	n := float64(len(vs))
	rank := q * (n - 1)
	lower := math.Max(0, math.Floor(rank))
	upper := math.Min(n-1, lower+1)
	weight := rank - math.Floor(rank)

	nans := 0 // NaN come first
	for i, v := range vs {
		if v != v {
			vs[i], vs[nans] = vs[nans], v
			nans++
		}
	}
	if int(lower) < nans {
		return math.NaN()
	}
	rest := vs[nans:]
	at := int(lower) - nans
	a := selectNth(rest, at)
	if weight == 0 {
		return a
	}
	b := a
	if upper > lower {
		b = slices.Min(rest[at+1:])
	}
	return a*(1-weight) + b*weight
}

// selectNth puts the element that would stand at n in order there, with what is not greater before and what is not
// less behind it, and returns it. There must be no NaN. Hoare's selection; sorting where it does not converge.
func selectNth(vs []float64, n int) float64 {
	lo, hi := 0, len(vs)-1
	for rounds := 2 * bits.Len(uint(len(vs))); hi-lo > 16; rounds-- {
		if rounds == 0 {
			break
		}
		pivot := median(vs[lo], vs[lo+(hi-lo)/2], vs[hi])
		i, j := lo, hi
		for i <= j {
			for vs[i] < pivot {
				i++
			}
			for vs[j] > pivot {
				j--
			}
			if i <= j {
				vs[i], vs[j] = vs[j], vs[i]
				i++
				j--
			}
		}
		switch {
		case n <= j:
			hi = j
		case n >= i:
			lo = i
		default:
			return vs[n]
		}
	}
	slices.Sort(vs[lo : hi+1])
	return vs[n]
}

func median(a, b, c float64) float64 {
	if a > b {
		a, b = b, a
	}
	if c <= a {
		return a
	}
	return min(b, c)
}
