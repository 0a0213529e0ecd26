package tenancy

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/luminate/luminate/storage"
)

// GateConfig configures a Gate. Start from DefaultGateConfig.
type GateConfig struct {
	Header        string   // that names the tenant
	DefaultTenant string   // of a request without the header, without authentication
	ListedOnly    bool     // only Tenants exist
	Tenants       []string // with ListedOnly
	// OpenInternals serves /metrics and profiles without a token: the listener is on
	// loopback.
	OpenInternals bool
	// AuthRequired refuses every request that needs a token while there is no
	// Verifier.
	AuthRequired bool
	Now          func() time.Time
}

// DefaultGateConfig uses the header of Mimir and Cortex.
func DefaultGateConfig() GateConfig {
	return GateConfig{Header: "X-Scope-OrgID", DefaultTenant: "default", Now: time.Now}
}

// Validate joins every problem.
func (c GateConfig) Validate() error {
	var errs []error
	if c.Header == "" {
		errs = append(errs, errors.New("tenancy: the header's name is empty"))
	}
	if _, err := storage.ParseTenant(c.DefaultTenant); err != nil {
		errs = append(errs, fmt.Errorf("tenancy: default tenant: %w", err))
	}
	for _, name := range c.Tenants {
		if _, err := storage.ParseTenant(name); err != nil {
			errs = append(errs, fmt.Errorf("tenancy: listed tenants: %w", err))
		}
	}
	if c.Now == nil {
		errs = append(errs, errors.New("tenancy: a clock is needed"))
	}
	return errors.Join(errs...)
}

// Gate is the middleware that decides who a request is from, for which tenant, and
// whether it may pass. It is safe for concurrent use.
type Gate struct {
	cfg           GateConfig
	header        string // canonical
	defaultTenant storage.Tenant
	tenants       map[storage.Tenant]bool // nil: any
	verifier      *Verifier               // nil: authentication is off
	limiter       *Limiter                // nil: no limits
	log           *slog.Logger
	metrics       *gateMetrics
	slowdown      *slowdown
	rules         atomic.Pointer[map[routeKey]rule]
}

// NewGate returns a gate. verifier is nil without authentication, limiter nil
// without limits. Check must be called before the gate lets anything pass.
func NewGate(cfg GateConfig, verifier *Verifier, limiter *Limiter, log *slog.Logger, reg prometheus.Registerer) (*Gate, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	g := &Gate{
		cfg: cfg, header: http.CanonicalHeaderKey(cfg.Header), defaultTenant: storage.MustTenant(cfg.DefaultTenant),
		verifier: verifier, limiter: limiter, log: log, metrics: newGateMetrics(reg), slowdown: newSlowdown(),
	}
	if cfg.ListedOnly {
		g.tenants = map[storage.Tenant]bool{}
		for _, name := range cfg.Tenants {
			g.tenants[storage.MustTenant(name)] = true
		}
	}
	return g, nil
}

// authenticates tells whether a token is demanded.
func (g *Gate) authenticates() bool { return g.verifier != nil || g.cfg.AuthRequired }

// Ready tells why requests cannot be served yet: no key is loaded.
func (g *Gate) Ready() error {
	switch {
	case g.verifier != nil:
		return g.verifier.Ready()
	case g.cfg.AuthRequired:
		return errors.New("authentication: it is demanded and no key is configured")
	default:
		return nil
	}
}

// Middleware wraps the handlers of a gorilla/mux router; it needs the matched
// route.
func (g *Gate) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rule, ok := g.ruleOf(r)
		if !ok { // cannot be after Check; a route that slipped through stays shut
			g.refuse(w, r, rule, refuse(http.StatusForbidden, "route", "this route has no scope"))
			return
		}
		if rule.scope == ScopeNone || rule.internal && (g.cfg.OpenInternals || !g.authenticates()) {
			next.ServeHTTP(w, r)
			return
		}
		id, fail := g.identify(r, rule)
		if fail != nil {
			g.refuse(w, r, rule, fail)
			return
		}
		r = r.WithContext(NewContext(r.Context(), id))
		if rule.audit {
			sw := &statusRecorder{ResponseWriter: w}
			notes := &auditNotes{}
			r = r.WithContext(context.WithValue(r.Context(), auditKey{}, notes))
			defer g.audit(r, id, sw, notes, g.cfg.Now())
			w = sw
		}
		if g.limiter != nil && rule.load != loadNone {
			admitted, release, fail := g.limiter.admit(w, r, id, rule)
			if fail != nil {
				g.refuse(w, r, rule, fail)
				return
			}
			defer release()
			r = admitted
		}
		next.ServeHTTP(w, r)
	})
}

// ruleOf looks the matched route up.
func (g *Gate) ruleOf(r *http.Request) (rule, bool) {
	rules := g.rules.Load()
	if rules == nil {
		return rule{}, false
	}
	found, ok := (*rules)[routeKey{mux.CurrentRoute(r), r.Method}]
	if found.style == styleByBody {
		switch {
		case isJSONBody(r):
			found.style = styleNative
		case found.scope == ScopeRead:
			found.style = stylePrometheus
		default:
			found.style = styleText
		}
	}
	return found, ok
}

// identify authenticates, chooses the tenant, and checks the scope, in this order.
func (g *Gate) identify(r *http.Request, rule rule) (Identity, *refusal) {
	var who *grant
	if g.authenticates() {
		var fail *refusal
		if who, fail = g.authenticate(r); fail != nil {
			return Identity{}, fail
		}
	}
	tenants, fail := g.chooseTenant(r, who, rule)
	if fail != nil {
		return Identity{}, fail
	}
	if who != nil && foreignHeader(r, tenants) {
		return Identity{}, refuse(http.StatusForbidden, "tenant", "the header THANOS-TENANT names another tenant than the token")
	}
	id := Identity{Tenant: tenants[0]}
	if len(tenants) > 1 {
		id.Federated = tenants
	}
	if who == nil {
		return id, nil
	}
	id.Authenticated, id.Subject, id.Scopes = true, who.subject, who.scopes
	id.Matchers, id.Expires = who.matchers, who.expires
	return id, mayCall(id, r, rule)
}

// mayCall checks the scope, what a narrowed token may not see, and the tenant that
// an admin route names in its path.
func mayCall(id Identity, r *http.Request, rule rule) *refusal {
	if !id.Has(rule.scope) {
		return refuse(http.StatusForbidden, "scope", "the token lacks the scope %q", rule.scope)
	}
	if rule.whole && len(id.Matchers) > 0 {
		return refuse(http.StatusForbidden, "scope", "the token is narrowed by matchers, and this route is about a whole tenant")
	}
	if rule.scope != ScopeAdmin {
		return nil
	}
	vars := mux.Vars(r)
	for _, key := range []string{"tenant", "t"} {
		if name, ok := vars[key]; ok && name != id.Tenant.String() && !id.Has(ScopeOperator) {
			return refuse(http.StatusForbidden, "tenant", "the token is not for the tenant in the path")
		}
	}
	return nil
}

// authenticate finds and verifies the token.
func (g *Gate) authenticate(r *http.Request) (*grant, *refusal) {
	token, err := tokenOf(r)
	var who *grant
	if err == nil {
		if g.verifier == nil {
			err = refuseToken(reasonNoKeys, "no key to verify tokens with is configured")
		} else {
			who, err = g.verifier.verify(token)
		}
	}
	if err == nil {
		return who, nil
	}
	reason := reasonSignature
	var te *tokenError
	if errors.As(err, &te) {
		reason = te.reason
	}
	if reason == reasonNoKeys && g.verifier != nil { // our own fault: a sender keeps its data
		return nil, refuse(http.StatusServiceUnavailable, reason, "%s", err)
	}
	if retry, ok := g.slowdown.failed(r.RemoteAddr, g.cfg.Now()); !ok {
		f := refuse(http.StatusTooManyRequests, "auth_"+reason, "too many requests with a bad token from this address: %s", err)
		f.limit = &LimitError{err: &storage.Error{Kind: storage.KindLimited, ID: "failed-authentications", Err: err}, Retry: retry}
		return nil, f
	}
	return nil, refuse(http.StatusUnauthorized, "auth_"+reason, "%s", err)
}

// tokenOf takes the token from a Bearer header, or from the password of basic
// authentication: what Prometheus, Grafana and agents can all send. The user's name
// is not used.
func tokenOf(r *http.Request) (string, error) {
	values := r.Header["Authorization"]
	switch len(values) {
	case 0:
		return "", refuseToken(reasonMissing, "a token is needed: Authorization: Bearer <token>, or basic authentication with the token as the password")
	case 1:
	default:
		return "", refuseToken(reasonMalformed, "the header Authorization stands more than once")
	}
	scheme, rest, _ := strings.Cut(values[0], " ")
	rest = strings.TrimSpace(rest)
	switch {
	case strings.EqualFold(scheme, "Bearer"):
		return rest, nil
	case strings.EqualFold(scheme, "Basic"):
		b, err := base64.StdEncoding.DecodeString(rest)
		if err != nil {
			return "", refuseToken(reasonMalformed, "basic authentication is not base64")
		}
		_, password, ok := strings.Cut(string(b), ":")
		if !ok {
			return "", refuseToken(reasonMalformed, "basic authentication has no password")
		}
		return password, nil
	default:
		return "", refuseToken(reasonMalformed, "authentication scheme is neither Bearer nor Basic")
	}
}

// refuse counts and answers a refusal.
func (g *Gate) refuse(w http.ResponseWriter, r *http.Request, rule rule, f *refusal) {
	g.metrics.refused.WithLabelValues(f.reason).Inc()
	if rule.audit {
		g.log.Warn("audit: refused", "method", r.Method, "path", r.URL.Path, "status", f.status, "reason", f.reason,
			"remote", r.RemoteAddr, "request_id", r.Header.Get("X-Request-Id"))
	}
	f.answer(w, rule.style)
}

// auditNotes are what a handler adds to its call's audit line.
type auditNotes struct {
	mu   sync.Mutex
	args []any
}

type auditKey struct{}

// NoteAudit adds pairs of key and value to the audit line of the call that ctx is of;
// nothing where there is none.
func NoteAudit(ctx context.Context, args ...any) {
	if n, ok := ctx.Value(auditKey{}).(*auditNotes); ok {
		n.mu.Lock()
		n.args = append(n.args, args...)
		n.mu.Unlock()
	}
}

// audit writes one line for an admin call, whatever came of it.
func (g *Gate) audit(r *http.Request, id Identity, w *statusRecorder, notes *auditNotes, start time.Time) {
	args := []any{
		"method", r.Method, "path", r.URL.Path, "query", r.URL.RawQuery, "status", w.code(), "tenant", id.Tenant.String(),
		"subject", id.Subject, "remote", r.RemoteAddr, "request_id", r.Header.Get("X-Request-Id"), "duration", g.cfg.Now().Sub(start),
	}
	notes.mu.Lock()
	args = append(args, notes.args...)
	notes.mu.Unlock()
	g.log.Info("audit", args...)
}

// statusRecorder remembers the status for the audit line.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusRecorder) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusRecorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush implements http.Flusher, for a backup that streams.
func (w *statusRecorder) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

func (w *statusRecorder) code() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}
