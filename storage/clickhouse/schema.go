package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// schemaVersion is stored in table meta; a schema of a later version is refused.
const schemaVersion = "4"

// restorableVersions are those whose tables have the same columns and keys: a restore
// makes the tables of schemaVersion and fills them.
var restorableVersions = []string{"1", "2", "3", schemaVersion}

// tables lists the tables in the order of their creation.
var tables = []string{"meta", "samples", "histograms", "exemplars", "series", "metric_meta", "retention", "deletes", "notes"}

// distributed lists the tables that a cluster also has as <name>_all, for people and
// their ad hoc queries; Luminate itself asks each shard.
var distributed = []string{"samples", "histograms", "exemplars", "series"}

// migrations are statements that bring an older schema up to date, in order; each is
// harmless when repeated.
var migrations = []string{
	// 2: parts that lack the index are read; what is written and merged from now on has it.
	"ALTER TABLE samples{{.OnCluster}} ADD INDEX IF NOT EXISTS image_index image TYPE minmax GRANULARITY 1",
	// 3: what merges leave from now on.
	"ALTER TABLE samples{{.OnCluster}} MODIFY SETTING {{.Merges}}",
	"ALTER TABLE histograms{{.OnCluster}} MODIFY SETTING {{.Merges}}",
	"ALTER TABLE series{{.OnCluster}} MODIFY SETTING {{.Merges}}",
	// 4: parts keep the codec that they were written with until a merge takes them.
	"ALTER TABLE samples{{.OnCluster}} MODIFY COLUMN ts CODEC({{.TimeCodec}})",
	"ALTER TABLE histograms{{.OnCluster}} MODIFY COLUMN ts CODEC({{.TimeCodec}})",
	"ALTER TABLE exemplars{{.OnCluster}} MODIFY COLUMN ts CODEC({{.TimeCodec}})",
}

// ddl fills the templates of schema.sql.
type ddl struct {
	cluster string
	fsync   bool
}

// OnCluster is the clause for statements that every host must run.
func (d ddl) OnCluster() string {
	if d.cluster == "" {
		return ""
	}
	return " ON CLUSTER `" + d.cluster + "`"
}

// Engine returns the table engine, Replicated on a cluster.
func (d ddl) Engine(_, engine, version string) string {
	args := []string{}
	if d.cluster != "" {
		engine = "Replicated" + engine
		args = append(args, "'/clickhouse/tables/{uuid}/{shard}'", "'{replica}'")
	}
	if version != "" {
		args = append(args, version)
	}
	return engine + "(" + strings.Join(args, ", ") + ")"
}

// Dedup is how long a block's token protects against storing it twice.
func (d ddl) Dedup() string {
	if d.cluster == "" {
		return "non_replicated_deduplication_window = 10000"
	}
	return "replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 14400"
}

// Fsync makes a block durable before it is acknowledged.
func (d ddl) Fsync() string {
	if d.fsync {
		return ", fsync_after_insert = 1, fsync_part_directory = 1"
	}
	return ""
}

// ImageCodec compresses the value's image. DESIGN.md has the figures.
func (d ddl) ImageCodec() string { return "Delta, ZSTD(1)" }

// TimeCodec compresses times. DESIGN.md has the figures.
func (d ddl) TimeCodec() string { return "Delta, ZSTD(1)" }

// LabelIndex is the skip index of label pairs. DESIGN.md has the figures.
func (d ddl) LabelIndex() string { return "text(tokenizer = 'array')" }

// Merges are the settings of merging of the large tables, which need no statistics of their
// columns. DESIGN.md has the figures.
func (d ddl) Merges() string { return "merge_selector_base = 10, auto_statistics_types = ''" }

// SchemaPrint returns the statements that create the schema, in order.
func SchemaPrint(cfg Config) ([]string, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	d := ddl{cluster: cfg.Cluster, fsync: cfg.FsyncInserts}
	var out []string
	for _, t := range tables {
		out = append(out, render("schema/"+t, d))
	}
	if cfg.Cluster != "" {
		for _, t := range distributed {
			out = append(out, fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s_all%s AS %s\nENGINE = Distributed('%s', currentDatabase(), '%s', cityHash64(series_id))", t, d.OnCluster(), t, cfg.Cluster, t))
		}
	}
	for _, m := range migrations {
		out = append(out, strings.NewReplacer("{{.OnCluster}}", d.OnCluster(), "{{.Merges}}", d.Merges(), "{{.TimeCodec}}", d.TimeCodec()).Replace(m))
	}
	return out, nil
}

// SchemaDiff returns the statements of SchemaPrint that the database still needs; none
// when it is up to date.
func SchemaDiff(ctx context.Context, cfg Config) ([]string, error) {
	s, err := openShards(cfg)
	if err != nil {
		return nil, err
	}
	defer s.closePools()
	return s.schemaDiff(ctx)
}

// SchemaApply creates and migrates the schema on every shard. Several processes may do
// it at once; repeating it changes nothing.
func SchemaApply(ctx context.Context, cfg Config) error {
	s, err := openShards(cfg)
	if err != nil {
		return err
	}
	defer s.closePools()
	return s.schemaApply(ctx)
}

func (s *Store) schemaDiff(ctx context.Context) ([]string, error) {
	all, err := SchemaPrint(s.cfg)
	if err != nil {
		return nil, err
	}
	missing := map[string]bool{}
	for _, sh := range s.shards {
		have, version, err := s.schemaState(ctx, sh)
		if err != nil {
			return nil, translate(ctx, "schema", err)
		}
		for _, stmt := range all {
			if name, ok := createdTable(stmt); ok && !slices.Contains(have, name) || !ok && version != schemaVersion {
				missing[stmt] = true
			}
		}
	}
	return slices.DeleteFunc(all, func(stmt string) bool { return !missing[stmt] }), nil
}

// createdTable returns the table that a CREATE TABLE statement makes.
func createdTable(stmt string) (string, bool) {
	rest, ok := strings.CutPrefix(stmt, "CREATE TABLE IF NOT EXISTS ")
	if !ok {
		return "", false
	}
	return rest[:strings.IndexAny(rest, " (\n")], true
}

// schemaState lists a shard's tables and reads its schema version, "" for none.
func (s *Store) schemaState(ctx context.Context, sh *shard) (names []string, version string, err error) {
	err = s.each(ctx, sh, "SELECT name FROM system.tables WHERE database = currentDatabase()", nil, func(r driver.Rows) error {
		var name string
		err := r.Scan(&name)
		names = append(names, name)
		return err
	})
	if err != nil || !slices.Contains(names, "meta") {
		return names, "", err
	}
	version, err = s.metaValue(ctx, sh, "schema_version")
	return names, version, err
}

func (s *Store) metaValue(ctx context.Context, sh *shard, key string) (value string, err error) {
	var p params
	sql := render("read/meta", fragments{"Where": "key = " + p.str(key)})
	err = s.each(ctx, sh, sql, p.args, func(r driver.Rows) error { return r.Scan(&value) })
	return value, err
}

func (s *Store) schemaApply(ctx context.Context) error {
	all, err := SchemaPrint(s.cfg)
	if err != nil {
		return err
	}
	create, migrate := all[:len(all)-len(migrations)], all[len(all)-len(migrations):]
	for _, sh := range s.shards {
		if err := s.execAll(ctx, sh, create); err != nil {
			return translate(ctx, "schema", err)
		}
		version, err := s.metaValue(ctx, sh, "schema_version")
		if err != nil {
			return translate(ctx, "schema", err)
		}
		if version != schemaVersion {
			if err := s.execAll(ctx, sh, migrate); err != nil {
				return translate(ctx, "schema", err)
			}
			keys, values := []string{"schema_version"}, []string{schemaVersion}
			if version == "" {
				keys, values = append(keys, "locality_label"), append(values, s.cfg.LocalityLabel)
			}
			if err := s.insert(ctx, sh, render("write/insert_meta", nil), newToken(), []any{keys, values}); err != nil {
				return translate(ctx, "schema", err)
			}
		}
	}
	return nil
}

// execAll runs statements of the schema.
func (s *Store) execAll(ctx context.Context, sh *shard, statements []string) error {
	for _, stmt := range statements {
		if err := s.exec(ctx, sh, stmt, nil, nil); err != nil {
			return fmt.Errorf("%.60s…: %w", stmt, err)
		}
	}
	return nil
}
