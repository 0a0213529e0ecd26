package main

import (
	"net/http"
	"sync/atomic"

	"github.com/gorilla/mux"
)

// handlerSwitch serves through a handler that can be replaced while running: the
// listener is open before the store is, so that probes see the start.
type handlerSwitch struct{ current atomic.Pointer[http.Handler] }

func newSwitch(h http.Handler) *handlerSwitch {
	s := &handlerSwitch{}
	s.set(h)
	return s
}

func (s *handlerSwitch) set(h http.Handler) { s.current.Store(&h) }

// ServeHTTP implements http.Handler.
func (s *handlerSwitch) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	(*s.current.Load()).ServeHTTP(w, r)
}

// startingHandler answers probes, and 503 with Retry-After to everything else:
// senders keep their data and come again.
func startingHandler(p *probes) http.Handler {
	r := mux.NewRouter()
	registerProbes(r, p)
	r.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "1")
		writeText(w, http.StatusServiceUnavailable, "luminate is starting: "+p.progress.Load().Phase+"\n")
	})
	return r
}

func internalHandler(p *probes, metrics http.Handler) http.Handler {
	r := mux.NewRouter()
	registerProbes(r, p)
	registerInternal(r, metrics)
	return r
}
