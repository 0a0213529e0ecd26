package tenancy

import (
	"context"
	"slices"
	"time"

	"github.com/luminate/luminate/storage"
)

// Scope is a right that a route demands.
type Scope string

// The scopes. Operator is admin over every tenant.
const (
	ScopeNone     Scope = "none" // no token needed
	ScopeAny      Scope = "any"  // any valid token
	ScopeRead     Scope = "read"
	ScopeWrite    Scope = "write"
	ScopeAdmin    Scope = "admin"
	ScopeOperator Scope = "operator"
)

// Identity is who makes a request, as the middleware found it. Handlers treat it
// as read-only.
type Identity struct {
	// Tenant is the tenant that the request is for.
	Tenant storage.Tenant
	// Federated holds the tenants of a read over several ("a|b"), Tenant the first
	// of them; it is nil for one tenant.
	Federated []storage.Tenant
	// Subject names the token's holder in logs; "" without authentication.
	Subject string
	Scopes  []Scope
	// Matchers narrow every read, from the token's matchers claim.
	Matchers []*storage.Matcher
	// Expires is the token's expiry, zero without authentication.
	Expires time.Time
	// Authenticated is false when authentication is off.
	Authenticated bool
}

// Has tells whether the identity holds the scope; operator includes admin.
func (id Identity) Has(s Scope) bool {
	switch {
	case s == ScopeNone, s == ScopeAny:
		return true
	case slices.Contains(id.Scopes, s):
		return true
	default:
		return s == ScopeAdmin && slices.Contains(id.Scopes, ScopeOperator)
	}
}

// Allows tells whether the identity's request may touch tenant t: its own, one of
// a federated read, or any tenant for an operator and without authentication.
func (id Identity) Allows(t storage.Tenant) bool {
	return !id.Authenticated || t == id.Tenant && !t.IsZero() ||
		slices.Contains(id.Federated, t) || slices.Contains(id.Scopes, ScopeOperator)
}

type identityKey struct{}

// NewContext returns ctx with the identity.
func NewContext(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, id)
}

// FromContext returns the identity that the middleware put into ctx.
func FromContext(ctx context.Context) (Identity, bool) {
	id, ok := ctx.Value(identityKey{}).(Identity)
	return id, ok
}

// TenantOf returns the request's tenant, the zero Tenant (which every store
// refuses) if the middleware did not run.
func TenantOf(ctx context.Context) storage.Tenant {
	id, _ := FromContext(ctx)
	return id.Tenant
}
