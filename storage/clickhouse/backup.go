package clickhouse

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/luminate/luminate/storage"
)

const (
	// stagePrefix begins the tables that a backup is taken of; they live as long as it.
	stagePrefix = "luminate_backup_"
	// backupDatabase is the database's name within a backup, whatever the live one's.
	backupDatabase = "luminate"
	// backupStatementTimeout bounds one statement that reads a whole table.
	backupStatementTimeout = 6 * time.Hour
	// The pause between two looks at a running BACKUP grows from the first to the last.
	firstBackupPoll, lastBackupPoll = 50 * time.Millisecond, 2 * time.Second
)

// backedUp lists the tables of a backup in the order in which they are staged: a
// series' row is stored before its samples, so the samples come first here, and no
// staged sample lacks its row. Table meta is not among them: the manifest has its facts.
var backedUp = []string{"samples", "histograms", "exemplars", "series", "metric_meta", "retention", "deletes"}

// Backup implements storage.Store: every shard's server runs BACKUP to the configured
// destination, and the manifest goes to w once all have succeeded. What is backed up
// are stages: tables that share the parts of the live ones (hard links, no copies)
// and that nobody writes to, so the counts and hashes of the manifest are those of the
// bytes in the backup although writes go on. A cancelled ctx kills the BACKUP on the
// servers.
func (s *Store) Backup(ctx context.Context, w io.Writer) (storage.BackupReport, error) {
	var report storage.BackupReport
	if err := s.open(ctx, "backup"); err != nil {
		return report, err
	}
	if s.cfg.BackupTo == "" {
		return report, storage.Errorf(storage.KindUnsupported, "backup", "storage.clickhouse.backupTo does not say where ClickHouse shall write backups")
	}
	op, err := openOperation(ctx, s.cfg)
	if err != nil {
		return report, translate(ctx, "backup", err)
	}
	defer op.closePools()
	began := s.cfg.now().UTC()
	m := &Manifest{
		Name: "luminate-" + began.Format("20060102T150405Z") + "-" + newToken()[:8], Taken: began,
		SchemaVersion: schemaVersion, LocalityLabel: s.locality, Shards: make([]ShardManifest, len(s.shards)),
	}
	text, err := op.backup(ctx, m)
	if err != nil {
		return report, translate(ctx, "backup", err)
	}
	if _, err := w.Write(text); err != nil {
		return report, fmt.Errorf("write the manifest of backup %s: %w", m.Name, err)
	}
	s.log.Info("backup is complete", "name", m.Name, "rows", m.Rows(), "shards", len(m.Shards), "duration", s.cfg.now().Sub(began))
	sum := sha256.Sum256(text)
	return storage.BackupReport{Bytes: uint64(len(text)), Entries: m.Rows(), SHA256: hex.EncodeToString(sum[:])}, nil
}

// operation is a Store of its own for backup and restore: one connection to one
// replica of each shard, because stages and the state of a BACKUP are on one server,
// with bounds for statements that read whole tables.
type operation struct {
	*Store
	to destination
}

func openOperation(ctx context.Context, cfg Config) (*operation, error) {
	to, err := parseDestination(cfg.BackupTo)
	if err != nil {
		return nil, err
	}
	cfg.QueryTimeout, cfg.MaxRowsToRead, cfg.MaxResultRows = backupStatementTimeout, 0, 0
	cfg.ReadConns, cfg.WriteConns = 1, 1
	s, err := openShards(cfg)
	if err != nil {
		return nil, err
	}
	o := &operation{Store: s, to: to}
	for _, sh := range s.shards {
		sh.write.close()
		sh.write = sh.read
		if err := s.pin(ctx, sh); err != nil {
			s.closePools()
			return nil, err
		}
	}
	return o, nil
}

// pin makes all further statements go to the first replica that answers.
func (s *Store) pin(ctx context.Context, sh *shard) error {
	var errs []error
	for _, addr := range sh.read.opts.Addr {
		one := *sh.read.opts
		one.Addr = []string{addr}
		all := sh.read.opts
		sh.read.opts = &one
		err := s.each(ctx, sh, "SELECT 1", nil, func(driver.Rows) error { return nil })
		if err == nil {
			return nil
		}
		sh.read.opts = all
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// backup stages and counts every shard, then backs all of them up at once.
func (o *operation) backup(ctx context.Context, m *Manifest) (text []byte, err error) {
	token := strings.ReplaceAll(m.Name[len(m.Name)-8:], "-", "_")
	defer func() {
		// ctx may be done, and what it leaves would be kept for two days.
		dctx, cancel := detached(time.Minute)
		defer cancel()
		for _, sh := range o.shards {
			err = errors.Join(err, o.dropStages(dctx, sh, token))
		}
	}()
	err = o.onShards(ctx, func(ctx context.Context, sh *shard) error {
		if err := o.dropStale(ctx, sh); err != nil {
			return fmt.Errorf("drop what older backups left: %w", err)
		}
		prints, err := o.stage(ctx, sh, token)
		m.Shards[sh.index].Prints = prints
		return err
	})
	if err != nil {
		return nil, err
	}
	if text, err = m.encode(); err != nil {
		return nil, err
	}
	home := stageOf(token, "manifest")
	if err := o.exec(ctx, o.home(), render("backup/create_manifest", fragments{"Table": home}), nil, nil); err != nil {
		return nil, err
	}
	if err := o.insert(ctx, o.home(), render("backup/insert_manifest", fragments{"Table": home}), newToken(), []any{[]string{string(text)}}); err != nil {
		return nil, err
	}
	err = o.onShards(ctx, func(ctx context.Context, sh *shard) error {
		var list []string
		names := backedUp
		if sh.index == 0 {
			names = append([]string{"manifest"}, names...)
		}
		for _, t := range names {
			list = append(list, fmt.Sprintf("TABLE %s AS %s.%s", stageOf(token, t), backupDatabase, t))
		}
		return o.runAsync(ctx, sh, "backup/backup", list, m.Name, "BACKUP_CREATED")
	})
	return text, err
}

// stageOf names the stage of a table; token is of hexadecimal digits.
func stageOf(token, table string) string { return stagePrefix + token + "_" + table }

// stage attaches the parts of the live tables to new ones and counts them.
func (o *operation) stage(ctx context.Context, sh *shard, token string) (all []Print, err error) {
	for _, t := range backedUp {
		name := stageOf(token, t)
		create := strings.Replace(render("schema/"+t, ddl{}), "CREATE TABLE IF NOT EXISTS "+t, "CREATE TABLE "+name, 1)
		if err := o.exec(ctx, sh, create, nil, nil); err != nil {
			return nil, err
		}
		if err := o.exec(ctx, sh, render("backup/stage", fragments{"Stage": name, "Table": t}), nil, nil); err != nil {
			return nil, fmt.Errorf("stage %s: %w", t, err)
		}
	}
	return o.prints(ctx, sh, func(t string) string { return stageOf(token, t) })
}

// prints counts and hashes the tables of a shard, named by name.
func (o *operation) prints(ctx context.Context, sh *shard, name func(string) string) (all []Print, err error) {
	for _, t := range backedUp {
		err := o.each(ctx, sh, render("backup/prints_of_"+t, fragments{"Table": name(t)}), nil, func(r driver.Rows) error {
			p := Print{Table: t}
			// The last column is read for its checksum alone: of rows that are one by the
			// table's key it may differ, and a merge decides.
			var unstable uint64
			err := r.Scan(&p.Tenant, &p.Day, &p.Class, &p.Rows, &p.Hash, &unstable)
			all = append(all, p)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("count %s: %w", t, err)
		}
	}
	return all, nil
}

func (o *operation) dropStages(ctx context.Context, sh *shard, token string) error {
	var errs []error
	for _, t := range append([]string{"manifest"}, backedUp...) {
		errs = append(errs, o.exec(ctx, sh, render("backup/drop", fragments{"Table": stageOf(token, t)}), nil, nil))
	}
	return errors.Join(errs...)
}

// dropStale drops stages of backups whose process was killed.
func (o *operation) dropStale(ctx context.Context, sh *shard) error {
	var names []string
	var p params
	err := o.each(ctx, sh, render("backup/stale_stages", fragments{"Prefix": p.str(stagePrefix)}), p.args, func(r driver.Rows) error {
		var name string
		err := r.Scan(&name)
		names = append(names, name)
		return err
	})
	for _, name := range names {
		if identifier.MatchString(name) {
			err = errors.Join(err, o.exec(ctx, sh, render("backup/drop", fragments{"Table": name}), nil, nil))
		}
	}
	return err
}

// runAsync starts BACKUP or RESTORE of some tables and waits until its state is done.
// When ctx ends first the server is told to stop.
func (o *operation) runAsync(ctx context.Context, sh *shard, statement string, tables []string, name, done string) error {
	op := strings.TrimPrefix(statement, "backup/")
	id := fmt.Sprintf("%s-%d-%s", name, sh.index, newToken()[:8])
	sql := render(statement, fragments{"Tables": strings.Join(tables, ", "), "Destination": o.to.of(name, sh.index), "ID": id})
	if err := o.each(ctx, sh, sql, nil, func(driver.Rows) error { return nil }); err != nil {
		return err
	}
	for pause := firstBackupPoll; ; pause = min(pause*3/2, lastBackupPoll) {
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(ctx.Err(), o.kill(sh, id))
		}
		status, message, _, err := o.state(ctx, sh, id)
		switch {
		case ctx.Err() != nil:
			return errors.Join(ctx.Err(), o.kill(sh, id))
		case err != nil:
			return err
		case status == done:
			return nil
		case strings.HasSuffix(status, "FAILED"), strings.HasSuffix(status, "CANCELLED"):
			message, _, _ = strings.Cut(message, "Stack trace")
			return storage.Errorf(storage.KindInternal, op, "shard %d: %s: %s", sh.index, status, strings.TrimSpace(message))
		case status == "":
			return storage.Errorf(storage.KindUnavailable, op, "shard %d knows nothing of %s any more: was the server restarted?", sh.index, id)
		}
	}
}

func (o *operation) state(ctx context.Context, sh *shard, id string) (status, message, query string, err error) {
	var p params
	err = o.each(ctx, sh, render("backup/state", fragments{"ID": p.str(id)}), p.args, func(r driver.Rows) error {
		var size uint64
		return r.Scan(&status, &message, &size, &query)
	})
	return status, message, query, err
}

// kill stops a running BACKUP or RESTORE.
func (o *operation) kill(sh *shard, id string) error {
	ctx, cancel := detached(time.Minute)
	defer cancel()
	_, _, query, err := o.state(ctx, sh, id)
	if err != nil || query == "" {
		return err
	}
	var p params
	return o.each(ctx, sh, render("backup/kill", fragments{"Query": p.str(query)}), p.args, func(driver.Rows) error { return nil })
}
