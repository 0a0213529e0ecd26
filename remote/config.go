package remote

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/otlptranslator"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

// ShapeLimits bound the labels of one series. All are inclusive.
type ShapeLimits struct {
	Labels     int // labels of a series, the metric name among them
	NameBytes  int // bytes of a label's name, or of the metric name
	ValueBytes int // bytes of a label's value
	// DecodedBytes bounds a request of the tenant after decompression where that is less
	// than Config.MaxDecodedBytes; 0 is no bound of its own.
	DecodedBytes int64
}

// Config bounds what a request may cost. Sizes are bytes.
type Config struct {
	// MaxBodyBytes bounds the compressed body of a write or OTLP request,
	// MaxDecodedBytes what it claims to decompress to.
	MaxBodyBytes    int64
	MaxDecodedBytes int64
	// MaxBatchBytes bounds what a request takes as a batch: symbols of remote write
	// 2.0 may stand for far more label bytes than the message has.
	MaxBatchBytes int
	// MaxInFlightBytes bounds the decompressed bytes of all writes under way. Above
	// it a request waits up to QueueTimeout and is then answered with 503.
	MaxInFlightBytes int64
	QueueTimeout     time.Duration
	// RetryAfter is what 429 and 503 tell the sender, unless the error knows better
	// (it has a method RetryAfter() time.Duration). At least a second.
	RetryAfter time.Duration
	// Shape holds for every tenant, unless Limits, which may be nil, gives the
	// tenant's own.
	Shape  ShapeLimits
	Limits func(storage.Tenant) ShapeLimits
	// OnRefused, which may be nil, is told of the first refusals of every write that
	// was stored in part, for the tenant's list of refusals. It must not block.
	OnRefused func(t storage.Tenant, r Refused)
	// OnLimited, which may be nil, is told of a request that a limit of the tenant's own
	// refused as a whole. It must not block.
	OnLimited func(t storage.Tenant, e *storage.Error)

	Read ReadConfig
	OTLP OTLPConfig
	// Memory is what remote read reserves from before it holds what it reads; nil
	// counts nothing.
	Memory *tenancy.QueryMemory
}

// Refused tells of a part of a request that was refused.
type Refused struct {
	Source  string // "remote_write" or "otlp"
	Series  string // its labels in PromQL's form, "" if it is of no series
	Reason  storage.RefusalReason
	Count   int    // samples, histograms and exemplars
	Message string // what and where
}

// ReadConfig bounds remote read.
type ReadConfig struct {
	MaxBodyBytes    int64 // of the request, compressed
	MaxDecodedBytes int64 // of the request, decompressed
	MaxQueries      int   // in one request
	MaxSamples      int   // in a SAMPLES answer to one query; histograms count as one
	MaxRegexBytes   int   // of one matcher's regex, 0 = no bound
	MaxFrameBytes   int   // of a frame of the streamed response, about
	Concurrency     int   // requests served at once; others wait
	// StartTimestamps streams the start timestamps of samples that have any, in chunks
	// (XOR2, HISTOGRAM_ST, FLOAT_HISTOGRAM_ST) that a Prometheus which does not know
	// them fails on. The request cannot tell whether its sender does.
	StartTimestamps bool
}

// OTLPConfig chooses how OTLP metrics become series; the fields are those of
// Prometheus's `otlp` section.
type OTLPConfig struct {
	TranslationStrategy                  otlptranslator.TranslationStrategyOption
	PromoteResourceAttributes            []string
	PromoteAllResourceAttributes         bool
	IgnoreResourceAttributes             []string // with PromoteAllResourceAttributes
	KeepIdentifyingResourceAttributes    bool
	ConvertHistogramsToNHCB              bool
	PromoteScopeMetadata                 bool
	LabelNameUnderscoreSanitization      bool
	LabelNamePreserveMultipleUnderscores bool
	// LookbackDelta is PromQL's: a request that spans more time gets a target_info
	// sample at least every half of it.
	LookbackDelta time.Duration
	// MaxElements bounds the data points, attributes and exemplars of a request: each
	// takes far more memory than the two bytes that it may have on the wire.
	MaxElements int
}

// DefaultConfig returns Prometheus's own limits where it has any.
func DefaultConfig() Config {
	return Config{
		MaxBodyBytes:     32 << 20,
		MaxDecodedBytes:  32 << 20,
		MaxBatchBytes:    128 << 20,
		MaxInFlightBytes: 256 << 20,
		QueueTimeout:     5 * time.Second,
		RetryAfter:       5 * time.Second,
		Shape:            ShapeLimits{Labels: 64, NameBytes: 1024, ValueBytes: 4096},
		Read: ReadConfig{
			MaxBodyBytes:    32 << 20,
			MaxDecodedBytes: 32 << 20,
			MaxQueries:      1000,
			MaxSamples:      5e7,
			MaxRegexBytes:   4 << 10,
			MaxFrameBytes:   1 << 20,
			Concurrency:     10,
		},
		OTLP: OTLPConfig{
			TranslationStrategy:                  otlptranslator.UnderscoreEscapingWithSuffixes,
			LabelNameUnderscoreSanitization:      true,
			LabelNamePreserveMultipleUnderscores: true,
			LookbackDelta:                        5 * time.Minute,
			MaxElements:                          2_000_000,
		},
	}
}

// maxMessageBytes bounds the size limits themselves: offsets within a batch are
// 32 bits wide.
const maxMessageBytes = 1 << 30

// Validate joins every problem.
func (c Config) Validate() error {
	var errs []error
	size := func(name string, v int64) {
		if v <= 0 || v > maxMessageBytes {
			errs = append(errs, fmt.Errorf("remote: %s is %d, must be 1 to %d", name, v, maxMessageBytes))
		}
	}
	positive := func(name string, v int64) {
		if v <= 0 {
			errs = append(errs, fmt.Errorf("remote: %s is %d, must be positive", name, v))
		}
	}
	size("maxBodyBytes", c.MaxBodyBytes)
	size("maxDecodedBytes", c.MaxDecodedBytes)
	size("maxBatchBytes", int64(c.MaxBatchBytes))
	size("read.maxBodyBytes", c.Read.MaxBodyBytes)
	size("read.maxDecodedBytes", c.Read.MaxDecodedBytes)
	size("read.maxFrameBytes", int64(c.Read.MaxFrameBytes))
	positive("queueTimeout", int64(c.QueueTimeout))
	positive("shape.labels", int64(c.Shape.Labels))
	positive("shape.nameBytes", int64(c.Shape.NameBytes))
	positive("shape.valueBytes", int64(c.Shape.ValueBytes))
	positive("read.maxQueries", int64(c.Read.MaxQueries))
	positive("read.maxSamples", int64(c.Read.MaxSamples))
	positive("read.concurrency", int64(c.Read.Concurrency))
	positive("otlp.lookbackDelta", int64(c.OTLP.LookbackDelta/time.Second))
	positive("otlp.maxElements", int64(c.OTLP.MaxElements))
	if c.MaxInFlightBytes < c.MaxDecodedBytes {
		errs = append(errs, fmt.Errorf("remote: maxInFlightBytes is %d, must be at least maxDecodedBytes, %d", c.MaxInFlightBytes, c.MaxDecodedBytes))
	}
	if c.RetryAfter < time.Second {
		errs = append(errs, fmt.Errorf("remote: retryAfter is %s, must be at least 1s", c.RetryAfter))
	}
	switch c.OTLP.TranslationStrategy {
	case otlptranslator.UnderscoreEscapingWithSuffixes, otlptranslator.UnderscoreEscapingWithoutSuffixes,
		otlptranslator.NoUTF8EscapingWithSuffixes, otlptranslator.NoTranslation:
	default:
		errs = append(errs, fmt.Errorf("remote: otlp.translationStrategy %q is unknown", c.OTLP.TranslationStrategy))
	}
	if c.OTLP.PromoteAllResourceAttributes && len(c.OTLP.PromoteResourceAttributes) > 0 {
		errs = append(errs, errors.New("remote: otlp.promoteAllResourceAttributes and otlp.promoteResourceAttributes exclude each other"))
	}
	return errors.Join(errs...)
}

// shapeOf returns the limits that hold for a tenant.
func (c *Config) shapeOf(t storage.Tenant) ShapeLimits {
	if c.Limits != nil {
		return c.Limits(t)
	}
	return c.Shape
}

// decodedLimit bounds what a request may decompress to.
type decodedLimit struct {
	bytes   int64
	setting string
}

// decodedOf returns the bound for a tenant: its own if that is less.
func (c *Config) decodedOf(s ShapeLimits) decodedLimit {
	if s.DecodedBytes > 0 && s.DecodedBytes < c.MaxDecodedBytes {
		return decodedLimit{s.DecodedBytes, "limits.maxDecodedBytes"}
	}
	return decodedLimit{c.MaxDecodedBytes, "remote.maxDecodedBytes"}
}

// over tells of a body that decompresses to more.
func (l decodedLimit) over(format string, args ...any) error {
	return storage.LimitErrorf(storage.KindTooLarge, "decompress", "max-decoded-bytes", l.setting, format, args...)
}
