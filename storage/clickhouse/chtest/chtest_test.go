package chtest_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"go.uber.org/goleak"

	"github.com/luminate/luminate/storage/clickhouse/chtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func connect(t *testing.T, dsn string) clickhouse.Conn {
	t.Helper()
	o, err := clickhouse.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	o.Compression = &clickhouse.Compression{Method: clickhouse.CompressionLZ4}
	c, err := clickhouse.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

const createSamples = `CREATE TABLE samples (tenant LowCardinality(String), id UInt64, ts DateTime64(3,'UTC'),
 v Float64, labels Map(LowCardinality(String), String)) ENGINE = MergeTree ORDER BY (tenant, id, ts)
 SETTINGS fsync_after_insert = 1`

func TestColumnarBatchRoundTrip(t *testing.T) {
	const n = 100_000
	c, ctx := connect(t, chtest.DSN(t)), context.Background()
	if err := c.Exec(ctx, createSamples); err != nil {
		t.Fatal(err)
	}
	insert(t, c, n)
	rows, err := c.Query(ctx, "SELECT id, ts, v, labels['job'] FROM samples WHERE tenant = {t:String} ORDER BY id",
		clickhouse.Named("t", "a'b\\c\n"))
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	i := uint64(0)
	for rows.Next() {
		var id uint64
		var ts time.Time
		var v float64
		var job string
		if err := rows.Scan(&id, &ts, &v, &job); err != nil {
			t.Fatal(err)
		}
		if id != i || ts.UnixMilli() != int64(i)*15000 || math.Float64bits(v) != math.Float64bits(float64(i)/3) || job != "x\ny" {
			t.Fatalf("row %d: %d %v %v %q", i, id, ts, v, job)
		}
		i++
	}
	if err := rows.Err(); err != nil || i != n {
		t.Fatalf("%d rows, %v", i, err)
	}
}

func insert(t *testing.T, c clickhouse.Conn, n int) {
	t.Helper()
	tenants, ids, times, values := make([]string, n), make([]uint64, n), make([]int64, n), make([]float64, n)
	labels := make([]map[string]string, n)
	for i := range n {
		tenants[i], ids[i], times[i], values[i] = "a'b\\c\n", uint64(i), int64(i)*15000, float64(i)/3
		labels[i] = map[string]string{"job": "x\ny"}
	}
	b, err := c.PrepareBatch(context.Background(), "INSERT INTO samples (tenant, id, ts, v, labels)")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for i, col := range []any{tenants, ids, times, values, labels} {
		if err := b.Column(i).Append(col); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Send(); err != nil {
		t.Fatal(err)
	}
}

func TestExceptionHasItsCode(t *testing.T) {
	c := connect(t, chtest.DSN(t))
	err := c.Exec(context.Background(), "SELECT * FROM missing")
	var ex *clickhouse.Exception
	if !errors.As(err, &ex) || ex.Code != 60 {
		t.Fatalf("want UNKNOWN_TABLE (60), got %v", err)
	}
}

func TestEmptyResultHasColumns(t *testing.T) {
	c := connect(t, chtest.DSN(t))
	rows, err := c.Query(context.Background(), "SELECT 1 AS a, 'x' AS b WHERE 0")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	if got := rows.Columns(); len(got) != 2 || got[0] != "a" || got[1] != "b" {
		t.Fatalf("columns %v", got)
	}
}

func TestCancelStopsTheQuery(t *testing.T) {
	dsn := chtest.DSN(t)
	c, watch := connect(t, dsn), connect(t, dsn)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		rows, err := c.Query(ctx, "SELECT sum(sleepEachRow(0.01)) FROM numbers(100000) GROUP BY number % 7 SETTINGS max_block_size = 10")
		if err == nil {
			err = rows.Close()
		}
		ended <- err
	}()
	waitRunning(t, watch, 1)
	cancel()
	if err := <-ended; err == nil {
		t.Fatal("a cancelled query succeeded")
	}
	waitRunning(t, watch, 0)
}

// waitRunning returns once so many of the sleeping queries run.
func waitRunning(t *testing.T, c clickhouse.Conn, want uint64) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		var n uint64
		row := c.QueryRow(context.Background(), "SELECT count() FROM system.processes WHERE query LIKE '%sleepEachRow(0.01)%' AND query NOT LIKE '%system.processes%'")
		if err := row.Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d sleeping queries run, want %d", n, want)
		}
	}
}

func TestKillAndRestartKeepsData(t *testing.T) {
	s := chtest.Own(t)
	ctx := context.Background()
	s.Exec(t, "CREATE DATABASE kept")
	c := connect(t, s.In("kept"))
	if err := c.Exec(ctx, createSamples); err != nil {
		t.Fatal(err)
	}
	insert(t, c, 1000)
	s.Kill(t)
	if err := c.Ping(ctx); err == nil {
		t.Fatal("a killed server answers")
	}
	s.Restart(t)
	again := connect(t, s.In("kept"))
	var n uint64
	if err := again.QueryRow(ctx, "SELECT count() FROM samples").Scan(&n); err != nil || n != 1000 {
		t.Fatalf("%d rows after the restart, %v", n, err)
	}
	if s.CPU() <= 0 {
		t.Fatal("no processor time counted")
	}
}
