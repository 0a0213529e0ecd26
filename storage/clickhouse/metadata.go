package clickhouse

import (
	"context"
	"maps"
	"strings"
	"sync"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/luminate/luminate/storage"
)

// metadataCache remembers what is stored, because senders repeat it every minute.
type metadataCache struct {
	mu      sync.Mutex
	tenants map[string]map[string]storage.Metadata
}

func newMetadataCache() *metadataCache {
	return &metadataCache{tenants: map[string]map[string]storage.Metadata{}}
}

// maxCachedMetadata bounds the metrics remembered for a tenant.
const maxCachedMetadata = 100_000

// news returns the entries that differ from what is known; of several for one metric
// the last.
func (c *metadataCache) news(tenant string, ms []storage.Metadata) map[string]storage.Metadata {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.tenants[tenant]
	out := map[string]storage.Metadata{}
	for _, m := range ms {
		if old, ok := known[m.Metric]; ok && old == m {
			delete(out, m.Metric)
			continue
		}
		out[m.Metric] = m
	}
	return out
}

func (c *metadataCache) stored(tenant string, ms map[string]storage.Metadata) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.tenants[tenant]
	if known == nil || len(known) > maxCachedMetadata {
		known = map[string]storage.Metadata{}
		c.tenants[tenant] = known
	}
	maps.Copy(known, ms)
}

func (c *metadataCache) forget(tenant string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.tenants, tenant)
}

// storeMetadata stores what changed. The last writer wins, by the server's clock.
func (s *Store) storeMetadata(ctx context.Context, t storage.Tenant, ms []storage.Metadata) error {
	if len(ms) == 0 {
		return nil
	}
	news := s.metadata.news(t.String(), ms)
	if len(news) == 0 {
		return nil
	}
	var tenants, metrics, types, units, helps []string
	for name, m := range news {
		m.Metric = strings.Clone(name)
		m.Type, m.Unit, m.Help = storage.MetricType(strings.Clone(string(m.Type))), strings.Clone(m.Unit), strings.Clone(m.Help)
		delete(news, name)
		news[m.Metric] = m
		tenants, metrics, types = append(tenants, t.String()), append(metrics, m.Metric), append(types, string(m.Type))
		units, helps = append(units, m.Unit), append(helps, m.Help)
	}
	err := s.insert(ctx, s.home(), render("write/insert_metadata", nil), newToken(), []any{tenants, metrics, types, units, helps})
	s.discovery.changed(t.String())
	if err == nil {
		s.metadata.stored(t.String(), news)
	}
	return err
}

// Metadata implements storage.Store.
func (s *Store) Metadata(ctx context.Context, t storage.Tenant, q storage.MetadataQuery) ([]storage.Metadata, error) {
	if err := s.enter(ctx, "metadata", t); err != nil {
		return nil, err
	}
	out, err := s.listMetadata(ctx, t, q)
	return out, translate(ctx, "metadata", err)
}

func (s *Store) readMetadata(ctx context.Context, t storage.Tenant, q storage.MetadataQuery) ([]storage.Metadata, error) {
	var p params
	where := "tenant = " + p.str(t.String())
	if q.Metric != "" {
		where += " AND metric = " + p.str(q.Metric)
	}
	var out []storage.Metadata
	sql := render("read/metadata", fragments{"Where": where, "Limit": p.i64(int64(s.listLimit(q.Limit)))})
	err := s.each(ctx, s.home(), sql, p.args, func(r driver.Rows) error {
		var m storage.Metadata
		var typ string
		err := r.Scan(&m.Metric, &typ, &m.Unit, &m.Help)
		m.Type = storage.MetricType(typ)
		out = append(out, m)
		return err
	})
	return out, err
}
