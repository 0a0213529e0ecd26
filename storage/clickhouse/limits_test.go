package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/clickhouse/chtest"
	"github.com/luminate/luminate/storage/storagetest"
)

func openFor(t *testing.T, change func(*Config)) *Store {
	t.Helper()
	cfg := DefaultConfig()
	cfg.DSN, cfg.FlushAge, cfg.ReadConns = chtest.DSN(t), time.Millisecond, 3
	change(&cfg)
	s, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func fillSome(t *testing.T, s *Store, now int64) {
	t.Helper()
	var b storage.Batch
	for i := range 200 {
		var xs []storage.Sample
		for j := range 50 {
			xs = append(xs, storage.Sample{T: now - int64(j)*1000, V: float64(j)})
		}
		b.Add(storage.LabelsFromStrings(storage.MetricName, "m", "i", fmt.Sprint(i)), xs...)
	}
	storagetest.MustAppend(t, s, "a", &b)
}

func TestServerLimitsAreNamed(t *testing.T) {
	now := time.Now().UnixMilli()
	for id, change := range map[string]func(*Config){
		"max-rows-to-read":    func(c *Config) { c.MaxRowsToRead = 1000 },
		"max-result-rows":     func(c *Config) { c.MaxResultRows = 1000 },
		"max-selected-series": func(c *Config) { c.MaxSelectedSeries = 10 },
	} {
		s := openFor(t, change)
		fillSome(t, s, now)
		var last error
		for _, err := range s.Select(t.Context(), storage.MustTenant("a"), storage.Selection{MinT: now - 100_000, MaxT: now}) {
			last = err
		}
		var e *storage.Error
		if !errors.As(last, &e) || e.Kind != storage.KindTooLarge || e.ID != id || e.Setting == "" {
			t.Errorf("%s: got %v", id, last)
		}
	}
}

// TestASmallBufferChangesNothing reads sorted series in many chunks.
func TestASmallBufferChangesNothing(t *testing.T) {
	now := time.Now().UnixMilli()
	s := openFor(t, func(c *Config) { c.SelectBuffer = 3_000 })
	fillSome(t, s, now)
	n := 0
	var prev storage.Labels
	for x, err := range s.Select(t.Context(), storage.MustTenant("a"), storage.Selection{MinT: now - 100_000, MaxT: now}) {
		if err != nil {
			t.Fatal(err)
		}
		if storage.CompareLabels(prev, x.Labels) >= 0 || len(x.Samples) != 50 {
			t.Fatalf("%s after %s, %d samples", x.Labels, prev, len(x.Samples))
		}
		prev = x.Labels
		n++
	}
	if n != 200 {
		t.Fatalf("%d series, want 200", n)
	}
}

// TestDeadlineAndCancelStopTheServer: the statement is gone from the server soon after
// its request is, by whichever client it is read, before its first rows and between two
// blocks of them.
func TestDeadlineAndCancelStopTheServer(t *testing.T) {
	s := openFor(t, func(*Config) {})
	byRows := func(ctx context.Context, sql string) error {
		return s.each(ctx, s.home(), sql, nil, func(driver.Rows) error { return nil })
	}
	byColumns := func(ctx context.Context, sql string) error {
		var x proto.ColUInt64
		return s.columns(ctx, s.home(), sql, nil, proto.Results{{Name: "x", Data: &x}}, func(int) error { x.Reset(); return nil })
	}
	const sum, stream = "SELECT sum(sleepEachRow(0.01)) AS x FROM numbers(100000) GROUP BY number % 5", "SELECT number + sleepEachRow(0.001) AS x FROM numbers(1000000)"
	for i, c := range []struct {
		read func(context.Context, string) error
		sql  string
	}{{byRows, sum}, {byColumns, sum}, {byColumns, stream}} {
		for _, kind := range []storage.Kind{storage.KindTimeout, storage.KindCanceled} {
			mark := fmt.Sprintf("priority = %d", 1000+10*i+int(kind)) // tells this statement from others
			ctx, cancel := context.WithCancel(t.Context())
			if kind == storage.KindTimeout {
				ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
			}
			timer := time.AfterFunc(200*time.Millisecond, cancel)
			if kind == storage.KindTimeout {
				timer.Stop()
			}
			err := translate(ctx, "test", c.read(ctx, c.sql+" SETTINGS max_block_size = 10, "+mark))
			cancel()
			if storage.KindOf(err) != kind {
				t.Fatalf("%s: got %v, want %s", c.sql, err, kind)
			}
			ended := time.Now()
			waitGone(t, s, mark)
			t.Logf("%s, %s: gone from the server %s after its request", kind, c.sql, time.Since(ended))
		}
	}
}

// waitGone returns when no statement with the mark runs on the server.
func waitGone(t *testing.T, s *Store, mark string) {
	t.Helper()
	for running := uint64(1); running > 0; {
		err := s.each(t.Context(), s.home(), "SELECT count() FROM system.processes WHERE query LIKE '%"+mark+"%' AND query NOT LIKE '%system.processes%'", nil,
			func(r driver.Rows) error { return r.Scan(&running) })
		if err != nil {
			t.Fatal(err)
		}
		if t.Context().Err() != nil {
			t.Fatal("the statement still runs")
		}
	}
}

// TestSettingsOfTheDSNGoWithBlocks: what the DSN asks for, such as a quorum, holds for
// inserted blocks too.
func TestSettingsOfTheDSNGoWithBlocks(t *testing.T) {
	s := openFor(t, func(*Config) {})
	fillSome(t, s, time.Now().UnixMilli())
	s.home().write.opts.Settings = clickhouse.Settings{"no_such_setting_of_the_dsn": 1}
	var b storage.Batch
	b.Add(storage.LabelsFromStrings(storage.MetricName, "m", "i", "0"), storage.Sample{T: time.Now().UnixMilli(), V: 1})
	_, err := s.Append(t.Context(), storage.MustTenant("a"), &b)
	if err == nil || !strings.Contains(err.Error(), "no_such_setting_of_the_dsn") {
		t.Fatalf("got %v, want the server's refusal", err)
	}
}

// TestSchemaIsMigrated: a database of the version before gets what is new, once.
func TestSchemaIsMigrated(t *testing.T) {
	s := openFor(t, func(*Config) {})
	for _, table := range []string{"samples", "histograms", "exemplars"} {
		if err := s.exec(t.Context(), s.home(), "ALTER TABLE "+table+" MODIFY COLUMN ts CODEC(DoubleDelta, ZSTD(1))", nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, table := range []string{"samples", "histograms", "series"} {
		if err := s.exec(t.Context(), s.home(), "ALTER TABLE "+table+" RESET SETTING merge_selector_base", nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.insert(t.Context(), s.home(), render("write/insert_meta", nil), newToken(), []any{[]string{"schema_version"}, []string{"1"}}); err != nil {
		t.Fatal(err)
	}
	missing, err := SchemaDiff(t.Context(), s.cfg)
	if err != nil || len(missing) != len(migrations) {
		t.Fatalf("missing before: %q, %v", missing, err)
	}
	if err := SchemaApply(t.Context(), s.cfg); err != nil {
		t.Fatal(err)
	}
	if missing, err = SchemaDiff(t.Context(), s.cfg); err != nil || len(missing) != 0 {
		t.Fatalf("missing afterwards: %q, %v", missing, err)
	}
	n := uint64(0)
	err = s.each(t.Context(), s.home(), "SELECT count() FROM system.tables WHERE database = currentDatabase() AND engine_full LIKE '%merge_selector_base = 10%'", nil,
		func(r driver.Rows) error { return r.Scan(&n) })
	if err != nil || n != 3 {
		t.Fatalf("%d tables have the setting, %v", n, err)
	}
	err = s.each(t.Context(), s.home(), "SELECT count() FROM system.columns WHERE database = currentDatabase() AND name = 'ts' AND compression_codec = 'CODEC(Delta(8), ZSTD(1))'", nil,
		func(r driver.Rows) error { return r.Scan(&n) })
	if err != nil || n != 3 {
		t.Fatalf("%d tables have the codec of times, %v", n, err)
	}
}

// TestLongRangesAreCut: what does not fit the memory of an evaluation at once does when
// a statement brings less, by ids and by ranges of the key.
func TestLongRangesAreCut(t *testing.T) {
	now := time.Now().UnixMilli()
	s := openFor(t, func(c *Config) { c.MaxEvaluateBytes = 256 << 10 })
	fillSome(t, s, now) // 10,000 samples
	g := storage.Grid{
		Matchers: []*storage.Matcher{storagetest.Eq(storage.MetricName, "m")}, Start: now, End: now, Window: 100_000,
		Func: storage.FuncSumOverTime, Aggregates: []storage.Aggregate{{Op: storage.AggSum}},
	}
	for _, few := range []int{fewSeries, 0} {
		s.fewSeries, s.rangeSamples = few, rangeSamples
		var e *storage.Error
		if _, err := s.Evaluate(t.Context(), storage.MustTenant("a"), g); !errors.As(err, &e) || e.ID != "max-evaluate-bytes" || e.Setting != "storage.clickhouse.maxEvaluateBytes" {
			t.Fatalf("in one statement: %v", err)
		}
		s.rangeSamples = 1000
		res, err := s.Evaluate(t.Context(), storage.MustTenant("a"), g)
		if err != nil {
			t.Fatalf("cut: %v", err)
		}
		if res.Samples != 10_000 || len(res.Groups) != 1 || res.Groups[0].Values[0][0] != 200*49*25 {
			t.Fatalf("cut: %d samples, %+v", res.Samples, res.Groups)
		}
	}
}
