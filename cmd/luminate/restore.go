package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/luminate/luminate/storage/badger"
	"github.com/luminate/luminate/storage/clickhouse"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
)

// restoreOptions are the flags of restore beside the configuration's.
type restoreOptions struct {
	from, name string
	force      bool
}

func restoreCommand(env []string) *cobra.Command {
	var o restoreOptions
	cmd := &cobra.Command{
		Use:   "restore",
		Short: "Fill an empty folder from an archive, or empty ClickHouse tables from a backup, every count and sum checked",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := loadConfig(cmd.Flags(), env)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if cfg.Storage.Backend == "clickhouse" {
				return restoreClickHouse(ctx, &cfg, o, cmd.InOrStdin(), cmd.ErrOrStderr())
			}
			return restore(ctx, &cfg, o, cmd.InOrStdin(), cmd.ErrOrStderr())
		},
	}
	addConfigFlags(cmd.Flags())
	cmd.Flags().StringVar(&o.from, "from", "-", "the archive, or the manifest of a ClickHouse backup; -: standard input")
	cmd.Flags().StringVar(&o.name, "name", "", "ClickHouse: the backup's name below storage.clickhouse.backupTo; its manifest is read out of it")
	cmd.Flags().BoolVar(&o.force, "force", false, "replace what is there: the folder or the tables are renamed first, and stay")
	return cmd
}

// open returns the archive or manifest.
func (o restoreOptions) open(stdin io.Reader) (io.ReadCloser, error) {
	if o.from == "-" {
		return io.NopCloser(stdin), nil
	}
	return os.Open(o.from)
}

// restore fills the folder of the embedded store.
func restore(ctx context.Context, cfg *Config, o restoreOptions, stdin io.Reader, notes io.Writer) error {
	in, err := o.open(stdin)
	if err != nil {
		return err
	}
	defer in.Close()
	dir := cfg.Storage.Badger.Dir
	if o.force {
		if err := moveAside(dir, notes); err != nil {
			return err
		}
	}
	r, err := badger.Restore(ctx, in, dir, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	// Opening proves that what was restored is a store.
	db, err := badger.Open(badgerConfig(cfg), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		return fmt.Errorf("open what was restored: %w", err)
	}
	tenants, err := db.Tenants(ctx)
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	fmt.Fprintf(notes, "restored into %s: %d entries, %d bytes, sha256 %s, %d tenants\n", dir, r.Entries, r.Bytes, r.SHA256, len(tenants))
	return nil
}

// restoreClickHouse lets the servers restore, and compares what they then hold with the
// manifest.
func restoreClickHouse(ctx context.Context, cfg *Config, o restoreOptions, stdin io.Reader, notes io.Writer) (err error) {
	c := clickhouseConfig(cfg)
	if c.BackupTo == "" {
		return errors.New("storage.clickhouse.backupTo does not say where the backups are")
	}
	began := time.Now()
	var m *clickhouse.Manifest
	if o.name != "" {
		m, err = clickhouse.FetchManifest(ctx, c, o.name)
	} else {
		in, oerr := o.open(stdin)
		if oerr != nil {
			return oerr
		}
		defer in.Close()
		m, err = clickhouse.ReadManifest(in)
	}
	if err != nil {
		return err
	}
	r, err := clickhouse.Restore(ctx, c, m, o.force, migrateLogger(cfg.Log, notes))
	for _, t := range r.Aside {
		fmt.Fprintf(notes, "a table that was there is now %s\n", t)
	}
	if err != nil {
		return fmt.Errorf("restore %s: %w", m.Name, err)
	}
	fmt.Fprintf(notes, "restored %s of %s: %d rows on %d shards in %s, every count and hash as in the backup", m.Name,
		m.Taken.Format(time.RFC3339), r.Rows, len(m.Shards), time.Since(began).Round(time.Millisecond))
	if r.Expired > 0 {
		fmt.Fprintf(notes, "; %d tables of a tenant and day are beyond their retention and were not compared", r.Expired)
	}
	fmt.Fprintln(notes)
	return nil
}

// moveAside renames a folder that is not empty.
func moveAside(dir string, notes io.Writer) error {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(list) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	aside := strings.TrimRight(dir, "/") + ".before-restore-" + time.Now().UTC().Format("20060102T150405Z")
	if err := os.Rename(dir, aside); err != nil {
		return err
	}
	fmt.Fprintf(notes, "what was in %s is now in %s\n", dir, aside)
	return nil
}
