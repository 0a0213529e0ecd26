package clickhouse

import (
	"sync"
	"time"

	"github.com/zeebo/xxh3"
)

// seriesCache knows which rows of table series are stored, for each tenant under the
// epoch of its last delete.
type seriesCache struct {
	limit int
	age   time.Duration
	now   func() time.Time

	mu      sync.RWMutex
	tenants map[string]*tenantSeries
	epochs  map[string]int64
}

// tenantSeries is a set of keys in two generations: what was not stored again within
// a generation's life is forgotten, so an entry lives one to two of them.
type tenantSeries struct {
	tenant string
	epoch  int64

	mu       sync.RWMutex
	now, old map[uint64]struct{}
	born     time.Time
}

func newSeriesCache(cfg Config) *seriesCache {
	return &seriesCache{
		limit: cfg.MaxCachedSeries / 2, age: cfg.SeriesCacheAge / 2, now: cfg.now,
		tenants: map[string]*tenantSeries{}, epochs: map[string]int64{},
	}
}

// of returns a tenant's present set.
func (c *seriesCache) of(tenant string) *tenantSeries {
	c.mu.RLock()
	t := c.tenants[tenant]
	c.mu.RUnlock()
	if t != nil {
		return t
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if t = c.tenants[tenant]; t == nil {
		t = &tenantSeries{tenant: tenant, epoch: c.epochs[tenant], now: map[uint64]struct{}{}, born: c.now()}
		c.tenants[tenant] = t
	}
	return t
}

// setEpochs forgets the sets of tenants whose epoch has changed.
func (c *seriesCache) setEpochs(epochs map[string]int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for tenant, e := range epochs {
		if t := c.tenants[tenant]; t != nil && t.epoch != e {
			delete(c.tenants, tenant)
		}
	}
	c.epochs = epochs
}

// rowKey identifies a row of table series within a tenant.
func rowKey(id uint64, day int64, class uint16) uint64 {
	var b [18]byte
	for i := range 8 {
		b[i], b[8+i] = byte(id>>(8*i)), byte(uint64(day)>>(8*i))
	}
	b[16], b[17] = byte(class), byte(class>>8)
	return xxh3.Hash(b[:])
}

// hasLocked tells whether the row is known to be stored. The caller holds mu.
func (t *tenantSeries) hasLocked(key uint64) bool {
	if _, ok := t.now[key]; ok {
		return true
	}
	_, ok := t.old[key]
	return ok
}

// add remembers stored rows.
func (c *seriesCache) add(t *tenantSeries, keys []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := c.now(); len(t.now)+len(keys) > c.limit || now.Sub(t.born) > c.age {
		t.old, t.now, t.born = t.now, make(map[uint64]struct{}, len(keys)), now
	}
	for _, k := range keys {
		t.now[k] = struct{}{}
	}
}
