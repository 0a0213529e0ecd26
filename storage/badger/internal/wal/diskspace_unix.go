//go:build linux || darwin || freebsd

package wal

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// FreeBytes returns the bytes that an unprivileged process may still write to the
// file system that holds dir, and the file system's size.
func FreeBytes(dir string) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("measure free space of %s: %w", dir, err)
	}
	block := uint64(st.Bsize)
	//nolint:unconvert // the field is signed on FreeBSD
	return uint64(st.Bavail) * block, uint64(st.Blocks) * block, nil
}
