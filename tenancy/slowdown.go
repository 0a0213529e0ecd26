package tenancy

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Failed authentications of one address: so many at once, then so many a second.
// A right token always passes, so one bad client behind a shared proxy does not
// lock the others out.
const (
	failureBurst     = 20
	failuresPerSec   = 1
	trackedAddresses = 4096
)

// slowdown counts failed authentications by address, in bounded memory.
type slowdown struct {
	mu      sync.Mutex
	byAddr  map[netip.Prefix]*rate.Limiter
	maximum int
}

func newSlowdown() *slowdown {
	return &slowdown{byAddr: map[netip.Prefix]*rate.Limiter{}, maximum: trackedAddresses}
}

// failed counts a failure; ok is false when the address has had too many, and then
// retry says when it may try again.
func (s *slowdown) failed(remote string, now time.Time) (retry time.Duration, ok bool) {
	key := prefixOf(remote)
	s.mu.Lock()
	defer s.mu.Unlock()
	lim := s.byAddr[key]
	if lim == nil {
		if len(s.byAddr) >= s.maximum {
			s.evictLocked(now)
		}
		lim = rate.NewLimiter(failuresPerSec, failureBurst)
		s.byAddr[key] = lim
	}
	if lim.AllowN(now, 1) {
		return 0, true
	}
	return time.Second / failuresPerSec, false
}

// evictLocked forgets addresses that have recovered, and if there are none, any.
func (s *slowdown) evictLocked(now time.Time) {
	for k, lim := range s.byAddr {
		if lim.TokensAt(now) >= failureBurst {
			delete(s.byAddr, k)
		}
	}
	for k := range s.byAddr { // in the map's random order
		if len(s.byAddr) < s.maximum {
			return
		}
		delete(s.byAddr, k)
	}
}

// prefixOf is the address, for IPv6 its /64: one host has all of it.
func prefixOf(remote string) netip.Prefix {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{} // a Unix socket, or a test: all share one
	}
	a := ap.Addr().Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // bits fit the address
	return p
}
