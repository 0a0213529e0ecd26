package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger"
	"github.com/luminate/luminate/storage/clickhouse"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
)

// migrateStatementTimeout bounds one statement that reads a day back, which takes
// longer than any query of a user may.
const migrateStatementTimeout = 6 * time.Hour

// migrateFlags are the flags of migrate beside the configuration's.
type migrateFlags struct {
	fromDir, since, until, state string
	tenants                      []string
	dryRun                       bool
}

func migrateCommand(env []string) *cobra.Command {
	var f migrateFlags
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Copy everything from a Badger folder that no server uses to ClickHouse, and prove that it arrived",
		Long: `Copy everything from a Badger folder that no server uses to storage.clickhouse.*, tenant by tenant and UTC day by
UTC day, and compare each day as ClickHouse reads it back with what was read from the folder: counts and a hash over
labels, times, start times and values. Repeating it is safe; what a state file says is finished is copied again only
if the folder has changed since. The exit status is not 0 if any day differs.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := loadConfig(cmd.Flags(), env)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return migrateToClickHouse(ctx, &cfg, f, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	addConfigFlags(cmd.Flags())
	cmd.Flags().StringVar(&f.fromDir, "from-dir", "", "the Badger folder; empty: storage.badger.dir")
	cmd.Flags().StringSliceVar(&f.tenants, "tenant", nil, "copy this tenant only; may be repeated")
	cmd.Flags().StringVar(&f.since, "since", "", "first UTC day to copy, as 2006-01-02")
	cmd.Flags().StringVar(&f.until, "until", "", "last UTC day to copy, as 2006-01-02")
	cmd.Flags().StringVar(&f.state, "state", "", "file that records finished days; empty: the folder's name with .migrate.json")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "read and count only; ClickHouse is not contacted and nothing is written")
	return cmd
}

func migrateToClickHouse(ctx context.Context, cfg *Config, f migrateFlags, stdout, notes io.Writer) (err error) {
	ch := cfg.Storage.ClickHouse
	if f.fromDir != "" {
		cfg.Storage.Badger.Dir = f.fromDir
	}
	if !f.dryRun && ch.DSN == "" && len(ch.Shards) == 0 {
		return errors.New("storage.clickhouse.dsn is empty: migrate needs to know where to")
	}
	o, err := f.options(cfg)
	if err != nil {
		return err
	}
	log := migrateLogger(cfg.Log, notes)
	o.progress = newMigrateProgress(notes, log)

	from, err := openMigrationSource(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	var to storage.Store
	if !f.dryRun {
		db, err := openMigrationTarget(ctx, cfg, log)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
		to = db
	}
	report, err := migrate(ctx, from, to, o)
	report.print(stdout)
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("the migration was interrupted; run it again to go on: %w", err)
	case err != nil:
		return fmt.Errorf("the migration stopped; run it again to go on: %w", err)
	}
	return report.failure()
}

// migrateLogger is the server's logger where notes is a file, else one that writes
// plain lines.
func migrateLogger(c LogConfig, notes io.Writer) *slog.Logger {
	if f, ok := notes.(*os.File); ok {
		return newLogger(c, f)
	}
	return slog.New(slog.NewTextHandler(notes, nil))
}

// options checks the flags.
func (f migrateFlags) options(cfg *Config) (migrateOptions, error) {
	o := defaultMigrateOptions()
	o.dryRun = f.dryRun
	for _, name := range f.tenants {
		t, err := storage.ParseTenant(name)
		if err != nil {
			return o, fmt.Errorf("--tenant: %w", err)
		}
		o.tenants = append(o.tenants, t)
	}
	for _, x := range []struct {
		flag, value string
		to          *int64
	}{{"since", f.since, &o.firstDay}, {"until", f.until, &o.lastDay}} {
		if x.value == "" {
			continue
		}
		day, err := time.Parse(time.DateOnly, x.value)
		if err != nil {
			return o, fmt.Errorf("--%s: %q is not a day like 2006-01-02", x.flag, x.value)
		}
		*x.to = day.Unix() / (dayMillis / 1000) // exact: day is a midnight
	}
	if o.firstDay > o.lastDay {
		return o, fmt.Errorf("--since %s is after --until %s", f.since, f.until)
	}
	dir, err := filepath.Abs(cfg.Storage.Badger.Dir)
	if err != nil {
		return o, err
	}
	o.fromName, o.toName = dir, clickHouseName(cfg.Storage.ClickHouse)
	if o.statePath = f.state; o.statePath == "" {
		o.statePath = dir + ".migrate.json"
	}
	return o, nil
}

// clickHouseName names the target without user and password.
func clickHouseName(c ClickHouseConfig) string {
	dsns := c.Shards
	if len(dsns) == 0 {
		dsns = []string{c.DSN}
	}
	var names []string
	for _, dsn := range dsns {
		if u, err := url.Parse(dsn); err == nil {
			names = append(names, u.Host+u.Path)
		}
	}
	return strings.Join(names, " ")
}

// openMigrationSource opens the folder with its bounds off: a migration drops
// nothing. The clock stands still, so that what is at the edge of the retention is
// not there for the copy and gone for the comparison.
func openMigrationSource(cfg *Config) (*badger.DB, error) {
	c := badgerConfig(cfg)
	// Open would make an empty store of a mistyped path.
	if list, err := os.ReadDir(c.Dir); err != nil {
		return nil, fmt.Errorf("open the folder to migrate: %w", err)
	} else if len(list) == 0 {
		return nil, fmt.Errorf("open the folder to migrate: %s is empty", c.Dir)
	}
	c.MaxBytes, c.MinFreeBytes, c.MaxExemplars = 0, 0, migrateExemplarPage
	c.Now = stoppedClock()
	return badger.Open(c, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
}

// openMigrationTarget opens ClickHouse with bounds fit for whole days, and a clock
// that stands still, too.
func openMigrationTarget(ctx context.Context, cfg *Config, log *slog.Logger) (*clickhouse.Store, error) {
	c := clickhouseConfig(cfg)
	c.QueryTimeout, c.MaxExemplars = migrateStatementTimeout, migrateExemplarPage
	c.MaxRowsToRead, c.MaxResultRows = 0, 0
	c.Now = stoppedClock()
	return clickhouse.Open(ctx, c, log, prometheus.NewRegistry())
}

func stoppedClock() func() time.Time {
	now := time.Now()
	return func() time.Time { return now }
}
