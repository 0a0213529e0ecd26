//go:build !unix

package badger

import "os"

// dirLock is Badger's own lock alone where there is no flock.
type dirLock struct{ f *os.File }

func lockDir(path string) (*dirLock, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	return &dirLock{f: f}, err
}

func (l *dirLock) unlock() error { return l.f.Close() }

// allocated returns the bytes of disk that a file takes.
func allocated(info os.FileInfo) int64 { return info.Size() }
