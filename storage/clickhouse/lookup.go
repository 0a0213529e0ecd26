package clickhouse

import (
	"context"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/internal/lookup"
)

// discovery keeps answers of look-ups. What this process stores, deletes or sets
// itself changes the tenant's generation, and so is seen at once; what other processes
// do is seen after Config.DiscoveryCacheAge at the latest.
type discovery struct {
	cache *lookup.Cache
	age   time.Duration
	now   func() time.Time

	mu          sync.Mutex
	last        uint64            // generation that was given out last
	others      uint64            // generation of the tenants that are not in the map
	generations map[string]uint64 // by tenant
}

// maxGenerations bounds the tenants whose generations are told apart.
const maxGenerations = 100_000

func newDiscovery(cache *lookup.Cache, cfg Config) *discovery {
	return &discovery{cache: cache, age: cfg.DiscoveryCacheAge, now: cfg.now, generations: map[string]uint64{}}
}

// changed is called when a change can be seen by reads, before it is acknowledged.
func (d *discovery) changed(tenant string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last++
	if len(d.generations) >= maxGenerations {
		d.generations, d.others = map[string]uint64{}, d.last
		d.last++
	}
	d.generations[tenant] = d.last
}

func (d *discovery) generation(tenant string) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if g, ok := d.generations[tenant]; ok {
		return g
	}
	return d.others
}

// key begins the key of a tenant's answer. It is made before the database is asked.
func (d *discovery) key(tenant, op string) lookup.Key {
	return lookup.Key(nil).Text(tenant).Number(d.generation(tenant)).Number(uint64(d.now().UnixNano()) / uint64(d.age)).Text(op)
}

// selectionKey adds what a selection's answer depends on, beside the rows: days,
// matchers, limit, and the policies in force.
func selectionKey(k lookup.Key, sel selection, limit int) lookup.Key {
	k = k.Number(uint64(clampDay(sel.mint))).Number(uint64(clampDay(sel.maxt))).Number(uint64(limit)).Matchers(sel.matchers)
	k = k.Number(uint64(dayOf(sel.now))).Number(uint64(sel.policies.defaultDays))
	for _, p := range sel.policies.list {
		k = k.Text(p.Metric).Number(uint64(p.Days))
	}
	return k
}

// ask answers from the cache, or finds the answer and keeps it.
func (d *discovery) ask(key lookup.Key, find func() (lookup.Answer, error)) (lookup.Answer, error) {
	if a, ok := d.cache.Get(string(key)); ok {
		return a, nil
	}
	a, err := find()
	if err == nil {
		d.cache.Put(string(key), a)
	}
	return a, err
}

// SelectLabels implements storage.Store with the precision of days.
func (s *Store) SelectLabels(ctx context.Context, t storage.Tenant, q storage.Selection) iter.Seq2[storage.Labels, error] {
	return func(yield func(storage.Labels, error) bool) {
		all, err := s.listSeries(ctx, t, q)
		if err != nil {
			yield(nil, translate(ctx, "select labels", err))
			return
		}
		if q.MaxSeries > 0 && len(all) > q.MaxSeries && (q.Limit == 0 || q.Limit > q.MaxSeries) {
			yield(nil, storage.LimitErrorf(storage.KindTooLarge, "select labels", "max-series-per-query", "limits.maxSeriesPerQuery", "the query selects %d series, more than %d", len(all), q.MaxSeries))
			return
		}
		for i, ls := range all {
			if q.Limit > 0 && i >= q.Limit {
				return
			}
			if !yield(ls.Clone(), nil) { // the cache's own stay as they are
				return
			}
		}
	}
}

// listSeries returns the labels of the matching series, in order; they are shared.
func (s *Store) listSeries(ctx context.Context, t storage.Tenant, q storage.Selection) ([]storage.Labels, error) {
	const op = "select labels"
	if err := s.enter(ctx, op, t); err != nil {
		return nil, err
	}
	if err := q.Validate(); err != nil {
		return nil, err
	}
	key := s.discovery.key(t.String(), op)
	sel, empty, err := s.plan(ctx, t, q.Matchers, q.MinT, q.MaxT)
	if err != nil || empty {
		return nil, err
	}
	a, err := s.discovery.ask(selectionKey(key, sel, 0), func() (a lookup.Answer, err error) {
		rows, err := s.loadSeries(ctx, op, sel)
		sortSeries(rows)
		a.Series = make([]storage.Labels, len(rows))
		for i, r := range rows {
			a.Series[i] = r.labels
		}
		return a, err
	})
	return a.Series, err
}

// listMetadata returns the tenant's metadata; the answer is the caller's own.
func (s *Store) listMetadata(ctx context.Context, t storage.Tenant, q storage.MetadataQuery) ([]storage.Metadata, error) {
	key := s.discovery.key(t.String(), "metadata").Text(q.Metric).Number(uint64(q.Limit)).Number(uint64(q.LimitPerMetric))
	a, err := s.discovery.ask(key, func() (a lookup.Answer, err error) {
		a.Metadata, err = s.readMetadata(ctx, t, q)
		return a, err
	})
	return slices.Clone(a.Metadata), err
}
