package wal

import (
	"errors"
	"fmt"
)

// SyncMode says what an acknowledged record survives.
type SyncMode string

const (
	// SyncOS hands records to the operating system: they survive the death of
	// the process, not the loss of power.
	SyncOS SyncMode = "os"
	// SyncAlways waits for stable storage: records survive the loss of power.
	SyncAlways SyncMode = "always"
)

const (
	minSegmentBytes = 4 << 10
	maxSegmentBytes = 4 << 30
	// maxPayloadBytes is the format's own bound, whatever the configuration: a
	// record written under a larger setting must stay readable.
	maxPayloadBytes = 256 << 20
	// maxGroupBytes bounds one write; the kernel cuts writes at 2 GiB.
	maxGroupBytes = 1 << 30
)

// Config is a log's configuration. The zero value is not valid: begin with
// DefaultConfig.
type Config struct {
	// Sync is SyncOS or SyncAlways.
	Sync SyncMode
	// SegmentBytes is the size from which the next group begins a new segment.
	// A group is never split, so a segment may exceed it by one group.
	SegmentBytes int64
	// MaxRecordBytes bounds one record's payload.
	MaxRecordBytes int
}

// DefaultConfig returns SyncOS, segments of 128 MiB, records of up to 64 MiB.
func DefaultConfig() Config {
	return Config{Sync: SyncOS, SegmentBytes: 128 << 20, MaxRecordBytes: 64 << 20}
}

// Validate joins every problem and changes nothing.
func (c Config) Validate() error {
	var errs []error
	if c.Sync != SyncOS && c.Sync != SyncAlways {
		errs = append(errs, fmt.Errorf("sync %q: want %q or %q", c.Sync, SyncOS, SyncAlways))
	}
	if c.SegmentBytes < minSegmentBytes || c.SegmentBytes > maxSegmentBytes {
		errs = append(errs, fmt.Errorf("segmentBytes %d: want %d to %d", c.SegmentBytes, minSegmentBytes, int64(maxSegmentBytes)))
	}
	if c.MaxRecordBytes < 1 || c.MaxRecordBytes > maxPayloadBytes {
		errs = append(errs, fmt.Errorf("maxRecordBytes %d: want 1 to %d", c.MaxRecordBytes, maxPayloadBytes))
	}
	return errors.Join(errs...)
}
