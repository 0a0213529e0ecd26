package tenancy

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"
)

// AuthConfig configures a Verifier. Start from DefaultAuthConfig.
type AuthConfig struct {
	Secret        string // HS256 secret itself, from the environment
	SecretFile    string // HS256 secrets, one a line
	PublicKeyFile string // PEM: RSA, ECDSA, Ed25519 public keys or certificates
	KeySetURL     string // JSON Web Key Set
	Issuer        string // demanded iss, "" = not checked
	Audience      string // demanded aud, "" = not checked
	Leeway        time.Duration
	RevokedFile   string // one jti or subject a line
	// Reload is the time between looks at the files, KeySetRefresh between fetches of
	// the key set.
	Reload, KeySetRefresh time.Duration
	MaxTokenBytes         int // longer tokens are refused unread
	CachedTokens          int // verified tokens that are remembered
	Client                *http.Client
	Now                   func() time.Time
}

// DefaultAuthConfig returns the defaults: files are looked at each 5 s and the key
// set is fetched each 30 s.
func DefaultAuthConfig() AuthConfig {
	return AuthConfig{
		Leeway: 30 * time.Second, Reload: 5 * time.Second, KeySetRefresh: 30 * time.Second,
		MaxTokenBytes: 16 << 10, CachedTokens: 4096,
		Client: &http.Client{Timeout: 10 * time.Second}, Now: time.Now,
	}
}

// Validate joins every problem.
func (c AuthConfig) Validate() error {
	var errs []error
	positive := func(name string, v int64) {
		if v <= 0 {
			errs = append(errs, fmt.Errorf("auth: %s must be positive, it is %d", name, v))
		}
	}
	positive("reload", int64(c.Reload))
	positive("keySetRefresh", int64(c.KeySetRefresh))
	positive("maxTokenBytes", int64(c.MaxTokenBytes))
	positive("cachedTokens", int64(c.CachedTokens))
	if c.Leeway < 0 || c.Leeway > time.Hour {
		errs = append(errs, fmt.Errorf("auth: leeway must be 0 to 1h, it is %s", c.Leeway))
	}
	if c.Client == nil || c.Now == nil {
		errs = append(errs, errors.New("auth: a client and a clock are needed"))
	}
	return errors.Join(errs...)
}

// The reasons for which a token is refused; a closed set fit for metric labels.
// What they tell beyond "signature" is told to holders of a rightly signed token
// only.
const (
	reasonMissing   = "missing"
	reasonMalformed = "malformed"
	reasonSignature = "signature"
	reasonClaims    = "claims"
	reasonExpired   = "expired"
	reasonRevoked   = "revoked"
	reasonNoKeys    = "no_keys"
)

// tokenError is a refused token: 401.
type tokenError struct{ reason, message string }

func (e *tokenError) Error() string { return e.message }

func refuseToken(reason, format string, args ...any) *tokenError {
	return &tokenError{reason: reason, message: fmt.Sprintf(format, args...)}
}

// Verifier verifies tokens. Its methods are safe for concurrent use; Run keeps its
// keys and its list of revoked tokens fresh.
type Verifier struct {
	cfg     AuthConfig
	log     *slog.Logger
	metrics *authMetrics

	ring    atomic.Pointer[keyRing]
	revoked atomic.Pointer[revocations]

	secret, public, revokedFile *watchedFile // nil where not configured; Run's alone
	secretKeys, publicKeys      []verifyKey
	setKeys                     []verifyKey

	mu    sync.Mutex
	cache map[[sha256.Size]byte]*verified
}

// verified is a remembered token.
type verified struct {
	grant *grant
	ring  *keyRing // that verified it
	used  atomic.Int64
}

// NewVerifier reads the configured files; a file that cannot be read is an error. A
// key set is fetched by Run, and until then no token of it is accepted.
func NewVerifier(cfg AuthConfig, log *slog.Logger, reg prometheus.Registerer) (*Verifier, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	v := &Verifier{cfg: cfg, log: log, cache: map[[sha256.Size]byte]*verified{}}
	v.ring.Store(&keyRing{})
	v.revoked.Store(&revocations{})
	if cfg.SecretFile != "" {
		v.secret = &watchedFile{path: cfg.SecretFile}
	}
	if cfg.PublicKeyFile != "" {
		v.public = &watchedFile{path: cfg.PublicKeyFile}
	}
	if cfg.RevokedFile != "" {
		v.revokedFile = &watchedFile{path: cfg.RevokedFile}
	}
	v.metrics = newAuthMetrics(reg, v)
	if err := v.reloadFiles(); err != nil {
		return nil, err
	}
	if cfg.Secret != "" {
		keys, err := parseSecrets([]byte(cfg.Secret))
		if err != nil {
			return nil, fmt.Errorf("JWT secret of the environment: %w", err)
		}
		v.secretKeys = append(v.secretKeys, keys...)
	}
	v.publish()
	return v, nil
}

// reloadFiles reads what has changed; what is broken keeps its old content.
func (v *Verifier) reloadFiles() error {
	return errors.Join(
		v.reload("secret", v.secret, func(b []byte) error {
			keys, err := parseSecrets(b)
			if err == nil && v.cfg.Secret != "" {
				var env []verifyKey
				env, err = parseSecrets([]byte(v.cfg.Secret))
				keys = append(keys, env...)
			}
			if err == nil {
				v.secretKeys = keys
				v.publish()
			}
			return err
		}),
		v.reload("public_key", v.public, func(b []byte) error {
			keys, err := parsePublicKeys(b)
			if err == nil {
				v.publicKeys = keys
				v.publish()
			}
			return err
		}),
		v.reload("revoked", v.revokedFile, func(b []byte) error {
			set, err := parseRevoked(b)
			if err == nil {
				v.revoked.Store(&set)
			}
			return err
		}),
	)
}

func (v *Verifier) reload(what string, f *watchedFile, use func([]byte) error) error {
	if f == nil {
		return nil
	}
	b, changed, err := f.load()
	if err == nil && changed {
		if err = use(b); err != nil {
			f.read = false // tell again at the next look
		}
	}
	v.metrics.reloaded(what, err == nil, v.cfg.Now())
	if err != nil {
		return fmt.Errorf("load %s file %s: %w", what, f.path, err)
	}
	return nil
}

// publish makes the keys of all sources the ones that hold.
func (v *Verifier) publish() {
	r := &keyRing{}
	r.keys = append(r.keys, v.secretKeys...)
	r.keys = append(r.keys, v.publicKeys...)
	r.keys = append(r.keys, v.setKeys...)
	v.ring.Store(r)
}

// Run keeps keys and revocations fresh until ctx is done. It fetches the key set at
// once.
func (v *Verifier) Run(ctx context.Context) error {
	files := time.NewTicker(v.cfg.Reload)
	defer files.Stop()
	set := time.NewTicker(v.cfg.KeySetRefresh)
	defer set.Stop()
	v.refreshKeySet(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-files.C:
			if err := v.reloadFiles(); err != nil {
				v.log.Error("keep the old keys and revocations", "err", err)
			}
			if len(v.setKeys) == 0 { // not yet ready: do not wait for the long tick
				v.refreshKeySet(ctx)
			}
		case <-set.C:
			v.refreshKeySet(ctx)
		}
	}
}

// refreshKeySet fetches the key set; an outage keeps the known keys.
func (v *Verifier) refreshKeySet(ctx context.Context) {
	if v.cfg.KeySetURL == "" {
		return
	}
	keys, skipped, err := fetchKeySet(ctx, v.cfg.Client, v.cfg.KeySetURL)
	for _, s := range skipped {
		v.log.Debug("key of the key set is not used", "err", s)
	}
	v.metrics.reloaded("key_set", err == nil, v.cfg.Now())
	if err != nil {
		if ctx.Err() == nil {
			v.log.Error("keep the known keys", "url", v.cfg.KeySetURL, "err", err)
		}
		return
	}
	if sameKeys(keys, v.setKeys) {
		return
	}
	v.setKeys = keys
	v.publish()
	v.log.Info("key set changed", "keys", len(keys))
}

func sameKeys(a, b []verifyKey) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].kid != b[i].kid || !equalKeys(a[i].key, b[i].key) || strings.Join(a[i].methods, " ") != strings.Join(b[i].methods, " ") {
			return false
		}
	}
	return true
}

// Ready tells why no token can be verified yet, nil once one can.
func (v *Verifier) Ready() error {
	if len(v.ring.Load().keys) == 0 {
		return errors.New("authentication: no key is loaded yet")
	}
	return nil
}

// verify returns what the token allows. The error is a *tokenError.
func (v *Verifier) verify(token string) (*grant, error) {
	if len(token) > v.cfg.MaxTokenBytes {
		return nil, refuseToken(reasonMalformed, "the token has %d bytes, at most %d are allowed", len(token), v.cfg.MaxTokenBytes)
	}
	ring, now := v.ring.Load(), v.cfg.Now()
	sum := sha256.Sum256([]byte(token))
	v.mu.Lock()
	known := v.cache[sum]
	v.mu.Unlock()
	var g *grant
	if known != nil && known.ring == ring {
		g = known.grant
		known.used.Store(now.UnixNano())
		if err := v.checkTimes(g, now); err != nil {
			return nil, err
		}
	} else {
		var err error
		if g, err = v.parse(token, ring); err != nil {
			return nil, err
		}
		v.remember(sum, g, ring, now)
	}
	if v.revoked.Load().has(g) {
		return nil, refuseToken(reasonRevoked, "the token is revoked")
	}
	return g, nil
}

// checkTimes repeats for a remembered token what parse checked for a new one.
func (v *Verifier) checkTimes(g *grant, now time.Time) error {
	if !now.Before(g.expires.Add(v.cfg.Leeway)) {
		return refuseToken(reasonExpired, "the token has expired")
	}
	if !g.before.IsZero() && now.Before(g.before.Add(-v.cfg.Leeway)) {
		return refuseToken(reasonExpired, "the token is not valid yet")
	}
	return nil
}

// parse verifies a token in full.
func (v *Verifier) parse(token string, ring *keyRing) (*grant, error) {
	if len(ring.keys) == 0 {
		return nil, refuseToken(reasonNoKeys, "no key to verify tokens with is loaded")
	}
	if strings.Count(token, ".") != 2 {
		return nil, refuseToken(reasonMalformed, "the token is not a JSON Web Token")
	}
	options := []jwt.ParserOption{
		jwt.WithValidMethods(ring.methods()), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithLeeway(v.cfg.Leeway), jwt.WithStrictDecoding(), jwt.WithTimeFunc(v.cfg.Now),
	}
	if v.cfg.Issuer != "" {
		options = append(options, jwt.WithIssuer(v.cfg.Issuer))
	}
	if v.cfg.Audience != "" {
		options = append(options, jwt.WithAudience(v.cfg.Audience))
	}
	var c tokenClaims
	if _, err := jwt.NewParser(options...).ParseWithClaims(token, &c, ring.keysFor); err != nil {
		return nil, tokenErrorOf(err)
	}
	g, err := grantOf(&c)
	if err != nil {
		return nil, refuseToken(reasonClaims, "%s", err)
	}
	return g, nil
}

// keysFor is the jwt.Keyfunc: it looks keys up in memory, by the header alone.
func (r *keyRing) keysFor(t *jwt.Token) (any, error) {
	if _, ok := t.Header["crit"]; ok {
		return nil, errors.New("critical headers are not supported")
	}
	kid := ""
	if raw, ok := t.Header["kid"]; ok {
		if kid, ok = raw.(string); !ok || !plausibleKeyID(kid) {
			return nil, errors.New("bad key id")
		}
	}
	found := r.find(t.Method.Alg(), kid)
	if len(found) == 0 {
		return nil, errors.New("no key fits the token")
	}
	set := jwt.VerificationKeySet{}
	for _, k := range found {
		set.Keys = append(set.Keys, k)
	}
	return set, nil
}

// plausibleKeyID refuses ids that only an attack has: paths, control characters,
// endless ones. An id is compared and never used for anything else.
func plausibleKeyID(kid string) bool {
	return kid != "" && len(kid) <= 256 && !strings.Contains(kid, "..") && !strings.HasPrefix(kid, "/") &&
		!strings.ContainsFunc(kid, func(c rune) bool { return c < '!' || c > '~' })
}

// tokenErrorOf translates the library's errors. Claims are validated after the
// signature, so only a holder of a signed token learns of them.
func tokenErrorOf(err error) *tokenError {
	switch {
	case errors.Is(err, jwt.ErrTokenMalformed):
		return refuseToken(reasonMalformed, "the token is not a JSON Web Token")
	case errors.Is(err, jwt.ErrTokenExpired):
		return refuseToken(reasonExpired, "the token has expired")
	case errors.Is(err, jwt.ErrTokenNotValidYet), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return refuseToken(reasonExpired, "the token is not valid yet")
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return refuseToken(reasonClaims, "the token lacks a claim that is demanded: exp, and iss or aud where they are configured")
	case errors.Is(err, jwt.ErrTokenInvalidIssuer), errors.Is(err, jwt.ErrTokenInvalidAudience):
		return refuseToken(reasonClaims, "the token is for another issuer or audience")
	case errors.Is(err, jwt.ErrTokenInvalidClaims):
		return refuseToken(reasonClaims, "the token's claims are not valid")
	default:
		return refuseToken(reasonSignature, "the token's signature does not verify")
	}
}

// remember keeps a verified token. When the cache is full, tokens that have
// expired make room, and if none has, any: a token forgotten is verified again.
func (v *Verifier) remember(sum [sha256.Size]byte, g *grant, ring *keyRing, now time.Time) {
	entry := &verified{grant: g, ring: ring}
	entry.used.Store(now.UnixNano())
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.cache) >= v.cfg.CachedTokens {
		v.evictLocked(now)
	}
	v.cache[sum] = entry
}

func (v *Verifier) evictLocked(now time.Time) {
	for k, e := range v.cache {
		if e.grant.expires.Before(now) || e.ring != v.ring.Load() {
			delete(v.cache, k)
		}
	}
	for k := range v.cache { // in the map's random order
		if len(v.cache) < v.cfg.CachedTokens {
			return
		}
		delete(v.cache, k)
	}
}

// soonestExpiries returns, for each tenant, the time to expiry of the token that
// expires first among those used within the last hour.
func (v *Verifier) soonestExpiries() map[string]time.Duration {
	now := v.cfg.Now()
	out := map[string]time.Duration{}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range v.cache {
		if now.Sub(time.Unix(0, e.used.Load())) > time.Hour {
			continue
		}
		left, label := e.grant.expires.Sub(now), e.grant.label()
		if known, ok := out[label]; !ok || left < known {
			out[label] = left
		}
	}
	return out
}
