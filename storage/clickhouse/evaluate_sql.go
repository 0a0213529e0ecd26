package clickhouse

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/luminate/luminate/storage"
)

// loadGroups reads which series there are and which group each belongs to.
func (e *evaluation) loadGroups(ctx context.Context) error {
	var err error
	if e.ordered() {
		if e.rows, err = e.s.loadSeries(ctx, "evaluate", e.sel); err != nil {
			return err
		}
		sortSeries(e.rows)
	} else {
		for _, sh := range e.s.shards {
			if err := e.loadShardGroups(ctx, sh, nil); err != nil {
				return err
			}
		}
	}
	if e.index, err = indexSeries(e.rows); err != nil {
		return err
	}
	if e.ordered() || e.waits() {
		if len(e.rows)*e.steps > maxHeld {
			return unsupported("too many values to hold")
		}
		e.held = absentValues(len(e.rows) * e.steps)
	}
	e.seen, e.dirty, e.of = make([]bool, len(e.rows)), map[int]bool{}, make([]int, len(e.rows))
	byLabels := map[string]int{}
	var key []byte
	for i, r := range e.rows {
		labels := r.labels
		if e.ordered() {
			key = storage.AppendGroupLabels(key[:0], r.labels, e.g.Grouping, e.g.Without)
			labels = key
		}
		n, ok := byLabels[string(labels)]
		if !ok {
			n = len(e.groups)
			byLabels[string(labels)] = n
			e.groups = append(e.groups, &group{labels: labels.Clone()})
		}
		e.of[i] = n
	}
	return nil
}

// keep is the SQL that tells whether a label, called name, is one to group by.
func (e *evaluation) keep(p *params) string {
	keep := "has(" + p.strs(append([]string{}, e.g.Grouping...)) + ", name)"
	if e.g.Without {
		keep = "NOT " + keep + " AND name != " + p.str(storage.MetricName)
	}
	return keep
}

// loadShardGroups reads the matching series, or of them those with the given ids.
func (e *evaluation) loadShardGroups(ctx context.Context, sh *shard, ids []uint64) error {
	var p params
	where := e.s.seriesWhere(&p, e.sel.tenant, e.sel.matchers, e.sel.mint, e.sel.maxt)
	if ids != nil {
		where += " AND series_id IN " + p.u64s(ids)
	}
	sql := render("evaluate/groups", fragments{"Keep": e.keep(&p), "Where": where})
	e.res.Queries = append(e.res.Queries, sql)
	return e.s.each(ctx, sh, sql, p.args, func(r driver.Rows) error {
		row := seriesRow{shard: sh.index, mint: e.sel.mint}
		var labels string
		if err := r.Scan(&row.loc, &row.id, &row.metric, &labels); err != nil {
			return err
		}
		if len(e.rows) >= e.s.cfg.MaxSelectedSeries {
			return storage.LimitErrorf(storage.KindTooLarge, "evaluate", "max-selected-series", "storage.clickhouse.maxSelectedSeries", "the query selects more than %d series", e.s.cfg.MaxSelectedSeries)
		}
		row.labels = storage.Labels(labels)
		e.rows = append(e.rows, row)
		return nil
	})
}

// check refuses data that the reference refuses: native histograms, and start
// timestamps that the grid asks to honour.
func (e *evaluation) check(ctx context.Context, sh *shard, f rowFilter) error {
	probe := func(name, why string) error {
		var p params
		sql := render(name, fragments{"Where": e.s.where(&p, e.sel, f)})
		return e.s.each(ctx, sh, sql, p.args, func(driver.Rows) error { return unsupported(why) })
	}
	if err := probe("evaluate/has_histograms", "series have native histograms"); err != nil {
		return err
	}
	if e.g.UseStartTimestamps {
		return probe("evaluate/has_start_timestamps", "series have start timestamps")
	}
	return nil
}

// reduce runs the statement of the grid's function on a shard.
func (e *evaluation) reduce(ctx context.Context, sh *shard, f rowFilter) error {
	switch e.g.Func {
	case storage.FuncRate, storage.FuncIncrease, storage.FuncDelta, storage.FuncIrate, storage.FuncIdelta:
		return e.reduceGrid(ctx, sh, f)
	case storage.FuncNone:
		return e.reduceSamples(ctx, sh, f)
	case storage.FuncIntegral, storage.FuncNativeRate:
		return e.reduceNeighbours(ctx, sh, f)
	default:
		return e.reduceWindows(ctx, sh, f)
	}
}

var gridFunctions = map[storage.Func]string{
	storage.FuncRate: "timeSeriesRateToGrid", storage.FuncIncrease: "timeSeriesRateToGrid", storage.FuncDelta: "timeSeriesDeltaToGrid",
	storage.FuncIrate: "timeSeriesInstantRateToGrid", storage.FuncIdelta: "timeSeriesInstantDeltaToGrid",
}

// notFinite is true of NaN and the infinities.
func notFinite(p *params) string {
	return "image <= " + p.u64(negInfImage) + " OR image >= " + p.u64(posInfImage)
}

func (p *params) u64(v uint64) string { return p.bind(v, "UInt64") }

// seconds binds milliseconds as a decimal of seconds.
func (p *params) seconds(ms int64) string {
	return p.bind(fmt.Sprintf("%d.%03d", ms/1000, ms%1000), "Decimal64(3)")
}

func (e *evaluation) reduceGrid(ctx context.Context, sh *shard, f rowFilter) error {
	var p params
	g := e.g
	// Times count from the first window: the functions work on seconds as floats, and
	// since 1970 those are too large for milliseconds to stay exact.
	base := g.Start - g.Offset - g.Window
	sql := render("evaluate/grid", fragments{
		"Function": gridFunctions[g.Func], "Base": p.i64(base), "Start": p.time(g.Window), "End": p.time(g.End - g.Start + g.Window),
		"Step": p.seconds(max(g.Step, 1)), "Window": p.seconds(g.Window), "Absent": p.u64(math.Float64bits(storage.Absent)),
		"NotFinite": notFinite(&p), "Where": e.s.where(&p, e.sel, f), "Stale": p.u64(staleImage), "Fragile": fragile(g.Func),
	})
	factor := e.factor()
	return e.run(ctx, sh, sql, p.args, func(r driver.Rows) error {
		var id, bad, n uint64
		var large float64
		var bits []uint64
		if err := r.Scan(&id, &bits, &bad, &large, &n); err != nil {
			return err
		}
		row, ok := e.index[id]
		if !ok {
			return nil
		}
		limit := cancelled * large / (float64(g.Window) / 1000) // of a rate
		if bad > 0 || large > 0 && slices.ContainsFunc(bits, func(b uint64) bool { return math.Abs(math.Float64frombits(b)) < limit }) {
			e.dirty[row] = true
			return e.see(row, n)
		}
		for i, b := range bits {
			if v := math.Float64frombits(b); i < e.steps && !storage.IsStale(v) {
				e.add(row, i, v*factor)
			}
		}
		return e.see(row, n)
	})
}

// fragile is the greatest absolute value of a series of which the corrected increase
// may depend on the order of additions, else 0: there are resets, and values that are
// not small whole numbers. Where then last - first + Σ resets is small against that
// value, the last digits are lost, and they are others than the reference's.
func fragile(f storage.Func) string {
	if f != storage.FuncRate && f != storage.FuncIncrease {
		return "toFloat64(0)"
	}
	return "if(countIf(value != trunc(value) OR abs(value) > 9e15) > 0 AND " +
		"abs(deltaSumTimestamp(value, toUnixTimestamp64Milli(ts)) - (argMax(value, ts) - argMin(value, ts))) > 1e-9 * max(abs(value)), max(abs(value)), 0)"
}

// cancelled is the share of the greatest value below which a corrected increase has
// lost too many digits.
const cancelled = 0.01

func (e *evaluation) run(ctx context.Context, sh *shard, sql string, args []any, scan func(driver.Rows) error) (err error) {
	e.res.Queries = append(e.res.Queries, sql)
	r, err := e.s.query(ctx, sh, sql, args, gridSettings)
	if err != nil {
		return err
	}
	defer func() { _ = r.close() }() // its error is r.Err()'s
	for r.Next() {
		if err := scan(r); err != nil {
			return err
		}
	}
	return r.Err()
}

// stepIndex is the SQL for the step whose window a row lies in, or for each of them,
// and the condition that it lies in one.
func (e *evaluation) stepIndex(p *params) (index, inside string) {
	g := e.g
	const t = "toUnixTimestamp64Milli(ts)"
	if len(g.Edges) > 0 {
		// The number of edges before t: windows are left-open.
		return "toInt64(arrayCount(edge -> edge < " + t + ", " + p.i64s(g.Edges) + ")) - 1",
			"i >= 0 AND i < " + p.i64(int64(e.steps))
	}
	if e.steps == 1 {
		after, upto := g.WindowAt(0)
		return "toInt64(if(" + t + " > " + p.i64(after) + " AND " + t + " <= " + p.i64(upto) + ", 0, -1))", "i = 0"
	}
	base, step, window, steps := p.i64(g.Start-g.Offset), p.i64(g.Step), p.i64(g.Window), p.i64(int64(e.steps))
	// The first step not before t, and the last whose window reaches back to it.
	first := "if(" + t + " <= " + base + ", 0, intDiv(" + t + " - " + base + " + " + step + " - 1, " + step + "))"
	if e.overlap() > 1 {
		last := "least(" + steps + " - 1, intDiv(" + t + " + " + window + " - 1 - " + base + ", " + step + "))"
		return "arrayJoin(range(toUInt32(" + first + "), toUInt32(greatest(" + last + " + 1, 0))))", "1"
	}
	// With no overlap there is one step; a gap between windows is none of them.
	reaches := t + " > " + base + " + (" + first + ") * " + step + " - " + window
	return "toInt64(if(" + reaches + ", " + first + ", -1))", "i >= 0 AND i < " + steps
}

// live leaves staleness markers out where the function ignores them.
func (e *evaluation) live(p *params) string {
	if e.g.Func == storage.FuncLast {
		return ""
	}
	return " AND image != " + p.u64(staleImage)
}

// least is the image of the smallest number, or 0, which is a NaN's, if all are NaN.
func least(p *params) string {
	low := p.u64(negInfImage)
	return "if(max(image) < " + low + ", 0, min(if(image < " + low + ", " + p.u64(math.MaxUint64) + ", image)))"
}

// reduceWindows answers the functions that one aggregate over a window gives.
func (e *evaluation) reduceWindows(ctx context.Context, sh *shard, f rowFilter) error {
	var p params
	image, number := "toUInt64(0)", "toFloat64(0)"
	sums := false
	switch e.g.Func {
	case storage.FuncLast, storage.FuncLastOverTime:
		image = "argMax(image, ts)"
	case storage.FuncFirstOverTime:
		image = "argMin(image, ts)"
	case storage.FuncMinOverTime:
		image = least(&p)
	case storage.FuncMaxOverTime:
		image = "max(image)"
	case storage.FuncSumOverTime, storage.FuncAvgOverTime:
		number, sums = "sumKahan(value)", true
	}
	index, inside := e.stepIndex(&p)
	sql := render("evaluate/windows", fragments{
		"Image": image, "Number": number, "NotFinite": notFinite(&p), "Index": index, "Inside": inside,
		"Where": e.s.where(&p, e.sel, f), "Live": e.live(&p),
	})
	return e.run(ctx, sh, sql, p.args, func(r driver.Rows) error {
		var id, im, bad, n uint64
		var step uint32
		var num float64
		if err := r.Scan(&id, &step, &im, &num, &bad, &n); err != nil {
			return err
		}
		row, ok := e.index[id]
		if !ok || int(step) >= e.steps {
			return nil
		}
		if err := e.see(row, n); err != nil {
			return err
		}
		if sums && (bad > 0 || math.Abs(num) > 1e300) {
			e.dirty[row] = true
		}
		if v := e.windowValue(im, num, n); !e.dirty[row] {
			e.add(row, int(step), v)
		}
		return nil
	})
}

// windowValue is the function's value from a row of the statement "windows".
func (e *evaluation) windowValue(image uint64, number float64, n uint64) float64 {
	switch e.g.Func {
	case storage.FuncCountOverTime:
		return float64(n)
	case storage.FuncPresentOverTime:
		return 1
	case storage.FuncSumOverTime:
		return number
	case storage.FuncAvgOverTime:
		return number / float64(n)
	default:
		return storage.ValueOfImage(image)
	}
}

// reduceNeighbours answers integral and nativeRate, which pair each sample with the
// one before it.
func (e *evaluation) reduceNeighbours(ctx context.Context, sh *shard, f rowFilter) error {
	var p params
	index, inside := e.stepIndex(&p)
	term := "(before_v + v) / 2 * ((t - before_t) / 1000)"
	paired := "before_i = i"
	if e.g.Func == storage.FuncNativeRate {
		term = "if(v < before_v, v, v - before_v)"
		paired = "before_i = i OR (before_i != -2 AND t - before_t <= " + p.i64(storage.NativeRateLookback) + ")"
	}
	sql := render("evaluate/neighbours", fragments{
		"Term": term, "Paired": paired, "NotFinite": notFinite(&p), "Index": index, "Inside": inside,
		"Where": e.s.where(&p, e.sel, f), "Live": e.live(&p),
	})
	return e.run(ctx, sh, sql, p.args, func(r driver.Rows) error {
		var id, pairs, bad, n uint64
		var step uint32
		var total float64
		if err := r.Scan(&id, &step, &pairs, &total, &bad, &n); err != nil {
			return err
		}
		row, ok := e.index[id]
		if !ok || int(step) >= e.steps {
			return nil
		}
		if err := e.see(row, n); err != nil {
			return err
		}
		if bad > 0 || math.IsNaN(total) || math.Abs(total) > 1e300 {
			e.dirty[row] = true
		}
		if e.dirty[row] || e.g.Func == storage.FuncNativeRate && pairs == 0 {
			return nil
		}
		if e.g.Func == storage.FuncNativeRate {
			after, upto := e.g.WindowAt(int(step))
			total /= float64(upto-after) / 1000
		}
		e.add(row, int(step), total)
		return nil
	})
}

// reduceSamples answers FuncNone: partial aggregates of each series' samples.
func (e *evaluation) reduceSamples(ctx context.Context, sh *shard, f rowFilter) error {
	var p params
	index, inside := e.stepIndex(&p)
	sql := render("evaluate/samples_of_windows", fragments{
		"Least": least(&p), "NotFinite": notFinite(&p), "Index": index, "Inside": inside,
		"Where": e.s.where(&p, e.sel, f), "Live": e.live(&p),
	})
	sums := slices.ContainsFunc(e.g.Aggregates, func(a storage.Aggregate) bool { return a.Op == storage.AggSum || a.Op == storage.AggAvg })
	return e.run(ctx, sh, sql, p.args, func(r driver.Rows) error {
		var id, bad uint64
		var step uint32
		var x partial
		if err := r.Scan(&id, &step, &x.sum, &bad, &x.count, &x.least, &x.greatest, &x.first, &x.firstT, &x.last, &x.lastT); err != nil {
			return err
		}
		row, ok := e.index[id]
		if !ok || int(step) >= e.steps {
			return nil
		}
		if sums && (bad > 0 || math.Abs(x.sum) > 1e300) {
			return unsupported("samples that are not finite")
		}
		e.groups[e.of[row]].merge(int(step), e.steps, x)
		return e.see(row, x.count)
	})
}
