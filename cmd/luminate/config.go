package main

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// Config is everything that can be set. The koanf tag of a field is its key, the
// doc tag its line in the reference of configuration; a key a.b.c is
// LUMINATE_A_B_C in the environment and --a.b.c as a flag.
type Config struct {
	Server  ServerConfig  `koanf:"server"`
	Storage StorageConfig `koanf:"storage"`
	Auth    AuthConfig    `koanf:"auth"`
	Tenancy TenancyConfig `koanf:"tenancy"`
	Limits  LimitsConfig  `koanf:"limits"`
	Query   QueryConfig   `koanf:"query"`
	Write   WriteConfig   `koanf:"write"`
	OTLP    OTLPConfig    `koanf:"otlp"`
	Admin   AdminConfig   `koanf:"admin"`
	Metrics MetricsConfig `koanf:"metrics"`
	Log     LogConfig     `koanf:"log"`
}

// ServerConfig sets the listeners.
type ServerConfig struct {
	Listen               string        `koanf:"listen" doc:"Address of the HTTP API."`
	InternalListen       string        `koanf:"internalListen" doc:"Address of a second listener for /metrics, pprof and probes only; empty: they are served on the first one by the rules of scopes."`
	AllowUnauthenticated bool          `koanf:"allowUnauthenticated" doc:"Listen on addresses other than loopback without authentication. Everybody who reaches the port can read, write and delete."`
	WebConfigFile        string        `koanf:"webConfigFile" doc:"TLS and client certificates, in the format of Prometheus's web configuration file; certificates are read again at each handshake."`
	CORSOrigins          []string      `koanf:"corsOrigins" doc:"Origins of web pages that may call the API; none by default."`
	MaxBodyBytes         int64         `koanf:"maxBodyBytes" doc:"Largest request body as it comes over the wire."`
	ReadHeaderTimeout    time.Duration `koanf:"readHeaderTimeout" doc:"Time a client has to send its request's headers."`
	ReadTimeout          time.Duration `koanf:"readTimeout" doc:"Time a client has to send a whole request."`
	IdleTimeout          time.Duration `koanf:"idleTimeout" doc:"Time an idle connection is kept."`
	MaxHeaderBytes       int           `koanf:"maxHeaderBytes" doc:"Largest request header."`
	MaxConnections       int           `koanf:"maxConnections" doc:"Connections held at once; further ones wait to be accepted."`
	RequestTimeout       time.Duration `koanf:"requestTimeout" doc:"Deadline of every request that has no shorter one."`
	DrainDelay           time.Duration `koanf:"drainDelay" doc:"Time between /readyz turning 503 and the listener closing, so that load balancers notice."`
	ShutdownTimeout      time.Duration `koanf:"shutdownTimeout" doc:"Time that requests in flight have to finish on shutdown."`
}

// StorageConfig chooses and sets the backend.
type StorageConfig struct {
	Backend    string           `koanf:"backend" doc:"badger (embedded, one node) or clickhouse (a cluster)."`
	Badger     BadgerConfig     `koanf:"badger"`
	ClickHouse ClickHouseConfig `koanf:"clickhouse"`
}

// BadgerConfig sets the embedded backend.
type BadgerConfig struct {
	Dir              string        `koanf:"dir" doc:"Folder of the data."`
	WALSync          string        `koanf:"walSync" doc:"os: a write is acknowledged when the operating system has it (survives kill -9); always: when the disk has it (survives a power cut)."`
	RetentionDays    int           `koanf:"retentionDays" doc:"Days that samples are kept where no retention policy matches; 0 keeps for ever."`
	MaxBytes         int64         `koanf:"maxBytes" doc:"Largest size on disk: the oldest days are dropped first; 0 is no bound."`
	MinFreeBytes     int64         `koanf:"minFreeBytes" doc:"Free space below which writes are refused with 503; reads go on."`
	HeadMaxBytes     int64         `koanf:"headMaxBytes" doc:"Memory of samples that are not yet in blocks, above which they are written out early."`
	SnapshotInterval time.Duration `koanf:"snapshotInterval" doc:"Time between snapshots of the head; bounds the log that a restart reads again."`
	MaxEvaluateBytes int64         `koanf:"maxEvaluateBytes" doc:"Memory that one evaluation inside the storage may hold."`
	FutureLimit      time.Duration `koanf:"futureLimit" doc:"Samples further ahead of the clock are refused; at most 1h."`

	DiscoveryCacheBytes int64 `koanf:"discoveryCacheBytes" doc:"Memory of kept answers of look-ups (label names, values, series); a change of the index is seen at once all the same. 0 keeps none."`
}

// ClickHouseConfig sets the cluster backend.
type ClickHouseConfig struct {
	DSN           string        `koanf:"dsn" doc:"clickhouse://user@host1:9000,host2:9000/database."`
	PasswordFile  string        `koanf:"passwordFile" doc:"File with the password, read again for each new connection."`
	CAFile        string        `koanf:"caFile" doc:"PEM file with the certificates that sign ClickHouse's, with secure=true in the DSN; read again for each new connection. Empty: the system's."`
	Cluster       string        `koanf:"cluster" doc:"Name of the ClickHouse cluster: tables become Replicated and Distributed."`
	Shards        []string      `koanf:"shards" doc:"DSN of each shard; statements go to every shard and are merged here. Empty: the DSN is the only one."`
	BackupTo      string        `koanf:"backupTo" doc:"Where ClickHouse writes backups: Disk('name', 'folder'), File('/folder'), S3('https://host/bucket/folder'), S3(collection, 'folder') or AzureBlobStorage(collection, 'folder'); keys stand in ClickHouse's own configuration. Empty: no backups."`
	MigrateSchema bool          `koanf:"migrateSchema" doc:"Create and migrate tables at start."`
	FlushRows     int           `koanf:"flushRows" doc:"Rows at which a write buffer is sent."`
	FlushAge      time.Duration `koanf:"flushAge" doc:"Age at which a write buffer is sent."`
	FsyncInserts  bool          `koanf:"fsyncInserts" doc:"Tables are created with fsync_after_insert: an acknowledged write survives a power cut of the ClickHouse host."`
	RetentionDays int           `koanf:"retentionDays" doc:"Days that samples are kept where no retention policy matches; 0 keeps for ever."`

	DiscoveryCacheBytes int64         `koanf:"discoveryCacheBytes" doc:"Memory of kept answers of look-ups (label names, values, series, metadata); what this process changes is seen at once all the same. 0 keeps none."`
	DiscoveryCacheAge   time.Duration `koanf:"discoveryCacheAge" doc:"How long a kept answer may not show what other processes changed."`

	MaxEvaluateBytes int64 `koanf:"maxEvaluateBytes" doc:"Memory that one evaluation inside the storage may hold."`
	MaxRosterBytes   int64 `koanf:"maxRosterBytes" doc:"Memory for the series lists of large metrics, which are kept between evaluations; about 25 bytes a series and 4 more for each selection and grouping."`

	MaxBufferedRows   int           `koanf:"maxBufferedRows" doc:"Rows that may wait for ClickHouse, about 50 bytes each; further writes are refused with 503 and Retry-After."`
	QueryTimeout      time.Duration `koanf:"queryTimeout" doc:"Longest time of one statement on ClickHouse; a request's own deadline may be earlier."`
	MaxQueryMemory    int64         `koanf:"maxQueryMemory" doc:"Memory of one statement on ClickHouse (max_memory_usage), in bytes; 0 leaves it to the server."`
	MaxRowsToRead     int64         `koanf:"maxRowsToRead" doc:"Rows that one statement may read on ClickHouse; 0 leaves it to the server."`
	MaxResultRows     int64         `koanf:"maxResultRows" doc:"Rows that one statement may bring back; 0 leaves it to the server."`
	MaxSelectedSeries int           `koanf:"maxSelectedSeries" doc:"Series whose labels one query may hold in memory."`
}

// AuthConfig sets authentication; it is on as soon as a key is configured.
type AuthConfig struct {
	Enabled          bool          `koanf:"enabled" doc:"Demand a token even if no key is configured (then every request is refused); a configured key turns it on by itself."`
	JWTSecretFile    string        `koanf:"jwtSecretFile" doc:"File with the HS256 secret; LUMINATE_AUTH_JWT_SECRET gives the secret itself."`
	JWTPublicKeyFile string        `koanf:"jwtPublicKeyFile" doc:"PEM file with an RSA, ECDSA or Ed25519 public key."`
	JWKSURL          string        `koanf:"jwksURL" doc:"URL of a JSON Web Key Set."`
	Issuer           string        `koanf:"issuer" doc:"Demanded iss claim; empty: not checked."`
	Audience         string        `koanf:"audience" doc:"Demanded aud claim; empty: not checked."`
	Leeway           time.Duration `koanf:"leeway" doc:"Clock skew allowed in exp, nbf and iat."`
	RevokedFile      string        `koanf:"revokedFile" doc:"File with one revoked token id (jti) or subject a line; changes act within 10 s."`

	JWTSecret string `koanf:"-"` // from the environment only
}

// TenancyConfig sets how the tenant is found.
type TenancyConfig struct {
	Header  string   `koanf:"header" doc:"Header that names the tenant."`
	Default string   `koanf:"default" doc:"Tenant of a request that names none, without authentication."`
	Create  string   `koanf:"create" doc:"auto: any tenant that a caller may write to exists; listed: only those of tenancy.tenants."`
	Tenants []string `koanf:"tenants" doc:"The tenants, with tenancy.create: listed."`
}

// LimitsConfig sets the limits of tenants.
type LimitsConfig struct {
	File      string        `koanf:"file" doc:"YAML file with defaults and overrides for tenants, read again when it changes."`
	Mode      string        `koanf:"mode" doc:"enforce, or observe: count what would be refused and refuse nothing."`
	Reload    time.Duration `koanf:"reload" doc:"Time between looks at the file."`
	Processes int           `koanf:"processes" doc:"Luminate processes that share a tenant's traffic: each allows its share of the rates. 0: as many as are alive on the same ClickHouse, one on Badger."`
}

// QueryConfig bounds queries.
type QueryConfig struct {
	Timeout             time.Duration `koanf:"timeout" doc:"Longest PromQL query."`
	MaxConcurrent       int           `koanf:"maxConcurrent" doc:"Queries evaluated at once; further ones wait."`
	MaxQueued           int           `koanf:"maxQueued" doc:"PromQL queries that may wait for a place; what is beyond is answered 503 at once."`
	MaxResultSeries     int           `koanf:"maxResultSeries" doc:"Series, names or values in one answer of series and labels; 0 is no bound."`
	MaxSamples          int           `koanf:"maxSamples" doc:"Samples that one PromQL query may hold in memory."`
	MaxSeries           int           `koanf:"maxSeries" doc:"Series that one query may select; 0 is no bound."`
	MaxTextBytes        int           `koanf:"maxTextBytes" doc:"Longest text of a PromQL query or selector; 0 is no bound."`
	MaxDepth            int           `koanf:"maxDepth" doc:"How deeply a PromQL query may nest expressions; 0 is no bound."`
	MaxRegexBytes       int           `koanf:"maxRegexBytes" doc:"Longest regex of a matcher of a PromQL query, a selector or a remote read; 0 is no bound."`
	Lookback            time.Duration `koanf:"lookback" doc:"How old the newest sample of an instant selector may be."`
	Planner             bool          `koanf:"planner" doc:"Evaluate what the storage can do inside the storage."`
	MemoryBytes         int64         `koanf:"memoryBytes" doc:"Memory that all running queries together may reserve (PromQL, native, remote read), one at most half of it; 0 is half of what the process may use, by GOMEMLIMIT where it is set."`
	TenantMemoryBytes   int64         `koanf:"tenantMemoryBytes" doc:"Memory that the running queries of one tenant may reserve; 0 is no bound of its own."`
	ReadGate            int           `koanf:"readGate" doc:"Remote reads served at once."`
	ReadSamples         int           `koanf:"readSamples" doc:"Samples that one query of a remote read of the SAMPLES kind may answer with."`
	ReadStartTimestamps bool          `koanf:"readStartTimestamps" doc:"Remote read of the STREAMED_XOR_CHUNKS kind sends start timestamps, in chunks (XOR2, HISTOGRAM_ST) that a Prometheus which does not know them fails on."`
}

// WriteConfig bounds writes.
type WriteConfig struct {
	MaxDecodedBytes  int64 `koanf:"maxDecodedBytes" doc:"Largest decompressed remote write or OTLP request."`
	MaxInFlightBytes int64 `koanf:"maxInFlightBytes" doc:"Decompressed bytes of all such requests under way; further ones wait, then get 503."`
}

// OTLPConfig sets the translation of OTLP metrics.
type OTLPConfig struct {
	TranslationStrategy string   `koanf:"translationStrategy" doc:"UnderscoreEscapingWithSuffixes, UnderscoreEscapingWithoutSuffixes, NoUTF8EscapingWithSuffixes or NoTranslation."`
	PromoteAttributes   []string `koanf:"promoteAttributes" doc:"Resource attributes that become labels of every series."`
	PromoteScope        bool     `koanf:"promoteScope" doc:"Add the instrumentation scope as labels."`
}

// AdminConfig opens destructive routes.
type AdminConfig struct {
	Enable bool `koanf:"enable" doc:"Allow destructive admin routes without authentication."`
}

// MetricsConfig sets Luminate's own metrics.
type MetricsConfig struct {
	SelfScrape         bool          `koanf:"selfScrape" doc:"Store Luminate's own metrics in itself."`
	SelfScrapeTenant   string        `koanf:"selfScrapeTenant" doc:"Tenant that they are stored under."`
	SelfScrapeInterval time.Duration `koanf:"selfScrapeInterval" doc:"Time between two scrapes of itself."`
	CensusInterval     time.Duration `koanf:"censusInterval" doc:"Time between two counts of tenants and series, for the metrics that tell the largest; 0 counts never."`
}

// LogConfig sets logging.
type LogConfig struct {
	Level  string `koanf:"level" doc:"debug, info, warn or error."`
	Format string `koanf:"format" doc:"text, json, or auto: text on a terminal, JSON otherwise."`
}

// DefaultConfig runs on Badger in ./data, without authentication, on loopback.
func DefaultConfig() Config {
	return Config{
		Server: ServerConfig{
			Listen: "127.0.0.1:8080", MaxBodyBytes: 32 << 20, ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10, MaxConnections: 4096,
			RequestTimeout: 2 * time.Minute, ShutdownTimeout: 25 * time.Second,
		},
		Storage: StorageConfig{
			Backend: "badger",
			Badger: BadgerConfig{
				Dir: "./data", WALSync: "os", RetentionDays: 30, MinFreeBytes: 256 << 20, HeadMaxBytes: 512 << 20,
				SnapshotInterval: 5 * time.Minute, MaxEvaluateBytes: 1 << 30, FutureLimit: time.Hour,
				DiscoveryCacheBytes: 32 << 20,
			},
			ClickHouse: ClickHouseConfig{
				MigrateSchema: true, FlushRows: 100_000, FlushAge: 20 * time.Millisecond, RetentionDays: 30,
				DiscoveryCacheBytes: 32 << 20, DiscoveryCacheAge: 5 * time.Second,
				MaxEvaluateBytes: 512 << 20, MaxRosterBytes: 128 << 20,
				MaxBufferedRows: 2_000_000, QueryTimeout: time.Minute, MaxQueryMemory: 8 << 30,
				MaxRowsToRead: 20_000_000_000, MaxResultRows: 500_000_000, MaxSelectedSeries: 5_000_000,
			},
		},
		Auth:    AuthConfig{Leeway: 30 * time.Second},
		Tenancy: TenancyConfig{Header: "X-Scope-OrgID", Default: "default", Create: "auto"},
		Limits:  LimitsConfig{Mode: "enforce", Reload: 10 * time.Second},
		Query: QueryConfig{
			Timeout: 2 * time.Minute, MaxConcurrent: 20, MaxQueued: 500, MaxResultSeries: 5_000_000, MaxSamples: 50_000_000, MaxTextBytes: 64 << 10, MaxDepth: 1000, MaxRegexBytes: 4 << 10, Lookback: 5 * time.Minute, Planner: true,
			ReadGate: 10, ReadSamples: 50_000_000,
		},
		Write:   WriteConfig{MaxDecodedBytes: 32 << 20, MaxInFlightBytes: 256 << 20},
		OTLP:    OTLPConfig{TranslationStrategy: "UnderscoreEscapingWithSuffixes"},
		Metrics: MetricsConfig{SelfScrapeTenant: "luminate", SelfScrapeInterval: 15 * time.Second, CensusInterval: 5 * time.Minute},
		Log:     LogConfig{Level: "info", Format: "auto"},
	}
}

// authConfigured tells whether authentication is on.
func (c *Config) authConfigured() bool {
	a := c.Auth
	return a.Enabled || a.JWTSecretFile != "" || a.JWTPublicKeyFile != "" || a.JWKSURL != "" || a.JWTSecret != ""
}

// Validate joins every problem and changes nothing; each names its key.
func (c *Config) Validate() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	oneOf := func(key, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			bad(key, "%q is not one of %s", value, strings.Join(allowed, ", "))
		}
	}
	oneOf("storage.backend", c.Storage.Backend, "badger", "clickhouse")
	oneOf("storage.badger.walSync", c.Storage.Badger.WALSync, "os", "always")
	oneOf("tenancy.create", c.Tenancy.Create, "auto", "listed")
	oneOf("limits.mode", c.Limits.Mode, "enforce", "observe")
	oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf("log.format", c.Log.Format, "auto", "text", "json")
	if c.Storage.Backend == "badger" && c.Storage.Badger.Dir == "" {
		bad("storage.badger.dir", "is empty")
	}
	if c.Storage.Backend == "clickhouse" && c.Storage.ClickHouse.DSN == "" && len(c.Storage.ClickHouse.Shards) == 0 {
		bad("storage.clickhouse.dsn", "is empty")
	}
	if c.Storage.Badger.FutureLimit > time.Hour || c.Storage.Badger.FutureLimit <= 0 {
		bad("storage.badger.futureLimit", "must be above 0 and at most 1h, it is %s", c.Storage.Badger.FutureLimit)
	}
	for key, v := range map[string]int64{
		"server.maxBodyBytes": c.Server.MaxBodyBytes, "server.maxHeaderBytes": int64(c.Server.MaxHeaderBytes),
		"server.maxConnections": int64(c.Server.MaxConnections), "server.requestTimeout": int64(c.Server.RequestTimeout),
		"server.readHeaderTimeout": int64(c.Server.ReadHeaderTimeout), "query.timeout": int64(c.Query.Timeout),
		"query.maxConcurrent": int64(c.Query.MaxConcurrent), "query.maxSamples": int64(c.Query.MaxSamples),
		"query.lookback": int64(c.Query.Lookback), "write.maxDecodedBytes": c.Write.MaxDecodedBytes,
		"limits.reload":              int64(c.Limits.Reload),
		"metrics.selfScrapeInterval": int64(c.Metrics.SelfScrapeInterval), "storage.clickhouse.discoveryCacheAge": int64(c.Storage.ClickHouse.DiscoveryCacheAge),
		"storage.clickhouse.maxBufferedRows": int64(c.Storage.ClickHouse.MaxBufferedRows), "storage.clickhouse.queryTimeout": int64(c.Storage.ClickHouse.QueryTimeout),
		"storage.clickhouse.maxSelectedSeries": int64(c.Storage.ClickHouse.MaxSelectedSeries),
	} {
		if v <= 0 {
			bad(key, "must be positive, it is %d", v)
		}
	}
	for key, v := range map[string]int64{
		"query.maxTextBytes": int64(c.Query.MaxTextBytes), "query.maxDepth": int64(c.Query.MaxDepth), "query.maxRegexBytes": int64(c.Query.MaxRegexBytes),
		"limits.processes": int64(c.Limits.Processes), "storage.badger.discoveryCacheBytes": c.Storage.Badger.DiscoveryCacheBytes,
		"storage.clickhouse.discoveryCacheBytes": c.Storage.ClickHouse.DiscoveryCacheBytes, "storage.clickhouse.maxQueryMemory": c.Storage.ClickHouse.MaxQueryMemory,
		"storage.clickhouse.maxRowsToRead": c.Storage.ClickHouse.MaxRowsToRead, "storage.clickhouse.maxResultRows": c.Storage.ClickHouse.MaxResultRows,
	} {
		if v < 0 {
			bad(key, "must not be negative, it is %d", v)
		}
	}
	if c.Metrics.CensusInterval < 0 {
		bad("metrics.censusInterval", "must not be negative, it is %s", c.Metrics.CensusInterval)
	}
	if err := c.validateListen(); err != nil {
		errs = append(errs, err)
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// validateListen refuses addresses other than loopback without authentication.
func (c *Config) validateListen() error {
	host, _, err := net.SplitHostPort(c.Server.Listen)
	if err != nil {
		return fmt.Errorf("server.listen: %w", err)
	}
	if c.Server.AllowUnauthenticated || !c.exposed(host) {
		return nil
	}
	return fmt.Errorf("server.listen: %q is not a loopback address and authentication is off: configure a key (auth.jwtSecretFile, auth.jwtPublicKeyFile or auth.jwksURL), or set server.allowUnauthenticated: true", c.Server.Listen)
}

// exposed tells whether a listener on host lets others than this machine in without
// authentication.
func (c *Config) exposed(host string) bool { return !c.authConfigured() && !isLoopback(host) }

// isLoopback tells whether a listener on host is reachable from this machine
// only. An empty host is every address.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
