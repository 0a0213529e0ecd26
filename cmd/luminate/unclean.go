package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// runningFile marks a data folder in use; it is removed by an orderly shutdown.
const runningFile = "RUNNING"

// markRunning puts the mark into dir and tells whether one was left there: then
// the process before ended without an orderly shutdown. done removes the mark.
func markRunning(dir string) (unclean bool, done func() error, err error) {
	path := filepath.Join(dir, runningFile)
	_, err = os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, nil, fmt.Errorf("look for the mark of a running process: %w", err)
	}
	unclean = err == nil
	if err := os.WriteFile(path, []byte(fmt.Sprintln(os.Getpid())), 0o600); err != nil {
		return unclean, nil, fmt.Errorf("mark the data folder as in use: %w", err)
	}
	return unclean, func() error { return os.Remove(path) }, nil
}
