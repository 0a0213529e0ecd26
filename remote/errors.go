package remote

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/luminate/luminate/storage"
)

// mediaError is a request in a type or encoding that is not served: 415. The
// storage kinds have no such thing.
type mediaError struct{ msg string }

func (e *mediaError) Error() string { return e.msg }

func mediaErrorf(format string, args ...any) error {
	return &mediaError{msg: fmt.Sprintf(format, args...)}
}

// statusOf decides what the client does next: drop, back off, or retry.
func statusOf(err error) int {
	var media *mediaError
	if errors.As(err, &media) {
		return http.StatusUnsupportedMediaType
	}
	switch storage.KindOf(err) {
	case storage.KindInvalid, storage.KindUnsupported:
		return http.StatusBadRequest
	case storage.KindTooLarge:
		return http.StatusRequestEntityTooLarge
	case storage.KindLimited:
		return http.StatusTooManyRequests
	case storage.KindUnavailable, storage.KindTimeout, storage.KindCanceled:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError // unknown: retried, never lost
	}
}

// messageOf is what the client is told. An internal error's text may name files or
// addresses, so it stays in the log.
func messageOf(err error) string {
	if statusOf(err) == http.StatusInternalServerError {
		return "internal error, the server's log has the cause"
	}
	return err.Error()
}

// setRetryAfter tells the client when to come again, where the status asks for it.
// Whole seconds, rounded up: a client that comes early is refused again.
func (a *API) setRetryAfter(h http.Header, status int, err error) {
	if status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable {
		return
	}
	wait := a.cfg.RetryAfter
	var hint interface{ RetryAfter() time.Duration }
	if errors.As(err, &hint) && hint.RetryAfter() > 0 {
		wait = hint.RetryAfter()
	}
	h.Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
}

// fail answers with the error as plain text, logs what is our own fault, and
// returns the status.
func (a *API) fail(w http.ResponseWriter, r *http.Request, op string, err error) int {
	status := statusOf(err)
	a.logFailure(r, op, status, err)
	a.setRetryAfter(w.Header(), status, err)
	http.Error(w, messageOf(err), status)
	return status
}

// logFailure writes what an operator has to act on at error level, and what the
// client did wrong at debug level.
func (a *API) logFailure(r *http.Request, op string, status int, err error) {
	if status >= http.StatusInternalServerError && storage.KindOf(err) != storage.KindCanceled {
		a.log.ErrorContext(r.Context(), op+" failed", "err", err, "status", status)
		return
	}
	a.log.DebugContext(r.Context(), op+" refused", "err", err, "status", status)
}
