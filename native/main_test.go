package native

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
	"github.com/luminate/luminate/tenancy"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testNow is the clock of the tests: shortly after the timestamps of the
// documented examples.
var testNow = time.Date(2024, 12, 31, 12, 0, 0, 0, time.UTC)

const testTenant = "acme"

// fixture is an API over a model with a standing clock.
type fixture struct {
	t      *testing.T
	api    *API
	store  storage.Store
	router *mux.Router
	id     tenancy.Identity
}

func newFixture(t *testing.T, change ...func(*Config)) *fixture {
	t.Helper()
	mc := storagetest.DefaultModelConfig()
	mc.Now = func() time.Time { return testNow }
	return newFixtureOver(t, storagetest.NewModelWith(mc), change...)
}

func newFixtureOver(t *testing.T, store storage.Store, change ...func(*Config)) *fixture {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Version, cfg.Backend, cfg.TenantMode = "1.2.3", "model", "header"
	for _, c := range change {
		c(&cfg)
	}
	a, err := New(store, cfg, slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	a.clock = func() time.Time { return testNow }
	a.started = testNow.Add(-time.Minute)
	f := &fixture{t: t, api: a, store: store, router: mux.NewRouter().UseEncodedPath()}
	a.Register(f.router)
	f.router.HandleFunc("/api/v1/write", a.ServeWrite).Methods(http.MethodPost)
	f.router.HandleFunc("/api/v1/query", a.ServeQuery).Methods(http.MethodPost)
	f.id = tenancy.Identity{
		Tenant: storage.MustTenant(testTenant), Authenticated: true,
		Scopes: []tenancy.Scope{tenancy.ScopeRead, tenancy.ScopeWrite, tenancy.ScopeAdmin},
	}
	return f
}

// do sends a request; headers are name, value, name, value…
func (f *fixture) do(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	f.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	r = r.WithContext(tenancy.NewContext(r.Context(), f.id))
	w := httptest.NewRecorder()
	f.router.ServeHTTP(w, r)
	return w
}

func (f *fixture) write(body string, headers ...string) *httptest.ResponseRecorder {
	f.t.Helper()
	return f.do("POST", "/api/v1/write", body, append([]string{"Content-Type", "application/json"}, headers...)...)
}

func (f *fixture) query(body string) *httptest.ResponseRecorder {
	f.t.Helper()
	return f.do("POST", "/api/v1/query", body, "Content-Type", "application/json")
}

// fill writes samples straight into the store.
func (f *fixture) fill(add func(b *storage.Batch)) {
	f.t.Helper()
	var b storage.Batch
	add(&b)
	res, err := f.store.Append(context.Background(), f.id.Tenant, &b)
	if err != nil || len(res.Refused) > 0 {
		f.t.Fatalf("fill: %v, refused %v", err, res.Refused)
	}
}

// stored returns everything of the tenant as "labels t v" lines.
func (f *fixture) stored() []string {
	f.t.Helper()
	var out []string
	sel := storage.Selection{MinT: minTime, MaxT: maxTime}
	for s, err := range f.store.Select(context.Background(), f.id.Tenant, sel) {
		if err != nil {
			f.t.Fatal(err)
		}
		for _, x := range s.Samples {
			out = append(out, s.Labels.String()+" "+time.UnixMilli(x.T).UTC().Format("15:04:05.000")+" "+mustJSON(Value(x.V)))
		}
	}
	return out
}

func readCloser(b []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(b)) }

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// want checks the status and returns the body decoded into v.
func want[T any](t *testing.T, w *httptest.ResponseRecorder, status int) T {
	t.Helper()
	var v T
	if w.Code != status {
		t.Fatalf("status %d, want %d: %s", w.Code, status, w.Body)
	}
	d := json.NewDecoder(bytes.NewReader(w.Body.Bytes()))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("decode %s: %v", w.Body, err)
	}
	return v
}

// wantError checks the status and code of an error and returns it.
func wantError(t *testing.T, w *httptest.ResponseRecorder, status int, code Code) Error {
	t.Helper()
	var v ErrorResponse
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || v.Error == nil {
		t.Fatalf("no error in the answer (%v): %d %s", err, w.Code, w.Body)
	}
	if w.Code != status || v.Error.Code != code {
		t.Fatalf("got %d %s, want %d %s: %s", w.Code, v.Error.Code, status, code, v.Error.Message)
	}
	return *v.Error
}

// golden compares got with testdata/name, or rewrites it with -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (rewrite it with -update):\ngot  %s\nwant %s", path, got, want)
	}
}
