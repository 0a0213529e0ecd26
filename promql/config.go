package promql

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/luminate/luminate/tenancy"
)

// Config bounds queries. The zero value is not usable; start from DefaultConfig.
type Config struct {
	// MaxConcurrent queries run at a time, MaxQueued more wait for their turn until
	// their deadline; what is beyond is answered 503 at once.
	MaxConcurrent int
	MaxQueued     int
	// Timeout ends a query; a request can only shorten it.
	Timeout time.Duration
	// LookbackDelta is how far back an instant selector looks for a sample.
	LookbackDelta time.Duration
	// SubqueryStep is the step of a subquery that names none.
	SubqueryStep time.Duration
	// MaxSamples bounds the points that the engine holds at a time, as Prometheus's
	// --query.max-samples does; without Memory also the samples of one selection.
	MaxSamples int
	// MaxSeries bounds the series of one selection, 0 = no bound.
	MaxSeries int
	// Memory is what queries reserve from before they hold what they read; nil counts
	// nothing.
	Memory *tenancy.QueryMemory
	// MaxPoints bounds the steps of a range query.
	MaxPoints int
	// MaxResultSeries bounds the answer of series and the names and values of
	// labels that one answer holds, 0 = no bound.
	MaxResultSeries int
	// MaxTextBytes bounds the text of a query or selector, MaxDepth how deeply a query
	// nests expressions, MaxRegexBytes each of its regexes; 0 = no bound.
	MaxTextBytes, MaxDepth, MaxRegexBytes int
	// ExperimentalFunctions lets the parser accept Prometheus's experimental
	// functions (its feature flag promql-experimental-functions).
	ExperimentalFunctions bool
	// Planner pushes the heavy part of queries into the storage where that is exact.
	Planner bool
	// PlannerMinSeries and PlannerMinSamples are the estimated sizes of a selection
	// from either of which on it is pushed: below them pushing would save nothing.
	PlannerMinSeries, PlannerMinSamples uint64
	// Info is shown by the status endpoints.
	Info Info
}

// Info describes the running program to the status endpoints. Functions may be
// nil; they are called for each request.
type Info struct {
	Version, Revision, Branch, BuildUser, BuildDate string
	Started                                         time.Time
	Retention                                       string            // e.g. "30d"
	Flags                                           map[string]string // shown by status/flags
	// ConfigYAML returns the running configuration without secrets.
	ConfigYAML func() string
	// AdminEnabled tells whether delete_series may run; nil means it may not.
	AdminEnabled func() bool
}

// DefaultConfig returns Prometheus's own defaults, and bounds where it has none, but
// no Memory.
func DefaultConfig() Config {
	return Config{
		MaxConcurrent:     20,
		MaxQueued:         500,
		Timeout:           2 * time.Minute,
		LookbackDelta:     5 * time.Minute,
		SubqueryStep:      time.Minute,
		MaxSamples:        50_000_000,
		MaxPoints:         11_000,
		MaxResultSeries:   5_000_000,
		MaxTextBytes:      64 << 10,
		MaxDepth:          1000,
		MaxRegexBytes:     4 << 10,
		Planner:           true,
		PlannerMinSeries:  200,
		PlannerMinSamples: 20_000,
	}
}

// Validate joins every problem; it changes nothing.
func (c *Config) Validate() error {
	var errs []error
	positive := func(name string, v int64) {
		if v <= 0 {
			errs = append(errs, fmt.Errorf("promql: %s must be positive, it is %d", name, v))
		}
	}
	positive("maxConcurrent", int64(c.MaxConcurrent))
	positive("timeout", int64(c.Timeout))
	positive("lookbackDelta", int64(c.LookbackDelta))
	positive("subqueryStep", int64(c.SubqueryStep))
	positive("maxSamples", int64(c.MaxSamples))
	positive("maxPoints", int64(c.MaxPoints))
	if min(c.MaxQueued, c.MaxSeries, c.MaxResultSeries, c.MaxTextBytes, c.MaxDepth, c.MaxRegexBytes) < 0 {
		errs = append(errs, errors.New("promql: maxQueued, maxSeries, maxResultSeries, maxTextBytes, maxDepth and maxRegexBytes must not be negative"))
	}
	return errors.Join(errs...)
}

// maxSelected bounds the samples of one selection where memory does not: a range
// function over a long time reads far more samples than the engine holds points.
func (c *Config) maxSelected() int {
	if c.Memory.Limits().PerQuery < math.MaxInt64 {
		return 0
	}
	return c.MaxSamples
}

// maxPoints is MaxSamples, or fewer where one query's memory does not hold as many.
func (c *Config) maxPoints() int {
	return int(min(int64(c.MaxSamples), max(1, c.Memory.Limits().PerQuery/pointBytes)))
}
