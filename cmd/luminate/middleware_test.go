package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// inRouter serves h at /x/{id} inside the observing layer.
func inRouter(log io.Writer, h http.HandlerFunc) (*mux.Router, *httpMetrics) {
	m := newHTTPMetrics(prometheus.NewRegistry())
	r := mux.NewRouter()
	r.Use(mux.MiddlewareFunc(observe(slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), m)))
	r.HandleFunc("/x/{id}", h)
	return r, m
}

func TestPanicBecomes500AndIsCounted(t *testing.T) {
	var log bytes.Buffer
	r, m := inRouter(&log, func(http.ResponseWriter, *http.Request) { panic("the inside of it") })
	w := httptest.NewRecorder()
	withRequestID(r).ServeHTTP(w, httptest.NewRequest("GET", "/x/1", nil))
	if w.Code != 500 || strings.Contains(w.Body.String(), "inside") || !strings.Contains(w.Body.String(), w.Header().Get(requestIDHeader)) {
		t.Errorf("answer: %d %q", w.Code, w.Body)
	}
	if !strings.Contains(log.String(), "the inside of it") || testutil.ToFloat64(m.panics) != 1 {
		t.Errorf("log %q, panics %v", &log, testutil.ToFloat64(m.panics))
	}
	if got := testutil.ToFloat64(m.requests.WithLabelValues("GET", "/x/{id}", "500")); got != 1 {
		t.Errorf("requests counted: %v", got)
	}
}

func TestAbortedAnswerCutsTheConnection(t *testing.T) {
	r, m := inRouter(io.Discard, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(200)
		_, _ = w.Write([]byte("half"))
		panic(http.ErrAbortHandler)
	})
	srv := httptest.NewServer(r)
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL + "/x/1")
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("the client saw a whole answer")
	}
	if testutil.ToFloat64(m.panics) != 0 || testutil.ToFloat64(m.requests.WithLabelValues("GET", "/x/{id}", "0")) != 1 {
		t.Error("an abort is counted as code 0, not as a panic")
	}
}

func TestRequestID(t *testing.T) {
	f := func(sent string, kept bool) {
		t.Helper()
		req := httptest.NewRequest("GET", "/", nil)
		req.Header.Set(requestIDHeader, sent)
		w := httptest.NewRecorder()
		var seen string
		withRequestID(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r.Header.Get(requestIDHeader) })).ServeHTTP(w, req)
		if got := w.Header().Get(requestIDHeader); got == "" || got != seen || (got == sent) != kept {
			t.Errorf("sent %q: got %q, handler saw %q", sent, got, seen)
		}
	}
	f("abc-123", true)
	f("", false)
	f("with space", false)
	f("line\nbreak", false)
	f(strings.Repeat("x", 200), false)
}

func TestBodyLimit(t *testing.T) {
	h := limitBody(10)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}
	}))
	f := func(body io.Reader, want int) {
		t.Helper()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/", body))
		if w.Code != want {
			t.Errorf("got %d, want %d", w.Code, want)
		}
	}
	f(strings.NewReader("0123456789"), 200)
	f(strings.NewReader("0123456789a"), 413)
	f(io.MultiReader(strings.NewReader("0123456789"), strings.NewReader("a")), 413) // no length declared
}

func TestDeadline(t *testing.T) {
	var left time.Duration
	h := deadline(time.Minute)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		d, _ := r.Context().Deadline()
		left = time.Until(d)
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	if left <= 50*time.Second || left > time.Minute {
		t.Errorf("%s left", left)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil).WithContext(ctx))
	if left > time.Second {
		t.Errorf("a shorter deadline was stretched to %s", left)
	}
}

func TestBrowserGuard(t *testing.T) {
	f := func(authenticated, loopback bool, method, host, origin string, want int) {
		t.Helper()
		req := httptest.NewRequest(method, "/api/v1/admin/cleanup", nil)
		req.Host = host
		if origin != "" {
			req.Header.Set("Origin", origin)
		}
		w := httptest.NewRecorder()
		guardBrowser(authenticated, loopback, isDestructive)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, req)
		if w.Code != want {
			t.Errorf("authenticated %v, loopback %v, %s, Host %q, Origin %q: got %d, want %d", authenticated, loopback, method, host, origin, w.Code, want)
		}
	}
	f(false, true, "GET", "127.0.0.1:8080", "", 200)
	f(false, true, "GET", "localhost:8080", "", 200)
	f(false, true, "GET", "[::1]:8080", "", 200)
	f(false, true, "GET", "localhost:8080", "http://localhost:8080", 200)
	f(false, true, "GET", "evil.example:8080", "", 403) // DNS rebinding
	f(false, true, "GET", "127.0.0.1:8080", "https://evil.example", 403)
	f(false, true, "GET", "127.0.0.1:8080", "null", 403)
	f(false, false, "GET", "metrics.example", "https://evil.example", 200)
	f(false, false, "POST", "metrics.example", "https://evil.example", 403)
	f(false, false, "POST", "metrics.example", "https://metrics.example", 200)
	f(true, true, "POST", "evil.example", "https://evil.example", 200) // a token says who it is
}
