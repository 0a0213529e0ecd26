package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

// WriteLimits bound the native write of one tenant. Zero means zero, not
// "default". Durations are relative to the server's clock.
type WriteLimits struct {
	MaxMetrics        int           // in one request
	MaxBodyBytes      int64         // of the body, before and after decompression, each
	MaxDecodedBytes   int64         // of the body, after decompression, where less; 0 = no bound of its own
	MaxNameBytes      int           // of a metric's name
	MaxKeyBytes       int           // of a dimension's key
	MaxValueBytes     int           // of a dimension's value
	MaxDimensions     int           // of a metric; `source` does not count
	MaxPast           time.Duration // how old a timestamp may be
	MaxFuture         time.Duration // how far ahead a timestamp may be
	MaxAdjustment     time.Duration // how far measurements of one millisecond may move apart
	MaxReportedErrors int           // refusals named in an answer; all are counted
}

// QueryLimits bound the native query of one tenant.
type QueryLimits struct {
	DefaultTimeout time.Duration
	MaxTimeout     time.Duration
	MaxRange       time.Duration
	MaxPoints      int // in a group, and raw points of a range query
	MaxGroups      int // returned, counted after `limit`
	// MaxSeries and MaxSamples bound what a query reads, 0 = no bound.
	MaxSeries, MaxSamples int
	// MaxEvaluated bounds the values that an evaluation holds: groups × buckets ×
	// aggregations.
	MaxEvaluated int
	MaxBodyBytes int64
}

// Config configures an API. Start from DefaultConfig.
type Config struct {
	// Version, Backend and TenantMode are shown at / and by ServeHealth.
	Version, Backend, TenantMode string

	Write WriteLimits
	Query QueryLimits
	// MaxListed bounds the names, values or series in one answer of discovery and
	// cardinality.
	MaxListed int
	// Memory is what queries reserve from before they hold what they read; nil counts
	// nothing.
	Memory *tenancy.QueryMemory
	// RetryAfter is what answers with 429 and 503 advise where nothing better is
	// known.
	RetryAfter time.Duration
	// AdminEnable opens the destructive routes without authentication.
	AdminEnable bool

	// Refusals is the ring of refusals to feed and to show, nil for a private one.
	Refusals *Refusals
	// WriteLimitsOf and QueryLimitsOf, where set, replace Write and Query for a
	// tenant; they must be quick and safe for concurrent use.
	WriteLimitsOf func(storage.Tenant) WriteLimits
	QueryLimitsOf func(storage.Tenant) QueryLimits
	// WatchedOf, where set, gives limits that are not enforced: a query that they would
	// refuse is told to OnLimited and answered.
	WatchedOf func(storage.Tenant) QueryLimits
	// WatchedWriteOf does the same for what metrics of a write may have.
	WatchedWriteOf func(storage.Tenant) WriteLimits
	// OnLimited, which may be nil, is told of a request that a limit of the tenant's
	// refused as a whole, or would have. It must not block.
	OnLimited func(storage.Tenant, *storage.Error)
	// Limits shows and changes the limits of tenants, nil where none are kept.
	Limits LimitsAdmin
}

// LimitsAdmin shows and changes the limits of tenants. Errors carry a storage
// kind: KindInvalid for a document that is not right.
type LimitsAdmin interface {
	// TenantLimits returns the limits that bind the tenant, as they are to be
	// encoded to JSON.
	TenantLimits(ctx context.Context, t storage.Tenant) (any, error)
	// SetTenantLimits replaces the tenant's own limits by a JSON document and
	// returns those that bind it from now on.
	SetTenantLimits(ctx context.Context, t storage.Tenant, document json.RawMessage) (any, error)
	// TenantUsage returns how much of the limits is used, as it is to be encoded to
	// JSON.
	TenantUsage(ctx context.Context, t storage.Tenant) (any, error)
}

// DefaultConfig returns the limits of the HTTP contract.
func DefaultConfig() Config {
	return Config{
		Write: WriteLimits{
			MaxMetrics: 10_000, MaxBodyBytes: 10 << 20,
			MaxNameBytes: 256, MaxKeyBytes: 128, MaxValueBytes: 256, MaxDimensions: 20,
			MaxPast: 7 * 24 * time.Hour, MaxFuture: time.Hour, MaxAdjustment: time.Second,
			MaxReportedErrors: 100,
		},
		Query: QueryLimits{
			DefaultTimeout: 10 * time.Second, MaxTimeout: 30 * time.Second, MaxRange: 90 * 24 * time.Hour,
			MaxPoints: 10_000, MaxGroups: 1_000, MaxSeries: 5_000_000, MaxSamples: 200_000_000,
			MaxEvaluated: 20_000_000, MaxBodyBytes: 1 << 20,
		},
		MaxListed:  10_000,
		RetryAfter: time.Second,
	}
}

// Validate joins every problem of the configuration and changes nothing.
func (c Config) Validate() error {
	var errs []error
	positive := func(name string, v int64) {
		if v <= 0 {
			errs = append(errs, fmt.Errorf("native: %s must be positive, it is %d", name, v))
		}
	}
	positive("write.maxMetrics", int64(c.Write.MaxMetrics))
	positive("write.maxBodyBytes", c.Write.MaxBodyBytes)
	positive("write.maxNameBytes", int64(c.Write.MaxNameBytes))
	positive("write.maxKeyBytes", int64(c.Write.MaxKeyBytes))
	positive("write.maxValueBytes", int64(c.Write.MaxValueBytes))
	positive("write.maxPast", int64(c.Write.MaxPast))
	positive("query.defaultTimeout", int64(c.Query.DefaultTimeout))
	positive("query.maxRange", int64(c.Query.MaxRange))
	positive("query.maxPoints", int64(c.Query.MaxPoints))
	positive("query.maxGroups", int64(c.Query.MaxGroups))
	positive("query.maxEvaluated", int64(c.Query.MaxEvaluated))
	positive("query.maxBodyBytes", c.Query.MaxBodyBytes)
	positive("maxListed", int64(c.MaxListed))
	positive("retryAfter", int64(c.RetryAfter))
	if c.Write.MaxDimensions < 0 || c.Write.MaxFuture < 0 || c.Write.MaxAdjustment < 0 || c.Write.MaxReportedErrors < 0 {
		errs = append(errs, errors.New("native: write limits must not be negative"))
	}
	if c.Query.MaxSeries < 0 || c.Query.MaxSamples < 0 {
		errs = append(errs, errors.New("native: query.maxSeries and query.maxSamples must not be negative"))
	}
	if c.Query.MaxTimeout < c.Query.DefaultTimeout {
		errs = append(errs, fmt.Errorf("native: query.maxTimeout %s is less than query.defaultTimeout %s", c.Query.MaxTimeout, c.Query.DefaultTimeout))
	}
	return errors.Join(errs...)
}

func (a *API) writeLimits(t storage.Tenant) WriteLimits {
	if a.cfg.WriteLimitsOf != nil {
		return a.cfg.WriteLimitsOf(t)
	}
	return a.cfg.Write
}

func (a *API) queryLimits(t storage.Tenant) QueryLimits {
	if a.cfg.QueryLimitsOf != nil {
		return a.cfg.QueryLimitsOf(t)
	}
	return a.cfg.Query
}
