package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/luminate/luminate/storage/clickhouse/chtest"
)

// startOnClickHouse runs the real binary over a database.
func startOnClickHouse(t *testing.T, dsn string, args ...string) *process {
	t.Helper()
	bin, err := luminateBinary()
	if err != nil {
		t.Fatal(err)
	}
	addr := freeAddress(t)
	argv := append([]string{bin, "serve", "--server.listen", addr, "--storage.backend=clickhouse", "--storage.clickhouse.dsn", dsn, "--log.format", "text"}, args...)
	return startProcess(t, "http://"+addr, "/readyz", nil, argv...)
}

// TestBackupDrillClickHouse is the drill of the runbook on ClickHouse: back up through
// the running server, wipe, restore by name and by manifest, start, compare; what is
// not empty or damaged is refused.
func TestBackupDrillClickHouse(t *testing.T) {
	server, dir := chtest.Start(t), t.TempDir()
	dsn, to := server.Database(t), "File('"+server.Folder(t)+"')"
	flags := []string{"--storage.backend=clickhouse", "--storage.clickhouse.backupTo", to, "--storage.clickhouse.dsn"}
	p := startOnClickHouse(t, dsn, "--admin.enable", "--storage.clickhouse.backupTo", to)
	query := writeEvents(t, p.url, 3000)
	at := "&time=" + fmt.Sprint(time.Now().Unix())
	want := resultPart(t, query+at)

	manifest := filepath.Join(dir, "online.backup")
	var notes bytes.Buffer
	run := func(command string, args ...string) error {
		return runCommand(t, &notes, append(append([]string{command}, args...), append(flags, dsn)...)...)
	}
	if err := run("backup", "--url", p.url, "--out", manifest); err != nil {
		t.Fatal(err)
	}
	p.stop(syscall.SIGTERM)
	if err := run("backup", "--offline", "--out", filepath.Join(dir, "offline.backup")); err != nil {
		t.Fatal(err)
	}
	if err := run("restore", "--from", manifest); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("restore over data: %v", err)
	}
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`"name":"([^"]+)"`).FindSubmatch(text)
	for _, from := range [][]string{{"--from", manifest}, {"--name", string(name[1])}, {"--force", "--from", filepath.Join(dir, "offline.backup")}} {
		if from[0] != "--force" {
			database := dsn[strings.LastIndexByte(dsn, '/')+1:]
			server.Exec(t, "DROP DATABASE "+database)
			server.Exec(t, "CREATE DATABASE "+database)
		}
		if err := run("restore", from...); err != nil {
			t.Fatalf("restore %v: %v", from, err)
		}
		if !strings.Contains(notes.String(), "every count and hash as in the backup") {
			t.Errorf("restore says %q", &notes)
		}
		again := startOnClickHouse(t, dsn)
		if got := resultPart(t, strings.Replace(query, p.url, again.url, 1)+at); got != want {
			t.Errorf("restored %v:\n got %.300s\nwant %.300s", from, got, want)
		}
		again.stop(syscall.SIGTERM)
	}
	bad := bytes.Clone(text)
	bad[len(bad)/2] ^= 4
	if err := os.WriteFile(manifest, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run("restore", "--force", "--from", manifest); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged manifest: %v", err)
	}
}
