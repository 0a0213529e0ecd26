package promql

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	promengine "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger"
	"github.com/luminate/luminate/storage/storagetest"
)

// differential runs one query three ways: planned and unplanned over a Store, and
// by upstream's engine over upstream's storage.
type differential struct {
	store    *Queryable
	upstream promstorage.Queryable
	planned  *Engine
	plain    *Engine
	start    int64
	pushed   int // queries of which a part was pushed
	shared   int // queries of which two parts shared an evaluation
	direct   int // queries that were a selector alone
}

// within and across are times of the last sample: the hour before lies within one
// UTC day, and around midnight.
const (
	withinADay = 1_700_000_100_000
	acrossDays = 1_700_006_400_000 + 1_500_000
)

// newDifferential fills a store; reopen, where it is not nil, closes and opens it
// again once it is full, so that a store reads from its files.
func newDifferential(t testing.TB, store storage.Store, rng *rand.Rand, reopen func() storage.Store) *differential {
	t.Helper()
	d := &differential{start: pick[int64](rng, withinADay, acrossDays) - 3_600_000}
	randomData(t, store, rng, d.start)
	if reopen != nil {
		store = reopen()
	}
	d.store = NewQueryable(store, QueryableOptions{Tenant: func(context.Context) storage.Tenant { return testTenant }})
	d.upstream = upstreamCopy(t, store)
	opts := promengine.EngineOpts{
		MaxSamples: 1e7, Timeout: time.Minute, EnableAtModifier: true, EnableNegativeOffset: true,
		NoStepSubqueryIntervalFn: func(int64) int64 { return 60_000 },
		Parser:                   parser.NewParser(parser.Options{EnableExperimentalFunctions: true}),
	}
	d.planned = NewEngine(opts, PlannerOptions{Enabled: true})
	d.plain = NewEngine(opts, PlannerOptions{})
	t.Cleanup(func() {
		_ = d.planned.Close()
		_ = d.plain.Close()
	})
	return d
}

// randomData is an hour of counters with resets, gauges, bare metrics that are
// given to rate, classic and native histograms; with gaps, staleness markers, NaN,
// infinities, late and duplicate samples, and other tenants.
func randomData(t testing.TB, store storage.Store, rng *rand.Rand, start int64) {
	t.Helper()
	end := start + 3_600_000
	b := new(storage.Batch)
	for _, metric := range []string{"c_total", "gauge", "odd"} {
		for i := range 12 {
			ls := storage.LabelsFromStrings("__name__", metric, "job", string(rune('a'+i%3)), "instance", fmt.Sprint(i), "le", "")
			b.Add(ls, randomSamples(rng, metric, start)...)
		}
	}
	for _, le := range []string{"0.1", "1", "+Inf"} {
		for i := range 3 {
			b.Add(storage.LabelsFromStrings("__name__", "h_bucket", "le", le, "instance", fmt.Sprint(i)), randomSamples(rng, "c_total", start)...)
		}
	}
	b.AddHistograms(storage.LabelsFromStrings("__name__", "native", "instance", "0"), randomHistograms(rng, start, end)...)
	b.Add(storage.LabelsFromStrings("__name__", "native", "instance", "1"), randomSamples(rng, "gauge", start)...)
	storagetest.MustAppend(t, store, testTenant.String(), b)
	other := new(storage.Batch)
	other.Add(storage.LabelsFromStrings("__name__", "gauge", "job", "a", "instance", "0"), storage.Sample{T: end, V: 1e6})
	storagetest.MustAppend(t, store, "neighbour", other)
}

// randomHistograms grow, with resets, gaps and staleness markers.
func randomHistograms(rng *rand.Rand, start, end int64) (hs []storage.HistogramSample) {
	n := uint64(0)
	for at := start; at < end; at += 15_000 {
		if n += uint64(rng.IntN(5)) + 1; rng.IntN(60) == 0 {
			n = 1
		}
		h := &histogram.Histogram{
			Count: n, Sum: float64(n), PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []int64{int64(n)},
		}
		switch rng.IntN(40) {
		case 0:
			h = &histogram.Histogram{Sum: storage.StaleNaN}
		case 1:
			at += rng.Int64N(400_000)
		}
		hs = append(hs, storage.HistogramSample{T: at, H: h})
	}
	return hs
}

func randomSamples(rng *rand.Rand, metric string, start int64) []storage.Sample {
	var out []storage.Sample
	v, end := float64(rng.IntN(100)), start+3_600_000
	for at := start + rng.Int64N(15_000); at <= end; at += 15_000 {
		if rng.IntN(10) == 0 {
			at += rng.Int64N(600_000) / int64(1+rng.IntN(20))
			continue
		}
		switch metric {
		case "c_total":
			if v += float64(rng.IntN(20)); rng.IntN(40) == 0 {
				v = float64(rng.IntN(5))
			}
		default:
			v = math.Round(rng.NormFloat64()*1000) / 100
		}
		s := storage.Sample{T: at, V: v}
		if metric == "odd" {
			switch rng.IntN(30) {
			case 0:
				s.V = math.NaN()
			case 1:
				s.V = math.Inf(1)
			case 2:
				s.V = math.Inf(-1)
			case 3:
				s.V = 1e300
			}
		}
		if rng.IntN(50) == 0 {
			s.V = storage.StaleNaN
		}
		out = append(out, s)
		if rng.IntN(20) == 0 {
			out = append(out, storage.Sample{T: at, V: s.V + 1}) // a duplicate
		}
		if n := len(out); rng.IntN(20) == 0 && n > 1 {
			out[n-1], out[n-2] = out[n-2], out[n-1] // late
		}
	}
	return out
}

// upstreamCopy puts what store holds, resolved, into upstream's own storage.
func upstreamCopy(t testing.TB, store storage.Store) promstorage.Queryable {
	t.Helper()
	db := teststorage.New(t)
	app := db.AppenderV2(t.Context())
	for s, err := range store.Select(t.Context(), testTenant, storage.Selection{MinT: math.MinInt64 / 4, MaxT: math.MaxInt64 / 4}) {
		if err != nil {
			t.Fatal(err)
		}
		ls := s.Labels.Prometheus()
		for _, x := range s.Samples {
			if _, err := app.Append(0, ls, 0, x.T, x.V, nil, nil, promstorage.AppendV2Options{}); err != nil {
				t.Fatal(err)
			}
		}
		for _, h := range s.Histograms {
			if _, err := app.Append(0, ls, 0, h.T, 0, h.H, h.FH, promstorage.AppendV2Options{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	return db
}

func pick[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

// randomQuery makes a query that has parts to push, parts not to push, and an
// engine on top.
//
// topk and bottomk stand at the top only: which of several equal values they pick
// is open, and what is made of the pick would differ.
func randomQuery(rng *rand.Rand) string {
	a := randomAggregation(rng)
	switch rng.IntN(20) {
	case 11, 12: // parts that one pass can answer
		by, inner := randomGrouping(rng), randomInner(rng)
		parts := make([]string, 2+rng.IntN(2))
		for i := range parts {
			parts[i] = randomOperation(rng, by, inner)
		}
		return strings.Join(parts, pick(rng, " / ", " + ", " or ", " and ", " > bool "))
	case 13:
		return pick(rng, "limitk", "limit_ratio") + randomGrouping(rng) + " (" + pick(rng, "1", "0.5", "3", "0") + ", " + pick(rng, a, randomInner(rng)) + ")"
	case 15, 16:
		metric, modifier := randomSelector(rng)
		return metric + modifier
	case 14:
		return randomInner(rng) + pick(rng, " and ", " or ", " unless ", " * on (job, instance) group_left () ", " == ") + a
	case 9, 10:
		return pick(rng, "topk", "bottomk") + randomGrouping(rng) + " (" + pick(rng, "1", "3", "100", "0", "(2)", "-1") + ", " + pick(rng, a, randomInner(rng)) + ")"
	case 0:
		return a + pick(rng, " + ", " / ", " > ", " == bool ", " unless ", " or ", " and ") + randomAggregation(rng)
	case 1:
		return a + pick(rng, " * ", " - ", " ^ ") + pick(rng, "2", "0.5", "-1")
	case 2:
		return pick(rng, "abs", "sort", "ceil", "timestamp", "absent", "scalar", "sort_desc") + "(" + a + ")"
	case 3:
		return "label_replace(" + a + `, "x", "$1-", "job", "(.*)")`
	case 4:
		return pick(rng, "max_over_time", "avg_over_time", "rate") + "((" + a + ")[10m:1m])"
	case 5:
		return "histogram_quantile(0.9, sum by (le) (rate(h_bucket[5m])))"
	case 6:
		return pick(rng, "sum", "max", "count") + pick(rng, "", " by (job)") + " (" + a + ")"
	case 7:
		return "-" + a
	case 8:
		return randomInner(rng)
	default:
		return a
	}
}

func randomAggregation(rng *rand.Rand) string {
	return randomOperation(rng, randomGrouping(rng), randomInner(rng))
}

func randomOperation(rng *rand.Rand, grouping, inner string) string {
	op := pick(rng, "sum", "avg", "count", "min", "max", "stddev", "stdvar", "group", "quantile", "sum", "count_values")
	param := ""
	switch op {
	case "quantile":
		param = pick(rng, "0.5", "0.9", "0", "1", "-1", "2", "NaN") + ", "
	case "count_values":
		param = `"v", `
	}
	return op + grouping + " (" + param + inner + ")"
}

func randomGrouping(rng *rand.Rand) string {
	return pick(rng, "", "", " by (job)", " by (job, instance)", " without (instance)", " by (nothing)", " without ()", " by (__name__)", " without (job)")
}

func randomInner(rng *rand.Rand) string {
	metric, modifier := randomSelector(rng)
	if rng.IntN(3) == 0 {
		return metric + modifier
	}
	f := pick(rng, "rate", "increase", "delta", "irate", "idelta", "avg_over_time", "sum_over_time", "count_over_time",
		"min_over_time", "max_over_time", "stddev_over_time", "stdvar_over_time", "last_over_time", "present_over_time",
		"changes", "resets", "deriv", "quantile_over_time", "rate", "first_over_time")
	arg := metric + pick(rng, "[1m]", "[5m]", "[5m]", "[17m]", "[20s]", "[1h]", "[1ms]") + modifier
	if f == "quantile_over_time" {
		return f + "(" + pick(rng, "0.3", "1", "2") + ", " + arg + ")"
	}
	return f + "(" + arg + ")"
}

func randomSelector(rng *rand.Rand) (metric, modifier string) {
	metric = pick(rng, "c_total", "c_total", "gauge", "gauge", "odd", "h_bucket", "native", "nothing", `{job="a"}`, `{__name__=~"c.*"}`)
	if metric[0] != '{' {
		metric += pick(rng, "", "", `{job="a"}`, `{job!="a"}`, `{instance=~"1.*|2"}`, `{job=~"nothing"}`)
	}
	modifier = pick(rng, "", "", "", " offset 7m", " offset -90s", " @ 1699999000", " @ 1700006500", " @ end()", " @ start()")
	return metric, modifier
}

// answerOf is a result in comparable form.
type answerOf struct {
	err         string
	annotations []string
	series      map[string][]promengine.FPoint
	histograms  int
}

func (d *differential) run(t testing.TB, e promengine.QueryEngine, q promstorage.Queryable, text string, start, end time.Time, step time.Duration) answerOf {
	t.Helper()
	var query promengine.Query
	var err error
	if step == 0 {
		query, err = e.NewInstantQuery(t.Context(), q, nil, text, start)
	} else {
		query, err = e.NewRangeQuery(t.Context(), q, nil, text, start, end, step)
	}
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	defer query.Close()
	res := query.Exec(t.Context())
	if pq, ok := query.(*plannedQuery); ok {
		d.note(pq)
	}
	out := answerOf{series: map[string][]promengine.FPoint{}}
	if res.Err != nil {
		out.err = res.Err.Error()
		// The reference's count_values answers in the order of a map, so that it names another pair at each run.
		if strings.Contains(text, "count_values") && strings.HasPrefix(out.err, "found duplicate series") {
			out.err, _, _ = strings.Cut(out.err, ": [")
		}
		return out
	}
	warnings, infos := res.Warnings.AsStrings(text, 0, 0)
	out.annotations = append(warnings, infos...)
	slices.Sort(out.annotations)
	out.collect(res.Value)
	return out
}

// note counts by which way a query went.
func (d *differential) note(pq *plannedQuery) {
	if pq.run.pushed() {
		d.pushed++
	}
	if pq.direct != nil {
		d.direct++
	}
	if slices.ContainsFunc(pq.run.parts, func(p *part) bool { return p.shares != "" }) {
		d.shared++
	}
}

func (a *answerOf) collect(v parser.Value) {
	add := func(ls labels.Labels, t int64, f float64, h *histogram.FloatHistogram) {
		if h != nil {
			a.histograms++
			return
		}
		a.series[ls.String()] = append(a.series[ls.String()], promengine.FPoint{T: t, F: f})
	}
	switch v := v.(type) {
	case promengine.Matrix:
		for _, s := range v {
			for _, p := range s.Floats {
				add(s.Metric, p.T, p.F, nil)
			}
			for _, p := range s.Histograms {
				add(s.Metric, p.T, 0, p.H)
			}
		}
	case promengine.Vector:
		for _, s := range v {
			add(s.Metric, s.T, s.F, s.H)
		}
	case promengine.Scalar:
		add(labels.EmptyLabels(), v.T, v.V, nil)
	}
}

// valuesAt is a with its series' labels forgotten: which of several equal values
// topk picks is open.
func (a answerOf) valuesAt() answerOf {
	out := a
	all := []promengine.FPoint{}
	for _, ps := range a.series {
		all = append(all, ps...)
	}
	slices.SortFunc(all, func(x, y promengine.FPoint) int {
		if x.T != y.T {
			return int(x.T - y.T)
		}
		return storage.CompareValues(x.F, y.F)
	})
	out.series = map[string][]promengine.FPoint{"": all}
	return out
}

// diff tells the first difference, "" for none. Values may differ by what another
// order of additions makes.
func (a answerOf) diff(b answerOf) string {
	switch {
	case a.err != b.err:
		return fmt.Sprintf("error %q, other %q", a.err, b.err)
	case !slices.Equal(a.annotations, b.annotations):
		return fmt.Sprintf("annotations %q, other %q", a.annotations, b.annotations)
	case len(a.series) != len(b.series) || a.histograms != b.histograms:
		return fmt.Sprintf("%d series and %d histograms, other %d and %d", len(a.series), a.histograms, len(b.series), b.histograms)
	}
	for ls, ps := range a.series {
		other := b.series[ls]
		if len(ps) != len(other) {
			return fmt.Sprintf("%s has %d points, other %d", ls, len(ps), len(other))
		}
		for i, p := range ps {
			if p.T != other[i].T || !near(p.F, other[i].F) {
				return fmt.Sprintf("%s at %d is %v, other %v", ls, p.T, p, other[i])
			}
		}
	}
	return ""
}

func near(a, b float64) bool {
	if a == b || math.IsNaN(a) && math.IsNaN(b) {
		return true
	}
	return math.Abs(a-b) <= 1e-9*max(math.Abs(a), math.Abs(b), 1)
}

func (d *differential) check(t testing.TB, rng *rand.Rand) {
	t.Helper()
	text := randomQuery(rng)
	start := d.start + rng.Int64N(3_600_000)
	end, step := start, time.Duration(0)
	if rng.IntN(3) > 0 {
		end = start + rng.Int64N(1_200_000)
		step = pick(rng, 15*time.Second, time.Minute, 5*time.Minute, 7777*time.Millisecond, time.Hour)
	}
	from, to := time.UnixMilli(start), time.UnixMilli(end)
	planned := d.run(t, d.planned, d.store, text, from, to, step)
	plain := d.run(t, d.plain, d.store, text, from, to, step)
	upstream := d.run(t, d.plain, d.upstream, text, from, to, step)
	if strings.Contains(text, "topk") || strings.Contains(text, "bottomk") {
		planned, plain, upstream = planned.valuesAt(), plain.valuesAt(), upstream.valuesAt()
	}
	if msg := planned.diff(plain); msg != "" {
		t.Errorf("%s at %d..%d step %s: planned: %s, unplanned", text, start, end, step, msg)
	}
	if strings.Contains(text, "limit") {
		return // they pick by the order of series, which is another there
	}
	if msg := plain.diff(upstream); msg != "" {
		t.Errorf("%s at %d..%d step %s: over our storage: %s, over upstream's", text, start, end, step, msg)
	}
}

func oldModel() storage.Store {
	cfg := storagetest.DefaultModelConfig()
	cfg.RetentionDays = 0 // the samples are of 2023
	return storagetest.NewModelWith(cfg)
}

func openBadger(t testing.TB) storage.Store {
	t.Helper()
	return openBadgerIn(t, t.TempDir())
}

// reopening returns a Badger, and what closes and opens it again.
func reopening(t testing.TB) (store storage.Store, reopen func() storage.Store) {
	dir := t.TempDir()
	store = openBadgerIn(t, dir)
	return store, func() storage.Store {
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		return openBadgerIn(t, dir)
	}
}

func openBadgerIn(t testing.TB, dir string) storage.Store {
	t.Helper()
	cfg := badger.DefaultConfig()
	cfg.Dir, cfg.RetentionDays, cfg.MinFreeBytes = dir, 0, 0
	db, err := badger.Open(cfg, discardLog(), prometheus.NewRegistry())
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return db
}

// TestPlannedIsUnplanned compares thousands of random queries over random data.
func TestPlannedIsUnplanned(t *testing.T) {
	const queries = 500
	t.Run("model", func(t *testing.T) {
		for seed := range uint64(2) {
			runDifferential(t, oldModel(), nil, seed, queries)
		}
	})
	t.Run("badger", func(t *testing.T) { runDifferential(t, openBadger(t), nil, 0, queries) })
	t.Run("badger, from files", func(t *testing.T) {
		store, reopen := reopening(t)
		runDifferential(t, store, reopen, 1, queries)
	})
}

func runDifferential(t *testing.T, store storage.Store, reopen func() storage.Store, seed uint64, queries int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 7))
	d := newDifferential(t, store, rng, reopen)
	for range queries {
		d.check(t, rng)
	}
	if d.pushed < queries/5 {
		t.Errorf("seed %d: of %d queries only %d were pushed", seed, queries, d.pushed)
	}
	if d.shared < queries/100 || d.direct < queries/100 {
		t.Errorf("seed %d: of %d queries only %d shared an evaluation, and %d were a selector alone", seed, queries, d.shared, d.direct)
	}
}

// FuzzPlanner is the same for as long as wished.
func FuzzPlanner(f *testing.F) {
	for seed := range uint64(2) {
		f.Add(seed + 100)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 11))
		store, reopen := oldModel(), (func() storage.Store)(nil)
		switch seed % 8 { // Badger is slow to open
		case 1:
			store = openBadger(t)
		case 2:
			store, reopen = reopening(t)
		}
		d := newDifferential(t, store, rng, reopen)
		for range 30 {
			d.check(t, rng)
		}
	})
}
