package native

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
	"github.com/luminate/luminate/tenancy"
)

// kindAnswers is the mapping from kinds to answers, for queries and for writes.
var kindAnswers = map[storage.Kind]struct {
	status     int
	code       Code
	writeState int
	writeCode  Code
	retry      bool
}{
	storage.KindInternal:    {500, CodeInternal, 500, CodeInternal, false},
	storage.KindInvalid:     {400, CodeInvalidQuery, 400, CodeInvalidDimension, false},
	storage.KindUnsupported: {422, CodeInvalidQuery, 422, CodeInvalidQuery, false},
	storage.KindNotFound:    {404, CodeNotFound, 404, CodeNotFound, false},
	storage.KindLimited:     {429, CodeRateLimit, 429, CodeRateLimit, true},
	storage.KindTooLarge:    {422, CodeQueryTooLarge, 413, CodeBatchTooLarge, false},
	storage.KindUnavailable: {503, CodeUnavailable, 503, CodeUnavailable, true},
	storage.KindTimeout:     {504, CodeQueryTimeout, 504, CodeQueryTimeout, false},
	storage.KindCanceled:    {503, CodeUnavailable, 503, CodeUnavailable, true},
}

// storeRequests is a request for every route that asks the store.
var storeRequests = []struct {
	method, path, body string
	write              bool
}{
	{"POST", "/api/v1/write", `{"metrics":[` + metric() + `]}`, true},
	{"POST", "/api/v1/query", `{"queryType":"aggregate","metricName":"m","timeRange":{"relative":"1h"},"aggregation":"sum"}`, false},
	{"POST", "/api/v1/query", `{"queryType":"rate","metricName":"m","timeRange":{"relative":"1h"}}`, false},
	{"POST", "/api/v1/query", `{"queryType":"range","metricName":"m","timeRange":{"relative":"1h"}}`, false},
	{"GET", "/api/v1/metrics", "", false},
	{"GET", "/api/v1/metrics?detail=1", "", false},
	{"GET", "/api/v1/metrics/m/dimensions", "", false},
	{"GET", "/api/v1/metrics/m/dimensions?detail=1", "", false},
	{"GET", "/api/v1/metrics/m/dimensions/k/values", "", false},
	{"GET", "/api/v1/cardinality/metrics", "", false},
	{"GET", "/api/v1/cardinality/label_names", "", false},
	{"GET", "/api/v1/cardinality/label_values?label_names[]=k", "", false},
	{"GET", "/api/v1/cardinality/active_series", "", false},
	{"GET", "/api/v1/admin/retention", "", false},
	{"POST", "/api/v1/admin/retention", `{"metric":"m","retentionDays":1}`, false},
	{"DELETE", "/api/v1/admin/retention?metric=m", "", false},
	{"GET", "/api/v1/admin/tenants", "", false},
	{"DELETE", "/api/v1/admin/tenants/acme", "", false},
	{"DELETE", "/api/v1/admin/metrics/m", "", false},
	{"GET", "/api/v1/admin/deletes/x", "", false},
	{"POST", "/api/v1/admin/cleanup", "", false},
	{"POST", "/api/v1/admin/backup", "", false},
}

func TestEveryKindOnEveryRoute(t *testing.T) {
	for _, kind := range storage.Kinds() {
		wanted, ok := kindAnswers[kind]
		if !ok {
			t.Fatalf("kind %s has no answer", kind)
		}
		f := newFixtureOver(t, storagetest.NewFaulty(storagetest.NewModel(), storagetest.FailWith(kind))).as(operatorOf)
		for _, q := range storeRequests {
			status, code := wanted.status, wanted.code
			if q.write {
				status, code = wanted.writeState, wanted.writeCode
			}
			w := f.do(q.method, q.path, q.body, "Content-Type", "application/json")
			e := wantError(t, w, status, code)
			if (w.Header().Get("Retry-After") != "") != wanted.retry {
				t.Errorf("%s %s, %s: Retry-After %q", q.method, q.path, kind, w.Header().Get("Retry-After"))
			}
			if told := strings.Contains(e.Message, "scripted"); told == (kind == storage.KindInternal) && status != 504 {
				t.Errorf("%s %s, %s: message %q", q.method, q.path, kind, e.Message)
			}
			if kind == storage.KindLimited && (w.Header().Get("X-RateLimit-Remaining") != "0" || w.Header().Get("X-RateLimit-Reset") == "") {
				t.Errorf("%s %s: headers %v", q.method, q.path, w.Header())
			}
		}
	}
}

// TestErrorsMidway cuts sequences after their first element.
func TestErrorsMidway(t *testing.T) {
	base := newFixture(t)
	latencies(base)
	faulty := storagetest.NewFaulty(base.store, func(string) storagetest.Fault {
		return storagetest.Fault{Err: storage.Errorf(storage.KindUnavailable, "select", "gone"), After: 1}
	})
	f := newFixtureOver(t, faulty)
	wantError(t, f.query(`{"queryType":"range","metricName":"api_latency",`+span10m+`}`), 503, CodeUnavailable)
	wantError(t, f.do("GET", "/api/v1/cardinality/active_series?start=0", ""), 503, CodeUnavailable)
}

func TestNoTenantIsRefused(t *testing.T) {
	f := newFixture(t).as(func(id *tenancy.Identity) { id.Tenant = storage.Tenant{} })
	for _, q := range storeRequests {
		if q.path == "/api/v1/admin/cleanup" || q.path == "/api/v1/admin/tenants" || q.path == "/api/v1/admin/backup" || q.path == "/api/v1/admin/tenants/acme" {
			continue // not about the caller's tenant
		}
		w := f.do(q.method, q.path, q.body, "Content-Type", "application/json")
		if w.Code != 400 && w.Code != 403 {
			t.Errorf("%s %s: %d %s", q.method, q.path, w.Code, w.Body)
		}
	}
	w := httptest.NewRecorder()
	f.router.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/whoami", nil))
	wantError(t, w, 401, CodeUnauthorized)
}

// limitedError knows more of its limit than its kind.
type limitedError struct{ error }

func (e limitedError) Unwrap() error           { return e.error }
func (limitedError) RetryAfter() time.Duration { return 2500 * time.Millisecond }
func (limitedError) RateLimit() (limit, remaining int64, reset time.Duration) {
	return 100, 7, 9 * time.Second
}

func TestLimitErrorsTellTheirState(t *testing.T) {
	f := newFixture(t)
	err := limitedError{storage.LimitErrorf(storage.KindLimited, "append", "samples-per-second", "limits.samplesPerSecond", "too fast")}
	w := httptest.NewRecorder()
	f.api.fail(w, httptest.NewRequest("GET", "/", nil), fmt.Errorf("append: %w", err), surfaceWrite)
	e := wantError(t, w, 429, CodeRateLimit)
	h := w.Header()
	if h.Get("Retry-After") != "3" || h.Get("X-RateLimit-Limit") != "100" || h.Get("X-RateLimit-Remaining") != "7" || h.Get("X-RateLimit-Reset") != "9" {
		t.Errorf("headers %v", h)
	}
	if e.Details["limit"] != "samples-per-second" || e.Details["setting"] != "limits.samplesPerSecond" {
		t.Errorf("details %v", e.Details)
	}
}

func TestBareErrors(t *testing.T) {
	a := newFixture(t).api
	for _, c := range []struct {
		err    error
		status int
	}{
		{errors.New("boom"), 500},
		{context.DeadlineExceeded, 504},
		{context.Canceled, 503},
		{fmt.Errorf("wrapped: %w", badQuery("x")), 400},
	} {
		if e := a.errorOf(c.err, surfaceQuery); e.Status != c.status {
			t.Errorf("%v: %d", c.err, e.Status)
		}
	}
	if s := badQuery("x").Error(); s != "INVALID_QUERY: x" {
		t.Error(s)
	}
}

func TestErrorGolden(t *testing.T) {
	f := newFixture(t)
	golden(t, "error_metric.json", f.write(`{"metrics":[`+metric("name", `"a-b"`)+`]}`).Body.Bytes())
	golden(t, "error_partial.json", f.write(`{"metrics":[`+metric()+`,`+metric("timestamp", "1735603200")+`]}`).Body.Bytes())
	golden(t, "error_range.json", f.query(`{"queryType":"range","metricName":"m","timeRange":{"relative":"120d"}}`).Body.Bytes())
}

func TestQueryTimeout(t *testing.T) {
	slow := storagetest.NewFaulty(storagetest.NewModel(), func(string) storagetest.Fault { return storagetest.Fault{Delay: time.Minute} })
	f := newFixtureOver(t, slow)
	e := wantError(t, f.query(`{"queryType":"aggregate","metricName":"m","timeRange":{"relative":"1h"},"aggregation":"sum","timeout":"20ms"}`), 504, CodeQueryTimeout)
	if !strings.Contains(e.Message, "20ms") {
		t.Error(e.Message)
	}
}

func TestConfigValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	err := Config{}.Validate()
	if err == nil || strings.Count(err.Error(), "\n") < 10 {
		t.Errorf("an empty configuration has too few problems: %v", err)
	}
	c := DefaultConfig()
	c.Query.MaxTimeout = time.Second
	c.Write.MaxFuture, c.Query.MaxSeries = -1, -1
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "maxTimeout 1s is less") || !strings.Contains(err.Error(), "maxSeries") || !strings.Contains(err.Error(), "write limits") {
		t.Error(err)
	}
	if _, err := New(nil, DefaultConfig(), nil, nil); err == nil {
		t.Error("an API without a store")
	}
}

func TestTenantsHaveTheirOwnLimits(t *testing.T) {
	f := newFixture(t, func(c *Config) {
		c.WriteLimitsOf = func(storage.Tenant) WriteLimits {
			l := DefaultConfig().Write
			l.MaxDimensions = 1
			return l
		}
		c.QueryLimitsOf = func(storage.Tenant) QueryLimits {
			l := DefaultConfig().Query
			l.MaxRange = time.Hour
			return l
		}
	})
	wantError(t, f.write(`{"metrics":[`+metric("dimensions", `{"a":"1","b":"2"}`)+`]}`), 400, CodeDimensionLimit)
	e := wantError(t, f.query(`{"queryType":"range","metricName":"m","timeRange":{"relative":"2h"}}`), 422, CodeQueryTooLarge)
	if e.Details["limit"] != "maxRange" || e.Details["max"] != "1h" || e.Details["asked"] != "2h" {
		t.Errorf("%+v", e.Details)
	}
}

func TestMethodsThatARouteLacks(t *testing.T) {
	f := newFixture(t)
	if w := f.do(http.MethodPut, "/api/v1/admin/retention", ""); w.Code != 405 {
		t.Errorf("%d", w.Code)
	}
}
