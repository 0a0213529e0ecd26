package tenancy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"
)

const testSecret = "a-secret-of-at-least-32-bytes-for-tests"

var (
	testRSA     = must(rsa.GenerateKey(rand.Reader, 2048))
	testECDSA   = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	testECDSA38 = must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	_, testEd   = must2(ed25519.GenerateKey(rand.Reader))
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func must2[A, B any](a A, b B, err error) (A, B) {
	if err != nil {
		panic(err)
	}
	return a, b
}

func publicPEM(t testing.TB, keys ...crypto.Signer) string {
	t.Helper()
	var out []byte
	for _, k := range keys {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(k.Public()))})...)
	}
	return writeFile(t, "public.pem", string(out))
}

func writeFile(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newTestVerifier(t testing.TB, edit func(*AuthConfig)) *Verifier {
	t.Helper()
	cfg := DefaultAuthConfig()
	edit(&cfg)
	v, err := NewVerifier(cfg, quiet, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func reader() Grant {
	return Grant{Subject: "me", Tenant: "a", Scopes: []Scope{ScopeRead}, TTL: time.Hour}
}

func mint(t testing.TB, key any, g Grant) string {
	t.Helper()
	token, _, err := Mint(key, g, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// sign signs any header and claims, as an attacker or a foreign issuer would.
func sign(t testing.TB, key any, header, claims map[string]any) string {
	t.Helper()
	enc := func(v any) string { return base64.RawURLEncoding.EncodeToString(must(json.Marshal(v))) }
	text := enc(header) + "." + enc(claims)
	switch k := key.(type) {
	case nil:
		return text + "."
	case []byte:
		h := hmac.New(sha256.New, k)
		h.Write([]byte(text))
		return text + "." + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
	default:
		sig, err := jwt.GetSigningMethod(header["alg"].(string)).Sign(text, k)
		if err != nil {
			t.Fatal(err)
		}
		return text + "." + base64.RawURLEncoding.EncodeToString(sig)
	}
}

func reasonOf(err error) string {
	var te *tokenError
	if errors.As(err, &te) {
		return te.reason
	}
	return ""
}

func TestEveryKindOfKey(t *testing.T) {
	keys := map[string]crypto.Signer{"RSA": testRSA, "P-256": testECDSA, "P-384": testECDSA38, "Ed25519": testEd}
	for name, key := range keys {
		v := newTestVerifier(t, func(c *AuthConfig) { c.PublicKeyFile = publicPEM(t, key) })
		if _, err := v.verify(mint(t, key, reader())); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for other, foreign := range keys {
			if other != name {
				if _, err := v.verify(mint(t, foreign, reader())); err == nil {
					t.Errorf("a %s token passes a %s key", other, name)
				}
			}
		}
		pkcs8 := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))})
		parsed, err := ParseSigningKey(pkcs8)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := v.verify(mint(t, parsed, reader())); err != nil {
			t.Errorf("%s from PEM: %v", name, err)
		}
		if _, err := parsePublicKeys(pkcs8); err == nil || !strings.Contains(err.Error(), "private") {
			t.Errorf("%s: a private key as the public one: %v", name, err)
		}
	}
	v := newTestVerifier(t, func(c *AuthConfig) { c.PublicKeyFile = publicPEM(t, testRSA, testEd) })
	for _, key := range []any{testRSA, testEd} {
		if _, err := v.verify(mint(t, key, reader())); err != nil {
			t.Errorf("two keys in a file: %v", err)
		}
	}
	small := must(rsa.GenerateKey(rand.Reader, 1024))
	if _, err := parsePublicKeys(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&small.PublicKey)})); err == nil {
		t.Error("an RSA key of 1024 bits is accepted")
	}
	if _, err := parseSecrets([]byte("short\n")); err == nil {
		t.Error("a short secret is accepted")
	}
}

// TestForgedTokens is the list of what attackers try; none passes, and none costs
// time.
func TestForgedTokens(t *testing.T) {
	now := time.Now()
	rsaPEM := must(os.ReadFile(publicPEM(t, testRSA)))
	good := func() map[string]any {
		return map[string]any{"tenant_id": "a", "scopes": []string{"read"}, "iss": "us", "aud": "luminate", "exp": now.Add(time.Hour).Unix()}
	}
	with := func(k string, v any) map[string]any {
		c := good()
		if v == nil {
			delete(c, k)
		} else {
			c[k] = v
		}
		return c
	}
	hs := map[string]any{"alg": "HS256", "typ": "JWT"}
	head := func(k string, v any) map[string]any { return map[string]any{"alg": "HS256", k: v} }
	secret := []byte(testSecret)
	rsaOnly := newTestVerifier(t, func(c *AuthConfig) { c.PublicKeyFile = publicPEM(t, testRSA) })
	both := newTestVerifier(t, func(c *AuthConfig) {
		c.Secret, c.PublicKeyFile, c.Issuer, c.Audience = testSecret, publicPEM(t, testRSA), "us", "luminate"
	})
	if _, err := both.verify(sign(t, secret, hs, good())); err != nil {
		t.Fatalf("the token that all others differ from by one thing: %v", err)
	}
	bad := map[string]struct {
		v      *Verifier
		token  string
		reason string
	}{
		"alg none":                      {both, sign(t, nil, map[string]any{"alg": "none"}, good()), reasonSignature},
		"alg None":                      {both, sign(t, nil, map[string]any{"alg": "None"}, good()), reasonSignature},
		"no alg":                        {both, sign(t, secret, map[string]any{"typ": "JWT"}, good()), reasonSignature},
		"alg is a number":               {both, sign(t, secret, map[string]any{"alg": 256}, good()), reasonSignature},
		"HS256 with the RSA public key": {rsaOnly, sign(t, rsaPEM, hs, good()), reasonSignature},
		"the same, both kinds known":    {both, sign(t, rsaPEM, hs, good()), reasonSignature},
		"HS512":                         {both, must(jwt.NewWithClaims(jwt.SigningMethodHS512, jwt.MapClaims(good())).SignedString(secret)), reasonSignature},
		"wrong secret":                  {both, sign(t, []byte(testSecret+"x"), hs, good()), reasonSignature},
		"wrong issuer":                  {both, sign(t, secret, hs, with("iss", "them")), reasonClaims},
		"no issuer":                     {both, sign(t, secret, hs, with("iss", nil)), reasonClaims},
		"wrong audience":                {both, sign(t, secret, hs, with("aud", "other")), reasonClaims},
		"no audience":                   {both, sign(t, secret, hs, with("aud", nil)), reasonClaims},
		"no exp":                        {both, sign(t, secret, hs, with("exp", nil)), reasonClaims},
		"exp is a string":               {both, sign(t, secret, hs, with("exp", "tomorrow")), reasonMalformed},
		"expired":                       {both, sign(t, secret, hs, with("exp", now.Add(-time.Minute).Unix())), reasonExpired},
		"future nbf":                    {both, sign(t, secret, hs, with("nbf", now.Add(time.Hour).Unix())), reasonExpired},
		"future iat":                    {both, sign(t, secret, hs, with("iat", now.Add(time.Hour).Unix())), reasonExpired},
		"no tenant":                     {both, sign(t, secret, hs, with("tenant_id", nil)), reasonClaims},
		"tenant ..":                     {both, sign(t, secret, hs, with("tenant_id", "..")), reasonClaims},
		"tenant a/b":                    {both, sign(t, secret, hs, with("tenant_id", "a/b")), reasonClaims},
		"tenant too long":               {both, sign(t, secret, hs, with("tenant_id", strings.Repeat("a", 151))), reasonClaims},
		"bad matchers":                  {both, sign(t, secret, hs, with("matchers", []string{"{a=~\"(\"}"})), reasonClaims},
		"empty matcher":                 {both, sign(t, secret, hs, with("matchers", "{}")), reasonClaims},
		"long regex":                    {both, sign(t, secret, hs, with("matchers", `{a=~"`+strings.Repeat("x", 5000)+`"}`)), reasonClaims},
		"kid is a number":               {both, sign(t, secret, head("kid", 7), good()), reasonSignature},
		"kid is an object":              {both, sign(t, secret, head("kid", map[string]any{"a": 1}), good()), reasonSignature},
		"kid is a path":                 {both, sign(t, secret, head("kid", "../../dev/null"), good()), reasonSignature},
		"kid is an absolute path":       {both, sign(t, secret, head("kid", "/dev/null"), good()), reasonSignature},
		"kid is SQL":                    {both, sign(t, secret, head("kid", "x' UNION SELECT 'k"), good()), reasonSignature},
		"kid is endless":                {both, sign(t, secret, head("kid", strings.Repeat("k", 300)), good()), reasonSignature},
		"critical header":               {both, sign(t, secret, head("crit", []string{"x"}), good()), reasonSignature},
		"dots":                          {both, strings.Repeat(".", 1<<20), reasonMalformed},
		"a megabyte":                    {both, strings.Repeat("e", 1<<20), reasonMalformed},
		"two dots":                      {both, "..", reasonMalformed},
		"empty":                         {both, "", reasonMalformed},
		"not base64":                    {both, "a!b.c.d", reasonMalformed},
		"padded signature":              {both, sign(t, secret, hs, good()) + "=", reasonMalformed},
		"no signature":                  {both, sign(t, nil, hs, good()), reasonSignature},
	}
	for name, x := range bad {
		if _, err := x.v.verify(x.token); reasonOf(err) != x.reason {
			t.Errorf("%s: %v (%s), want %s", name, err, reasonOf(err), x.reason)
		}
	}
	// A forged token must be refused without work that grows: a megabyte of dots
	// allocates next to nothing.
	dots := strings.Repeat(".", 1<<20)
	if n := testing.AllocsPerRun(10, func() { _, _ = both.verify(dots) }); n > 10 {
		t.Errorf("a megabyte of dots costs %v allocations", n)
	}
}

func TestClaims(t *testing.T) {
	v := newTestVerifier(t, func(c *AuthConfig) { c.Secret = testSecret })
	exp := time.Now().Add(time.Hour).Unix()
	token := sign(t, []byte(testSecret), map[string]any{"alg": "HS256"}, map[string]any{
		"exp": exp, "tenants": "*", "scope": "read openid write", "scopes": []string{"admin", "unheard-of"},
		"matchers": []string{`customer_id="acme"`, `{region=~"eu.*"}`},
	})
	g, err := v.verify(token)
	if err != nil {
		t.Fatal(err)
	}
	if !g.all || len(g.scopes) != 3 || len(g.matchers) != 2 || g.matchers[1].Name != "region" || g.label() != "*" {
		t.Errorf("%+v", g)
	}
}

func TestClockAndRevocation(t *testing.T) {
	clk := newClock()
	list := writeFile(t, "revoked", "# none\n")
	v := newTestVerifier(t, func(c *AuthConfig) { c.Secret, c.RevokedFile, c.Now = testSecret, list, clk.Now })
	token, id, err := Mint([]byte(testSecret), reader(), clk.Now())
	if err != nil {
		t.Fatal(err)
	}
	other := mint(t, []byte(testSecret), Grant{Subject: "robot", Tenant: "a", Scopes: []Scope{ScopeRead}, TTL: time.Hour})
	for _, x := range []string{token, other, token} {
		if _, err := v.verify(x); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(list, []byte("robot\n"+id+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := v.reloadFiles(); err != nil {
		t.Fatal(err)
	}
	for _, x := range []string{token, other} {
		if _, err := v.verify(x); reasonOf(err) != reasonRevoked {
			t.Errorf("a revoked token: %v", err)
		}
	}
	// A broken list keeps the old one.
	if err := os.WriteFile(list, []byte("\x01\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := v.reloadFiles(); err == nil {
		t.Error("a list with control characters is accepted")
	}
	if _, err := v.verify(token); reasonOf(err) != reasonRevoked {
		t.Errorf("after a broken list: %v", err)
	}
	// A remembered token expires too, and a clock that jumps back revives nothing
	// that was not valid then.
	fresh := mint(t, []byte(testSecret), reader())
	if _, err := v.verify(fresh); err != nil {
		t.Fatal(err)
	}
	clk.add(time.Hour + 31*time.Second)
	if _, err := v.verify(fresh); reasonOf(err) != reasonExpired {
		t.Errorf("an expired remembered token: %v", err)
	}
	if left := v.soonestExpiries()["a"]; left > 0 {
		t.Errorf("the token of tenant a expires in %s", left)
	}
}

func TestRotationOfFiles(t *testing.T) {
	path := writeFile(t, "secret", testSecret+"\n")
	v := newTestVerifier(t, func(c *AuthConfig) { c.SecretFile = path })
	next := "the-next-secret-that-also-has-32-bytes"
	before, after := mint(t, []byte(testSecret), reader()), mint(t, []byte(next), reader())
	step := func(content string, oldOK, newOK bool) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_ = v.reloadFiles()
		if _, err := v.verify(before); (err == nil) != oldOK {
			t.Errorf("old token after %q: %v", content, err)
		}
		if _, err := v.verify(after); (err == nil) != newOK {
			t.Errorf("new token after %q: %v", content, err)
		}
	}
	step(testSecret, true, false)
	step(next+"\n"+testSecret, true, true)
	step(next, false, true)
	step("short", false, true) // broken: the keys that held still hold
	if err := v.Ready(); err != nil {
		t.Error(err)
	}
}

func until(t testing.TB, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatal("the condition did not come true")
		case <-tick.C:
		}
	}
}

func TestTokenCacheIsBounded(t *testing.T) {
	v := newTestVerifier(t, func(c *AuthConfig) { c.Secret, c.CachedTokens = testSecret, 8 })
	for range 50 {
		if _, err := v.verify(mint(t, []byte(testSecret), reader())); err != nil {
			t.Fatal(err)
		}
	}
	if len(v.cache) > 8 {
		t.Errorf("%d tokens are remembered", len(v.cache))
	}
}

func TestExpiryMetric(t *testing.T) {
	reg := prometheus.NewRegistry()
	cfg := DefaultAuthConfig()
	cfg.Secret = testSecret
	v, err := NewVerifier(cfg, quiet, reg)
	if err != nil {
		t.Fatal(err)
	}
	soon := reader()
	soon.TTL = time.Minute
	for _, g := range []Grant{reader(), soon} {
		if _, err := v.verify(mint(t, []byte(testSecret), g)); err != nil {
			t.Fatal(err)
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, f := range families {
		if f.GetName() != "luminate_auth_token_expires_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			found++
			if left := m.GetGauge().GetValue(); m.GetLabel()[0].GetValue() != "a" || left <= 0 || left > 60 {
				t.Errorf("the metric tells %v", m)
			}
		}
	}
	if found != 1 {
		t.Errorf("%d series, want one for the tenant", found)
	}
	if left := v.soonestExpiries()["a"]; left <= 0 || left > time.Minute {
		t.Errorf("expires in %s, want the sooner of both", left)
	}
}

func FuzzVerify(f *testing.F) {
	v := newTestVerifier(f, func(c *AuthConfig) { c.Secret = testSecret; c.PublicKeyFile = publicPEM(f, testRSA) })
	f.Add(mint(f, []byte(testSecret), reader()))
	f.Add(mint(f, testRSA, reader()))
	f.Add("..")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, token string) {
		g, err := v.verify(token)
		if (g == nil) == (err == nil) {
			t.Fatalf("grant %v, error %v", g, err)
		}
		if err == nil && g.tenant.IsZero() {
			t.Fatal("a grant without a tenant")
		}
	})
}

func FuzzParseMatchers(f *testing.F) {
	for _, s := range []string{`a="b"`, `{a=~"b.*",c!="d"}`, "{}", `{__name__="x"}`, `x{a="b"}`, `a="b"} or {x="y"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ms, err := ParseMatchers([]string{text})
		if err == nil && len(ms) == 0 {
			t.Fatalf("%q parses to no matcher: the token would see everything", text)
		}
	})
}
