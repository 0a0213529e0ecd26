package wal

import (
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	filePerm = 0o600
	dirPerm  = 0o700
)

// file is what the log needs of an open segment. Write appends.
type file interface {
	io.Writer
	Sync() error
	Truncate(size int64) error
	Close() error
}

// fileSystem is every change the package makes to a directory. Tests script
// failures and power cuts behind it; reading goes to the operating system.
type fileSystem interface {
	// Create opens path for appending, empty, whether or not it existed.
	Create(path string) (file, error)
	// OpenAppend opens an existing file for appending.
	OpenAppend(path string) (file, error)
	Rename(from, to string) error
	Link(from, to string) error
	Remove(path string) error
	SyncDir(dir string) error
}

type osFS struct{}

func (osFS) Create(path string) (file, error) {
	return openOS(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND)
}

func (osFS) OpenAppend(path string) (file, error) {
	return openOS(path, os.O_WRONLY|os.O_APPEND)
}

// openOS keeps a nil *os.File from becoming a non-nil interface.
func openOS(path string, flags int) (file, error) {
	f, err := os.OpenFile(path, flags, filePerm)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (osFS) Rename(from, to string) error { return os.Rename(from, to) }
func (osFS) Link(from, to string) error   { return os.Link(from, to) }
func (osFS) Remove(path string) error     { return os.Remove(path) }

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// keepAside gives path a second name, path.damaged, .damaged.1 and so on, so
// that replacing path loses no evidence. Where hard links are not to be had, the
// bytes are copied.
func keepAside(fs fileSystem, path string) (string, error) {
	aside, err := asideName(path)
	if err != nil {
		return "", err
	}
	if fs.Link(path, aside) == nil {
		return aside, nil
	}
	if err := copyFile(fs, path, aside); err != nil {
		return "", fmt.Errorf("keep %s aside: %w", path, err)
	}
	return aside, nil
}

// asideName is the first free name for a damaged file.
func asideName(path string) (string, error) {
	name := path + damagedSuffix
	for i := 1; ; i++ {
		_, err := os.Lstat(name)
		if errors.Is(err, os.ErrNotExist) {
			return name, nil
		}
		if err != nil {
			return "", fmt.Errorf("keep %s aside: %w", path, err)
		}
		name = fmt.Sprintf("%s%s.%d", path, damagedSuffix, i)
	}
}

func copyFile(fs fileSystem, from, to string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	dst, err := fs.Create(to)
	if err != nil {
		return err
	}
	if _, err = io.Copy(dst, src); err == nil {
		err = dst.Sync()
	}
	if err = errors.Join(err, dst.Close()); err != nil {
		err = errors.Join(err, fs.Remove(to))
	}
	return err
}
