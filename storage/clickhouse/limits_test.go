package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

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
// its request is.
func TestDeadlineAndCancelStopTheServer(t *testing.T) {
	s := openFor(t, func(*Config) {})
	const slow = "SELECT sum(sleepEachRow(0.01)) FROM numbers(100000) GROUP BY number % 5 SETTINGS max_block_size = 10"
	for kind, limit := range map[storage.Kind]func(context.Context) (context.Context, context.CancelFunc){
		storage.KindTimeout: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 200*time.Millisecond)
		},
		storage.KindCanceled: func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(200*time.Millisecond, cancel)
			return ctx, cancel
		},
	} {
		ctx, cancel := limit(t.Context())
		err := translate(ctx, "test", s.each(ctx, s.home(), slow, nil, func(driver.Rows) error { return nil }))
		cancel()
		if storage.KindOf(err) != kind {
			t.Fatalf("got %v, want %s", err, kind)
		}
		for running := uint64(1); running > 0; {
			err := s.each(t.Context(), s.home(), "SELECT count() FROM system.processes WHERE query LIKE '%sleepEachRow(0.01)) FROM numbers(100000) GROUP BY number % 5%' AND query NOT LIKE '%system.processes%'", nil,
				func(r driver.Rows) error { return r.Scan(&running) })
			if err != nil {
				t.Fatal(err)
			}
			if t.Context().Err() != nil {
				t.Fatal("the statement still runs")
			}
		}
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
