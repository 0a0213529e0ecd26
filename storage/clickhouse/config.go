package clickhouse

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/luminate/luminate/storage"
)

// Config configures a Store. Begin with DefaultConfig: zero means zero, not default.
type Config struct {
	// DSN is clickhouse://user@host1:9000,host2:9000/database: replicas of one shard,
	// tried in turn. Shards, if set, holds one DSN for each shard instead.
	DSN    string
	Shards []string
	// PasswordFile holds the password; it is read again for each new connection. A
	// password in the DSN is used if it is empty.
	PasswordFile string
	// CAFile holds the certificates, PEM, that sign the servers', with secure=true in the
	// DSN; it is read again for each new connection. Empty: those of the system.
	CAFile string
	// Cluster makes tables Replicated, and Distributed ones beside them, on the
	// ClickHouse cluster of this name.
	Cluster string
	// BackupTo is where the servers write backups, in the form of their own BACKUP
	// statement: type destination lists what is allowed. Empty: no backups.
	BackupTo string
	// MigrateSchema creates and migrates the tables when the store opens.
	MigrateSchema bool
	// FsyncInserts makes an acknowledged block survive a power cut of the host.
	FsyncInserts bool
	// LocalityLabel is the label whose series lie together on disk. It is fixed when
	// the schema is created; later the stored one is used.
	LocalityLabel string

	// RetentionDays is kept where no policy matches; 0 keeps for ever.
	RetentionDays int
	// RetentionClasses are the retentions in days that partitions have; a policy's
	// days are rounded up to one of them on disk, and obeyed exactly by reads. 0, for
	// ever, is always one.
	RetentionClasses []int
	// FutureLimit refuses samples further ahead of now; 0 takes any time.
	FutureLimit time.Duration

	// FlushRows and FlushAge say when a write buffer is sent: when it has so many rows,
	// or when the partition's last block was sent so long ago. The age grows up to
	// FlushAgeMax while partitions have more than PartsHigh active parts.
	FlushRows   int
	FlushAge    time.Duration
	FlushAgeMax time.Duration
	PartsHigh   int
	// MaxBufferedRows bounds the rows that wait for ClickHouse: above it appends are
	// refused for a while.
	MaxBufferedRows int
	// InsertRetries is how often a block is tried again, InsertTimeout bounds one try.
	InsertRetries int
	InsertTimeout time.Duration
	// MaxCachedSeries bounds, for each tenant, the series rows that are known to be
	// stored; an entry is
	// forgotten after SeriesCacheAge.
	MaxCachedSeries int
	SeriesCacheAge  time.Duration

	// ReadConns and WriteConns are the sizes of the two pools, for each shard.
	ReadConns, WriteConns int
	DialTimeout           time.Duration
	// QueryTimeout bounds a statement without an earlier deadline.
	QueryTimeout time.Duration
	// MaxQueryMemory, MaxRowsToRead, MaxResultRows and MaxThreads are sent with every
	// reading statement; 0 leaves the server's own.
	MaxQueryMemory int64
	MaxRowsToRead  int64
	MaxResultRows  int64
	MaxThreads     int
	// SelectBuffer is how many samples a sorted Select holds to put them in order.
	SelectBuffer int
	// MaxEvaluateBytes bounds the memory of one Evaluate, MaxRosterBytes that of the lists
	// of series which stay in memory between evaluations.
	MaxEvaluateBytes int64
	MaxRosterBytes   int64
	// MaxSelectedSeries bounds the series whose labels one query holds.
	MaxSelectedSeries int
	// MaxExemplars bounds the exemplars that one query returns.
	MaxExemplars int
	// DiscoveryCacheBytes bounds the answers of LabelNames, LabelValues, SelectLabels and
	// Metadata that are kept, DiscoveryCacheAge how long they do not show what other
	// processes changed; 0 bytes keep none.
	DiscoveryCacheBytes int64
	DiscoveryCacheAge   time.Duration
	// SettingsAge is how long retention policies are used before they are read again.
	SettingsAge time.Duration

	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// DefaultConfig returns the defaults; DSN is left to the caller.
func DefaultConfig() Config {
	return Config{
		MigrateSchema: true, LocalityLabel: "customer_id",
		RetentionDays: storage.DefaultRetentionDays, RetentionClasses: []int{1, 3, 7, 14, 30, 90, 400},
		FutureLimit: time.Hour,
		FlushRows:   100_000, FlushAge: 20 * time.Millisecond, FlushAgeMax: time.Second, PartsHigh: 100,
		MaxBufferedRows: 2_000_000, InsertRetries: 3, InsertTimeout: 30 * time.Second,
		MaxCachedSeries: 4_000_000, SeriesCacheAge: time.Hour,
		ReadConns: 16, WriteConns: 4, DialTimeout: 5 * time.Second, QueryTimeout: time.Minute,
		MaxQueryMemory: 8 << 30, MaxRowsToRead: 20_000_000_000, MaxResultRows: 500_000_000,
		MaxEvaluateBytes: 512 << 20, MaxRosterBytes: 128 << 20, SelectBuffer: 4_000_000, MaxSelectedSeries: 5_000_000, MaxExemplars: 10_000,
		DiscoveryCacheBytes: 32 << 20, DiscoveryCacheAge: 5 * time.Second, SettingsAge: time.Second,
	}
}

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// Validate reports every problem and changes nothing.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.DSN == "" && len(c.Shards) == 0 {
		bad("clickhouse: a DSN is required")
	}
	for _, dsn := range c.dsns() {
		if _, err := parseDSN(dsn); err != nil {
			errs = append(errs, err)
		}
	}
	if c.Cluster != "" && !identifier.MatchString(c.Cluster) {
		bad("clickhouse: cluster name %q must match %s", c.Cluster, identifier)
	}
	if c.BackupTo != "" {
		if _, err := parseDestination(c.BackupTo); err != nil {
			errs = append(errs, err)
		}
	}
	if c.RetentionDays < 0 || c.RetentionDays > storage.MaxRetentionDays {
		bad("clickhouse: retention must be 0 to %d days, it is %d", storage.MaxRetentionDays, c.RetentionDays)
	}
	for _, d := range c.RetentionClasses {
		if d < 0 || d > storage.MaxRetentionDays {
			bad("clickhouse: retention class must be 0 to %d days, it is %d", storage.MaxRetentionDays, d)
		}
	}
	for _, p := range []struct {
		name string
		v    int64
	}{
		{"flushRows", int64(c.FlushRows)}, {"flushAge", int64(c.FlushAge)}, {"maxBufferedRows", int64(c.MaxBufferedRows)},
		{"insertTimeout", int64(c.InsertTimeout)}, {"maxCachedSeries", int64(c.MaxCachedSeries)}, {"seriesCacheAge", int64(c.SeriesCacheAge)},
		{"readConns", int64(c.ReadConns)}, {"writeConns", int64(c.WriteConns)}, {"dialTimeout", int64(c.DialTimeout)},
		{"queryTimeout", int64(c.QueryTimeout)}, {"selectBuffer", int64(c.SelectBuffer)}, {"maxSelectedSeries", int64(c.MaxSelectedSeries)},
		{"maxExemplars", int64(c.MaxExemplars)}, {"discoveryCacheAge", int64(c.DiscoveryCacheAge)},
		{"maxEvaluateBytes", c.MaxEvaluateBytes}, {"maxRosterBytes", c.MaxRosterBytes},
	} {
		if p.v <= 0 {
			bad("clickhouse: %s must be positive, it is %d", p.name, p.v)
		}
	}
	if c.DiscoveryCacheBytes < 0 {
		bad("clickhouse: discoveryCacheBytes must not be negative, it is %d", c.DiscoveryCacheBytes)
	}
	if c.FlushAgeMax < c.FlushAge {
		bad("clickhouse: flushAgeMax %s is below flushAge %s", c.FlushAgeMax, c.FlushAge)
	}
	return errors.Join(errs...)
}

// dsns returns one DSN for each shard.
func (c Config) dsns() []string {
	if len(c.Shards) > 0 {
		return c.Shards
	}
	return []string{c.DSN}
}

// now returns the clock's time.
func (c Config) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

// classOf returns the smallest retention class that keeps at least days.
func (c Config) classOf(days int) uint16 {
	if days == 0 {
		return 0
	}
	best := 0
	for _, class := range append(slices.Clone(c.RetentionClasses), c.RetentionDays) {
		if class >= days && (best == 0 || class < best) {
			best = class
		}
	}
	return uint16(best)
}
