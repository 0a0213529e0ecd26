package badger

import (
	"errors"
	"fmt"

	"github.com/luminate/luminate/storage"
)

// errDamaged marks stored bytes that fail their checksum or make no sense.
var errDamaged = errors.New("stored data is damaged")

// FormatError refuses a directory that another version of the program wrote.
type FormatError struct {
	Dir              string
	Found, Supported uint32
}

// Error implements error.
func (e *FormatError) Error() string {
	return fmt.Sprintf("%s has data of format %d, this program knows format %d: use the version of luminate that wrote it, or a newer one", e.Dir, e.Found, e.Supported)
}

func unavailable(op, format string, args ...any) error {
	return storage.Errorf(storage.KindUnavailable, op, format, args...)
}

func errClosed(op string) error { return unavailable(op, "the store is closed") }

// internal wraps err, unless it is a storage error already.
func internal(op string, err error) error {
	if err == nil {
		return nil
	}
	if e := (*storage.Error)(nil); errors.As(err, &e) {
		return err
	}
	return storage.Errorf(storage.KindInternal, op, "%w", err)
}
