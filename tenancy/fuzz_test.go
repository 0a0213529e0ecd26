package tenancy

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// FuzzClaims signs arbitrary claims with the right key: what an identity provider
// may send. A grant has a tenant or is an operator's, never outlives exp, and a token
// with matchers never sees everything.
func FuzzClaims(f *testing.F) {
	v := newTestVerifier(f, func(c *AuthConfig) { c.Secret = testSecret })
	exp := time.Now().Add(24 * time.Hour).Unix()
	for _, s := range []string{
		`{"exp":%d,"tenant_id":"a","scopes":["read"]}`, `{"exp":%d,"tenants":"*","scope":"read write"}`,
		`{"exp":%d,"tenants":["a","b"],"matchers":["{x=\"y\"}"],"scopes":"read"}`, `{"exp":%d,"nbf":1e300,"sub":null}`,
		`{"exp":%d,"aud":[],"iat":-1,"tenant_id":"../x"}`, `{"exp":"%d"}`, `[%d]`,
	} {
		f.Add(fmt.Appendf(nil, s, exp))
	}
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`))
	f.Fuzz(func(t *testing.T, claims []byte) {
		text := header + "." + base64.RawURLEncoding.EncodeToString(claims)
		sig, err := jwt.SigningMethodHS256.Sign(text, []byte(testSecret))
		if err != nil {
			t.Fatal(err)
		}
		g, err := v.verify(text + "." + base64.RawURLEncoding.EncodeToString(sig))
		if (g == nil) == (err == nil) {
			t.Fatalf("grant %v, error %v", g, err)
		}
		if err != nil {
			return
		}
		if g.tenant.IsZero() && len(g.tenants) == 0 && !g.all && !g.operator() {
			t.Fatalf("a grant for nobody: %+v", g)
		}
		if !g.expires.After(time.Now().Add(-time.Hour)) {
			t.Fatalf("a grant that ended at %s", g.expires)
		}
		var c struct{ Matchers stringList }
		if json.Unmarshal(claims, &c) == nil && len(c.Matchers) > 0 && len(g.matchers) == 0 {
			t.Fatalf("matchers %q narrow nothing", c.Matchers)
		}
	})
}

// FuzzKeyFiles gives arbitrary bytes to everything that reads keys and revocations:
// what is taken has an algorithm, and never a symmetric one where keys are public.
func FuzzKeyFiles(f *testing.F) {
	f.Add([]byte(testSecret + "\n" + testSecret))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"))
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"a"},{"kty":"oct","k":"AAAA"}]}`))
	f.Add([]byte("# gone\njti-1\nsomebody\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		secrets, err := parseSecrets(b)
		if (len(secrets) == 0) == (err == nil) {
			t.Fatalf("%d secrets, error %v", len(secrets), err)
		}
		public, err := parsePublicKeys(b)
		if (len(public) == 0) == (err == nil) {
			t.Fatalf("%d public keys, error %v", len(public), err)
		}
		set, _, err := parseKeySet(t.Context(), b)
		if (len(set) == 0) == (err == nil) {
			t.Fatalf("%d keys of a set, error %v", len(set), err)
		}
		for _, k := range append(public, set...) {
			for _, m := range k.methods {
				if m == "HS256" || m == "none" {
					t.Fatalf("a public key with method %s", m)
				}
			}
			if len(k.methods) == 0 {
				t.Fatalf("a key of type %T without a method", k.key)
			}
		}
		if r, err := parseRevoked(b); err == nil && r == nil {
			t.Fatal("neither revocations nor an error")
		}
	})
}
