package remote

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"go.uber.org/goleak"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
	"github.com/luminate/luminate/tenancy"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// glog and opencensus, which Badger's dependencies import, work for ever.
		goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"),
	)
}

const testTenant = "acme"

// stack is the API over a model that can be made to fail.
type stack struct {
	tb     testing.TB
	model  *storagetest.Model
	faulty *storagetest.Faulty
	api    *API
	h      http.Handler
	now    int64 // a time that the store accepts, in milliseconds
}

func newStack(tb testing.TB, edit ...func(*Config)) *stack {
	tb.Helper()
	model := storagetest.NewModel()
	s := newStackOver(tb, model, edit...)
	s.model = model
	return s
}

// newStackOver is newStack over another store; its model is nil.
func newStackOver(tb testing.TB, store storage.Store, edit ...func(*Config)) *stack {
	tb.Helper()
	s := &stack{tb: tb, now: time.Now().Truncate(time.Second).UnixMilli()}
	s.faulty = storagetest.NewFaulty(store, nil)
	cfg := DefaultConfig()
	for _, f := range edit {
		f(&cfg)
	}
	var err error
	s.api, err = New(s.faulty, cfg, slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry())
	if err != nil {
		tb.Fatal(err)
	}
	r := mux.NewRouter()
	s.api.Register(r)
	r.HandleFunc("/api/v1/write", s.api.ServeWrite)
	s.h = withTenant(r)
	return s
}

// withTenant stands for the middleware.
func withTenant(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := tenancy.Identity{Tenant: storage.MustTenant(testTenant)}
		next.ServeHTTP(w, r.WithContext(tenancy.NewContext(r.Context(), id)))
	})
}

func (s *stack) do(req *http.Request) *httptest.ResponseRecorder {
	s.tb.Helper()
	w := httptest.NewRecorder()
	s.h.ServeHTTP(w, req)
	return w
}

func (s *stack) post(body []byte, header ...string) *httptest.ResponseRecorder {
	s.tb.Helper()
	return s.do(newPost("/api/v1/write", body, header...))
}

func newPost(path string, body []byte, header ...string) *http.Request {
	req := httptest.NewRequestWithContext(context.Background(), http.MethodPost, path, bytes.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return req
}

const (
	contentV1 = "application/x-protobuf"
	contentV2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
)

func (s *stack) writeV1(req *prompb.WriteRequest) *httptest.ResponseRecorder {
	s.tb.Helper()
	b, err := req.Marshal()
	if err != nil {
		s.tb.Fatal(err)
	}
	return s.post(snappy.Encode(nil, b), "Content-Type", contentV1, "Content-Encoding", "snappy")
}

func (s *stack) writeV2(req *writev2.Request) *httptest.ResponseRecorder {
	s.tb.Helper()
	b, err := req.Marshal()
	if err != nil {
		s.tb.Fatal(err)
	}
	return s.post(snappy.Encode(nil, b), "Content-Type", contentV2, "Content-Encoding", "snappy",
		"X-Prometheus-Remote-Write-Version", "2.0.0")
}

// stored returns all series of the tenant.
func (s *stack) stored() []storage.Series {
	s.tb.Helper()
	return storagetest.Collect(s.tb, s.model, testTenant, storage.Selection{MinT: math.MinInt64, MaxT: math.MaxInt64})
}

func (s *stack) wantStored(want ...storage.Series) {
	s.tb.Helper()
	if d := storagetest.DiffSeries(s.stored(), want); d != "" {
		s.tb.Errorf("stored: %s", d)
	}
}

func (s *stack) metadata() []storage.Metadata {
	s.tb.Helper()
	m, err := s.model.Metadata(s.tb.Context(), storage.MustTenant(testTenant), storage.MetadataQuery{})
	if err != nil {
		s.tb.Fatal(err)
	}
	return m
}

func (s *stack) exemplars() []storage.ExemplarSeries {
	s.tb.Helper()
	e, err := s.model.Exemplars(s.tb.Context(), storage.MustTenant(testTenant),
		storage.ExemplarQuery{Selectors: [][]*storage.Matcher{{storagetest.Re("__name__", ".*")}}, MinT: math.MinInt64, MaxT: math.MaxInt64})
	if err != nil {
		s.tb.Fatal(err)
	}
	return e
}

func wantStatus(tb testing.TB, w *httptest.ResponseRecorder, status int) {
	tb.Helper()
	if w.Code != status {
		tb.Fatalf("status %d, want %d; body: %s", w.Code, status, w.Body)
	}
}

func wantWritten(tb testing.TB, w *httptest.ResponseRecorder, samples, histograms, exemplars string) {
	tb.Helper()
	got := [3]string{w.Header().Get(samplesWritten), w.Header().Get(histogramsWritten), w.Header().Get(exemplarsWritten)}
	if want := [3]string{samples, histograms, exemplars}; got != want {
		tb.Errorf("written headers %v, want %v", got, want)
	}
}

func floats(ls storage.Labels, tv ...float64) storage.Series {
	s := storage.Series{Labels: ls}
	for i := 0; i < len(tv); i += 2 {
		s.Samples = append(s.Samples, storage.Sample{T: int64(tv[i]), V: tv[i+1]})
	}
	return s
}

func labelsV1(pairs ...string) (ls []prompb.Label) {
	for i := 0; i < len(pairs); i += 2 {
		ls = append(ls, prompb.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return ls
}

// v2Builder builds version 2 requests.
type v2Builder struct {
	table writev2.SymbolsTable
	req   writev2.Request
}

func newV2() *v2Builder { return &v2Builder{table: writev2.NewSymbolTable()} }

func (b *v2Builder) refs(pairs ...string) (refs []uint32) {
	for _, p := range pairs {
		refs = append(refs, b.table.Symbolize(p))
	}
	return refs
}

func (b *v2Builder) add(ts writev2.TimeSeries, pairs ...string) *v2Builder {
	ts.LabelsRefs = b.refs(pairs...)
	b.req.Timeseries = append(b.req.Timeseries, ts)
	return b
}

func (b *v2Builder) build() *writev2.Request {
	b.req.Symbols = b.table.Symbols()
	return &b.req
}
