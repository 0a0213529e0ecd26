package clickhouse

import (
	"context"
	"slices"
	"sync"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/luminate/luminate/storage"
)

// seriesRow is a series that a selection matches.
type seriesRow struct {
	metric string
	loc    uint32
	id     uint64
	shard  int
	labels storage.Labels
	mint   int64 // nothing earlier is visible: the selection's bound or the retention's
}

// selection is a storage.Selection with what the tenant's retention makes of it.
type selection struct {
	tenant     storage.Tenant
	matchers   []*storage.Matcher
	mint, maxt int64 // mint already clipped where one retention holds for all
	policies   policies
	now        int64
	metric     string // the metric that an equality names, if one does
	one        bool   // metric is set
}

// plan resolves a selection; empty means that it can match nothing.
func (s *Store) plan(ctx context.Context, t storage.Tenant, ms []*storage.Matcher, mint, maxt int64) (sel selection, empty bool, err error) {
	sel = selection{tenant: t, matchers: ms, mint: clampTime(mint), maxt: clampTime(maxt), now: s.cfg.now().UnixMilli()}
	if sel.policies, err = s.policiesOf(ctx, t); err != nil {
		return sel, false, err
	}
	sel.metric, sel.one = storage.MetricOf(ms)
	oldest := sel.policies.oldest(sel.now)
	if sel.one {
		oldest = sel.policies.mint(sel.metric, sel.now)
	}
	sel.mint = max(sel.mint, clampTime(oldest))
	return sel, sel.mint > sel.maxt || mint > maxTime || maxt < minTime, nil
}

// uniform tells whether one bound holds for every series of the selection.
func (sel selection) uniform() bool { return sel.one || len(sel.policies.list) == 0 }

// loadSeries reads the matching series of all shards. More than
// Config.MaxSelectedSeries is a KindTooLarge error.
func (s *Store) loadSeries(ctx context.Context, op string, sel selection) ([]seriesRow, error) {
	var mu sync.Mutex
	var all []seriesRow
	err := s.onShards(ctx, func(ctx context.Context, sh *shard) error {
		found, err := s.loadShardSeries(ctx, op, sh, sel)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, found...)
		return err
	})
	return all, err
}

func (s *Store) loadShardSeries(ctx context.Context, op string, sh *shard, sel selection) (out []seriesRow, err error) {
	var p params
	name := "read/series"
	if !sel.uniform() {
		name = "read/series_days"
	}
	sql := render(name, fragments{"Where": s.seriesWhere(&p, sel.tenant, sel.matchers, sel.mint, sel.maxt)})
	lastMetric, lastMint := "\xff", int64(0)
	err = s.each(ctx, sh, sql, p.args, func(r driver.Rows) error {
		row := seriesRow{shard: sh.index, mint: sel.mint}
		var labels string
		day := int32(0)
		dest := []any{&row.metric, &row.loc, &row.id, &labels}
		if !sel.uniform() {
			dest = append(dest, &day)
		}
		if err := r.Scan(dest...); err != nil {
			return err
		}
		row.labels = storage.Labels(labels)
		if !sel.uniform() {
			if row.metric != lastMetric {
				lastMetric, lastMint = row.metric, max(sel.mint, clampTime(sel.policies.mint(row.metric, sel.now)))
			}
			row.mint = lastMint
			if int64(day) < dayOf(row.mint) {
				return nil // hidden by the metric's retention
			}
		}
		if len(out) >= s.cfg.MaxSelectedSeries {
			return storage.LimitErrorf(storage.KindTooLarge, op, "max-selected-series", "storage.clickhouse.maxSelectedSeries", "the query selects more than %d series", s.cfg.MaxSelectedSeries)
		}
		out = append(out, row)
		return nil
	})
	return out, err
}

func sortSeries(rows []seriesRow) {
	slices.SortFunc(rows, func(a, b seriesRow) int { return storage.CompareLabels(a.labels, b.labels) })
}

// index maps ids to positions. Two series with one id would be answered as one, so it
// is an error, however unlikely.
func indexSeries(rows []seriesRow) (map[uint64]int, error) {
	m := make(map[uint64]int, len(rows))
	for i, r := range rows {
		if j, ok := m[r.id]; ok {
			return nil, storage.Errorf(storage.KindInternal, "select", "series %s and %s have the same id %d", rows[j].labels, r.labels, r.id)
		}
		m[r.id] = i
	}
	return m, nil
}
