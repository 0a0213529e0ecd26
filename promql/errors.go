package promql

import (
	"context"
	"errors"
	"net/http"

	promengine "github.com/prometheus/prometheus/promql"

	"github.com/luminate/luminate/storage"
)

// statusClientClosed is nginx's status for a client that went away; Prometheus
// uses it too.
const statusClientClosed = 499

// errorType is Prometheus's classification of an error in its envelope.
type errorType string

const (
	errTimeout     errorType = "timeout"
	errCanceled    errorType = "canceled"
	errExec        errorType = "execution"
	errBadData     errorType = "bad_data"
	errInternal    errorType = "internal"
	errUnavailable errorType = "unavailable"
	errNotFound    errorType = "not_found"
	// errTooMany is what Mimir answers for a used-up quota; Prometheus has none.
	errTooMany errorType = "too_many_requests"
)

// apiError is an error with its place in the envelope.
type apiError struct {
	typ  errorType
	code int
	err  error
}

func badData(err error) *apiError { return &apiError{errBadData, http.StatusBadRequest, err} }

// kindError is the one mapping from a storage kind to status and error type.
func kindError(k storage.Kind) (errorType, int) {
	switch k {
	case storage.KindInvalid:
		return errBadData, http.StatusBadRequest
	case storage.KindNotFound:
		return errNotFound, http.StatusNotFound
	case storage.KindUnsupported, storage.KindTooLarge:
		return errExec, http.StatusUnprocessableEntity
	case storage.KindLimited:
		return errTooMany, http.StatusTooManyRequests
	case storage.KindUnavailable:
		return errUnavailable, http.StatusServiceUnavailable
	case storage.KindTimeout:
		return errTimeout, http.StatusServiceUnavailable
	case storage.KindCanceled:
		return errCanceled, statusClientClosed
	default:
		return errInternal, http.StatusInternalServerError
	}
}

// storeError classifies an error that came straight from a Store.
func storeError(err error) *apiError {
	typ, code := kindError(storage.KindOf(err))
	return &apiError{typ, code, err}
}

// engineError classifies an error of the engine, which may carry one of the
// store. What neither knows is an execution error, as in Prometheus.
func engineError(err error) *apiError {
	var (
		se       *storage.Error
		canceled promengine.ErrQueryCanceled
		timeout  promengine.ErrQueryTimeout
		broken   promengine.ErrStorage
	)
	switch {
	case errors.As(err, &canceled), errors.Is(err, context.Canceled):
		return &apiError{errCanceled, statusClientClosed, err}
	case errors.As(err, &timeout), errors.Is(err, context.DeadlineExceeded):
		return &apiError{errTimeout, http.StatusServiceUnavailable, err}
	case errors.As(err, &se):
		return storeError(err)
	case errors.As(err, &broken):
		return &apiError{errInternal, http.StatusInternalServerError, err}
	default:
		return &apiError{errExec, http.StatusUnprocessableEntity, err}
	}
}
