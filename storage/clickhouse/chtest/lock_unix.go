//go:build unix

package chtest

import (
	"os"
	"path/filepath"
	"syscall"
)

// once runs make unless path exists already, in one process at a time: test binaries
// of several packages start together.
func once(path string, create func() error) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	lock, err := os.OpenFile(filepath.Join(filepath.Dir(filepath.Clean(path)), ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if os.IsNotExist(err) { // path's folder is part of what create makes
		cache, cerr := cacheDir()
		if cerr != nil {
			return cerr
		}
		lock, err = os.OpenFile(filepath.Join(cache, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	}
	if err != nil {
		return err
	}
	defer lock.Close() // releases the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	return create()
}
