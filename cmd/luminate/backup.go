package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger"
	"github.com/luminate/luminate/storage/clickhouse"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
)

// backupOptions are the flags of backup beside the configuration's.
type backupOptions struct {
	url, tokenFile, out string
	offline             bool
}

func backupCommand(env []string) *cobra.Command {
	var o backupOptions
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Back up everything: an archive of the embedded store, or a BACKUP by ClickHouse and its manifest",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := loadConfig(cmd.Flags(), env)
			if err != nil {
				return err
			}
			return backup(cmd.Context(), &cfg, o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	addConfigFlags(cmd.Flags())
	cmd.Flags().StringVar(&o.url, "url", "", "the running server; empty: http:// and server.listen")
	cmd.Flags().StringVar(&o.tokenFile, "token-file", "", "file with a token of scope operator")
	cmd.Flags().StringVar(&o.out, "out", "-", "file or folder for the archive; -: standard output")
	cmd.Flags().BoolVar(&o.offline, "offline", false, "do without a server: open storage.badger.dir, on which none may run, or ask ClickHouse directly")
	return cmd
}

// backup writes the archive and tells its sums on notes. A file appears under its
// name only when it is whole.
func backup(ctx context.Context, cfg *Config, o backupOptions, stdout, notes io.Writer) error {
	take := func(w io.Writer) (storage.BackupReport, error) { return remoteBackup(ctx, cfg, o, w) }
	if o.offline {
		take = func(w io.Writer) (storage.BackupReport, error) { return offlineBackup(ctx, cfg, w, notes) }
	}
	if o.out == "-" {
		r, err := take(stdout)
		return tellBackup(notes, "standard output", r, err)
	}
	path := o.out
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		path = filepath.Join(path, "luminate-"+time.Now().UTC().Format("20060102T150405Z")+".backup")
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".luminate-backup-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	r, err := take(f)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return tellBackup(notes, path, r, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return tellBackup(notes, path, r, nil)
}

func tellBackup(w io.Writer, where string, r storage.BackupReport, err error) error {
	if err != nil {
		return fmt.Errorf("backup to %s: %w", where, err)
	}
	fmt.Fprintf(w, "backup to %s: %d entries, %d bytes, sha256 %s\n", where, r.Entries, r.Bytes, r.SHA256)
	return nil
}

// offlineBackup opens the folder, which recovers it as a start would, or runs the
// servers' BACKUP itself.
func offlineBackup(ctx context.Context, cfg *Config, w, notes io.Writer) (storage.BackupReport, error) {
	var db storage.Store
	var err error
	if cfg.Storage.Backend == "clickhouse" {
		c := clickhouseConfig(cfg)
		c.MigrateSchema = false
		db, err = clickhouse.Open(ctx, c, migrateLogger(cfg.Log, notes), prometheus.NewRegistry())
	} else {
		db, err = badger.Open(badgerConfig(cfg), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	}
	if err != nil {
		return storage.BackupReport{}, err
	}
	r, err := db.Backup(ctx, w)
	return r, errors.Join(err, db.Close())
}

// remoteBackup streams the archive from the server and compares it with the sum
// and count that the server sends behind it.
func remoteBackup(ctx context.Context, cfg *Config, o backupOptions, w io.Writer) (storage.BackupReport, error) {
	var r storage.BackupReport
	base := o.url
	if base == "" {
		base = "http://" + cfg.Server.Listen
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/api/v1/admin/backup", nil)
	if err != nil {
		return r, err
	}
	if o.tokenFile != "" {
		token, err := os.ReadFile(o.tokenFile)
		if err != nil {
			return r, err
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return r, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return r, fmt.Errorf("%s: %s", resp.Status, text)
	}
	sum := &summing{sum: sha256.New()}
	if _, err := io.Copy(io.MultiWriter(w, sum), resp.Body); err != nil {
		return r, fmt.Errorf("the archive was cut off after %d bytes: %w", sum.bytes, err)
	}
	r.Bytes, r.SHA256 = sum.bytes, hex.EncodeToString(sum.sum.Sum(nil))
	if want := resp.Trailer.Get("X-Luminate-Backup-Sha256"); want != r.SHA256 {
		return r, fmt.Errorf("the archive has sha256 %s, the server sent %q", r.SHA256, want)
	}
	_, err = fmt.Sscan(resp.Trailer.Get("X-Luminate-Backup-Entries"), &r.Entries)
	return r, err
}

// summing counts and hashes what is written.
type summing struct {
	sum   hash.Hash
	bytes uint64
}

func (s *summing) Write(b []byte) (int, error) {
	s.bytes += uint64(len(b))
	return s.sum.Write(b)
}
