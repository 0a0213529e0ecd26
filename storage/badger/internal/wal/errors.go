package wal

import (
	"errors"
	"fmt"
	"syscall"
)

var (
	// ErrBroken is the answer of a log after a failed write or fsync, for good:
	// what the file holds is not known until recovery has read it.
	ErrBroken = errors.New("write-ahead log is broken until it is opened again")
	// ErrNoSpace means that the disk, or the quota, is full. Nothing of the group
	// is in the log; the same group may be appended again later.
	ErrNoSpace = errors.New("no space left for the write-ahead log")
	// ErrTooLarge refuses a record, group or section beyond its bound, before
	// anything is written.
	ErrTooLarge = errors.New("too large")
	// ErrClosed is the answer of a closed log or snapshot.
	ErrClosed = errors.New("closed")
	// ErrCorrupt is what decoders return for bytes that no encoder wrote.
	ErrCorrupt = errors.New("corrupt")
)

// VersionError refuses a file that a newer (or unknown) program wrote.
type VersionError struct {
	File      string
	Found     uint32
	Supported uint32
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s has format version %d, this program reads version %d", e.File, e.Found, e.Supported)
}

// isNoSpace tells a full disk or quota from an input-output error.
func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func corruptf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}
