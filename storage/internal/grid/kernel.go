package grid

import (
	"math"

	"github.com/prometheus/prometheus/util/kahansum"

	"github.com/luminate/luminate/storage"
)

// Kernel evaluates the grid's function over series. It keeps its buffers and serves one goroutine.
type Kernel struct {
	p      *Plan
	out    []float64
	lo, hi []int32 // each step's window among the samples
	column *int64  // of which times lo and hi are, nil: none
	length int

	liveT   []int64 // a series without its staleness markers
	liveV   []float64
	samples []storage.Sample
	events  []int32
	queue   []int32
}

// NewKernel returns a kernel for a plan.
func NewKernel(p *Plan) *Kernel {
	return &Kernel{p: p, out: make([]float64, p.steps), lo: make([]int32, p.steps), hi: make([]int32, p.steps)}
}

// Reset forgets the times of earlier series. It must be called before the memory of times that Eval was given is
// written again: series that share a slice of times share the search for their windows.
func (k *Kernel) Reset() { k.column = nil }

// Eval evaluates one series, whose times ascend strictly: the result has one value for each step, storage.Absent where
// there is none, and is valid until the next call; nil if there is no value at all. Input is not changed.
func (k *Kernel) Eval(ts []int64, vs []float64) []float64 {
	f := k.p.grid.Func
	if f != storage.FuncLast {
		ts, vs = k.dropStale(ts, vs)
	}
	if len(ts) == 0 || !k.windows(ts) {
		return nil
	}
	var any bool
	switch f {
	case storage.FuncLast:
		any = k.last(vs)
	case storage.FuncRate:
		any = k.rate(ts, vs, true, true)
	case storage.FuncIncrease:
		any = k.rate(ts, vs, true, false)
	case storage.FuncDelta:
		any = k.rate(ts, vs, false, false)
	case storage.FuncIrate:
		any = k.instant(ts, vs, true)
	case storage.FuncIdelta:
		any = k.instant(ts, vs, false)
	case storage.FuncSumOverTime:
		any = k.sum(vs)
	case storage.FuncMinOverTime:
		any = k.extreme(vs, false)
	case storage.FuncMaxOverTime:
		any = k.extreme(vs, true)
	case storage.FuncChanges, storage.FuncResets:
		any = k.countEvents(vs)
	case storage.FuncCountOverTime, storage.FuncPresentOverTime, storage.FuncFirstOverTime, storage.FuncLastOverTime:
		any = k.simple(vs)
	default:
		any = k.reference(ts, vs)
	}
	if !any {
		return nil
	}
	return k.out
}

// dropStale returns the series without staleness markers.
func (k *Kernel) dropStale(ts []int64, vs []float64) ([]int64, []float64) {
	marker := math.Float64bits(storage.StaleNaN)
	for i, v := range vs {
		if math.Float64bits(v) != marker {
			continue
		}
		k.liveT, k.liveV = append(k.liveT[:0], ts[:i]...), append(k.liveV[:0], vs[:i]...)
		for j := i + 1; j < len(vs); j++ {
			if math.Float64bits(vs[j]) != marker {
				k.liveT, k.liveV = append(k.liveT, ts[j]), append(k.liveV, vs[j])
			}
		}
		return k.liveT, k.liveV
	}
	return ts, vs
}

// windows finds each step's window; false if all are empty.
func (k *Kernel) windows(ts []int64) bool {
	n := len(ts)
	if k.column == &ts[0] && k.length == n {
		return true
	}
	k.column = nil
	lo, hi := 0, 0
	any := false
	for i, upto := range k.p.upto {
		if ts[n-1] <= upto {
			hi = n
		}
		for hi < n && ts[hi] <= upto {
			hi++
		}
		after := k.p.after[i]
		for lo < hi && ts[lo] <= after {
			lo++
		}
		k.lo[i], k.hi[i] = int32(lo), int32(hi)
		any = any || lo < hi
	}
	own := len(k.liveT) > 0 && &ts[0] == &k.liveT[0] // written again for another series
	if any && !own {
		k.column, k.length = &ts[0], n
	}
	return any
}

func (k *Kernel) last(vs []float64) (any bool) {
	for i, hi := range k.hi {
		if k.lo[i] == hi || storage.IsStale(vs[hi-1]) {
			k.out[i] = storage.Absent
			continue
		}
		k.out[i], any = vs[hi-1], true
	}
	return any
}

// simple serves what needs no look at the window's inside.
func (k *Kernel) simple(vs []float64) bool {
	for i, hi := range k.hi {
		lo := k.lo[i]
		if lo == hi {
			k.out[i] = storage.Absent
			continue
		}
		switch k.p.grid.Func {
		case storage.FuncCountOverTime:
			k.out[i] = float64(hi - lo)
		case storage.FuncPresentOverTime:
			k.out[i] = 1
		case storage.FuncFirstOverTime:
			k.out[i] = vs[lo]
		default:
			k.out[i] = vs[hi-1]
		}
	}
	return true
}

// falls lists the samples that are less than the one before them.
func (k *Kernel) falls(vs []float64) []int32 {
	k.events = k.events[:0]
	prev := vs[0]
	for i, v := range vs {
		if v < prev {
			k.events = append(k.events, int32(i))
		}
		prev = v
	}
	return k.events
}

// changes lists the samples that differ from the one before them; one NaN is like another.
func (k *Kernel) changes(vs []float64) []int32 {
	k.events = k.events[:0]
	for i := 1; i < len(vs); i++ {
		a, b := vs[i-1], vs[i]
		if a != b && !(a != a && b != b) {
			k.events = append(k.events, int32(i))
		}
	}
	return k.events
}

// countEvents serves changes and resets: events between two samples of the window.
func (k *Kernel) countEvents(vs []float64) bool {
	var events []int32
	if k.p.grid.Func == storage.FuncResets {
		events = k.falls(vs)
	} else {
		events = k.changes(vs)
	}
	from, to := 0, 0
	for i, hi := range k.hi {
		lo := k.lo[i]
		if lo == hi {
			k.out[i] = storage.Absent
			continue
		}
		for to < len(events) && events[to] < hi {
			to++
		}
		for from < to && events[from] <= lo {
			from++
		}
		k.out[i] = float64(to - from)
	}
	return true
}

// sum adds each window anew, in order: a running sum would round differently.
func (k *Kernel) sum(vs []float64) bool {
	for i, hi := range k.hi {
		lo := k.lo[i]
		if lo == hi {
			k.out[i] = storage.Absent
			continue
		}
		var sum, c float64
		for _, v := range vs[lo:hi] {
			sum, c = kahansum.Inc(v, sum, c)
		}
		if !math.IsInf(sum, 0) {
			sum += c
		}
		k.out[i] = sum
	}
	return true
}

// extreme is the sliding minimum or maximum: queue holds the samples that can still become it, the earliest of equal
// ones first. NaN counts only where there is nothing else; then the last one is the answer.
func (k *Kernel) extreme(vs []float64, greatest bool) bool {
	queue, head, next := k.queue[:0], 0, int32(0)
	for i, hi := range k.hi {
		lo := k.lo[i]
		if lo == hi {
			k.out[i] = storage.Absent
			continue
		}
		for next = max(next, lo); next < hi; next++ {
			v := vs[next]
			if v != v {
				continue
			}
			for len(queue) > head {
				last := vs[queue[len(queue)-1]]
				if !(greatest && v > last || !greatest && v < last) {
					break
				}
				queue = queue[:len(queue)-1]
			}
			queue = append(queue, next)
		}
		for head < len(queue) && queue[head] < lo {
			head++
		}
		if head == len(queue) {
			k.out[i] = vs[hi-1]
			continue
		}
		k.out[i] = vs[queue[head]]
	}
	k.queue = queue
	return true
}

// reference evaluates by storage.EvalWindow what is rare or has no better way.
func (k *Kernel) reference(ts []int64, vs []float64) (any bool) {
	g := &k.p.grid
	k.samples = k.samples[:0]
	for i, t := range ts {
		k.samples = append(k.samples, storage.Sample{T: t, V: vs[i]})
	}
	for i, hi := range k.hi {
		lo := k.lo[i]
		k.out[i] = storage.Absent
		if lo == hi {
			continue
		}
		var prev *storage.Sample
		if lo > 0 && ts[lo]-ts[lo-1] <= storage.NativeRateLookback {
			prev = &k.samples[lo-1]
		}
		if v, ok := storage.EvalWindow(g.Func, g.FuncArg, k.samples[lo:hi], k.p.after[i], k.p.upto[i], prev); ok {
			k.out[i], any = v, true
		}
	}
	return any
}
