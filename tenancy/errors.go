package tenancy

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/luminate/luminate/storage"
)

// LimitError is a refusal by a limit. Its chain holds the *storage.Error with the
// limit's id and setting.
type LimitError struct {
	err *storage.Error
	// Retry is when a retry can succeed, 0 if never by waiting.
	Retry time.Duration
	// Limit, Remaining and Reset are the state of the limit, Limit 0 where it is no
	// rate.
	Limit, Remaining int64
	Reset            time.Duration
}

// Error implements error.
func (e *LimitError) Error() string { return e.err.Error() }

// Unwrap returns the *storage.Error.
func (e *LimitError) Unwrap() error { return e.err }

// RetryAfter tells when a retry can succeed.
func (e *LimitError) RetryAfter() time.Duration { return e.Retry }

// RateLimit tells the state of the limit.
func (e *LimitError) RateLimit() (limit, remaining int64, reset time.Duration) {
	return e.Limit, e.Remaining, e.Reset
}

// refusal is an answer of the gate.
type refusal struct {
	status  int
	reason  string // closed set, for the metric
	message string
	limit   *LimitError // nil unless a limit refused
}

func refuse(status int, reason, format string, args ...any) *refusal {
	return &refusal{status: status, reason: reason, message: fmt.Sprintf(format, args...)}
}

// refuseLimit maps a limit's kind to its status: the tenant's own doing is 429 (or
// 413 for a request that no waiting makes smaller), overload of the process 503.
func refuseLimit(e *LimitError) *refusal {
	f := &refusal{reason: e.err.ID, message: e.Error(), limit: e}
	switch e.err.Kind {
	case storage.KindTooLarge:
		f.status = http.StatusRequestEntityTooLarge
	case storage.KindLimited:
		f.status = http.StatusTooManyRequests
	default:
		f.status = http.StatusServiceUnavailable
	}
	return f
}

// answer writes the refusal in the form of the route's API.
func (f *refusal) answer(w http.ResponseWriter, s style) {
	h := w.Header()
	switch f.status {
	case http.StatusUnauthorized:
		h.Add("WWW-Authenticate", `Bearer realm="luminate"`)
		h.Add("WWW-Authenticate", `Basic realm="luminate", charset="UTF-8"`)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		retry := time.Second
		if f.limit != nil && f.limit.Retry > 0 {
			retry = f.limit.Retry
		}
		h.Set("Retry-After", wholeSeconds(retry))
	}
	if f.limit != nil && f.limit.Limit > 0 {
		setRateHeaders(h, f.limit.Limit, f.limit.Remaining, f.limit.Reset)
	}
	var body any
	switch s {
	case stylePrometheus:
		body = map[string]string{"status": "error", "errorType": promType(f.status), "error": f.message}
	case styleNative:
		e := map[string]any{"code": nativeCode(f.status), "message": f.message}
		if f.limit != nil {
			e["details"] = map[string]string{"limit": f.limit.err.ID, "setting": f.limit.err.Setting}
		}
		body = map[string]any{"error": e}
	default:
		http.Error(w, f.message, f.status)
		return
	}
	h.Set("Content-Type", "application/json")
	w.WriteHeader(f.status)
	_ = json.NewEncoder(w).Encode(body) // the caller may have gone
}

func promType(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "unauthorized"
	case http.StatusForbidden:
		return "forbidden"
	case http.StatusTooManyRequests:
		return "too_many_requests"
	case http.StatusServiceUnavailable:
		return "unavailable"
	default:
		return "bad_data"
	}
}

func nativeCode(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "UNAUTHORIZED"
	case http.StatusForbidden:
		return "FORBIDDEN"
	case http.StatusTooManyRequests:
		return "RATE_LIMIT_EXCEEDED"
	case http.StatusServiceUnavailable:
		return "UNAVAILABLE"
	case http.StatusRequestEntityTooLarge:
		return "BATCH_TOO_LARGE"
	default:
		return "INVALID_QUERY"
	}
}

// setRateHeaders tells the state of a rate on an answer.
func setRateHeaders(h http.Header, limit, remaining int64, reset time.Duration) {
	h["X-Ratelimit-Limit"] = []string{strconv.FormatInt(limit, 10)}
	h["X-Ratelimit-Remaining"] = []string{strconv.FormatInt(max(0, remaining), 10)}
	h["X-Ratelimit-Reset"] = []string{strconv.FormatInt(int64(math.Ceil(reset.Seconds())), 10)}
}

// wholeSeconds rounds up: who comes early is refused again.
func wholeSeconds(d time.Duration) string {
	return strconv.FormatInt(max(1, int64(math.Ceil(d.Seconds()))), 10)
}
