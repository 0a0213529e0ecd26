package badger

import (
	"errors"
	"fmt"
	"time"

	"github.com/luminate/luminate/storage"
)

// Config configures a DB. Begin with DefaultConfig: zero means zero, not default.
type Config struct {
	// Dir is the data directory; it is created if absent.
	Dir string
	// WALSync is "os" (acknowledged samples survive the death of the process) or
	// "always" (they survive the loss of power).
	WALSync string
	// RetentionDays is kept where no policy matches; 0 keeps for ever.
	RetentionDays int
	// FutureLimit refuses samples further ahead of now; 0 takes any time.
	FutureLimit time.Duration

	// FlushSamples is the number of samples for each series at which a group of 64
	// is written as a block.
	FlushSamples int
	// FlushAge is the greatest age of samples in memory.
	FlushAge time.Duration
	// SnapshotInterval and SnapshotBytes say when the head is saved, which lets the
	// log be cut: after so much time, or so many bytes of log.
	SnapshotInterval time.Duration
	SnapshotBytes    int64
	// HeadMaxBytes bounds the samples in memory: above it the fullest groups are
	// flushed early, and above twice of it appends are refused for a while.
	HeadMaxBytes int64
	// CloseAfter is how long after its end a day may be written to before its index
	// is packed and its memory freed. Late samples open it again.
	CloseAfter time.Duration
	// MaintenanceInterval is the time between looks at age, disk and retention.
	MaintenanceInterval time.Duration

	// MaxBytes bounds the directory: above it the oldest days are dropped; 0 = no bound.
	MaxBytes int64
	// MinFreeBytes is the free space below which writes are refused, because a full
	// disk kills Badger; 0 = never refuse.
	MinFreeBytes int64

	// QueueSamples and QueueRequests bound what waits for the committer.
	QueueSamples  int
	QueueRequests int
	// ExemplarsPerSeries bounds the exemplars of a series on one day; the newest stay.
	ExemplarsPerSeries int
	// MaxExemplars bounds the exemplars that one query returns.
	MaxExemplars int
	// MaxEvaluateBytes bounds the memory that one Evaluate takes for its groups, steps
	// and values.
	MaxEvaluateBytes int64
	// DiscoveryCacheBytes bounds the answers of LabelNames, LabelValues and
	// SelectLabels that are kept; 0 keeps none.
	DiscoveryCacheBytes int64

	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// DefaultConfig returns the defaults; Dir is left to the caller.
func DefaultConfig() Config {
	return Config{
		WALSync: "os", RetentionDays: storage.DefaultRetentionDays, FutureLimit: time.Hour,
		FlushSamples: 120, FlushAge: 2 * time.Hour,
		SnapshotInterval: 5 * time.Minute, SnapshotBytes: 512 << 20,
		HeadMaxBytes: 512 << 20, CloseAfter: time.Hour, MaintenanceInterval: 15 * time.Second,
		MinFreeBytes: 256 << 20, QueueSamples: 4 << 20, QueueRequests: 4096,
		ExemplarsPerSeries: 100, MaxExemplars: 10_000, MaxEvaluateBytes: 1 << 30,
		DiscoveryCacheBytes: 32 << 20,
	}
}

// Validate joins every problem and changes nothing.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Dir == "" {
		bad("dir: must not be empty")
	}
	if c.WALSync != "os" && c.WALSync != "always" {
		bad("walSync: must be os or always, it is %q", c.WALSync)
	}
	if c.RetentionDays < 0 || c.RetentionDays > storage.MaxRetentionDays {
		bad("retentionDays: must be 0 to %d, it is %d", storage.MaxRetentionDays, c.RetentionDays)
	}
	if c.FlushSamples < 1 || c.FlushSamples > 8192 {
		bad("flushSamples: must be 1 to 8192, it is %d", c.FlushSamples)
	}
	for _, d := range []struct {
		name string
		v    time.Duration
	}{
		{"flushAge", c.FlushAge}, {"snapshotInterval", c.SnapshotInterval},
		{"closeAfter", c.CloseAfter}, {"maintenanceInterval", c.MaintenanceInterval},
	} {
		if d.v <= 0 {
			bad("%s: must be positive, it is %s", d.name, d.v)
		}
	}
	for _, n := range []struct {
		name string
		v    int64
	}{
		{"snapshotBytes", c.SnapshotBytes}, {"headMaxBytes", c.HeadMaxBytes},
		{"queueSamples", int64(c.QueueSamples)}, {"queueRequests", int64(c.QueueRequests)},
		{"exemplarsPerSeries", int64(c.ExemplarsPerSeries)}, {"maxExemplars", int64(c.MaxExemplars)},
		{"maxEvaluateBytes", c.MaxEvaluateBytes},
	} {
		if n.v <= 0 {
			bad("%s: must be positive, it is %d", n.name, n.v)
		}
	}
	if c.FutureLimit < 0 || c.MaxBytes < 0 || c.MinFreeBytes < 0 || c.DiscoveryCacheBytes < 0 {
		bad("futureLimit, maxBytes, minFreeBytes, discoveryCacheBytes: must not be negative")
	}
	if len(errs) == 0 {
		return nil
	}
	return storage.Errorf(storage.KindInvalid, "badger config", "%w", errors.Join(errs...))
}
