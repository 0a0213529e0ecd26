package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/luminate/luminate/storage/clickhouse/chtest"
)

// clickhouseName is the peer that keeps its data in ClickHouse.
const clickhouseName = "luminate-clickhouse"

// engineDatabase is where it keeps them.
const engineDatabase = "luminate_bench"

// engine is the ClickHouse of one run.
type engine struct {
	*chtest.Server
	dsn string
}

// newEngine starts a ClickHouse with its data below dir, or takes the one of
// LUMINATE_TEST_CLICKHOUSE, and empties the benchmark's database.
func newEngine(ctx context.Context, dir string) (*engine, error) {
	s, err := chtest.Launch(dir)
	if err != nil {
		return nil, err
	}
	dsn, err := s.Create(ctx, engineDatabase)
	if err != nil {
		s.Stop()
		return nil, err
	}
	return &engine{Server: s, dsn: dsn}, nil
}

// clickhouseCommand runs a ClickHouse for whoever needs one without Docker.
func clickhouseCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "clickhouse", Short: "Run the tests' ClickHouse in a folder, print its DSN and wait for a signal", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := newEngine(cmd.Context(), dir)
			if err != nil {
				return err
			}
			defer e.Stop()
			fmt.Fprintln(os.Stdout, e.dsn)
			<-cmd.Context().Done()
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "clickhouse", "folder for its data")
	return cmd
}

// clickhousePeer runs luminate before a ClickHouse of its own.
func clickhousePeer(extra []string) (peer, error) {
	path, err := findBinary("luminate")
	if err != nil {
		return peer{}, err
	}
	return peer{name: clickhouseName, clickhouse: true, make: func(dir, addr string) (*server, error) {
		e, err := newEngine(context.Background(), filepath.Join(dir, "engine"))
		if err != nil {
			return nil, err
		}
		argv := append([]string{path, "serve", "--server.listen", addr, "--storage.backend", "clickhouse",
			"--storage.clickhouse.dsn", e.dsn, "--log.format", "text"}, extra...)
		return &server{name: clickhouseName, url: "http://" + addr, dir: dir, ready: "/readyz", argv: argv, engine: e}, nil
	}}, nil
}

// usage is the engine's own; nothing for one that was running before.
func (e *engine) usage() (usage, error) {
	if e.PID() == 0 {
		return usage{}, nil
	}
	return usageOf(e.PID())
}

// mergeTimeout bounds waiting for merges, and one OPTIMIZE.
const mergeTimeout = 5 * time.Minute

// settle waits until no merge runs, so that the cost of merging what was written is
// counted with the writing.
func (e *engine) settle(ctx context.Context) error {
	idle := 0
	for begin := time.Now(); idle < 5 && time.Since(begin) < mergeTimeout; wait(ctx, 200*time.Millisecond) {
		n, err := e.Number(ctx, engineDatabase, "SELECT toFloat64(count()) FROM system.merges")
		if err != nil {
			return err
		}
		if idle++; n > 0 {
			idle = 0
		}
	}
	return ctx.Err()
}

// parts counts the active parts of the fullest partition.
func (e *engine) parts(ctx context.Context) (float64, error) {
	return e.Number(ctx, engineDatabase, "SELECT toFloat64(max(n)) FROM (SELECT count() AS n FROM system.parts WHERE active AND database = currentDatabase() GROUP BY table, partition)")
}

// disk merges everything and returns the bytes of the samples, and of the labels and
// their index apart.
func (e *engine) disk(ctx context.Context) (samples, series float64, err error) {
	bytesOf := func(table string) (float64, error) {
		if err := e.Run(ctx, engineDatabase, "OPTIMIZE TABLE "+table+" FINAL", mergeTimeout); err != nil {
			return 0, err
		}
		return e.Number(ctx, engineDatabase, "SELECT toFloat64(sum(bytes_on_disk)) FROM system.parts WHERE active AND database = currentDatabase() AND table = '"+table+"'")
	}
	if samples, err = bytesOf("samples"); err != nil {
		return 0, 0, err
	}
	series, err = bytesOf("series")
	return samples, series, err
}

// putEngine files what the engine has used since before.
func (s *scenario) putEngine(ctx context.Context, p peer, e *engine, before usage) error {
	written, err := e.usage()
	if err != nil {
		return err
	}
	parts, err := e.parts(ctx)
	if err != nil {
		return err
	}
	if err := e.settle(ctx); err != nil {
		return err
	}
	settled, err := e.usage()
	if err != nil {
		return err
	}
	millions := float64(s.data.samples) / 1e6
	s.put(p, "ClickHouse during ingest", "CPU-s per M samples", "", (written.cpu-before.cpu).Seconds()/millions)
	s.put(p, "ClickHouse, merges after it included", "CPU-s per M samples", "", (settled.cpu-before.cpu).Seconds()/millions)
	s.put(p, "ClickHouse, peak RSS", "MiB", "", float64(settled.peakRSS)/(1<<20))
	s.put(p, "active parts in the fullest partition, after ingest", "", "< 300", parts)
	return nil
}

// putDisk merges everything and files the bytes of samples and labels.
func (s *scenario) putDisk(ctx context.Context, p peer, e *engine) error {
	samples, series, err := e.disk(ctx)
	if err != nil {
		return err
	}
	n := float64(s.data.samples)
	s.put(p, "bytes a sample on disk after close", "B", targets[s.name].bytes.of(p), samples/n)
	s.put(p, "of labels and their index, apart", "B", "", series/n)
	return nil
}
