package clickhouse

import (
	"context"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/luminate/luminate/storage"
)

// policies are a tenant's retention, most specific first.
type policies struct {
	list        []storage.RetentionPolicy
	defaultDays int
}

// days returns how long a metric is kept, 0 for ever.
func (p policies) days(metric string) int {
	return storage.RetentionOf(p.list, metric, p.defaultDays)
}

// mint returns the oldest visible time of a metric.
func (p policies) mint(metric string, now int64) int64 { return oldestOf(p.days(metric), now) }

// oldest returns the oldest time that any metric can show.
func (p policies) oldest(now int64) int64 {
	t := oldestOf(p.defaultDays, now)
	for _, x := range p.list {
		t = min(t, oldestOf(x.Days, now))
	}
	return t
}

func oldestOf(days int, now int64) int64 {
	if days == 0 {
		return minTime
	}
	return now - int64(days)*dayMillis
}

// policyCache keeps policies for Config.SettingsAge.
type policyCache struct {
	mu      sync.Mutex
	tenants map[string]cachedPolicies
}

type cachedPolicies struct {
	policies
	read time.Time
}

func (c *policyCache) get(tenant string, oldest time.Time) (policies, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.tenants[tenant]
	return p.policies, ok && p.read.After(oldest)
}

func (c *policyCache) put(tenant string, p policies, read time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tenants == nil || len(c.tenants) > 100_000 {
		c.tenants = map[string]cachedPolicies{}
	}
	c.tenants[tenant] = cachedPolicies{p, read}
}

func (c *policyCache) forget(tenant string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.tenants, tenant)
}

func (s *Store) policiesOf(ctx context.Context, t storage.Tenant) (policies, error) {
	if p, ok := s.policies.get(t.String(), time.Now().Add(-s.cfg.SettingsAge)); ok {
		return p, nil
	}
	read := time.Now()
	p, err := s.readPolicies(ctx, t.String())
	if err == nil {
		s.policies.put(t.String(), p, read)
	}
	return p, err
}

func (s *Store) readPolicies(ctx context.Context, tenant string) (policies, error) {
	out := policies{defaultDays: s.cfg.RetentionDays}
	var p params
	sql := render("read/retention", fragments{"Where": "tenant = " + p.str(tenant)})
	err := s.each(ctx, s.home(), sql, p.args, func(r driver.Rows) error {
		var metric string
		var days uint32
		var removed uint8
		err := r.Scan(&metric, &days, &removed)
		out.list = append(out.list, storage.RetentionPolicy{Metric: metric, Days: int(days)})
		return err
	})
	storage.SortRetention(out.list)
	return out, err
}

// Retention implements storage.Store.
func (s *Store) Retention(ctx context.Context, t storage.Tenant) ([]storage.RetentionPolicy, error) {
	if err := s.enter(ctx, "retention", t); err != nil {
		return nil, err
	}
	p, err := s.readPolicies(ctx, t.String())
	return p.list, translate(ctx, "retention", err)
}

// SetRetention implements storage.Store. Other processes obey it within
// Config.SettingsAge. Data that is stored already keeps the class of its partition: a
// longer policy does not keep it longer.
func (s *Store) SetRetention(ctx context.Context, t storage.Tenant, p storage.RetentionPolicy) error {
	if err := s.enter(ctx, "set retention", t); err != nil {
		return err
	}
	if err := p.Validate(); err != nil {
		return err
	}
	return s.writePolicy(ctx, "set retention", t, p, 0)
}

func (s *Store) writePolicy(ctx context.Context, op string, t storage.Tenant, p storage.RetentionPolicy, removed uint8) error {
	err := s.insert(ctx, s.home(), render("write/insert_retention", nil), newToken(),
		[]any{[]string{t.String()}, []string{p.Metric}, []uint32{uint32(p.Days)}, []uint8{removed}})
	s.policies.forget(t.String())
	s.discovery.changed(t.String())
	return translate(ctx, op, err)
}

// RemoveRetention implements storage.Store.
func (s *Store) RemoveRetention(ctx context.Context, t storage.Tenant, metric string) error {
	if err := s.enter(ctx, "remove retention", t); err != nil {
		return err
	}
	have, err := s.readPolicies(ctx, t.String())
	if err != nil {
		return translate(ctx, "remove retention", err)
	}
	for _, p := range have.list {
		if p.Metric == metric {
			return s.writePolicy(ctx, "remove retention", t, p, 1)
		}
	}
	return storage.Errorf(storage.KindNotFound, "remove retention", "no policy for %q", metric)
}
