package storage

import (
	"context"
	"iter"
	"math"
	"slices"
	"sort"
	"unsafe"
)

// EvaluateSeries evaluates g over the series that a Select of g.Selection()
// yields. It is the reference of every backend's Evaluate, and what callers fall
// back to when a backend answers KindUnsupported. It answers KindUnsupported
// itself for native histograms, and for start timestamps that g asks to honour.
func EvaluateSeries(ctx context.Context, series iter.Seq2[Series, error], g Grid) (*GridResult, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	e := newGridEval(&g)
	defer e.release()
	for s, err := range series {
		if err != nil {
			return nil, err
		}
		if err := ContextError(ctx, "evaluate"); err != nil {
			return nil, err
		}
		groups := len(e.order)
		if err := e.add(s); err != nil {
			return nil, err
		}
		if err := e.hold(&s, len(e.order)-groups); err != nil {
			return nil, err
		}
	}
	return e.result(), nil
}

// hold tells of the memory that a series made the evaluation take.
func (e *gridEval) hold(s *Series, newGroups int) error {
	if e.g.Hold == nil {
		return nil
	}
	n := int64(newGroups) * (seriesBytes + int64(e.steps*len(e.g.Aggregates))*accumulatorBytes)
	switch {
	case e.topk:
		n = seriesBytes + int64(2*len(s.Labels)+8*e.steps)
	case slices.ContainsFunc(e.g.Aggregates, func(a Aggregate) bool { return a.Op == AggQuantile }):
		n += 2 * 8 * int64(max(len(s.Samples), e.steps)) // lists grow by doubling
	}
	e.held += n
	return e.g.Hold(n)
}

// release gives back what hold told of.
func (e *gridEval) release() {
	if e.g.Hold != nil {
		_ = e.g.Hold(-e.held)
	}
}

// gridEval holds the groups of a grid while series are added.
type gridEval struct {
	g      *Grid
	steps  int
	topk   bool
	groups map[string]*evalGroup
	order  []*evalGroup
	res    GridResult
	live   []Sample // scratch: a series' samples without staleness markers
	key    []byte   // scratch: grouping labels
	held   int64    // told to the grid's Hold
}

// accumulatorBytes is the memory of one value of a group while it is made.
const accumulatorBytes = int64(unsafe.Sizeof(Accumulator{}) + unsafe.Sizeof(float64(0)))

type evalGroup struct {
	labels Labels
	accs   [][]Accumulator // [aggregate][step]
	series []GridGroup     // topk, bottomk: the group's series, one aggregate each
}

func newGridEval(g *Grid) *gridEval {
	op := g.Aggregates[0].Op
	return &gridEval{
		g: g, steps: g.Steps(), groups: map[string]*evalGroup{},
		topk: op == AggTopK || op == AggBottomK,
	}
}

// add evaluates one series at every step.
func (e *gridEval) add(s Series) error {
	if len(s.Histograms) > 0 {
		return Errorf(KindUnsupported, "evaluate", "series %s has native histograms", s.Labels)
	}
	if e.g.UseStartTimestamps && slices.ContainsFunc(s.STs, func(st int64) bool { return st != 0 }) {
		return Errorf(KindUnsupported, "evaluate", "series %s has start timestamps", s.Labels)
	}
	e.res.Series++
	e.res.Samples += uint64(len(s.Samples))
	samples := s.Samples
	if e.g.Func != FuncLast {
		e.live = e.live[:0]
		for _, x := range samples {
			if !IsStale(x.V) {
				e.live = append(e.live, x)
			}
		}
		samples = e.live
	}
	var group *evalGroup
	var own []float64 // topk: this series' value at each step
	lo, hi := 0, 0
	for i := range e.steps {
		after, upto := e.g.WindowAt(i)
		for hi < len(samples) && samples[hi].T <= upto {
			hi++
		}
		for lo < hi && samples[lo].T <= after {
			lo++
		}
		if lo == hi {
			continue
		}
		window := samples[lo:hi]
		if e.g.Func == FuncNone {
			group = e.group(group, s.Labels)
			for _, x := range window {
				for a, agg := range e.g.Aggregates {
					group.accs[a][i].Add(agg.Op, x.T, x.V)
				}
			}
			continue
		}
		var prev *Sample
		if lo > 0 && window[0].T-samples[lo-1].T <= NativeRateLookback {
			prev = &samples[lo-1]
		}
		v, ok := EvalWindow(e.g.Func, e.g.FuncArg, window, after, upto, prev)
		if !ok {
			continue
		}
		group = e.group(group, s.Labels)
		if e.topk {
			if own == nil {
				own = absentValues(e.steps)
				group.series = append(group.series, GridGroup{Labels: s.Labels.Clone(), Values: [][]float64{own}})
			}
			own[i] = v
			continue
		}
		for a, agg := range e.g.Aggregates {
			group.accs[a][i].Add(agg.Op, 0, v)
		}
	}
	if e.g.MaxGroups > 0 && len(e.order) > e.g.MaxGroups {
		return LimitErrorf(KindTooLarge, "evaluate", "max-groups-per-query", "limits.maxGroupsPerQuery", "the query makes more than %d groups", e.g.MaxGroups)
	}
	return nil
}

// group returns the series' group, creating it; known short-cuts the look-up.
func (e *gridEval) group(known *evalGroup, ls Labels) *evalGroup {
	if known != nil {
		return known
	}
	e.key = AppendGroupLabels(e.key[:0], ls, e.g.Grouping, e.g.Without)
	if g, ok := e.groups[string(e.key)]; ok {
		return g
	}
	g := &evalGroup{labels: slices.Clone(e.key)}
	if !e.topk {
		g.accs = make([][]Accumulator, len(e.g.Aggregates))
		for a := range g.accs {
			g.accs[a] = make([]Accumulator, e.steps)
		}
	}
	e.groups[string(e.key)] = g
	e.order = append(e.order, g)
	return g
}

func (e *gridEval) result() *GridResult {
	for _, g := range e.order {
		if e.topk {
			e.res.Groups = append(e.res.Groups, PreselectTopK(g.series, e.steps, e.g.Aggregates[0])...)
			continue
		}
		out := GridGroup{Labels: g.labels, Values: make([][]float64, len(e.g.Aggregates))}
		for a, agg := range e.g.Aggregates {
			out.Values[a] = make([]float64, e.steps)
			for i := range e.steps {
				out.Values[a][i] = g.accs[a][i].Value(agg)
			}
		}
		e.res.Groups = append(e.res.Groups, out)
	}
	SortGroups(e.res.Groups)
	return &e.res
}

// SortGroups orders groups by their labels.
func SortGroups(gs []GridGroup) {
	sort.Slice(gs, func(i, j int) bool { return CompareLabels(gs[i].Labels, gs[j].Labels) < 0 })
}

// PreselectTopK keeps, at every step, the values of series (one group's, Values[0]
// by step) that topk or bottomk of k could pick: those not worse than the k-th,
// all of them where several tie, NaN worst. Which of several equal values wins
// depends on the order of series and is the caller's affair. Series without a
// value left are dropped; the series' slices are changed in place.
func PreselectTopK(series []GridGroup, steps int, agg Aggregate) []GridGroup {
	k := len(series)
	if agg.Arg < float64(k) {
		k = max(0, int(agg.Arg))
	}
	if math.IsNaN(agg.Arg) {
		k = 0
	}
	better := func(a, b float64) bool { // a strictly better than b
		switch {
		case math.IsNaN(a):
			return false
		case math.IsNaN(b):
			return true
		case agg.Op == AggTopK:
			return a > b
		default:
			return a < b
		}
	}
	keep := make([]bool, len(series))
	var at []float64
	for i := range steps {
		at = at[:0]
		for _, s := range series {
			if v := s.Values[0][i]; !IsStale(v) {
				at = append(at, v)
			}
		}
		if len(at) > k && k > 0 {
			sort.Slice(at, func(x, y int) bool { return better(at[x], at[y]) })
		}
		for j, s := range series {
			switch v := s.Values[0][i]; {
			case IsStale(v):
			case k == 0 || len(at) > k && better(at[k-1], v):
				s.Values[0][i] = Absent
			default:
				keep[j] = true
			}
		}
	}
	out := series[:0]
	for j, s := range series {
		if keep[j] {
			out = append(out, s)
		}
	}
	return out
}

// AppendGroupLabels appends the grouping labels of ls to dst in canonical form:
// the named ones, or with without all but the named ones and __name__.
func AppendGroupLabels(dst []byte, ls Labels, names []string, without bool) []byte {
	for n, v := range ls.All() {
		keep := slices.Contains(names, n)
		if without {
			keep = !keep && n != MetricName
		}
		if keep {
			dst = AppendLabel(dst, n, v)
		}
	}
	return dst
}

func absentValues(n int) []float64 {
	vs := make([]float64, n)
	for i := range vs {
		vs[i] = Absent
	}
	return vs
}
