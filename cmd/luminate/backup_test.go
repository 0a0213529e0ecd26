package main

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// writeEvents writes n events through the native API and returns the query that
// counts and sums them with its answer.
func writeEvents(t *testing.T, base string, n int) (query string) {
	t.Helper()
	var items []string
	now := time.Now().UnixMilli()
	for i := range n {
		items = append(items, fmt.Sprintf(`{"name":"event","timestamp":%d,"value":%d,"dimensions":{"customer_id":"c%d"}}`, now-int64(i)*1000, i, i%50))
	}
	status, body, _ := do(t, "POST", base+"/api/v1/write", "application/json", `{"metrics":[`+strings.Join(items, ",")+`]}`)
	if status != 200 {
		t.Fatalf("write: %d %s", status, body)
	}
	return base + "/api/v1/query?query=" + url.QueryEscape(`sort(sum by (customer_id) (sum_over_time(event[3h])))`)
}

func resultPart(t *testing.T, target string) string {
	t.Helper()
	_, body, _ := do(t, "GET", target, "", "")
	_, result, ok := strings.Cut(body, `"result"`)
	if !ok || !strings.Contains(result, "c49") {
		t.Fatalf("no result: %.300s", body)
	}
	return result
}

// TestBackupDrill is the drill of the runbook: back up the running server, wipe,
// restore, start, compare; offline too; and damage is refused.
func TestBackupDrill(t *testing.T) {
	dir := t.TempDir()
	p := startLuminate(t, filepath.Join(dir, "data"), "--admin.enable")
	query := writeEvents(t, p.url, 3000)
	at := "&time=" + fmt.Sprint(time.Now().Unix())
	want := resultPart(t, query+at)

	archive := filepath.Join(dir, "online.backup")
	var notes bytes.Buffer
	if err := runCommand(t, &notes, "backup", "--url", p.url, "--out", archive); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(notes.String(), "sha256") {
		t.Errorf("backup says %q", &notes)
	}
	p.stop(syscall.SIGTERM)
	offline := filepath.Join(dir, "offline.backup")
	if err := runCommand(t, &notes, "backup", "--offline", "--storage.badger.dir", filepath.Join(dir, "data"), "--out", offline); err != nil {
		t.Fatal(err)
	}

	for _, a := range []string{archive, offline} {
		to := filepath.Join(t.TempDir(), "data")
		if err := runCommand(t, &notes, "restore", "--from", a, "--storage.badger.dir", to); err != nil {
			t.Fatalf("restore %s: %v", a, err)
		}
		again := startLuminate(t, to)
		got := resultPart(t, strings.Replace(query, p.url, again.url, 1)+at)
		if got != want {
			t.Errorf("restored from %s:\n got %.300s\nwant %.300s", a, got, want)
		}
		again.stop(syscall.SIGTERM)
	}

	// A folder with data is refused, unless told; then the old data stays aside.
	full := filepath.Join(dir, "data")
	if err := runCommand(t, &notes, "restore", "--from", archive, "--storage.badger.dir", full); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("restore over data: %v", err)
	}
	if err := runCommand(t, &notes, "restore", "--force", "--from", archive, "--storage.badger.dir", full); err != nil {
		t.Errorf("restore --force: %v", err)
	}
	if aside, _ := filepath.Glob(full + ".before-restore-*"); len(aside) != 1 {
		t.Errorf("the old data is not aside: %v", aside)
	}

	// Damage anywhere is refused.
	good, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		bad := bytes.Clone(good)
		bad[(i*2+1)*len(bad)/41] ^= 1 << (i % 8)
		path := filepath.Join(dir, "bad.backup")
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := runCommand(t, &notes, "restore", "--from", path, "--storage.badger.dir", filepath.Join(t.TempDir(), "d")); err == nil {
			t.Errorf("an archive with a flipped bit at %d was restored", (i*2+1)*len(bad)/41)
		}
	}
	if err := os.WriteFile(archive, good[:len(good)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := runCommand(t, &notes, "restore", "--from", archive, "--storage.badger.dir", filepath.Join(t.TempDir(), "d")); err == nil {
		t.Error("half an archive was restored")
	}
}

// runCommand runs a command of the program in this process.
func runCommand(t *testing.T, notes *bytes.Buffer, args ...string) error {
	t.Helper()
	notes.Reset()
	cmd := rootCommand(nil)
	cmd.SetArgs(args)
	cmd.SetOut(notes)
	cmd.SetErr(notes)
	return cmd.ExecuteContext(t.Context())
}
