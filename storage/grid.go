package storage

import (
	"math"
)

// Func is what a Grid applies to the samples of one series in one window.
// Semantics are Prometheus's unless said otherwise; windows are left-open.
type Func uint8

// The functions. FuncLast is an instant vector selector (a staleness marker as
// the newest sample makes the series absent); every other ignores staleness
// markers, as PromQL's range functions do. FuncNone hands all samples of the
// window to the aggregates. FuncNativeRate is the sum of the reset-corrected
// increases of the samples in the window (the first against its predecessor
// within NativeRateLookback) over the window's seconds. FuncIntegral is the area
// under the curve in value × seconds: trapezoids between neighbouring samples of
// the window.
const (
	FuncNone Func = iota
	FuncLast
	FuncRate
	FuncIncrease
	FuncDelta
	FuncIrate
	FuncIdelta
	FuncAvgOverTime
	FuncSumOverTime
	FuncCountOverTime
	FuncMinOverTime
	FuncMaxOverTime
	FuncQuantileOverTime // FuncArg is the quantile
	FuncStddevOverTime
	FuncStdvarOverTime
	FuncLastOverTime
	FuncFirstOverTime
	FuncPresentOverTime
	FuncChanges
	FuncResets
	FuncIntegral
	FuncNativeRate
	numFuncs
)

// NativeRateLookback is how far before a window FuncNativeRate looks for the
// predecessor of the window's first sample, in milliseconds.
const NativeRateLookback = 5 * 60 * 1000

var funcNames = [...]string{
	"none", "last", "rate", "increase", "delta", "irate", "idelta", "avg_over_time", "sum_over_time",
	"count_over_time", "min_over_time", "max_over_time", "quantile_over_time", "stddev_over_time",
	"stdvar_over_time", "last_over_time", "first_over_time", "present_over_time", "changes", "resets",
	"integral", "native_rate",
}

// String returns the function's PromQL name where it has one.
func (f Func) String() string {
	if int(f) < len(funcNames) {
		return funcNames[f]
	}
	return "unknown"
}

// AggOp is an aggregation over the series (or, after FuncNone, the samples) of a
// group.
type AggOp uint8

// The aggregations. AggFirst and AggLast stand only after FuncNone: the sample of
// the group with the least or greatest time, of several the greatest value.
// AggTopK and AggBottomK stand alone; they answer with series, not groups.
const (
	AggSum AggOp = iota
	AggAvg
	AggCount
	AggMin
	AggMax
	AggQuantile // Arg is the quantile
	AggStddev
	AggStdvar
	AggGroup
	AggTopK    // Arg is k
	AggBottomK // Arg is k
	AggFirst
	AggLast
	numAggOps
)

var aggNames = [...]string{
	"sum", "avg", "count", "min", "max", "quantile", "stddev", "stdvar", "group", "topk", "bottomk", "first", "last",
}

// String returns the aggregation's PromQL name where it has one.
func (a AggOp) String() string {
	if int(a) < len(aggNames) {
		return aggNames[a]
	}
	return "unknown"
}

// Aggregate is an aggregation with its parameter.
type Aggregate struct {
	Op  AggOp
	Arg float64
}

// Grid asks for values on a grid of steps: for each matching series and step,
// Func over the samples of the step's window, then each of Aggregates over the
// groups.
//
// Steps are at Start, Start+Step, … up to End, each with the window
// (t-Offset-Window, t-Offset]; or, if Edges is set, len(Edges)-1 windows
// (Edges[i], Edges[i+1]], and Start, End, Step, Window and Offset are zero.
type Grid struct {
	Matchers         []*Matcher
	Start, End, Step int64 // Step may be 0 when Start == End
	Window, Offset   int64
	Edges            []int64
	Func             Func
	FuncArg          float64
	Aggregates       []Aggregate // at least one
	// Grouping names the labels to group by, or with Without the labels to leave
	// out (then __name__ is left out too). Sorted and unique is not required.
	Grouping []string
	Without  bool
	// UseStartTimestamps lets rate-like functions see start timestamps as resets.
	UseStartTimestamps bool
	// MaxSeries, MaxSamples, MaxGroups fail with KindTooLarge, 0 = no bound.
	MaxSeries, MaxSamples, MaxGroups int
	// Hold, where set, is told of the memory that the evaluation takes, in bytes,
	// before it is taken, and with a negative number when it is free again; an error
	// of it ends the evaluation and is returned; what it refused counts as taken until
	// it is given back as well. It may be called by several
	// goroutines at once, and not at all by a backend that works elsewhere. The
	// result is the caller's to count.
	Hold func(bytes int64) error
}

// Validate checks the grid's shape; errors are KindInvalid.
func (g *Grid) Validate() error {
	bad := func(format string, args ...any) error { return Errorf(KindInvalid, "grid", format, args...) }
	switch {
	case g.Func >= numFuncs:
		return bad("unknown function %d", g.Func)
	case len(g.Aggregates) == 0:
		return bad("no aggregate given")
	case len(g.Edges) == 1:
		return bad("edges need at least two values")
	}
	for i := 1; i < len(g.Edges); i++ {
		if g.Edges[i] <= g.Edges[i-1] {
			return bad("edges must ascend: %d after %d", g.Edges[i], g.Edges[i-1])
		}
	}
	if len(g.Edges) == 0 {
		switch {
		case g.Start > g.End:
			return bad("the range begins after it ends: %d > %d", g.Start, g.End)
		case g.Step <= 0 && g.Start != g.End:
			return bad("step must be positive")
		case g.Window <= 0:
			return bad("window must be positive")
		}
	}
	for _, a := range g.Aggregates {
		switch {
		case a.Op >= numAggOps:
			return bad("unknown aggregation %d", a.Op)
		case (a.Op == AggTopK || a.Op == AggBottomK) && len(g.Aggregates) > 1:
			return bad("%s must stand alone", a.Op)
		case (a.Op == AggTopK || a.Op == AggBottomK) && g.Func == FuncNone:
			return bad("%s needs a function", a.Op)
		case (a.Op == AggFirst || a.Op == AggLast) && g.Func != FuncNone:
			return bad("%s needs function none", a.Op)
		}
	}
	return nil
}

// Steps counts the steps.
func (g *Grid) Steps() int {
	if len(g.Edges) > 0 {
		return len(g.Edges) - 1
	}
	if g.Step <= 0 || g.End == g.Start {
		return 1
	}
	return int((g.End-g.Start)/g.Step) + 1
}

// Time returns the time of step i: the evaluation time, or the right edge.
func (g *Grid) Time(i int) int64 {
	if len(g.Edges) > 0 {
		return g.Edges[i+1]
	}
	return g.Start + int64(i)*g.Step
}

// WindowAt returns step i's window (after, upto]: left-open, right-closed.
func (g *Grid) WindowAt(i int) (after, upto int64) {
	if len(g.Edges) > 0 {
		return g.Edges[i], g.Edges[i+1]
	}
	upto = g.Start + int64(i)*g.Step - g.Offset
	return upto - g.Window, upto
}

// Bounds returns the inclusive time range of all samples that any step needs,
// FuncNativeRate's predecessors included.
func (g *Grid) Bounds() (mint, maxt int64) {
	after, _ := g.WindowAt(0)
	_, upto := g.WindowAt(g.Steps() - 1)
	mint = after + 1
	if g.Func == FuncNativeRate {
		mint -= NativeRateLookback
	}
	return mint, upto
}

// Selection returns the selection that feeds the reference evaluation.
func (g *Grid) Selection() Selection {
	mint, maxt := g.Bounds()
	return Selection{
		Matchers: g.Matchers, MinT: mint, MaxT: maxt,
		MaxSeries: g.MaxSeries, MaxSamples: g.MaxSamples, Unsorted: true, Hold: g.Hold,
	}
}

// Absent marks a step without a value in a GridResult: the staleness marker,
// which no function or aggregation yields. Test it with IsStale.
var Absent = math.Float64frombits(math.Float64bits(StaleNaN))

// GridGroup is one group's values.
type GridGroup struct {
	// Labels are the grouping labels; for AggTopK and AggBottomK those of the series.
	Labels Labels
	// Values[a][i] is aggregate a at step i, Absent where the group has none.
	Values [][]float64
}

// GridResult is the answer to a Grid. Groups are in order of their labels and
// hold at least one value each.
type GridResult struct {
	Groups []GridGroup
	// Series and Samples count what was read, Bytes the stored bytes where known. Where
	// the newest sample decides alone (FuncLast, one step), a series may count as one.
	Series, Samples, Bytes uint64
	// Queries are the statements that were sent to a database, for explain.
	Queries []string
}
