package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"
	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

// requestIDHeader carries a request's id; a caller's own id is kept if it is
// short and printable.
const requestIDHeader = "X-Request-Id"

const maxRequestIDBytes = 128

// middleware is one layer around a handler.
type middleware func(http.Handler) http.Handler

// chain wraps h so that the first of ms sees a request first.
func chain(h http.Handler, ms ...middleware) http.Handler {
	for _, m := range slices.Backward(ms) {
		h = m(h)
	}
	return h
}

// withScratch lets a store remember within a request what it found out.
func withScratch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(storage.WithScratch(r.Context())))
	})
}

// withRequestID gives each request an id and echoes it.
func withRequestID(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get(requestIDHeader)
		if id == "" || len(id) > maxRequestIDBytes || strings.ContainsFunc(id, func(c rune) bool { return c < '!' || c > '~' }) {
			id = rand.Text()
			r.Header.Set(requestIDHeader, id)
		}
		w.Header().Set(requestIDHeader, id)
		next.ServeHTTP(w, r)
	})
}

// statusWriter remembers what was answered.
type statusWriter struct {
	http.ResponseWriter
	status int
	bytes  int64
	tenant string // once the guard has let the request pass
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush implements http.Flusher for handlers that stream.
func (w *statusWriter) Flush() {
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack implements http.Hijacker.
func (w *statusWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// routeOf returns the template of the matched route, bounded and so fit for a
// metric label.
func routeOf(r *http.Request) string {
	if route := mux.CurrentRoute(r); route != nil {
		if t, err := route.GetPathTemplate(); err == nil {
			return t
		}
	}
	return "unmatched"
}

// observe writes the access log (debug; warn for our own failures), counts and
// times requests, and turns a panic into a 500 that tells nothing of the inside.
// It runs inside the router, where the route is known.
func observe(log *slog.Logger, m *httpMetrics) middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			start := time.Now()
			route := routeOf(r)
			sw := &statusWriter{ResponseWriter: w}
			m.inFlight.Inc()
			defer func() {
				m.inFlight.Dec()
				p := recover()
				aborted := p != nil && isAbort(p)
				if p != nil && !aborted {
					m.panics.Inc()
					log.Error("panic in a handler", "route", route, "panic", p, "request_id", r.Header.Get(requestIDHeader), "stack", string(debug.Stack()))
					if sw.status == 0 {
						http.Error(sw, "internal error, request id "+r.Header.Get(requestIDHeader), http.StatusInternalServerError)
					}
				}
				took := time.Since(start)
				m.observe(r.Method, route, sw.status, took, aborted)
				logAccess(log, r, route, sw, took)
				if aborted {
					panic(p) // net/http cuts the connection
				}
			}()
			next.ServeHTTP(sw, r)
		})
	}
}

// noteTenant tells observe, which is outside the guard, for which tenant a request
// is.
func noteTenant(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for inner := w; inner != nil; {
			if sw, ok := inner.(*statusWriter); ok {
				sw.tenant = tenancy.TenantOf(r.Context()).String()
				break
			}
			u, ok := inner.(interface{ Unwrap() http.ResponseWriter })
			if !ok {
				break
			}
			inner = u.Unwrap()
		}
		next.ServeHTTP(w, r)
	})
}

func isAbort(p any) bool {
	err, ok := p.(error)
	return ok && errors.Is(err, http.ErrAbortHandler)
}

func logAccess(log *slog.Logger, r *http.Request, route string, w *statusWriter, took time.Duration) {
	level := slog.LevelDebug
	if w.status >= 500 {
		level = slog.LevelWarn
	}
	log.Log(r.Context(), level, "request", "method", r.Method, "route", route, "status", w.status, "bytes", w.bytes,
		"duration", took, "tenant", w.tenant, "remote", r.RemoteAddr, "request_id", r.Header.Get(requestIDHeader))
}

// limitBody refuses bodies over max bytes: at once by their declared length, else
// when reading passes it (handlers answer 413 then).
func limitBody(maxBytes int64) middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ContentLength > maxBytes {
				w.Header().Set("Connection", "close")
				http.Error(w, "the request body is larger than server.maxBodyBytes allows", http.StatusRequestEntityTooLarge)
				return
			}
			if r.Body != nil {
				r.Body = http.MaxBytesReader(w, r.Body, maxBytes)
			}
			next.ServeHTTP(w, r)
		})
	}
}

// unboundedPath is the one route that may take as long as it needs: the archive
// of a backup.
const unboundedPath = "/api/v1/admin/backup"

// deadline bounds every request's time.
func deadline(d time.Duration) middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == unboundedPath {
				next.ServeHTTP(w, r)
				return
			}
			ctx, cancel := context.WithTimeout(r.Context(), d)
			defer cancel()
			next.ServeHTTP(w, r.WithContext(ctx))
		})
	}
}

// closeWhileDraining asks clients to open their next connection elsewhere once
// shutdown has begun, so that none sends a request on a connection that is about
// to be closed.
func closeWhileDraining(p *probes) middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if p.draining.Load() {
				w.Header().Set("Connection", "close")
			}
			next.ServeHTTP(w, r)
		})
	}
}

// securityHeaders are set on every answer; the API serves no page that needs
// more.
func securityHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		next.ServeHTTP(w, r)
	})
}

// guardBrowser keeps web pages away from a server without authentication: on
// loopback a foreign Host or Origin is refused, elsewhere a foreign Origin on
// routes that change data. A page that a browser shows cannot forge either.
func guardBrowser(authenticated, loopback bool, destructive func(*http.Request) bool) middleware {
	return func(next http.Handler) http.Handler {
		if authenticated {
			return next
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			origin := r.Header.Get("Origin")
			switch {
			case loopback && !loopbackHost(r.Host):
				http.Error(w, "refused: the Host header names another machine, and this server without authentication answers local callers only", http.StatusForbidden)
			case (loopback || destructive(r)) && origin != "" && !sameOrigin(origin, r.Host):
				http.Error(w, "refused: a web page of another origin may not call this server without authentication", http.StatusForbidden)
			default:
				next.ServeHTTP(w, r)
			}
		})
	}
}

func loopbackHost(host string) bool {
	h, _, err := net.SplitHostPort(host)
	if err != nil {
		h = host
	}
	return isLoopback(strings.Trim(h, "[]"))
}

func sameOrigin(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, host)
}
