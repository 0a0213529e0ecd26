package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/luminate/luminate/storage/badger"
	"github.com/luminate/luminate/storage/clickhouse"
	"github.com/luminate/luminate/storage/clickhouse/chtest"
	"github.com/prometheus/client_golang/prometheus"
)

// TestMigrateBadgerToClickHouse runs the command twice over real stores.
func TestMigrateBadgerToClickHouse(t *testing.T) {
	dsn := chtest.DSN(t)
	dir := filepath.Join(t.TempDir(), "data")
	open := func() *badger.DB {
		cfg := DefaultConfig()
		cfg.Storage.Badger.Dir = dir
		db, err := badger.Open(badgerConfig(&cfg), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	db := open()
	fillForMigration(t, db, migrateNow(), 500)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	var out bytes.Buffer
	args := []string{"migrate", "--from-dir", dir, "--storage.clickhouse.dsn", dsn}
	if err := runCommand(t, &out, append(args, "--dry-run")...); err != nil || strings.Count(out.String(), statusDryRun) < 6 {
		t.Errorf("dry run: %v\n%s", err, &out)
	}
	if _, err := os.Stat(dir + ".migrate.json"); err == nil {
		t.Error("a dry run has written a state file")
	}
	if err := runCommand(t, &out, args...); err != nil {
		t.Fatalf("migrate: %v\n%s", err, &out)
	}
	if strings.Contains(out.String(), "refused by") || strings.Contains(out.String(), statusDifferent) {
		t.Errorf("migrate says\n%s", &out)
	}
	for _, again := range []string{dir + ".migrate.json", filepath.Join(t.TempDir(), "state.json")} {
		// The second time without the state of the first: everything is appended again.
		if err := runCommand(t, &out, append(args, "--state", again)...); err != nil {
			t.Fatalf("migrate again: %v\n%s", err, &out)
		}
	}

	cfg := clickhouse.DefaultConfig()
	cfg.DSN = dsn
	to, err := clickhouse.Open(t.Context(), cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	from := open()
	defer from.Close()
	mustBeMigrated(t, to, from)
}

func TestMigrateRefusesWhatMakesNoSense(t *testing.T) {
	empty := t.TempDir()
	var out bytes.Buffer
	day := time.Now().UTC().Format(time.DateOnly)
	const dsn = "clickhouse://127.0.0.1:1/x"
	for want, args := range map[string][]string{
		"storage.clickhouse.dsn": {"--from-dir", empty},
		"is empty":               {"--from-dir", empty, "--storage.clickhouse.dsn", dsn},
		"no such file":           {"--from-dir", filepath.Join(empty, "none"), "--storage.clickhouse.dsn", dsn},
		"--since":                {"--from-dir", empty, "--dry-run", "--since", "yesterday"},
		"is after --until":       {"--from-dir", empty, "--dry-run", "--since", day, "--until", "2020-01-01"},
		"--tenant":               {"--from-dir", empty, "--dry-run", "--tenant", "a/b"},
	} {
		if err := runCommand(t, &out, append([]string{"migrate"}, args...)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want something about %q", args, err, want)
		}
	}
	if list, _ := os.ReadDir(empty); len(list) > 0 {
		t.Errorf("an empty folder was opened as a store: %v", list)
	}
}
