package main

import (
	"crypto/rand"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/luminate/luminate/tenancy"
)

// authName is the peer that demands a token and has the limits which a tenant has then.
const authName = "luminate-auth"

// authLimits lifts the two rates, and nothing else of a tenant's default limits: the
// senders of a comparison are faster than the default rate, and the cost of sending a
// refused request again is not what is measured. The buckets are at work all the same.
const authLimits = "tenants: {bench: {samplesPerSecond: 100000000, samplesBurst: 100000000, writeRequestsPerSecond: 1000000, writeRequestBurst: 1000000}}\n"

// authPeer runs luminate with an HS256 secret, and sends it a token.
func authPeer(extra []string) (peer, error) {
	plain, err := luminatePeer(extra)
	if err != nil {
		return peer{}, err
	}
	return peer{name: authName, make: func(dir, addr string) (*server, error) {
		secret := rand.Text() + rand.Text()
		secretFile, limitsFile := filepath.Join(dir, "secret"), filepath.Join(dir, "limits.yaml")
		if err := os.WriteFile(secretFile, []byte(secret), 0o600); err != nil {
			return nil, err
		}
		if err := os.WriteFile(limitsFile, []byte(authLimits), 0o600); err != nil {
			return nil, err
		}
		token, _, err := tenancy.Mint([]byte(secret), tenancy.Grant{
			Subject: "bench", Tenant: "bench", TTL: 24 * time.Hour, Scopes: []tenancy.Scope{tenancy.ScopeRead, tenancy.ScopeWrite},
		}, time.Now())
		if err != nil {
			return nil, err
		}
		s, err := plain.make(dir, addr)
		if err != nil {
			return nil, err
		}
		s.name, s.token = authName, token
		s.argv = append(s.argv, "--auth.jwtSecretFile", secretFile, "--limits.file", limitsFile)
		return s, nil
	}}, nil
}

// bearer sends a token with every request.
type bearer struct {
	next   http.RoundTripper
	header []string
}

// RoundTrip implements http.RoundTripper. The header goes onto a copy of the request.
func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header["Authorization"] = b.header
	return b.next.RoundTrip(r)
}

// client returns a client that may ask the server.
func (s *server) client() *http.Client {
	c := newClient()
	if s.token != "" {
		c.Transport = bearer{c.Transport, []string{"Bearer " + s.token}}
	}
	return c
}

// CloseIdleConnections lets http.Client reach the connections.
func (b bearer) CloseIdleConnections() {
	if t, ok := b.next.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}
