//go:build e2e

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger"
	"github.com/luminate/luminate/storage/clickhouse/chtest"
	"github.com/luminate/luminate/storage/storagetest"
	"github.com/prometheus/client_golang/prometheus"
)

// The size of the migration that is killed; LUMINATE_TEST_MIGRATE_SERIES makes it
// larger: deploy/README.md has the figures of 200,000.
const (
	migrateDays, migrateScrapes = 4, 25 // a day
	migrateSeriesDefault        = 4000
)

// TestMigrateKilledAndResumed kills the command with SIGKILL in the middle of a day and
// runs it again: finished days are not copied twice, and all days are equal.
func TestMigrateKilledAndResumed(t *testing.T) {
	series := migrateSeriesDefault
	if v, err := strconv.Atoi(os.Getenv("LUMINATE_TEST_MIGRATE_SERIES")); err == nil {
		series = v
	}
	bin, err := luminateBinary()
	if err != nil {
		t.Fatal(err)
	}
	server := chtest.Own(t)
	dsn, dir := server.Database(t), filepath.Join(t.TempDir(), "data")
	samples := fillDays(t, dir, series)
	state := dir + ".migrate.json"
	run := func() (cmd *exec.Cmd, out, notes *bytes.Buffer) {
		out, notes = &bytes.Buffer{}, &bytes.Buffer{}
		cmd = exec.Command(bin, "migrate", "--from-dir", dir, "--storage.clickhouse.dsn", dsn, "--log.format", "text")
		cmd.Stdout, cmd.Stderr = out, notes
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd, out, notes
	}
	first, _, _ := run()
	began := time.Now()
	eventually(t, time.Hour, func() error {
		if n := finishedDays(state); n < 1 {
			return errors.New("no day is finished")
		}
		return nil
	})
	// The next day is under way.
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait() // killed
	before := finishedDays(state)
	if before < 1 || before >= migrateDays {
		t.Fatalf("killed after %d of %d days", before, migrateDays)
	}
	again, report, notes := run()
	if err := again.Wait(); err != nil {
		t.Fatalf("migrate again: %v\n%s%s", err, report, notes)
	}
	took := time.Since(began)
	text := report.String()
	if strings.Contains(text, statusDifferent) || strings.Count(text, statusBefore) != before {
		t.Errorf("%d days were finished before the kill; the report says\n%s", before, text)
	}
	var total uint64
	for _, d := range readMigrateState(t, state) {
		if !d.Equal || d.Source.Samples != d.Arrived.Samples || d.Source.Hash != d.Arrived.Hash {
			t.Errorf("day %s: %+v", d.Day, d)
		}
		total += d.Arrived.Samples
	}
	if total != samples {
		t.Errorf("%d samples arrived, %d were written", total, samples)
	}
	cpu := func(c *exec.Cmd) time.Duration { return c.ProcessState.UserTime() + c.ProcessState.SystemTime() }
	own, perM := cpu(first)+cpu(again), float64(samples)/1e6
	t.Logf("%d series, %d samples, %d days: killed after %d, resumed; %s wall, %.0f samples/s; luminate %.2f CPU-s a million, ClickHouse %.2f",
		series, samples, migrateDays, before, took.Round(time.Second), float64(samples)/took.Seconds(), own.Seconds()/perM, server.CPU().Seconds()/perM)
	t.Logf("\n%s", text)
}

// fillDays writes series with migrateScrapes a day and returns the number of samples.
func fillDays(t *testing.T, dir string, series int) (samples uint64) {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Storage.Badger.Dir = dir
	db, err := badger.Open(badgerConfig(&cfg), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	g := storagetest.NewGenerator(storagetest.PerformanceWorkload(series, 20))
	today := time.Now().UTC().Truncate(24 * time.Hour)
	for day := range migrateDays {
		noon := today.Add(time.Duration(day-migrateDays)*24*time.Hour + 12*time.Hour).UnixMilli()
		for scrape := range migrateScrapes {
			for from := 0; from < g.Series(); from += 10_000 {
				var b storage.Batch
				g.Scrape(&b, noon+int64(scrape)*15_000, from, min(from+10_000, g.Series()))
				r, err := db.Append(t.Context(), storage.MustTenant("acme"), &b)
				if err != nil {
					t.Fatal(err)
				}
				samples += uint64(r.Samples)
			}
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return samples
}

func finishedDays(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	var f stateFile
	if json.Unmarshal(b, &f) != nil {
		return 0
	}
	return len(f.Days)
}

func readMigrateState(t *testing.T, path string) []dayRecord {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var f stateFile
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	return f.Days
}
