package clickhouse_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/clickhouse"
	"github.com/luminate/luminate/storage/clickhouse/chtest"
	"github.com/luminate/luminate/storage/storagetest"
)

// ownCPU is user plus system time of this process.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// ingest appends scrapes of a workload with so many senders and samples a request, and
// reports the cost for each sample, Luminate's and the engine's told apart.
func ingest(b *testing.B, s *clickhouse.Store, server *chtest.Server, g *storagetest.Generator, senders, perRequest, scrapes int, end int64) {
	b.Helper()
	var total int
	var generating time.Duration
	own, engine, begin := ownCPU(), server.CPU(), time.Now()
	for i := range scrapes {
		before := ownCPU()
		var batches []*storage.Batch
		for from := 0; from < g.Series(); from += perRequest {
			var batch storage.Batch
			g.Scrape(&batch, end-int64(scrapes-i)*15_000, from, min(from+perRequest, g.Series()))
			batches = append(batches, &batch)
			total += len(batch.Samples)
		}
		generating += ownCPU() - before
		var wg sync.WaitGroup
		for n := range senders {
			wg.Go(func() {
				for j := n; j < len(batches); j += senders {
					if _, err := s.Append(context.Background(), storage.MustTenant("bench"), batches[j]); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	b.ReportMetric(float64(total)/time.Since(begin).Seconds(), "samples/s")
	b.ReportMetric((ownCPU()-own-generating).Seconds()/float64(total)*1e6, "luminate-cpu-s/Msample")
	b.ReportMetric((server.CPU()-engine).Seconds()/float64(total)*1e6, "engine-cpu-s/Msample")
}

func benchStore(b *testing.B) (*clickhouse.Store, *chtest.Server, string) {
	b.Helper()
	server := chtest.Own(b)
	dsn := server.Database(b)
	cfg := clickhouse.DefaultConfig()
	cfg.DSN = dsn
	s, err := clickhouse.Open(b.Context(), cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s, server, dsn
}

// reportDisk merges a table and reports its bytes for each row.
func reportDisk(b *testing.B, dsn, table, unit string) {
	b.Helper()
	o, err := chgo.ParseDSN(dsn)
	if err != nil {
		b.Fatal(err)
	}
	c, err := chgo.Open(o)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	if err := c.Exec(b.Context(), "OPTIMIZE TABLE "+table+" FINAL"); err != nil {
		b.Fatal(err)
	}
	var perRow float64
	row := c.QueryRow(b.Context(), "SELECT sum(bytes_on_disk) / sum(rows) FROM system.parts WHERE active AND database = currentDatabase() AND table = '"+table+"'")
	if err := row.Scan(&perRow); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(perRow, unit)
	if testing.Verbose() {
		columns(b, c, table)
	}
}

func columns(b *testing.B, c chgo.Conn, table string) {
	b.Helper()
	rows, err := c.Query(b.Context(), "SELECT name, data_compressed_bytes FROM system.columns WHERE database = currentDatabase() AND table = '"+table+"'")
	if err != nil {
		b.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var n uint64
		if err := rows.Scan(&name, &n); err != nil {
			b.Fatal(err)
		}
		b.Logf("%s.%s: %d bytes", table, name, n)
	}
}

// BenchmarkIngest is 100k series of 50 metrics, ten scrapes.
func BenchmarkIngest(b *testing.B) {
	g := storagetest.NewGenerator(storagetest.PerformanceWorkload(100_000, 50))
	for b.Loop() {
		s, server, dsn := benchStore(b)
		ingest(b, s, server, g, 4, 2_000, 10, time.Now().UnixMilli())
		reportDisk(b, dsn, "samples", "B/sample")
		reportDisk(b, dsn, "series", "B/series-day")
	}
}

// BenchmarkBlocks is what a sample costs by the size of its block: one sender, whose
// requests are blocks of their own, over series that are known.
func BenchmarkBlocks(b *testing.B) {
	for _, rows := range []int{2_000, 8_000, 32_000, 100_000} {
		b.Run(fmt.Sprint(rows), func(b *testing.B) {
			g := storagetest.NewGenerator(storagetest.PerformanceWorkload(100_000, 50))
			for b.Loop() {
				s, server, _ := benchStore(b)
				now := time.Now().UnixMilli()
				ingest(b, s, server, g, 1, 100_000, 1, now-60_000)
				ingest(b, s, server, g, 1, rows, 4, now)
			}
		})
	}
}

// BenchmarkMillion is a million series of one metric, four scrapes, and queries.
func BenchmarkMillion(b *testing.B) {
	s, server, dsn := benchStore(b)
	g := storagetest.NewGenerator(storagetest.PerformanceWorkload(1_000_000, 1))
	now := time.Now().UnixMilli()
	b.Run("ingest", func(b *testing.B) {
		for b.Loop() {
			ingest(b, s, server, g, 4, 2_000, 4, now)
			reportDisk(b, dsn, "samples", "B/sample")
			reportDisk(b, dsn, "series", "B/series-day")
		}
	})
	metric := storagetest.Eq(storage.MetricName, "http_requests_000_total")
	instant := func(f storage.Func, window int64, op storage.Aggregate, by ...string) storage.Grid {
		return storage.Grid{Matchers: []*storage.Matcher{metric}, Start: now, End: now, Window: window, Func: f, Aggregates: []storage.Aggregate{op}, Grouping: by}
	}
	for _, q := range []struct {
		name string
		grid storage.Grid
	}{
		{"sum_by_region_rate", instant(storage.FuncRate, 300_000, storage.Aggregate{Op: storage.AggSum}, "region")},
		{"sum_by_customer_rate", instant(storage.FuncRate, 300_000, storage.Aggregate{Op: storage.AggSum}, "customer_id")},
		{"quantile_by_region", instant(storage.FuncLast, 300_000, storage.Aggregate{Op: storage.AggQuantile, Arg: 0.95}, "region")},
		{"count", instant(storage.FuncLast, 300_000, storage.Aggregate{Op: storage.AggCount})},
	} {
		b.Run(q.name, func(b *testing.B) {
			engine := server.CPU()
			for b.Loop() {
				if _, err := s.Evaluate(b.Context(), storage.MustTenant("bench"), q.grid); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric((server.CPU()-engine).Seconds()/float64(b.N), "engine-cpu-s/op")
		})
	}
	for _, q := range []struct {
		name string
		ms   []*storage.Matcher
	}{
		{"one_series", []*storage.Matcher{metric, storagetest.Eq("serial", "serial-0000004711")}},
		{"one_customer", []*storage.Matcher{metric, storagetest.Eq("customer_id", g.Labels(7).Get("customer_id"))}},
	} {
		b.Run(q.name, func(b *testing.B) {
			n := 0
			for b.Loop() {
				n = len(storagetest.Collect(b, s, "bench", storage.Selection{Matchers: q.ms, MinT: now - 3_600_000, MaxT: now}))
			}
			b.ReportMetric(float64(n), "series")
		})
	}
}
