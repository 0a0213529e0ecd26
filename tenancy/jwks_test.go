package tenancy

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// keySetServer serves a key set that tests change, and counts fetches.
type keySetServer struct {
	*httptest.Server
	body    atomic.Pointer[string]
	fetches atomic.Int64
}

func newKeySetServer(t testing.TB, body string) *keySetServer {
	s := &keySetServer{}
	s.body.Store(&body)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.fetches.Add(1)
		if b := *s.body.Load(); b != "" {
			_, _ = w.Write([]byte(b))
			return
		}
		w.WriteHeader(http.StatusBadGateway)
	}))
	t.Cleanup(s.Close)
	return s
}

func jwkOf(kid, extra string, key any) string {
	b64 := func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	var body string
	switch k := key.(type) {
	case *rsa.PrivateKey:
		body = `"kty":"RSA","n":"` + b64(k.N.Bytes()) + `","e":"` + b64(big.NewInt(int64(k.E)).Bytes()) + `"`
	case *ecdsa.PrivateKey:
		body = `"kty":"EC","crv":"` + k.Params().Name + `","x":"` + b64(k.X.FillBytes(make([]byte, 32))) + `","y":"` + b64(k.Y.FillBytes(make([]byte, 32))) + `"`
	case ed25519.PrivateKey:
		body = `"kty":"OKP","crv":"Ed25519","x":"` + b64(k.Public().(ed25519.PublicKey)) + `"`
	case []byte:
		body = `"kty":"oct","k":"` + b64(k) + `"`
	}
	if kid != "" {
		body += `,"kid":"` + kid + `"`
	}
	return "{" + body + extra + "}"
}

func keySet(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }

func TestKeySet(t *testing.T) {
	srv := newKeySetServer(t, "")
	v := newTestVerifier(t, func(c *AuthConfig) { c.KeySetURL = srv.URL })
	ctx := context.Background()
	withKid := func(kid string) Grant { g := reader(); g.KeyID = kid; return g }
	one, two := mint(t, testRSA, withKid("one")), mint(t, testECDSA, withKid("two"))
	bare := mint(t, testRSA, reader())
	check := func(when string, want map[string]bool) {
		t.Helper()
		for token, ok := range want {
			if _, err := v.verify(token); (err == nil) != ok {
				t.Errorf("%s: verified %v (%v), want %v", when, err == nil, err, ok)
			}
		}
	}
	if v.Ready() == nil {
		t.Error("ready without a key")
	}
	if _, err := v.verify(one); reasonOf(err) != reasonNoKeys {
		t.Errorf("no keys yet: %v", err)
	}
	v.refreshKeySet(ctx) // an outage at the start
	set := func(body string) { srv.body.Store(&body); v.refreshKeySet(ctx) }
	set(keySet(jwkOf("one", "", testRSA)))
	if v.Ready() != nil {
		t.Error("not ready with a key")
	}
	check("one key", map[string]bool{one: true, two: false, bare: true})
	set(keySet(jwkOf("one", "", testRSA), jwkOf("two", "", testECDSA)))
	check("both keys", map[string]bool{one: true, two: true, bare: true}) // only one of them fits RS256
	set(keySet(jwkOf("one", "", testRSA), jwkOf("again", "", testRSA)))
	check("two RSA keys and no kid", map[string]bool{one: true, bare: false})
	set("")
	check("outage", map[string]bool{one: true})
	set("<html>")
	set(`{"keys":[]}`)
	check("garbage", map[string]bool{one: true})
	set(keySet(jwkOf("two", "", testECDSA)))
	check("removed", map[string]bool{one: false, two: true})
	set(keySet(jwkOf("one", `,"alg":"RS512"`, testRSA), jwkOf("two", "", testECDSA)))
	check("alg of the key", map[string]bool{one: false, two: true})
	set(keySet(jwkOf("one", `,"use":"enc"`, testRSA), jwkOf("two", "", testECDSA)))
	check("key for encryption", map[string]bool{one: false, two: true})
	set(keySet(jwkOf("oct", "", []byte(testSecret)), jwkOf("two", "", testECDSA)))
	check("a secret in a public set", map[string]bool{mint(t, []byte(testSecret), withKid("oct")): false, two: true})
	set(keySet(jwkOf("ed", "", testEd), `{"kty":"unheard-of"}`, "7"))
	check("keys of no use are left out", map[string]bool{mint(t, testEd, withKid("ed")): true})

	before := srv.fetches.Load()
	for i := range 1000 {
		_, _ = v.verify(mint(t, []byte(testSecret), withKid("unknown-"+string(rune('a'+i%26)))))
	}
	if n := srv.fetches.Load() - before; n != 0 {
		t.Errorf("1,000 unknown key ids caused %d fetches", n)
	}
}

// TestRunFollowsKeySet lets the background loop find a rotated key.
func TestRunFollowsKeySet(t *testing.T) {
	srv := newKeySetServer(t, keySet(jwkOf("one", "", testRSA)))
	v := newTestVerifier(t, func(c *AuthConfig) {
		c.KeySetURL, c.KeySetRefresh, c.Reload = srv.URL, 5*time.Millisecond, 5*time.Millisecond
		c.Client = srv.Client()
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- v.Run(ctx) }()
	defer func() { cancel(); <-done; srv.Client().CloseIdleConnections() }()
	g := reader()
	g.KeyID = "two"
	token := mint(t, testEd, g)
	body := keySet(jwkOf("two", "", testEd))
	srv.body.Store(&body)
	until(t, func() bool { _, err := v.verify(token); return err == nil })
}
