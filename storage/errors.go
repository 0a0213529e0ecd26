package storage

import (
	"context"
	"errors"
	"fmt"
)

// Kind classifies an error by what the caller does next. The set is closed; each
// HTTP API maps every kind to exactly one status.
type Kind uint8

// The kinds. The zero Kind is KindInternal, so that an unclassified error is
// retried by senders and never lost.
const (
	KindInternal    Kind = iota // our own fault, or an unclassified cause
	KindInvalid                 // the input is wrong; repeating it is useless
	KindUnsupported             // this backend cannot do it exactly; the caller may use another way
	KindNotFound                // the named thing does not exist
	KindLimited                 // the tenant's rate or quota is used up
	KindTooLarge                // the request or query is over a size limit
	KindUnavailable             // storage or overload; a later try may succeed
	KindTimeout                 // a deadline passed
	KindCanceled                // the caller went away
)

var kindNames = [...]string{
	"internal", "invalid", "unsupported", "not_found", "limited", "too_large", "unavailable", "timeout", "canceled",
}

// Kinds lists every kind, for tests that must cover them all.
func Kinds() []Kind {
	ks := make([]Kind, len(kindNames))
	for i := range ks {
		ks[i] = Kind(i)
	}
	return ks
}

// String returns the kind's stable name, fit for a metric label.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// Error is the error of every Store method: what was attempted, of which kind it
// is, and the cause.
type Error struct {
	Op   string // the operation, lower case: "append", "select"
	Kind Kind
	// ID is the stable public name of the limit that was met, "" if none; e.g.
	// "max-series-per-query". Setting names the setting that changes it.
	ID      string
	Setting string
	Err     error // never nil
}

// Error implements error.
func (e *Error) Error() string {
	msg := e.Err.Error()
	if e.Op != "" {
		msg = e.Op + ": " + msg
	}
	if e.ID != "" {
		msg += " (" + e.ID
		if e.Setting != "" {
			msg += ", set by " + e.Setting
		}
		msg += ")"
	}
	return msg
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf builds an *Error of kind k; format and args are fmt.Errorf's.
func Errorf(k Kind, op, format string, args ...any) *Error {
	return &Error{Op: op, Kind: k, Err: fmt.Errorf(format, args...)}
}

// LimitErrorf builds an *Error that carries the limit's stable id and the setting
// that changes it.
func LimitErrorf(k Kind, op, id, setting, format string, args ...any) *Error {
	return &Error{Op: op, Kind: k, ID: id, Setting: setting, Err: fmt.Errorf(format, args...)}
}

// KindOf returns the kind of the first *Error in err's chain. A bare context
// error is KindTimeout or KindCanceled, anything else KindInternal.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return KindTimeout
	case errors.Is(err, context.Canceled):
		return KindCanceled
	default:
		return KindInternal
	}
}

// ContextError translates a context's error into an *Error of kind Timeout or
// Canceled; it returns nil while the context is live.
func ContextError(ctx context.Context, op string) error {
	err := ctx.Err()
	if err == nil {
		return nil
	}
	kind := KindCanceled
	if errors.Is(err, context.DeadlineExceeded) {
		kind = KindTimeout
	}
	return &Error{Op: op, Kind: kind, Err: err}
}
