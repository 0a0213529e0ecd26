package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/luminate/luminate/storage"
)

// restoringKey is the fact in table meta that an unfinished restore leaves: its value
// is the backup's name. A store does not open over it.
const restoringKey = "restoring"

// RestoreReport tells what a restore brought back.
type RestoreReport struct {
	Rows uint64
	// Expired counts tables of tenant and day that were not compared, because the
	// tables' TTL drops them anyway.
	Expired int
	// Aside are the new names of the tables that were there before.
	Aside []string
}

// Restore brings back a backup from cfg.BackupTo into the database of each shard's
// DSN, and compares every count and hash with the manifest's. A database with data is
// refused, unless force: then its tables are renamed, and stay. After an error what
// was restored is removed, and a store refuses to open until a restore has succeeded.
func Restore(ctx context.Context, cfg Config, m *Manifest, force bool, log *slog.Logger) (r RestoreReport, err error) {
	o, err := openOperation(ctx, cfg)
	if err != nil {
		return r, translate(ctx, "restore", err)
	}
	defer o.closePools()
	if len(m.Shards) != len(o.shards) {
		return r, storage.Errorf(storage.KindInvalid, "restore", "the backup has %d shards, the configuration %d", len(m.Shards), len(o.shards))
	}
	if !slices.Contains(restorableVersions, m.SchemaVersion) {
		return r, storage.Errorf(storage.KindInvalid, "restore", "the backup has schema version %s, this program knows %s", m.SchemaVersion, strings.Join(restorableVersions, ", "))
	}
	if err := o.sameBackup(ctx, m); err != nil {
		return r, translate(ctx, "restore", err)
	}
	if err := o.makeRoom(ctx, force, &r); err != nil {
		return r, translate(ctx, "restore", err)
	}
	if err := o.restore(ctx, m, &r); err != nil {
		dctx, cancel := detached(time.Minute)
		defer cancel()
		return r, errors.Join(translate(ctx, "restore", err), o.truncate(dctx, backedUp))
	}
	r.Rows = m.Rows()
	log.Info("restore is complete", "name", m.Name, "rows", r.Rows, "expired", r.Expired)
	return r, nil
}

// FetchManifest reads the manifest out of the backup of this name.
func FetchManifest(ctx context.Context, cfg Config, name string) (m *Manifest, err error) {
	if !backupName.MatchString(name) {
		return nil, storage.Errorf(storage.KindInvalid, "read manifest", "%q is no name of a backup", name)
	}
	o, err := openOperation(ctx, cfg)
	if err != nil {
		return nil, translate(ctx, "read manifest", err)
	}
	defer o.closePools()
	m, err = o.fetch(ctx, name)
	return m, translate(ctx, "read manifest", err)
}

// fetch restores the table that holds the manifest, reads it and drops it.
func (o *operation) fetch(ctx context.Context, name string) (m *Manifest, err error) {
	token := newToken()[:8]
	table := stageOf(token, "manifest")
	defer func() {
		dctx, cancel := detached(time.Minute)
		defer cancel()
		err = errors.Join(err, o.exec(dctx, o.home(), render("backup/drop", fragments{"Table": table}), nil, nil))
	}()
	list := []string{fmt.Sprintf("TABLE %s.manifest AS %s", backupDatabase, table)}
	if err := o.runAsync(ctx, o.home(), "backup/restore", list, name, "RESTORED"); err != nil {
		return nil, err
	}
	var body string
	if err := o.each(ctx, o.home(), render("backup/manifest", fragments{"Table": table}), nil, func(r driver.Rows) error { return r.Scan(&body) }); err != nil {
		return nil, err
	}
	return ReadManifest(strings.NewReader(body))
}

// sameBackup demands that the backup at the destination has this very manifest.
func (o *operation) sameBackup(ctx context.Context, m *Manifest) error {
	there, err := o.fetch(ctx, m.Name)
	if err != nil {
		return fmt.Errorf("the manifest within the backup: %w", err)
	}
	want, err1 := m.encode()
	have, err2 := there.encode()
	if err := errors.Join(err1, err2); err != nil || string(want) != string(have) {
		return storage.Errorf(storage.KindInvalid, "restore", "the backup %s at the destination has another manifest", m.Name)
	}
	return nil
}

// makeRoom leaves empty tables of the current schema, or an error where there is data.
func (o *operation) makeRoom(ctx context.Context, force bool, r *RestoreReport) error {
	aside := "_before_restore_" + o.cfg.now().UTC().Format("20060102T150405Z")
	cluster := ddl{cluster: o.cfg.Cluster}.OnCluster()
	for _, sh := range o.shards {
		filled, unfinished, err := o.filled(ctx, sh)
		switch {
		case err != nil:
			return err
		case len(filled) == 0 || unfinished:
			continue
		case !force:
			return storage.Errorf(storage.KindInvalid, "restore", "the database of shard %d is not empty: %s", sh.index, strings.Join(filled, ", "))
		}
		names, _, err := o.schemaState(ctx, sh)
		if err != nil {
			return err
		}
		for _, t := range tables {
			if !slices.Contains(names, t) {
				continue
			}
			if err := o.exec(ctx, sh, render("backup/rename", fragments{"Table": t, "To": t + aside, "OnCluster": cluster}), nil, nil); err != nil {
				return err
			}
			r.Aside = append(r.Aside, t+aside)
		}
	}
	if err := o.truncate(ctx, append([]string{"meta"}, backedUp...)); err != nil {
		return err
	}
	statements, err := SchemaPrint(o.cfg)
	if err != nil {
		return err
	}
	return o.onShards(ctx, func(ctx context.Context, sh *shard) error {
		for _, stmt := range statements {
			if err := o.exec(ctx, sh, stmt, nil, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// filled lists our tables with rows, table meta apart; unfinished tells that they are
// what a restore left that did not come to its end.
func (o *operation) filled(ctx context.Context, sh *shard) (names []string, unfinished bool, err error) {
	err = o.each(ctx, sh, render("backup/filled", nil), nil, func(r driver.Rows) error {
		var name string
		var rows uint64
		err := r.Scan(&name, &rows)
		if slices.Contains(backedUp, name) {
			names = append(names, name)
		}
		return err
	})
	if err != nil || len(names) == 0 {
		return names, false, err
	}
	name, err := o.unfinishedRestore(ctx, sh)
	return names, name != "", err
}

// unfinishedRestore names the backup of a restore that did not come to its end.
func (s *Store) unfinishedRestore(ctx context.Context, sh *shard) (string, error) {
	names, _, err := s.schemaState(ctx, sh)
	if err != nil || !slices.Contains(names, "meta") {
		return "", err
	}
	return s.metaValue(ctx, sh, restoringKey)
}

// refuseUnfinished is what Open does first: half of a backup must not be served.
func (s *Store) refuseUnfinished(ctx context.Context) error {
	for _, sh := range s.shards {
		name, err := s.unfinishedRestore(ctx, sh)
		if err != nil {
			return translate(ctx, "open", err)
		}
		if name != "" {
			return storage.Errorf(storage.KindInvalid, "open", "the restore of %s into this database did not come to its end: run it again", name)
		}
	}
	return nil
}

func (o *operation) truncate(ctx context.Context, names []string) error {
	cluster := ddl{cluster: o.cfg.Cluster}.OnCluster()
	return o.onShards(ctx, func(ctx context.Context, sh *shard) error {
		for _, t := range names {
			if err := o.exec(ctx, sh, render("backup/truncate", fragments{"Table": t, "OnCluster": cluster}), nil, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// restore fills the empty tables and compares.
func (o *operation) restore(ctx context.Context, m *Manifest, r *RestoreReport) error {
	expired := make([]int, len(o.shards))
	err := o.onShards(ctx, func(ctx context.Context, sh *shard) error {
		if err := o.setMeta(ctx, sh, [][2]string{{restoringKey, m.Name}}); err != nil {
			return err
		}
		// A merge would take damage over into a part whose checksums agree with it.
		if err := o.merges(ctx, sh, "STOP"); err != nil {
			return err
		}
		defer func() {
			dctx, cancel := detached(time.Minute)
			defer cancel()
			_ = o.merges(dctx, sh, "START") // a restart of the server starts them, too
		}()
		var list []string
		for _, t := range backedUp {
			list = append(list, fmt.Sprintf("TABLE %s.%s AS %s", backupDatabase, t, t))
		}
		if err := o.runAsync(ctx, sh, "backup/restore", list, m.Name, "RESTORED"); err != nil {
			return err
		}
		if err := o.checkParts(ctx, sh); err != nil {
			return err
		}
		have, err := o.prints(ctx, sh, func(t string) string { return t })
		if err != nil {
			return err
		}
		var different []string
		different, expired[sh.index] = m.Shards[sh.index].compare(have, o.cfg.now())
		if len(different) > 0 {
			return storage.Errorf(storage.KindInternal, "restore", "shard %d: what was restored is not what was backed up: %s", sh.index,
				strings.Join(different[:min(len(different), 10)], "; "))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, n := range expired {
		r.Expired += n
	}
	return o.onShards(ctx, func(ctx context.Context, sh *shard) error {
		return o.setMeta(ctx, sh, [][2]string{{"schema_version", schemaVersion}, {"locality_label", m.LocalityLabel}, {restoringKey, ""}})
	})
}

// merges stops or starts them on this server, for the restored tables.
func (o *operation) merges(ctx context.Context, sh *shard, verb string) error {
	for _, t := range backedUp {
		if err := o.exec(ctx, sh, render("backup/merges", fragments{"Verb": verb, "Table": t}), nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// checkParts makes the server compare every file with its checksum: a damaged index is
// in no count of rows, and still hides some from queries.
func (o *operation) checkParts(ctx context.Context, sh *shard) error {
	for _, t := range backedUp {
		var whole uint8
		err := o.each(ctx, sh, render("backup/check", fragments{"Table": t}), nil, func(r driver.Rows) error { return r.Scan(&whole) })
		if err != nil {
			return fmt.Errorf("check %s: %w", t, err)
		}
		if whole != 1 {
			return storage.Errorf(storage.KindInternal, "restore", "shard %d: a part of %s is damaged", sh.index, t)
		}
	}
	return nil
}

func (o *operation) setMeta(ctx context.Context, sh *shard, facts [][2]string) error {
	var keys, values []string
	for _, f := range facts {
		keys, values = append(keys, f[0]), append(values, f[1])
	}
	return o.insert(ctx, sh, render("write/insert_meta", nil), newToken(), []any{keys, values})
}
