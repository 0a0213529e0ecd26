package index

import (
	"errors"
	"fmt"
)

var (
	// ErrDamaged is wrapped by every error that stored bytes cause: a failed checksum, a missing key, an impossible field.
	ErrDamaged = errors.New("damaged index")
	// ErrVersion is wrapped when intact bytes name a format this program does not know.
	ErrVersion = errors.New("unknown index format")
	// ErrConflict is wrapped when Insert is given an id, a hash or a group that is already taken by something else.
	ErrConflict = errors.New("conflicting series")
	// ErrLabels is wrapped when label bytes are not canonical.
	ErrLabels = errors.New("labels are not canonical")
	// ErrFull is wrapped when a partition can take no more series, values or bytes.
	ErrFull = errors.New("partition is full")
	// ErrUnknownSeries is wrapped when an id is not that of a series of the partition.
	ErrUnknownSeries = errors.New("unknown series id")
	// ErrNotPacked is wrapped when a store has no packed index.
	ErrNotPacked = errors.New("no packed index")
)

// errEnough ends a scan that has its answer.
var errEnough = errors.New("enough")

func unknownSeries(id uint32) error { return fmt.Errorf("series %d: %w", id, ErrUnknownSeries) }
