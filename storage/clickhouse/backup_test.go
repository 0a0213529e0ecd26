package clickhouse_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/clickhouse"
	"github.com/luminate/luminate/storage/clickhouse/chtest"
	"github.com/luminate/luminate/storage/storagetest"
)

var backupTenants = []string{"a", "b"}

// backedUp fills a store over shards of its own and a model with the same, and backs
// the store up to a folder while a writer goes on writing.
func backedUp(t *testing.T, shards int) (cfg clickhouse.Config, model *storagetest.Model, manifest []byte, now int64) {
	t.Helper()
	cfg = testConfig(databases(t, shards)...)
	cfg.BackupTo = "File('" + chtest.Start(t).Folder(t) + "')"
	s := open(t, cfg)
	now = time.Now().UnixMilli()
	model = storagetest.NewModel()
	for i, tenant := range backupTenants {
		for _, to := range []storage.Store{s, model} {
			storagetest.Fill(t, to, tenant, now)
			storagetest.MustAppend(t, to, tenant, batchOf(now-int64(i)*1000, 50+i, 100))
			if err := to.SetRetention(t.Context(), storage.MustTenant(tenant), storage.RetentionPolicy{Metric: "debug_*", Days: 7}); err != nil {
				t.Fatal(err)
			}
		}
	}
	writing, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		for i := 0; writing.Err() == nil; i++ {
			var b storage.Batch
			b.Add(storage.LabelsFromStrings(storage.MetricName, "later", "i", fmt.Sprint(i%7)), storage.Sample{T: now + int64(i), V: 1})
			if _, err := s.Append(context.Background(), storage.MustTenant("later"), &b); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	var w bytes.Buffer
	r, err := s.Backup(t.Context(), &w)
	stop()
	if werr := <-done; err != nil || werr != nil {
		t.Fatalf("backup: %v; writer: %v", err, werr)
	}
	if r.Entries == 0 || r.Bytes != uint64(w.Len()) {
		t.Fatalf("report %+v of a manifest of %d bytes", r, w.Len())
	}
	return cfg, model, w.Bytes(), now
}

func databases(t *testing.T, n int) (dsns []string) {
	t.Helper()
	for range n {
		dsns = append(dsns, chtest.DSN(t))
	}
	return dsns
}

func restoreInto(t *testing.T, cfg clickhouse.Config, manifest []byte, force bool) (clickhouse.RestoreReport, error) {
	t.Helper()
	m, err := clickhouse.ReadManifest(bytes.NewReader(manifest))
	if err != nil {
		t.Fatal(err)
	}
	return clickhouse.Restore(t.Context(), cfg, m, force, slog.New(slog.DiscardHandler))
}

func wantAnswers(t *testing.T, s, model storage.Store, now int64) {
	t.Helper()
	for _, tenant := range backupTenants {
		sel := storage.Selection{MinT: now - 1e9, MaxT: now + 1e6}
		if d := storagetest.DiffSeries(storagetest.Collect(t, s, tenant, sel), storagetest.Collect(t, model, tenant, sel)); d != "" {
			t.Fatalf("tenant %s: %s", tenant, d)
		}
		got, err1 := s.Retention(t.Context(), storage.MustTenant(tenant))
		want, err2 := model.Retention(t.Context(), storage.MustTenant(tenant))
		if err1 != nil || err2 != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("retention %v %v, want %v %v", got, err1, want, err2)
		}
	}
}

// TestBackupAndRestore is the drill over two shards: back up under writes, restore
// into other databases, compare every answer.
func TestBackupAndRestore(t *testing.T) {
	cfg, model, manifest, now := backedUp(t, 2)
	other := cfg
	other.Shards = databases(t, 2)
	if _, err := restoreInto(t, other, manifest, false); err != nil {
		t.Fatalf("restore: %v", err)
	}
	s := open(t, other)
	wantAnswers(t, s, model, now)
	storagetest.MustAppend(t, s, "a", batchOf(now+5000, 1, 1)) // and it goes on

	m, err := clickhouse.ReadManifest(bytes.NewReader(manifest))
	if err != nil {
		t.Fatal(err)
	}
	fetched, err := clickhouse.FetchManifest(t.Context(), cfg, m.Name)
	if err != nil || fetched.Name != m.Name || fetched.Rows() != m.Rows() {
		t.Fatalf("the manifest within the backup: %v", err)
	}
	if _, err := restoreInto(t, other, manifest, false); storage.KindOf(err) != storage.KindInvalid {
		t.Fatalf("restore over data: %v", err)
	}
	r, err := restoreInto(t, other, manifest, true)
	if err != nil || len(r.Aside) == 0 {
		t.Fatalf("restore with force: %+v, %v", r, err)
	}
	wantAnswers(t, open(t, other), model, now)

	one := cfg
	one.Shards = databases(t, 1)
	if _, err := restoreInto(t, one, manifest, false); storage.KindOf(err) != storage.KindInvalid {
		t.Fatalf("two shards into one: %v", err)
	}
}

// TestDamagedBackupIsRefused flips one bit of any file of a backup, again and again: a
// restore either fails and leaves a database that no store opens, or brings back
// every row. A manifest with a flipped bit is refused by itself.
func TestDamagedBackupIsRefused(t *testing.T) {
	cfg, model, manifest, now := backedUp(t, 1)
	folder := cfg.BackupTo[len("File('") : len(cfg.BackupTo)-len("')")]
	other := cfg
	refused, files := 0, 12
	if n, err := strconv.Atoi(os.Getenv("LUMINATE_TEST_DAMAGED_BACKUPS")); err == nil {
		files = n
	}
	for i, f := range filesOf(t, folder, files) {
		other.Shards = databases(t, 1)
		restoreBits := flipBit(t, f, i)
		_, err := restoreInto(t, other, manifest, false)
		if err == nil {
			wantAnswers(t, open(t, other), model, now)
		} else {
			refused++
			wantNothing(t, other, f)
		}
		t.Logf("%s: %v", f, err)
		restoreBits()
	}
	t.Logf("%d of %d damaged backups were refused, the others came back whole", refused, files)
	if refused < files/2 {
		t.Errorf("only %d of %d damaged backups were refused", refused, files)
	}
	for i := range 40 {
		bad := bytes.Clone(manifest)
		bad[i*len(bad)/40] ^= 1 << (i % 8)
		if _, err := clickhouse.ReadManifest(bytes.NewReader(bad)); err == nil {
			t.Errorf("a manifest with a flipped bit at %d is read", i*len(bad)/40)
		}
	}
	if _, err := clickhouse.ReadManifest(bytes.NewReader(manifest[:len(manifest)/2])); err == nil {
		t.Error("half a manifest is read")
	}
}

// wantNothing demands that a store over a refused restore does not open, or is empty:
// what is refused at the manifest has touched nothing.
func wantNothing(t *testing.T, cfg clickhouse.Config, what string) {
	t.Helper()
	s, err := clickhouse.Open(t.Context(), cfg, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return
	}
	defer s.Close()
	if tenants, err := s.Tenants(t.Context()); err != nil || len(tenants) > 0 {
		t.Errorf("%s: after a refused restore there are %v, %v", what, tenants, err)
	}
}

// filesOf returns at most n files below dir, evenly chosen.
func filesOf(t *testing.T, dir string, n int) (out []string) {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if fi, err := d.Info(); err == nil && fi.Size() > 0 {
				all = append(all, path)
			}
		}
		return err
	})
	if err != nil || len(all) == 0 {
		t.Fatalf("%d files in %s: %v", len(all), dir, err)
	}
	for i := range n {
		out = append(out, all[i*len(all)/n])
	}
	return out
}

// flipBit damages a file; the returned function mends it.
func flipBit(t *testing.T, path string, i int) (mend func()) {
	t.Helper()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(good)
	bad[(i*7919)%len(bad)] ^= 1 << (i % 8)
	write := func(b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(bad)
	return func() { write(good) }
}

func TestBackupIsRefusedOrCancelled(t *testing.T) {
	dsn := chtest.DSN(t)
	s := open(t, testConfig(dsn))
	if _, err := s.Backup(t.Context(), &bytes.Buffer{}); storage.KindOf(err) != storage.KindUnsupported {
		t.Fatalf("backup without a destination: %v", err)
	}
	cfg := testConfig(dsn)
	cfg.BackupTo = "Disk('nosuchdisk', 'x')"
	s = open(t, cfg)
	if _, err := s.Backup(t.Context(), &bytes.Buffer{}); err == nil {
		t.Fatal("a backup to a disk that is not there succeeded")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Backup(ctx, &bytes.Buffer{}); storage.KindOf(err) != storage.KindCanceled {
		t.Fatalf("a cancelled backup: %v", err)
	}
}

// TestRunningBackupIsCancelled: a BACKUP that is on its way ends on the server when its
// request does, and leaves no stages.
func TestRunningBackupIsCancelled(t *testing.T) {
	server := chtest.Start(t)
	dsn := server.Database(t)
	cfg := testConfig(dsn + "?max_backup_bandwidth=2000")
	cfg.BackupTo = "File('" + server.Folder(t) + "')"
	s, now := open(t, testConfig(dsn)), time.Now().UnixMilli()
	storagetest.MustAppend(t, s, "a", batchOf(now, 200, 50))
	c := connectTo(t, dsn)
	number := func(query string) (n uint64) {
		t.Helper()
		if err := c.QueryRow(t.Context(), query).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	const running, cancelled = "SELECT count() FROM system.backups WHERE status = 'CREATING_BACKUP'", "SELECT count() FROM system.backups WHERE status = 'BACKUP_CANCELLED'"
	before := number(cancelled)
	slow := open(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := slow.Backup(ctx, &bytes.Buffer{})
		ended <- err
	}()
	for number(running) == 0 {
		select {
		case err := <-ended:
			t.Fatalf("the backup ended before it could be cancelled: %v", err)
		default:
		}
	}
	cancel()
	if err := <-ended; storage.KindOf(err) != storage.KindCanceled {
		t.Fatalf("a cancelled backup: %v", err)
	}
	if n, m := number(running), number(cancelled)-before; n != 0 || m != 1 {
		t.Fatalf("%d backups run still, %d were cancelled, want 0 and 1", n, m)
	}
	if n := number("SELECT count() FROM system.tables WHERE database = currentDatabase() AND name LIKE 'luminate_backup_%'"); n != 0 {
		t.Fatalf("%d stages are left", n)
	}
	wantTotals(t, s, now, batchOf(now, 200, 50))
}

func connectTo(t *testing.T, dsn string) chgo.Conn {
	t.Helper()
	o, err := chgo.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	c, err := chgo.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
