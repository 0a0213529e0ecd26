//go:build !linux && !darwin && !freebsd

package wal

import (
	"errors"
	"fmt"
)

// FreeBytes is not to be had on this system: the error matches
// errors.ErrUnsupported.
func FreeBytes(dir string) (free, total uint64, err error) {
	return 0, 0, fmt.Errorf("measure free space of %s: %w", dir, errors.ErrUnsupported)
}
