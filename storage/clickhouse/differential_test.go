package clickhouse_test

import (
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger"
	"github.com/luminate/luminate/storage/clickhouse"
	"github.com/luminate/luminate/storage/clickhouse/chtest"
	"github.com/luminate/luminate/storage/storagetest"
)

// TestShardsAnswerAsOne runs random selections and grids over one shard and over two,
// which are two engines, and over Badger, and compares them with the model.
func TestShardsAnswerAsOne(t *testing.T) {
	one := open(t, testConfig(chtest.DSN(t)))
	second := chtest.Own(t)
	two := open(t, testConfig(chtest.DSN(t), second.Database(t)))
	model := storagetest.NewModel()
	stores := []storage.Store{one, two, openBadger(t)}
	now := time.Now().Truncate(time.Minute).UnixMilli()
	rng := rand.New(rand.NewPCG(21, 22))
	b := mixedBatch(rng, now)
	for _, s := range append(stores, model) {
		storagetest.MustAppend(t, s, "a", b)
	}
	for i := range 60 {
		ms := randomMatchers(rng)
		sel := storage.Selection{Matchers: ms, MinT: now - rng.Int64N(700_000), MaxT: now - rng.Int64N(50_000)}
		if sel.MinT > sel.MaxT {
			continue
		}
		grid := randomGrid(rng, ms, now)
		want, err := model.Evaluate(t.Context(), storage.MustTenant("a"), grid)
		if err != nil {
			t.Fatal(err)
		}
		for n, s := range stores {
			if d := storagetest.DiffSeries(storagetest.Collect(t, s, "a", sel), storagetest.Collect(t, model, "a", sel)); d != "" {
				t.Fatalf("store %d: selection %d %s: %s", n, i, storage.FormatSelector(ms), d)
			}
			got, err := s.Evaluate(t.Context(), storage.MustTenant("a"), grid)
			if err != nil {
				t.Fatalf("store %d: grid %d %+v: %v", n, i, grid, err)
			}
			if d := storagetest.DiffGrids(got, want, 1e-12); d != "" {
				t.Fatalf("store %d: grid %d %+v: %s", n, i, grid, d)
			}
		}
	}
}

func openBadger(t *testing.T) storage.Store {
	t.Helper()
	cfg := badger.DefaultConfig()
	cfg.Dir, cfg.RetentionDays, cfg.MinFreeBytes = t.TempDir(), 0, 0
	db, err := badger.Open(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
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

// mixedBatch has counters, gauges and constants, resets, NaN, infinities and markers.
func mixedBatch(rng *rand.Rand, now int64) *storage.Batch {
	g := storagetest.NewGenerator(storagetest.Workload{Seed: 5, Series: 150, Metrics: 3, Customers: 9, Resets: true})
	var b storage.Batch
	for i := range 40 {
		g.Scrape(&b, now-int64(40-i)*15_000-int64(rng.IntN(3)), 0, 150)
	}
	b.Add(g.Labels(3), storage.Sample{T: now - 100_000, V: math.NaN()}, storage.Sample{T: now - 200_000, V: math.Inf(-1)})
	b.Add(g.Labels(4), storage.Sample{T: now - 90_000, V: storage.StaleNaN})
	b.Add(g.Labels(5), storage.Sample{T: now - 1, V: storage.StaleNaN})
	b.Add(g.Labels(8), storage.Sample{T: now - 1, V: math.Inf(1)})
	return &b
}

// TestWholeMetrics asks every function of stores that read metrics as a whole beside
// their rosters, in statements of few samples, over one shard and over two. Series that
// are stored between two questions are found by both; some go away and come back.
func TestWholeMetrics(t *testing.T) {
	one, model := open(t, testConfig(chtest.DSN(t))), storagetest.NewModel()
	two := open(t, testConfig(chtest.DSN(t), chtest.DSN(t)))
	stores := []*clickhouse.Store{one, two}
	for _, s := range stores {
		s.UseRosters(1)
		s.CutRanges(700)
	}
	now := time.Now().Truncate(time.Minute).UnixMilli()
	rng := rand.New(rand.NewPCG(1, 1))
	tenant := storage.MustTenant("a")
	late := storagetest.NewGenerator(storagetest.Workload{Seed: 6, Series: 60, Metrics: 3, Customers: 50, Resets: true})
	for round := range 3 {
		var b storage.Batch
		switch round {
		case 0:
			b = *mixedBatch(rng, now)
		case 1:
			for i := range 20 {
				late.Scrape(&b, now-int64(20-i)*15_000, 0, 30+30*(i/10))
			}
		}
		if round < 2 {
			storagetest.MustAppend(t, model, "a", &b)
			for _, s := range stores {
				storagetest.MustAppend(t, s, "a", &b)
			}
		} else {
			for _, s := range append([]storage.Store{model}, one, two) {
				sel := storage.Selection{Matchers: []*storage.Matcher{storagetest.Eq("region", "eu-west")}, MinT: now - 90_000, MaxT: now}
				if _, err := s.Delete(t.Context(), tenant, sel); err != nil {
					t.Fatal(err)
				}
			}
		}
		for f := storage.FuncNone; f <= storage.FuncNativeRate; f++ {
			for n, g := range gridsOf(f, now) {
				want, err := model.Evaluate(t.Context(), tenant, g)
				if err != nil {
					t.Fatal(err)
				}
				for shards, s := range stores {
					got, err := s.Evaluate(t.Context(), tenant, g)
					if err != nil {
						t.Fatalf("round %d, store %d: %s, grid %d: %v", round, shards, f, n, err)
					}
					if d := storagetest.DiffGrids(got, want, 1e-12); d != "" {
						t.Fatalf("round %d, store %d: %s, grid %d: %s", round, shards, f, n, d)
					}
					samples := want.Samples
					if f == storage.FuncLast && g.Steps() == 1 {
						samples = want.Series
					}
					if got.Series != want.Series || got.Samples != samples {
						t.Fatalf("round %d, store %d: %s, grid %d: %d series, %d samples, want %d, %d", round, shards, f, n, got.Series, got.Samples, want.Series, samples)
					}
				}
			}
		}
	}
}

// gridsOf are questions of each shape.
func gridsOf(f storage.Func, now int64) []storage.Grid {
	all := []storage.Aggregate{{Op: storage.AggSum}, {Op: storage.AggAvg}, {Op: storage.AggCount}, {Op: storage.AggMin}, {Op: storage.AggMax}, {Op: storage.AggGroup}, {Op: storage.AggQuantile, Arg: 0.7}, {Op: storage.AggStddev}}
	metric := func(n int) []*storage.Matcher {
		return []*storage.Matcher{storagetest.Eq(storage.MetricName, fmt.Sprintf("http_requests_%03d_total", n))}
	}
	out := []storage.Grid{
		{Matchers: metric(0), Start: now, End: now, Window: 180_000, Aggregates: all, Grouping: []string{"region"}},
		{Matchers: append(metric(1), storagetest.Ne("status", "404")), Start: now - 300_000, End: now, Step: 60_000, Window: 130_000, Offset: 7_777, Aggregates: all, Grouping: []string{"serial", "instance", "endpoint"}, Without: true},
		{Matchers: metric(2), Edges: []int64{now - 500_001, now - 333_333, now - 100_001, now}, Aggregates: all[:6]},
	}
	if f != storage.FuncNone {
		out = append(out, storage.Grid{Matchers: metric(0), Start: now - 100_000, End: now, Step: 50_000, Window: 120_000, Aggregates: []storage.Aggregate{{Op: storage.AggTopK, Arg: 3}}, Grouping: []string{"region"}})
	}
	for i := range out {
		out[i].Func, out[i].FuncArg = f, 0.4
	}
	return out
}

func randomMatchers(rng *rand.Rand) []*storage.Matcher {
	ms := []*storage.Matcher{storagetest.Eq(storage.MetricName, fmt.Sprintf("http_requests_%03d_total", rng.IntN(3)))}
	return append(ms, [][]*storage.Matcher{
		nil,
		{storagetest.Re("region", "eu-.*")},
		{storagetest.Ne("status", "200")},
		{storagetest.Eq("customer_id", fmt.Sprintf("customer-%08d", rng.IntN(9)))},
		{storagetest.NotRe("job", "service-0[0-5]|service-20")},
		{storagetest.Eq("absent", "")},
	}[rng.IntN(6)]...)
}

func randomGrid(rng *rand.Rand, ms []*storage.Matcher, now int64) storage.Grid {
	g := storage.Grid{Matchers: ms, Func: storage.Func(rng.IntN(int(storage.FuncNativeRate) + 1)), FuncArg: 0.7}
	if rng.IntN(4) == 0 {
		g.Edges = []int64{now - 500_001, now - 333_333, now - 100_001, now}
	} else {
		g.End = now - rng.Int64N(100_000)
		g.Step = 1 + rng.Int64N(90_000)
		g.Start = g.End - g.Step*max(0, rng.Int64N(16)-8) // half are instants
		g.Window = 1 + rng.Int64N(200_000)
		g.Offset = []int64{0, 7_001}[rng.IntN(2)]
	}
	ops := []storage.Aggregate{{Op: storage.AggSum}, {Op: storage.AggAvg}, {Op: storage.AggCount}, {Op: storage.AggMin}, {Op: storage.AggMax}, {Op: storage.AggGroup}}
	if g.Func != storage.FuncNone {
		ops = append(ops, storage.Aggregate{Op: storage.AggQuantile, Arg: 0.9})
	}
	from := rng.IntN(len(ops))
	g.Aggregates = ops[from : from+1+rng.IntN(len(ops)-from)]
	g.Grouping = [][]string{nil, {"region"}, {"region", "status"}}[rng.IntN(3)]
	g.Without = rng.IntN(3) == 0
	return g
}

// TestDuplicateRuleBeforeAndAfterMerges: the same winner raw, in sums and in counts,
// in both orders of arrival, before and after OPTIMIZE FINAL.
func TestDuplicateRuleBeforeAndAfterMerges(t *testing.T) {
	server := chtest.Start(t)
	dsn := server.Database(t)
	s, model := open(t, testConfig(dsn)), storagetest.NewModel()
	now := time.Now().Truncate(time.Second).UnixMilli()
	nan := math.Float64frombits(0xfff8000000000001)
	for i, c := range [][2]float64{{5, 3}, {storage.StaleNaN, -7}, {nan, storage.StaleNaN}, {0, math.Copysign(0, -1)}, {math.Inf(1), 1}} {
		for order := range 2 {
			for n := range 2 {
				var b storage.Batch
				b.Add(storage.LabelsFromStrings(storage.MetricName, "m", "case", fmt.Sprint(i), "order", fmt.Sprint(order)), storage.Sample{T: now - 1000, V: c[(n+order)%2]})
				storagetest.MustAppend(t, s, "a", &b)
				storagetest.MustAppend(t, model, "a", &b)
			}
		}
	}
	h1, h2 := tsdbutil.GenerateTestHistogram(1), tsdbutil.GenerateTestHistogram(9)
	for order, hs := range [][]storage.HistogramSample{{{T: now, H: h1}, {T: now, H: h2}}, {{T: now, H: h2}, {T: now, H: h1}}} {
		for _, h := range hs {
			var b storage.Batch
			ls := storage.LabelsFromStrings(storage.MetricName, "h", "order", fmt.Sprint(order))
			b.AddHistograms(ls, h)
			b.Add(ls, storage.Sample{T: now, V: 1e300})
			storagetest.MustAppend(t, s, "a", &b)
			storagetest.MustAppend(t, model, "a", &b)
		}
	}
	grid := storage.Grid{
		Matchers: []*storage.Matcher{storagetest.Eq(storage.MetricName, "m"), storagetest.Re("case", "[013]")}, Edges: []int64{now - 5000, now},
		Aggregates: []storage.Aggregate{{Op: storage.AggSum}, {Op: storage.AggCount}, {Op: storage.AggMin}, {Op: storage.AggMax}}, Grouping: []string{"case", "order"},
	}
	check := func(when string) {
		t.Helper()
		sel := storage.Selection{MinT: now - 5000, MaxT: now}
		if d := storagetest.DiffSeries(storagetest.Collect(t, s, "a", sel), storagetest.Collect(t, model, "a", sel)); d != "" {
			t.Fatalf("%s: %s", when, d)
		}
		got, err := s.Evaluate(t.Context(), storage.MustTenant("a"), grid)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		want, _ := model.Evaluate(t.Context(), storage.MustTenant("a"), grid)
		if d := storagetest.DiffGrids(got, want, 0); d != "" {
			t.Fatalf("%s: %s", when, d)
		}
	}
	check("before a merge")
	database := dsn[strings.LastIndexByte(dsn, '/')+1:]
	for _, table := range []string{"samples", "histograms", "series"} {
		server.Exec(t, "OPTIMIZE TABLE "+database+"."+table+" FINAL")
	}
	check("after a merge")
}

// TestTimesFarFromNow: with retention for ever and no future limit, times of 1970 and
// before, and far ahead, are stored, found and aggregated.
func TestTimesFarFromNow(t *testing.T) {
	cfg := testConfig(chtest.DSN(t))
	cfg.RetentionDays, cfg.FutureLimit = 0, 0
	s := open(t, cfg)
	mc := storagetest.DefaultModelConfig()
	mc.RetentionDays, mc.FutureLimit = 0, 0
	model := storagetest.NewModelWith(mc)
	var b storage.Batch
	for i, base := range []int64{0, -86_400_000*400 - 1, -1, 86_400_000 - 1, 4_294_967_296_000, 7_000_000_000_000} {
		b.Add(storage.LabelsFromStrings(storage.MetricName, "m", "i", fmt.Sprint(i)), storage.Sample{T: base, V: 1}, storage.Sample{T: base + 60_000, V: 4})
	}
	storagetest.MustAppend(t, s, "a", &b)
	storagetest.MustAppend(t, model, "a", &b)
	for _, r := range [][2]int64{{math.MinInt64 / 4, math.MaxInt64 / 4}, {0, 100_000}, {-1, -1}, {4_294_967_296_000, math.MaxInt64}} {
		sel := storage.Selection{MinT: r[0], MaxT: r[1]}
		if d := storagetest.DiffSeries(storagetest.Collect(t, s, "a", sel), storagetest.Collect(t, model, "a", sel)); d != "" {
			t.Fatalf("%v: %s", r, d)
		}
	}
	g := storage.Grid{
		Matchers: []*storage.Matcher{storagetest.Eq(storage.MetricName, "m")}, Start: 0, End: 120_000, Step: 60_000, Window: 120_000,
		Func: storage.FuncRate, Aggregates: []storage.Aggregate{{Op: storage.AggSum}}, Grouping: []string{"i"},
	}
	got, err := s.Evaluate(t.Context(), storage.MustTenant("a"), g)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := model.Evaluate(t.Context(), storage.MustTenant("a"), g)
	if d := storagetest.DiffGrids(got, want, 1e-12); d != "" {
		t.Fatal(d)
	}
}
