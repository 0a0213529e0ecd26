package tenancy

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

// maxWatchedBytes bounds every file that is read again while running.
const maxWatchedBytes = 16 << 20

// watchedFile is a file that is read again while running. Comparing bytes instead
// of times sees every kind of replacement, a Kubernetes secret's symbolic links
// among them. It is not safe for concurrent use.
type watchedFile struct {
	path string
	last []byte
	read bool
}

// load reads the file and tells whether it differs from what the last load
// returned.
func (f *watchedFile) load() (content []byte, changed bool, err error) {
	file, err := os.Open(f.path)
	if err != nil {
		return nil, false, err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxWatchedBytes+1))
	if err != nil {
		return nil, false, err
	}
	if len(b) > maxWatchedBytes {
		return nil, false, fmt.Errorf("%s has more than %d bytes", f.path, maxWatchedBytes)
	}
	if f.read && bytes.Equal(b, f.last) {
		return b, false, nil
	}
	f.last, f.read = b, true
	return b, true, nil
}
