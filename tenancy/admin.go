package tenancy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/luminate/luminate/storage"
)

// TenantLimits is the answer to a question for a tenant's limits.
type TenantLimits struct {
	Tenant string `json:"tenant"`
	// Limits bind the tenant; rates are for all processes together.
	Limits Limits `json:"limits"`
	// Own are those set for this tenant through the admin API, null if none.
	Own       json.RawMessage `json:"own"`
	Processes int             `json:"processes"`
	Mode      string          `json:"mode"` // enforce or observe
}

// TenantUsage is how much of its limits a tenant uses, as this process knows it.
type TenantUsage struct {
	Limits []limitUse `json:"limits"`
	// SeriesToday estimates the distinct series of the UTC day; 0 where series are
	// not counted because no limit is on them.
	SeriesToday uint64 `json:"seriesToday"`
	StoredBytes uint64 `json:"storedBytes"`
	Accepted    uint64 `json:"acceptedSamples"` // since the process began
}

// mayAsk lets an identity ask for its own tenant, an operator for any.
func mayAsk(ctx context.Context, op string, t storage.Tenant) error {
	if err := t.Validate(); err != nil {
		return err
	}
	if id, ok := FromContext(ctx); ok && !id.Allows(t) {
		return storage.Errorf(storage.KindNotFound, op, "tenant %q is not known", t)
	}
	return nil
}

// TenantLimits returns the limits that bind the tenant, a TenantLimits.
func (l *Limiter) TenantLimits(ctx context.Context, t storage.Tenant) (any, error) {
	if err := mayAsk(ctx, "limits", t); err != nil {
		return nil, err
	}
	out := TenantLimits{Tenant: t.String(), Limits: l.LimitsOf(t), Processes: l.processes(), Mode: "enforce"}
	if l.cfg.Observe {
		out.Mode = "observe"
	}
	l.reloadMu.Lock()
	defer l.reloadMu.Unlock()
	over, err := parseLimitFile(l.adminBytes)
	if err != nil {
		return nil, fmt.Errorf("read limits: %w", err)
	}
	out.Own = over.Tenants[t.String()]
	return out, nil
}

// SetTenantLimits replaces the tenant's own limits by a JSON document with some of
// the keys of Limits; {} or null removes them, so that the file's hold again. It
// returns the TenantLimits that bind from now on, here at once and in processes
// that share the file at their next look. A tenant's own admin may set no more than
// the limits file allows it; an operator sets anything.
func (l *Limiter) SetTenantLimits(ctx context.Context, t storage.Tenant, document json.RawMessage) (any, error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	if err := mayAsk(ctx, "set limits", t); err != nil {
		return nil, err
	}
	if l.file == nil {
		return nil, storage.Errorf(storage.KindInvalid, "set limits", "no limits.file is configured to keep them in")
	}
	base, err := l.fileLimits(t)
	if err != nil {
		return nil, err
	}
	limits, err := applyLimits(base, document)
	if err != nil {
		return nil, storage.Errorf(storage.KindInvalid, "set limits", "%w", err)
	}
	if id, ok := FromContext(ctx); ok && id.Authenticated && !id.Has(ScopeOperator) {
		if key := limits.looser(base); key != "" {
			return nil, storage.Errorf(storage.KindInvalid, "set limits", "%s would be looser than the limits file allows: that needs the scope %q", key, ScopeOperator)
		}
	}
	if err := l.storeLimits(t, document); err != nil {
		return nil, err
	}
	return l.TenantLimits(ctx, t)
}

// fileLimits returns what binds the tenant without the admin API.
func (l *Limiter) fileLimits(t storage.Tenant) (Limits, error) {
	l.reloadMu.Lock()
	defer l.reloadMu.Unlock()
	file, err := parseLimitFile(l.fileBytes)
	if err != nil {
		return Limits{}, fmt.Errorf("read limits: %w", err)
	}
	set, err := buildLimits(l.cfg.Defaults, file, limitFile{})
	if err != nil {
		return Limits{}, fmt.Errorf("read limits: %w", err)
	}
	return set.of(t), nil
}

func (l *Limiter) storeLimits(t storage.Tenant, document json.RawMessage) error {
	l.reloadMu.Lock()
	defer l.reloadMu.Unlock()
	over, err := parseLimitFile(l.adminBytes)
	if err != nil {
		return fmt.Errorf("set limits: %w", err)
	}
	if over.Tenants == nil {
		over.Tenants = map[string]json.RawMessage{}
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, document); err != nil {
		return storage.Errorf(storage.KindInvalid, "set limits", "%w", err)
	}
	if s := compact.String(); s == "{}" || s == "null" {
		delete(over.Tenants, t.String())
	} else {
		over.Tenants[t.String()] = compact.Bytes()
	}
	b, err := json.MarshalIndent(over, "", "  ")
	if err != nil {
		return fmt.Errorf("set limits: %w", err)
	}
	if err := writeAtomically(l.admin.path, append(b, '\n')); err != nil {
		return storage.Errorf(storage.KindUnavailable, "set limits", "write %s: %w", l.admin.path, err)
	}
	if err := l.reloadLocked(); err != nil {
		return storage.Errorf(storage.KindUnavailable, "set limits", "%w", err)
	}
	return nil
}

// TenantUsage returns how much of the limits is used, a TenantUsage.
func (l *Limiter) TenantUsage(ctx context.Context, t storage.Tenant) (any, error) {
	if err := mayAsk(ctx, "usage", t); err != nil {
		return nil, err
	}
	s, now := l.state(t), l.cfg.Now()
	out := TenantUsage{Limits: s.usage(l.processes(), now), StoredBytes: s.bytes.Load(), Accepted: s.accepted.Load()}
	s.mu.Lock()
	if s.series != nil {
		out.SeriesToday = s.series.seriesToday(now)
	}
	s.mu.Unlock()
	return out, nil
}
