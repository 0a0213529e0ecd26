package clickhouse

import (
	"context"
	"math"
	"slices"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/prometheus/util/kahansum"

	"github.com/luminate/luminate/storage"
)

// pushSeries is how many series must match before the server joins and groups: fewer
// are quicker brought here, and named by id.
const pushSeries = 20_000

// pushable tells whether the server can aggregate the groups too: one step of one
// metric, and aggregations that merge.
func (e *evaluation) pushable() bool {
	switch e.g.Func {
	case storage.FuncNone, storage.FuncIntegral, storage.FuncNativeRate:
		return false
	}
	return e.steps == 1 && e.sel.one && !slices.ContainsFunc(e.g.Aggregates, func(a storage.Aggregate) bool {
		switch a.Op {
		case storage.AggSum, storage.AggAvg, storage.AggCount, storage.AggMin, storage.AggMax, storage.AggGroup:
			return false
		default:
			return true
		}
	})
}

// many tells whether so many series match that pushing is worth it.
func (e *evaluation) many(ctx context.Context) (bool, error) {
	var total uint64
	for _, sh := range e.s.shards {
		var p params
		sql := render("evaluate/many", fragments{
			"Where": e.s.seriesWhere(&p, e.sel.tenant, e.sel.matchers, e.sel.mint, e.sel.maxt), "Limit": p.i64(int64(e.s.pushFrom)),
		})
		err := e.s.each(ctx, sh, sql, p.args, func(r driver.Rows) error {
			var n uint64
			err := r.Scan(&n)
			total += n
			return err
		})
		if err != nil {
			return false, err
		}
	}
	return total >= uint64(e.s.pushFrom), nil
}

// pushed is a group as the shards and the recalled series add up to.
type pushed struct {
	labels          storage.Labels
	count           float64
	sum, c          float64
	least, greatest float64
}

// merge adds n series whose values have this sum and these extremes.
func (g *pushed) merge(n, sum, least, greatest float64) {
	if n == 0 {
		return
	}
	if g.count == 0 {
		g.sum, g.least, g.greatest = sum, least, greatest
	} else {
		g.sum, g.c = kahansum.Inc(sum, g.sum, g.c)
		if g.least > least || math.IsNaN(g.least) {
			g.least = least
		}
		if g.greatest < greatest || math.IsNaN(g.greatest) {
			g.greatest = greatest
		}
	}
	g.count += n
}

func (g *pushed) value(op storage.AggOp) float64 {
	switch op {
	case storage.AggSum:
		return g.sum + g.c
	case storage.AggAvg:
		return (g.sum + g.c) / g.count
	case storage.AggCount:
		return g.count
	case storage.AggMin:
		return g.least
	case storage.AggMax:
		return g.greatest
	default:
		return 1 // AggGroup
	}
}

// push lets every shard join and group, and evaluates by the reference the series that
// the statement set aside.
func (e *evaluation) push(ctx context.Context) (*storage.GridResult, error) {
	groups := map[string]*pushed{}
	var recall []uint64
	for _, sh := range e.s.shards {
		f := rowFilter{metrics: []string{e.sel.metric}, match: !onlyMetric(e.sel.matchers)}
		if err := e.check(ctx, sh, f); err != nil {
			return nil, err
		}
		ids, err := e.pushShard(ctx, sh, f, groups)
		if err != nil {
			return nil, err
		}
		recall = append(recall, ids...)
	}
	if len(recall) > maxRecalled {
		return nil, unsupported("too many series have values that are not finite")
	}
	if err := e.pushRecalled(ctx, recall, groups); err != nil {
		return nil, err
	}
	for _, g := range groups {
		if g.count == 0 {
			continue
		}
		if math.IsInf(g.sum, 0) && len(recall) == 0 || math.Abs(g.sum) > 1e300 && !math.IsInf(g.sum, 0) {
			return nil, unsupported("sums beyond the range of floats")
		}
		out := storage.GridGroup{Labels: g.labels}
		for _, agg := range e.g.Aggregates {
			out.Values = append(out.Values, []float64{g.value(agg.Op)})
		}
		e.res.Groups = append(e.res.Groups, out)
	}
	storage.SortGroups(e.res.Groups)
	return e.res, e.checkGroups(len(e.res.Groups))
}

func (e *evaluation) pushShard(ctx context.Context, sh *shard, f rowFilter, groups map[string]*pushed) (recall []uint64, err error) {
	var p params
	number, bad := e.pushNumber(&p)
	large := "toFloat64(0)"
	if _, grid := gridFunctions[e.g.Func]; grid {
		large = fragile(e.g.Func)
		limit := p.f64(cancelled / (float64(e.g.Window) / 1000) / e.factor())
		bad += " OR large > 0 AND abs(v) < large * " + limit
	}
	sql := render("evaluate/pushed", fragments{
		"Recall": p.u64(maxRecalled + 1), "Bad": "(" + bad + ")", "Number": number, "Fragile": large, "NotFinite": notFinite(&p),
		"Where": e.s.where(&p, e.sel, f), "Live": e.live(&p), "Stale": p.u64(staleImage), "Keep": e.keep(&p),
		"Series": e.s.seriesWhere(&p, e.sel.tenant, e.sel.matchers, e.sel.mint, e.sel.maxt),
	})
	err = e.run(ctx, sh, sql, p.args, func(r driver.Rows) error {
		var labels string
		var n, samples uint64
		var ids []uint64
		var sum, least, greatest float64
		if err := r.Scan(&labels, &n, &samples, &ids, &sum, &least, &greatest); err != nil {
			return err
		}
		recall = append(recall, ids...)
		g := groups[labels]
		if g == nil {
			g = &pushed{labels: storage.Labels(labels)}
			groups[labels] = g
		}
		g.merge(float64(n), sum, least, greatest)
		e.res.Series += n + uint64(len(ids))
		return e.count(samples)
	})
	return recall, err
}

// factor turns the grid function's answer into the asked one.
func (e *evaluation) factor() float64 {
	if e.g.Func == storage.FuncIncrease {
		return float64(e.g.Window) / 1000
	}
	return 1
}

// pushNumber is the SQL for a series' value x, and for "this series needs the
// reference", which may use v (x when not null) and odd (values that are not finite).
func (e *evaluation) pushNumber(p *params) (number, bad string) {
	if fn, ok := gridFunctions[e.g.Func]; ok {
		at := p.time(e.g.Window)
		number = fn + "(" + at + ", " + at + ", " + p.seconds(1000) + ", " + p.seconds(e.g.Window) + ")(fromUnixTimestamp64Milli(toUnixTimestamp64Milli(ts) - " +
			p.i64(e.g.Start-e.g.Offset-e.g.Window) + ", 'UTC'), value)[1] * " + p.f64(e.factor())
		return number, "odd > 0 OR NOT isFinite(v)"
	}
	switch e.g.Func {
	case storage.FuncLast, storage.FuncLastOverTime:
		return "argMax(value, ts)", "NOT isFinite(v)"
	case storage.FuncFirstOverTime:
		return "argMin(value, ts)", "NOT isFinite(v)"
	case storage.FuncMinOverTime:
		return "min(value)", "odd > 0"
	case storage.FuncMaxOverTime:
		return "max(value)", "odd > 0"
	case storage.FuncSumOverTime:
		return "sumKahan(value)", "odd > 0 OR NOT isFinite(v) OR abs(v) > 1e300"
	case storage.FuncAvgOverTime:
		return "sumKahan(value) / count()", "odd > 0 OR NOT isFinite(v) OR abs(v) > 1e290"
	case storage.FuncCountOverTime:
		return "toFloat64(count())", "0"
	default: // FuncPresentOverTime
		return "toFloat64(1)", "0"
	}
}

// pushRecalled evaluates series by the reference and adds them to their groups.
func (e *evaluation) pushRecalled(ctx context.Context, ids []uint64, groups map[string]*pushed) error {
	if len(ids) == 0 {
		return nil
	}
	for _, sh := range e.s.shards {
		if err := e.loadShardGroups(ctx, sh, ids); err != nil {
			return err
		}
	}
	r := &reader{s: e.s, sel: e.sel, emit: func(row seriesRow, x storage.Series) bool {
		after, upto := e.g.WindowAt(0)
		samples := x.Samples
		if e.g.Func != storage.FuncLast {
			samples = slices.DeleteFunc(samples, func(s storage.Sample) bool { return storage.IsStale(s.V) })
		}
		v, ok := storage.EvalWindow(e.g.Func, e.g.FuncArg, samples, after, upto, nil)
		if ok {
			groups[string(row.labels)].merge(1, v, v, v)
		}
		return true
	}}
	return r.run(ctx, e.rows, false)
}
