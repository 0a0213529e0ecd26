package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/internal/lookup"
)

// LabelNames implements storage.Store.
func (s *Store) LabelNames(ctx context.Context, t storage.Tenant, q storage.Selection) ([]string, error) {
	return s.listValues(ctx, "label names", "", t, q, func(*params) (string, fragments) { return "read/label_names", fragments{} })
}

// LabelValues implements storage.Store.
func (s *Store) LabelValues(ctx context.Context, t storage.Tenant, name string, q storage.Selection) ([]string, error) {
	return s.listValues(ctx, "label values", name, t, q, func(p *params) (string, fragments) {
		if name == storage.MetricName {
			return "read/label_values_of_metric", fragments{}
		}
		return "read/label_values", fragments{"Value": valueOf(p, name)}
	})
}

// listValues answers a look-up out of the cache, or by a statement on every shard.
func (s *Store) listValues(ctx context.Context, op, label string, t storage.Tenant, q storage.Selection, statement func(*params) (string, fragments)) ([]string, error) {
	if err := s.enter(ctx, op, t); err != nil {
		return nil, err
	}
	if err := q.Validate(); err != nil {
		return nil, err
	}
	key := s.discovery.key(t.String(), op).Text(label)
	sel, empty, err := s.plan(ctx, t, q.Matchers, q.MinT, q.MaxT)
	if err != nil || empty {
		return nil, translate(ctx, op, err)
	}
	a, err := s.discovery.ask(selectionKey(key, sel, q.Limit), func() (a lookup.Answer, err error) {
		a.Values, err = s.findValues(ctx, sel, q.Limit, statement)
		return a, err
	})
	return slices.Clone(a.Values), translate(ctx, op, err)
}

// findValues runs a discovery statement on every shard and merges the answers.
func (s *Store) findValues(ctx context.Context, sel selection, limit int, statement func(*params) (string, fragments)) ([]string, error) {
	var mu sync.Mutex
	var all []string
	err := s.onShards(ctx, func(ctx context.Context, sh *shard) error {
		var p params
		name, f := statement(&p)
		where, err := s.discoveryWhere(ctx, &p, sh, sel)
		if err != nil {
			return err
		}
		f["Where"], f["Limit"] = where, p.i64(int64(s.listLimit(limit)))
		return s.each(ctx, sh, render(name, f), p.args, func(r driver.Rows) error {
			var v string
			err := r.Scan(&v)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, v)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all, nil
}

// listLimit is the bound of a list on each shard.
func (s *Store) listLimit(limit int) int {
	if limit > 0 {
		return limit
	}
	return s.cfg.MaxSelectedSeries
}

// discoveryWhere is seriesWhere, and leaves out what the policies of single metrics
// hide: first the metrics are listed, then each group of one retention gets its bound.
func (s *Store) discoveryWhere(ctx context.Context, p *params, sh *shard, sel selection) (string, error) {
	where := s.seriesWhere(p, sel.tenant, sel.matchers, sel.mint, sel.maxt)
	if sel.uniform() {
		return where, nil
	}
	var mp params
	sql := render("read/metrics", fragments{"Where": s.seriesWhere(&mp, sel.tenant, sel.matchers, sel.mint, sel.maxt)})
	byBound := map[int64][]string{}
	err := s.each(ctx, sh, sql, mp.args, func(r driver.Rows) error {
		var metric string
		err := r.Scan(&metric)
		if m := clampTime(sel.policies.mint(metric, sel.now)); m > sel.mint {
			byBound[dayOf(m)] = append(byBound[dayOf(m)], metric)
		}
		return err
	})
	for _, day := range sortedKeys(byBound) {
		where += fmt.Sprintf(" AND NOT (metric IN %s AND day < %s)", p.strs(byBound[day]), p.i64(day))
	}
	return where, err
}

func sortedKeys[V any](m map[int64]V) []int64 {
	out := make([]int64, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
