package native

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/luminate/luminate/storage"
)

// Code is the stable public name of an error. The set is closed.
type Code string

// The codes of the native API.
const (
	CodeInvalidMetricName Code = "INVALID_METRIC_NAME"
	CodeInvalidDimension  Code = "INVALID_DIMENSION"
	CodeInvalidTimestamp  Code = "INVALID_TIMESTAMP"
	CodeInvalidValue      Code = "INVALID_VALUE"
	CodeDimensionLimit    Code = "DIMENSION_LIMIT_EXCEEDED"
	CodeCardinality       Code = "CARDINALITY_EXCEEDED"
	CodeBatchTooLarge     Code = "BATCH_TOO_LARGE"
	CodeInvalidJSON       Code = "INVALID_JSON"
	CodeInvalidQuery      Code = "INVALID_QUERY"
	CodeQueryTimeout      Code = "QUERY_TIMEOUT"
	CodeQueryTooLarge     Code = "QUERY_TOO_LARGE"
	CodeRateLimit         Code = "RATE_LIMIT_EXCEEDED"
	CodeUnauthorized      Code = "UNAUTHORIZED"
	CodeForbidden         Code = "FORBIDDEN"
	CodeNotFound          Code = "NOT_FOUND"
	CodeUnavailable       Code = "UNAVAILABLE"
	CodeInternal          Code = "INTERNAL"
)

// Codes lists every code, for tests and documents that must cover them all.
func Codes() []Code {
	return []Code{
		CodeInvalidMetricName, CodeInvalidDimension, CodeInvalidTimestamp, CodeInvalidValue, CodeDimensionLimit,
		CodeCardinality, CodeBatchTooLarge, CodeInvalidJSON, CodeInvalidQuery, CodeQueryTimeout, CodeQueryTooLarge,
		CodeRateLimit, CodeUnauthorized, CodeForbidden, CodeNotFound, CodeUnavailable, CodeInternal,
	}
}

// Error is an error as the native API tells it to its caller.
type Error struct {
	Status  int            `json:"-"`
	Code    Code           `json:"code"`
	Message string         `json:"message"`
	Details map[string]any `json:"details,omitempty"`
	// RetryAfter is sent as a header, 0 for none.
	RetryAfter time.Duration `json:"-"`
}

// Error implements error.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// ErrorResponse is the body of every error of the native API.
type ErrorResponse struct {
	Error *Error `json:"error"`
}

func errorf(status int, code Code, format string, args ...any) *Error {
	return &Error{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

func badQuery(format string, args ...any) *Error {
	return errorf(http.StatusBadRequest, CodeInvalidQuery, format, args...)
}

// overLimit is the 422 that names the limit and the value that was asked for.
func overLimit(limit string, maximum, asked any, format string, args ...any) *Error {
	e := errorf(http.StatusUnprocessableEntity, CodeQueryTooLarge, format, args...)
	e.Details = map[string]any{"limit": limit, "max": maximum, "asked": asked}
	if s, ok := queryLimitSettings[limit]; ok {
		e.Details["setting"] = s[1]
	}
	return e
}

// queryLimitSettings are the public id and the setting of those limits that tenants have
// of their own.
var queryLimitSettings = map[string][2]string{
	"maxPoints":  {"max-points-per-query", "limits.maxPointsPerQuery"},
	"maxRange":   {"max-query-range", "limits.maxQueryRange"},
	"maxTimeout": {"max-query-time", "limits.maxQueryTime"},
}

// tellLimited hands an error that is such a limit to the configured listener.
func (a *API) tellLimited(t storage.Tenant, err error) {
	var e *Error
	if a.cfg.OnLimited == nil || !errors.As(err, &e) || e.Details == nil {
		return
	}
	name, _ := e.Details["limit"].(string)
	id := name
	if s, ok := queryLimitSettings[name]; ok {
		id = s[0]
	}
	if setting, ok := e.Details["setting"].(string); ok {
		a.cfg.OnLimited(t, storage.LimitErrorf(storage.KindTooLarge, "native", id, setting, "%s", e.Message))
	}
}

// surface says where an error arose, which decides the code of invalid input and
// of what is too large; both are the same kind to a store.
type surface uint8

const (
	surfaceQuery surface = iota // queries, discovery, administration
	surfaceWrite
)

// errorOf is the one mapping from errors to answers. Errors that are already
// *Error pass; the cause of an internal error stays in the log and is not told.
func (a *API) errorOf(err error, s surface) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	out := &Error{Message: err.Error()}
	var se *storage.Error
	if errors.As(err, &se) && se.ID != "" {
		out.Details = map[string]any{"limit": se.ID}
		if se.Setting != "" {
			out.Details["setting"] = se.Setting
		}
	}
	switch storage.KindOf(err) {
	case storage.KindInvalid:
		out.Status, out.Code = http.StatusBadRequest, CodeInvalidQuery
		if s == surfaceWrite {
			out.Code = CodeInvalidDimension
		}
	case storage.KindUnsupported:
		out.Status, out.Code = http.StatusUnprocessableEntity, CodeInvalidQuery
	case storage.KindNotFound:
		out.Status, out.Code = http.StatusNotFound, CodeNotFound
	case storage.KindLimited:
		out.Status, out.Code, out.RetryAfter = http.StatusTooManyRequests, CodeRateLimit, a.cfg.RetryAfter
	case storage.KindTooLarge:
		out.Status, out.Code = http.StatusUnprocessableEntity, CodeQueryTooLarge
		if s == surfaceWrite {
			out.Status, out.Code = http.StatusRequestEntityTooLarge, CodeBatchTooLarge
		}
	case storage.KindUnavailable:
		out.Status, out.Code, out.RetryAfter = http.StatusServiceUnavailable, CodeUnavailable, a.cfg.RetryAfter
	case storage.KindTimeout:
		out.Status, out.Code = http.StatusGatewayTimeout, CodeQueryTimeout
	case storage.KindCanceled:
		// The caller went away, or the server is going down: whoever still reads this
		// may try again.
		out.Status, out.Code, out.RetryAfter = http.StatusServiceUnavailable, CodeUnavailable, a.cfg.RetryAfter
	default:
		out.Status, out.Code = http.StatusInternalServerError, CodeInternal
		out.Message = "internal error; the server's log says more"
	}
	return out
}

// retryAdvisor is an error that knows when a retry makes sense, and rateInfo one
// that knows the state of the limit; the tenant's limiter may return both.
type (
	retryAdvisor interface{ RetryAfter() time.Duration }
	rateInfo     interface {
		RateLimit() (limit, remaining int64, reset time.Duration)
	}
)

// fail logs and answers an error.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error, s surface) {
	e := a.errorOf(err, s)
	if e.Status >= http.StatusInternalServerError && e.Status != http.StatusGatewayTimeout && r.Context().Err() == nil {
		a.log.ErrorContext(r.Context(), "answer a request", "route", r.URL.Path, "status", e.Status, "err", err)
	}
	a.metrics.errors.WithLabelValues(string(e.Code)).Inc()
	retry := e.RetryAfter
	var ra retryAdvisor
	if errors.As(err, &ra) && ra.RetryAfter() > 0 {
		retry = ra.RetryAfter()
	}
	h := w.Header()
	if retry > 0 {
		h.Set("Retry-After", seconds(retry))
	}
	if e.Status == http.StatusTooManyRequests {
		setRateHeaders(h, err, retry)
	}
	writeJSON(w, e.Status, ErrorResponse{Error: e})
}

// setRateHeaders tells the state of the limit; what the limiter set before stays.
func setRateHeaders(h http.Header, err error, retry time.Duration) {
	var ri rateInfo
	if errors.As(err, &ri) {
		limit, remaining, reset := ri.RateLimit()
		h.Set("X-RateLimit-Limit", strconv.FormatInt(limit, 10))
		h.Set("X-RateLimit-Remaining", strconv.FormatInt(remaining, 10))
		h.Set("X-RateLimit-Reset", seconds(reset))
		return
	}
	if h.Get("X-RateLimit-Remaining") == "" {
		h.Set("X-RateLimit-Remaining", "0")
	}
	if h.Get("X-RateLimit-Reset") == "" {
		h.Set("X-RateLimit-Reset", seconds(retry))
	}
}

// seconds renders d in whole seconds, rounded up and at least 1.
func seconds(d time.Duration) string {
	return strconv.FormatInt(max(1, int64(math.Ceil(d.Seconds()))), 10)
}

// writeJSON answers with a JSON body. An encoding error is our own bug; a failed
// write means that the client has gone, which nobody can be told.
func writeJSON(w http.ResponseWriter, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("native: encode an answer: %v", err))
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}
