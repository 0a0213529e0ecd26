package tenancy

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/luminate/luminate/storage"
)

// Bounds of what a token may hold; a token is small, and these keep the work for a
// forged one small too.
const (
	maxTokenTenants  = 1_000
	maxTokenMatchers = 32
	maxRegexBytes    = 4 << 10
)

// allTenants is the entry of the tenants claim that stands for every tenant.
const allTenants = "*"

// tokenClaims are the claims of a token. `scope` is the space-separated form that
// identity providers issue; both forms add up.
type tokenClaims struct {
	jwt.RegisteredClaims
	TenantID string     `json:"tenant_id,omitempty"`
	Tenants  stringList `json:"tenants,omitempty"`
	Scopes   stringList `json:"scopes,omitempty"`
	Scope    string     `json:"scope,omitempty"`
	Matchers stringList `json:"matchers,omitempty"`
}

// stringList is a JSON string or an array of strings.
type stringList []string

// UnmarshalJSON implements json.Unmarshaler.
func (l *stringList) UnmarshalJSON(b []byte) error {
	var one string
	if err := json.Unmarshal(b, &one); err == nil {
		*l = stringList{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(b, &many); err != nil {
		return errors.New("must be a string or an array of strings")
	}
	*l = many
	return nil
}

// grant is what a verified token allows.
type grant struct {
	subject  string
	id       string         // jti
	tenant   storage.Tenant // tenant_id, zero if none
	tenants  []storage.Tenant
	all      bool // tenants: "*"
	scopes   []Scope
	matchers []*storage.Matcher
	expires  time.Time
	before   time.Time // nbf, zero if none
}

// allows tells whether the token is for tenant t.
func (g *grant) allows(t storage.Tenant) bool {
	return g.all || t == g.tenant && !t.IsZero() || slices.Contains(g.tenants, t)
}

func (g *grant) operator() bool { return slices.Contains(g.scopes, ScopeOperator) }

// label names the token's tenant in a metric.
func (g *grant) label() string {
	switch {
	case !g.tenant.IsZero():
		return g.tenant.String()
	case len(g.tenants) == 1:
		return g.tenants[0].String()
	default:
		return allTenants
	}
}

// grantOf checks the claims that are Luminate's own.
func grantOf(c *tokenClaims) (*grant, error) {
	g := &grant{subject: c.Subject, id: c.ID}
	if c.ExpiresAt != nil {
		g.expires = c.ExpiresAt.Time
	}
	if c.NotBefore != nil {
		g.before = c.NotBefore.Time
	}
	if c.TenantID != "" {
		t, err := storage.ParseTenant(c.TenantID)
		if err != nil {
			return nil, fmt.Errorf("claim tenant_id: %w", err)
		}
		g.tenant = t
	}
	if len(c.Tenants) > maxTokenTenants || len(c.Matchers) > maxTokenMatchers {
		return nil, fmt.Errorf("the token has more than %d tenants or %d matchers", maxTokenTenants, maxTokenMatchers)
	}
	for _, name := range c.Tenants {
		if name == allTenants {
			g.all = true
			continue
		}
		t, err := storage.ParseTenant(name)
		if err != nil {
			return nil, fmt.Errorf("claim tenants: %w", err)
		}
		g.tenants = append(g.tenants, t)
	}
	for _, s := range append(strings.Fields(c.Scope), c.Scopes...) {
		switch s := Scope(s); s {
		case ScopeRead, ScopeWrite, ScopeAdmin, ScopeOperator:
			g.scopes = append(g.scopes, s)
		}
	}
	if g.tenant.IsZero() && len(g.tenants) == 0 && !g.all && !g.operator() {
		return nil, errors.New("the token names no tenant: it needs tenant_id or tenants")
	}
	var err error
	g.matchers, err = ParseMatchers(c.Matchers)
	return g, err
}

// ParseMatchers parses the matchers of a scoped token: selectors without a metric
// in front, with or without braces; all of them must match a series.
func ParseMatchers(texts []string) ([]*storage.Matcher, error) {
	var all []*storage.Matcher
	p := parser.NewParser(parser.Options{})
	for _, text := range texts {
		text = strings.TrimSpace(text)
		if len(text) > maxRegexBytes {
			return nil, fmt.Errorf("matcher of %d bytes, at most %d are allowed", len(text), maxRegexBytes)
		}
		if !strings.HasPrefix(text, "{") {
			text = "{" + text + "}"
		}
		ms, err := p.ParseMetricSelector(text)
		if err != nil {
			return nil, fmt.Errorf("matcher %s: %w", text, err)
		}
		if len(ms) == 0 {
			return nil, fmt.Errorf("matcher %s matches everything", text)
		}
		all = append(all, ms...)
	}
	return all, nil
}
