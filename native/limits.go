package native

import (
	"net/http"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

var errNoLimits = errorf(http.StatusNotFound, CodeNotFound, "this server keeps no limits for each tenant: set limits.file")

// serveLimits shows the limits that bind a tenant.
func (a *API) serveLimits(w http.ResponseWriter, r *http.Request) error {
	ctx, t, err := a.adminTenant(r, pathVar(r, "tenant"), rightRead)
	if err != nil {
		return err
	}
	if a.cfg.Limits == nil {
		return errNoLimits
	}
	limits, err := a.cfg.Limits.TenantLimits(ctx, t)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, limits)
	return nil
}

// serveSetLimits replaces a tenant's own limits.
func (a *API) serveSetLimits(w http.ResponseWriter, r *http.Request) error {
	ctx, t, err := a.adminTenant(r, pathVar(r, "tenant"), rightDestructive)
	if err != nil {
		return err
	}
	if a.cfg.Limits == nil {
		return errNoLimits
	}
	document, err := rawBody(r)
	if err != nil {
		return err
	}
	limits, err := a.cfg.Limits.SetTenantLimits(ctx, t, document)
	if err != nil {
		return err
	}
	a.audit(ctx, "set limits", "target", t.String())
	writeJSON(w, http.StatusOK, limits)
	return nil
}

// Whoami is the answer of GET /api/v1/whoami: what the caller is to this server.
type Whoami struct {
	Tenant        string          `json:"tenant"`
	Tenants       []string        `json:"tenants,omitempty"` // of a read over several
	Subject       string          `json:"subject,omitempty"`
	Authenticated bool            `json:"authenticated"`
	Scopes        []tenancy.Scope `json:"scopes"`
	Matchers      []string        `json:"matchers"` // narrow every read
	Expires       *time.Time      `json:"expires"`  // null: never
	Limits        any             `json:"limits"`   // null: none are kept
	Usage         any             `json:"usage"`
}

func (a *API) serveWhoami(w http.ResponseWriter, r *http.Request) error {
	id, ok := tenancy.FromContext(r.Context())
	if !ok {
		return errorf(http.StatusUnauthorized, CodeUnauthorized, "no identity")
	}
	who := Whoami{
		Tenant: id.Tenant.String(), Subject: id.Subject, Authenticated: id.Authenticated,
		Scopes: append([]tenancy.Scope{}, id.Scopes...), Tenants: nil,
		Matchers: mapSlice(id.Matchers, func(m *storage.Matcher) string { return m.String() }),
	}
	if len(id.Federated) > 0 {
		who.Tenants = mapSlice(id.Federated, storage.Tenant.String)
	}
	if !id.Expires.IsZero() {
		who.Expires = &id.Expires
	}
	if a.cfg.Limits != nil && !id.Tenant.IsZero() {
		var err error
		if who.Limits, err = a.cfg.Limits.TenantLimits(r.Context(), id.Tenant); err != nil {
			return err
		}
		if who.Usage, err = a.cfg.Limits.TenantUsage(r.Context(), id.Tenant); err != nil {
			return err
		}
	}
	writeJSON(w, http.StatusOK, who)
	return nil
}
