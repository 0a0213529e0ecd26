package block

import (
	"errors"
	"fmt"
)

var (
	// ErrDamaged is wrapped by every error that stored bytes cause: a failed checksum, a truncated or impossible field.
	ErrDamaged = errors.New("damaged block")
	// ErrVersion is wrapped when intact bytes name a format this program does not know.
	ErrVersion = errors.New("unknown block format")
	// ErrTooLarge is wrapped when the input of an encoder exceeds MaxSamples; the caller splits it by time.
	ErrTooLarge = errors.New("too many samples for one block")
	// ErrInput is wrapped when the input of an encoder breaks its contract (lengths that differ, time not ascending).
	ErrInput = errors.New("invalid block input")
)

func damaged(what string) error { return fmt.Errorf("read %s: %w", what, ErrDamaged) }
