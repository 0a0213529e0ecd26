package tenancy

import (
	"net/http"
	"slices"
	"strings"

	"github.com/luminate/luminate/storage"
)

// thanosHeader names a tenant in Thanos; it never chooses one here, and one that
// differs is refused rather than ignored.
const thanosHeader = "Thanos-Tenant"

// maxFederatedTenants bounds a read over several tenants.
const maxFederatedTenants = 64

// chooseTenant finds the request's tenants: those of the header if it is there,
// else the token's own. g is nil without authentication.
func (g *Gate) chooseTenant(r *http.Request, who *grant, rule rule) ([]storage.Tenant, *refusal) {
	values := r.Header[g.header]
	if len(values) > 1 {
		return nil, refuse(http.StatusBadRequest, "tenant", "the header %s stands more than once", g.cfg.Header)
	}
	if len(values) == 0 {
		return g.tenantWithoutHeader(who, rule)
	}
	asked, fail := g.parseHeader(values[0], rule)
	if fail != nil {
		return nil, fail
	}
	for _, t := range asked {
		if who != nil && !who.allows(t) && !(who.operator() && rule.scope == ScopeAdmin) && !(who.operator() && rule.scope == ScopeOperator) {
			return nil, refuse(http.StatusForbidden, "tenant", "the token is not for the tenant that the header %s names", g.cfg.Header)
		}
		if fail := g.listed(t); fail != nil {
			return nil, fail
		}
	}
	return asked, nil
}

// parseHeader reads "a" or, on reads, "a|b".
func (g *Gate) parseHeader(value string, rule rule) ([]storage.Tenant, *refusal) {
	names := strings.Split(value, "|")
	if len(names) > 1 && !rule.federates() {
		return nil, refuse(http.StatusBadRequest, "tenant", "%s names several tenants: only reads may", g.cfg.Header)
	}
	if len(names) > maxFederatedTenants {
		return nil, refuse(http.StatusBadRequest, "tenant", "%s names %d tenants, at most %d are allowed", g.cfg.Header, len(names), maxFederatedTenants)
	}
	var out []storage.Tenant
	for _, name := range names {
		t, err := storage.ParseTenant(name)
		if err != nil {
			return nil, refuse(http.StatusBadRequest, "tenant", "%s: %s", g.cfg.Header, err)
		}
		if !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return out, nil
}

// tenantWithoutHeader is the default tenant without authentication, else the only
// one that the token can mean.
func (g *Gate) tenantWithoutHeader(who *grant, rule rule) ([]storage.Tenant, *refusal) {
	var t storage.Tenant
	switch {
	case who == nil:
		t = g.defaultTenant
	case !who.tenant.IsZero():
		t = who.tenant
	case len(who.tenants) == 1 && !who.all:
		t = who.tenants[0]
	case rule.needsTenant():
		return nil, refuse(http.StatusBadRequest, "tenant", "the token is for several tenants: the header %s must name one", g.cfg.Header)
	default:
		return []storage.Tenant{{}}, nil
	}
	if fail := g.listed(t); fail != nil {
		return nil, fail
	}
	return []storage.Tenant{t}, nil
}

// listed refuses a tenant that is not listed where new ones are not made.
func (g *Gate) listed(t storage.Tenant) *refusal {
	if g.tenants == nil || g.tenants[t] {
		return nil
	}
	return refuse(http.StatusForbidden, "tenant", "tenant %q is not one of tenancy.tenants, and tenancy.create is listed", t)
}

// foreignHeader tells whether another product's header names another tenant.
func foreignHeader(r *http.Request, tenants []storage.Tenant) bool {
	values := r.Header[thanosHeader]
	return len(values) > 0 && (len(values) > 1 || len(tenants) != 1 || values[0] != tenants[0].String())
}
