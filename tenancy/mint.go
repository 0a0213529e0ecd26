package tenancy

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/luminate/luminate/storage"
)

// Grant says what a token is to allow.
type Grant struct {
	Subject  string
	Tenant   string   // tenant_id
	Tenants  []string // further tenants, or "*"
	Scopes   []Scope
	Matchers []string
	Issuer   string
	Audience string
	TTL      time.Duration
	KeyID    string // kid, of a key set's key
}

// Validate joins every problem: what it lets pass, a Verifier accepts.
func (g Grant) Validate() error {
	var errs []error
	if g.TTL <= 0 {
		errs = append(errs, fmt.Errorf("the time to live must be positive, it is %s", g.TTL))
	}
	if len(g.Scopes) == 0 {
		errs = append(errs, errors.New("a token without scopes opens nothing: give read, write, admin or operator"))
	}
	for _, s := range g.Scopes {
		if !slices.Contains([]Scope{ScopeRead, ScopeWrite, ScopeAdmin, ScopeOperator}, s) {
			errs = append(errs, fmt.Errorf("scope %q is not one of read, write, admin, operator", s))
		}
	}
	_, err := grantOf(g.claims(time.Now()))
	return errors.Join(append(errs, err)...)
}

func (g Grant) claims(now time.Time) *tokenClaims {
	c := &tokenClaims{TenantID: g.Tenant, Tenants: g.Tenants, Matchers: g.Matchers}
	c.Subject, c.Issuer, c.ID = g.Subject, g.Issuer, rand.Text()
	if g.Audience != "" {
		c.Audience = jwt.ClaimStrings{g.Audience}
	}
	for _, s := range g.Scopes {
		c.Scopes = append(c.Scopes, string(s))
	}
	c.IssuedAt, c.ExpiresAt = jwt.NewNumericDate(now), jwt.NewNumericDate(now.Add(g.TTL))
	return c
}

// Mint signs a token with key: a secret ([]byte, HS256), or an RSA (RS256), ECDSA
// (by its curve) or Ed25519 private key. It returns the token and its id (jti), by
// which it can be revoked.
func Mint(key any, g Grant, now time.Time) (token, id string, err error) {
	if err := g.Validate(); err != nil {
		return "", "", fmt.Errorf("mint token: %w", err)
	}
	method, err := signingMethod(key)
	if err != nil {
		return "", "", fmt.Errorf("mint token: %w", err)
	}
	c := g.claims(now)
	t := jwt.NewWithClaims(method, c)
	if g.KeyID != "" {
		t.Header["kid"] = g.KeyID
	}
	token, err = t.SignedString(key)
	if err != nil {
		return "", "", fmt.Errorf("mint token: %w", err)
	}
	return token, c.ID, nil
}

func signingMethod(key any) (jwt.SigningMethod, error) {
	switch k := key.(type) {
	case []byte:
		return jwt.SigningMethodHS256, nil
	case *rsa.PrivateKey:
		return jwt.SigningMethodRS256, nil
	case ed25519.PrivateKey:
		return jwt.SigningMethodEdDSA, nil
	case *ecdsa.PrivateKey:
		methods, err := methodsOf(&k.PublicKey)
		if err != nil {
			return nil, err
		}
		return jwt.GetSigningMethod(methods[0]), nil
	default:
		return nil, fmt.Errorf("key type %T cannot sign", key)
	}
}

// ParseSigningKey reads what Mint signs with: a PEM private key (PKCS #8, PKCS #1,
// SEC 1), or else a file of HS256 secrets, of which the first is used.
func ParseSigningKey(b []byte) (any, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		keys, err := parseSecrets(b)
		if err != nil {
			return nil, err
		}
		return keys[0].key, nil
	}
	if !strings.Contains(block.Type, "PRIVATE KEY") {
		return nil, fmt.Errorf("PEM block %q is not a private key: tokens are signed with the private one", block.Type)
	}
	if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("PEM block %q: not PKCS #8, PKCS #1 or SEC 1: %w", block.Type, err)
	}
	return key, nil
}

// CustomerGrant narrows a token to one customer of a tenant: it reads, for
// tenant's series whose label has the value, and nothing else.
func CustomerGrant(tenant storage.Tenant, label, value string, ttl time.Duration) Grant {
	return Grant{
		Subject: "customer:" + value, Tenant: tenant.String(), Scopes: []Scope{ScopeRead}, TTL: ttl,
		Matchers: []string{fmt.Sprintf("{%q=%q}", label, value)},
	}
}
