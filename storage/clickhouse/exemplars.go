package clickhouse

import (
	"context"
	"slices"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/luminate/luminate/storage"
)

// Exemplars implements storage.Store.
func (s *Store) Exemplars(ctx context.Context, t storage.Tenant, q storage.ExemplarQuery) ([]storage.ExemplarSeries, error) {
	if err := s.enter(ctx, "exemplars", t); err != nil {
		return nil, err
	}
	limit := s.cfg.MaxExemplars
	if q.Limit > 0 {
		limit = min(limit, q.Limit)
	}
	found := map[string]storage.ExemplarSeries{}
	for _, ms := range q.Selectors {
		if err := s.exemplarsOf(ctx, t, ms, q, limit, found); err != nil {
			return nil, translate(ctx, "exemplars", err)
		}
	}
	out := make([]storage.ExemplarSeries, 0, len(found))
	for _, x := range found {
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b storage.ExemplarSeries) int { return storage.CompareLabels(a.Labels, b.Labels) })
	return limitExemplars(out, limit), nil
}

// exemplarsOf adds the exemplars of one selector's series that are not found yet.
func (s *Store) exemplarsOf(ctx context.Context, t storage.Tenant, ms []*storage.Matcher, q storage.ExemplarQuery, limit int, found map[string]storage.ExemplarSeries) error {
	sel, empty, err := s.plan(ctx, t, ms, q.MinT, q.MaxT)
	if err != nil || empty {
		return err
	}
	rows, err := s.loadSeries(ctx, "exemplars", sel)
	if err != nil || len(rows) == 0 {
		return err
	}
	rows = slices.DeleteFunc(rows, func(r seriesRow) bool { _, ok := found[string(r.labels)]; return ok })
	index, err := indexSeries(rows)
	if err != nil {
		return err
	}
	for _, sh := range s.shards {
		f := s.filterFor(sel, rows, sh.index, true)
		if f.none {
			continue
		}
		var p params
		sql := render("read/exemplars", fragments{"Where": s.where(&p, sel, f), "Limit": p.i64(int64(limit))})
		err := s.each(ctx, sh, sql, p.args, func(r driver.Rows) error {
			var id, image uint64
			var e storage.Exemplar
			var labels []byte
			if err := r.Scan(&id, &e.T, &image, &labels); err != nil {
				return err
			}
			i, ok := index[id]
			if !ok || e.T < rows[i].mint {
				return nil
			}
			e.Labels, e.V = labels, storage.ValueOfImage(image)
			x := found[string(rows[i].labels)]
			x.Labels = rows[i].labels
			x.Exemplars = append(x.Exemplars, e)
			found[string(rows[i].labels)] = x
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// limitExemplars cuts the list after so many exemplars.
func limitExemplars(in []storage.ExemplarSeries, limit int) []storage.ExemplarSeries {
	for i := range in {
		if n := len(in[i].Exemplars); n >= limit {
			in[i].Exemplars = in[i].Exemplars[:limit]
			return in[:i+1]
		}
		limit -= len(in[i].Exemplars)
	}
	return in
}
