package clickhouse

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/ClickHouse/ch-go/proto"

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
	all, err := s.findSeries(ctx, op, sel, s.cfg.MaxSelectedSeries)
	if errors.Is(err, errManySeries) {
		err = s.tooManySeries(op)
	}
	return all, err
}

// errManySeries ends a search that finds more series than were asked for.
var errManySeries = errors.New("more series than asked for")

// findSeries reads the matching series of all shards, if they are at most limit.
func (s *Store) findSeries(ctx context.Context, op string, sel selection, limit int) ([]seriesRow, error) {
	var mu sync.Mutex
	var all []seriesRow
	err := s.onShards(ctx, func(ctx context.Context, sh *shard) error {
		found, err := s.findShardSeries(ctx, sh, sel, limit)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, found...)
		if err == nil && len(all) > limit {
			return errManySeries
		}
		return err
	})
	return all, err
}

func (s *Store) findShardSeries(ctx context.Context, sh *shard, sel selection, limit int) (out []seriesRow, err error) {
	var p params
	var metric, labels proto.ColStr
	var loc proto.ColUInt32
	var id proto.ColUInt64
	var day proto.ColInt32
	name, columns := "read/series", proto.Results{
		{Name: "metric_name", Data: &metric}, {Name: "loc", Data: &loc}, {Name: "series_id", Data: &id}, {Name: "labels", Data: &labels},
	}
	f := fragments{"Where": s.seriesWhere(&p, sel.tenant, sel.matchers, sel.mint, sel.maxt)}
	if sel.uniform() {
		f["Limit"] = p.i64(int64(limit) + 1)
	} else { // no limit: some of the rows are hidden
		name, columns = "read/series_days", append(columns, proto.ResultColumn{Name: "last_day", Data: &day})
	}
	sql := render(name, f)
	last := seriesRow{metric: "\xff"}
	err = s.columns(ctx, sh, sql, p.args, columns, func(n int) error {
		for i := range n {
			row := seriesRow{metric: last.metric, shard: sh.index, loc: loc[i], id: id[i], mint: sel.mint}
			if m := metric.RowBytes(i); string(m) != last.metric {
				last.metric = string(m)
				row.metric = last.metric
				if !sel.uniform() {
					last.mint = max(sel.mint, clampTime(sel.policies.mint(last.metric, sel.now)))
				}
			}
			if !sel.uniform() {
				if row.mint = last.mint; int64(day[i]) < dayOf(row.mint) {
					continue // hidden by the metric's retention
				}
			}
			if len(out) > limit { // one more is let through, so that the connection stays
				return errManySeries
			}
			row.labels = storage.Labels(labels.Row(i))
			out = append(out, row)
		}
		return nil
	})
	if err == nil && len(out) > limit {
		err = errManySeries
	}
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
