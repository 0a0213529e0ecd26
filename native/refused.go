package native

import (
	"net/http"
	"sync"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

// Refusal is one refused sample, metric or series, for the tenant to see.
type Refusal struct {
	Time    time.Time `json:"time"`
	Source  string    `json:"source"` // "native", "remote_write", "otlp"
	Series  string    `json:"series"`
	Reason  string    `json:"reason"` // a Code, or a storage.RefusalReason
	Message string    `json:"message"`
	Limit   string    `json:"limit,omitempty"`   // the limit's stable id
	Setting string    `json:"setting,omitempty"` // the setting that changes it
}

// refusalsPerTenant and refusalTenants bound the memory of Refusals; a refusal
// has at most maxRefusalBytes in Series and Message each.
const (
	refusalsPerTenant = 100
	refusalTenants    = 1_000
	maxRefusalBytes   = 1_024
)

// Refusals keeps the last 100 refusals of each tenant in memory, for as many as
// 1,000 tenants; then the tenant that was refused longest ago is forgotten. It is
// safe for concurrent use.
type Refusals struct {
	mu    sync.Mutex
	rings map[storage.Tenant]*refusalRing
	clock uint64
}

type refusalRing struct {
	items []Refusal
	next  int    // where the next goes once items is full
	used  uint64 // clock of the last Record
}

// NewRefusals returns an empty ring.
func NewRefusals() *Refusals { return &Refusals{rings: map[storage.Tenant]*refusalRing{}} }

// Record adds refusals of one tenant, oldest first.
func (s *Refusals) Record(t storage.Tenant, refusals ...Refusal) {
	if len(refusals) == 0 || t.IsZero() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock++
	ring := s.rings[t]
	if ring == nil {
		s.evictLocked()
		ring = &refusalRing{}
		s.rings[t] = ring
	}
	ring.used = s.clock
	for _, r := range refusals {
		r.Series, r.Message = clip(r.Series), clip(r.Message)
		if len(ring.items) < refusalsPerTenant {
			ring.items = append(ring.items, r)
			continue
		}
		ring.items[ring.next] = r
		ring.next = (ring.next + 1) % refusalsPerTenant
	}
}

func (s *Refusals) evictLocked() {
	if len(s.rings) < refusalTenants {
		return
	}
	var oldest storage.Tenant
	least := s.clock + 1
	for t, ring := range s.rings {
		if ring.used < least {
			oldest, least = t, ring.used
		}
	}
	delete(s.rings, oldest)
}

// List returns the tenant's refusals, newest first.
func (s *Refusals) List(t storage.Tenant) []Refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Refusal{}
	ring := s.rings[t]
	if ring == nil {
		return out
	}
	n := len(ring.items)
	for i := range n {
		out = append(out, ring.items[(ring.next+n-1-i)%n])
	}
	return out
}

func clip(s string) string {
	if len(s) <= maxRefusalBytes {
		return s
	}
	return s[:maxRefusalBytes] + "…"
}

// RefusedResponse is the answer of GET /api/v1/refused.
type RefusedResponse struct {
	Refused []Refusal `json:"refused"`
}

func (a *API) serveRefused(w http.ResponseWriter, r *http.Request) error {
	t := tenancy.TenantOf(r.Context())
	if err := t.Validate(); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, RefusedResponse{Refused: a.refusals.List(t)})
	return nil
}
