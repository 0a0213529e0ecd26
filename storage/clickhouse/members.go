package clickhouse

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/luminate/luminate/storage"
)

// load finds the series of an evaluation: by name if they are few, else in the rosters.
func (e *evaluation) load(ctx context.Context) error {
	parts := make([]*part, len(e.s.shards))
	err := e.s.onShards(ctx, func(ctx context.Context, sh *shard) (err error) {
		parts[sh.index], err = e.loadShard(ctx, sh)
		return err
	})
	if err != nil {
		return err
	}
	for _, p := range parts {
		if p == nil || len(p.roster.ids) == 0 && !p.whole {
			continue
		}
		p.first = e.series
		e.series += len(p.roster.ids)
		e.parts = append(e.parts, p)
	}
	return nil
}

func (e *evaluation) loadShard(ctx context.Context, sh *shard) (*part, error) {
	if e.sel.one && onlyMetric(e.sel.matchers) {
		// The roster of a large metric is there already, mostly.
		if s := e.s.rosters.peek(e.rosterKey(sh)); s.roster != nil && len(s.roster.ids) >= e.fewLimit() {
			return e.loadWhole(ctx, sh)
		}
	}
	few, err := e.loadFew(ctx, sh)
	if err != nil || few != nil {
		return few, err
	}
	return e.loadWhole(ctx, sh)
}

// fewLimit is up to how many series of one metric are named by id. All series of a metric
// are read as a whole from fewer on: thousands of ids cost more than its key's range.
func (e *evaluation) fewLimit() int {
	if onlyMetric(e.sel.matchers) {
		return min(e.s.fewSeries, estimatedSeries)
	}
	return e.s.fewSeries
}

func (e *evaluation) rosterKey(sh *shard) rosterKey {
	return rosterKey{shard: sh.index, tenant: e.sel.tenant.String(), metric: e.sel.metric}
}

func (e *evaluation) days() dayRange {
	return dayRange{clampDay(e.sel.mint), clampDay(e.sel.maxt)}
}

// group is the SQL for the labels of a series' group, in canonical form.
func (e *evaluation) group(p *params) string {
	names := slices.Clone(e.g.Grouping)
	slices.Sort(names)
	names = slices.Compact(names)
	if e.g.Without {
		return "arrayStringConcat(arrayFilter((pair, name) -> NOT has(" + p.strs(names) + ", name) AND name != " + p.str(storage.MetricName) + ", kv, names))"
	}
	pairs := []string{"''"}
	for _, n := range names {
		pairs = append(pairs, "kv[indexOf(names, "+p.str(n)+")]") // '' where there is none
	}
	if len(pairs) == 2 {
		return pairs[1]
	}
	return "concat('', " + strings.Join(pairs, ", ") + ")"
}

// grouper numbers groups by their labels.
type grouper struct {
	known  map[string]uint32
	labels []storage.Labels
}

func (g *grouper) number(labels []byte) uint32 {
	n, ok := g.known[string(labels)]
	if !ok {
		if g.known == nil {
			g.known = map[string]uint32{}
		}
		n = uint32(len(g.labels))
		own := slices.Clone(labels)
		g.known[string(labels)] = n
		g.labels = append(g.labels, own)
	}
	return n
}

// loadFew reads the matching series, or nothing if they are too many.
func (e *evaluation) loadFew(ctx context.Context, sh *shard) (*part, error) {
	limit := e.s.cfg.MaxSelectedSeries
	if e.sel.one {
		limit = e.fewLimit()
	}
	if found, ok := storage.ScratchOf(ctx).Find(scratchOf(e.sel)); ok {
		if rows, ok := found.([]seriesRow); ok && len(rows) <= limit {
			return e.ofRows(sh, rows)
		}
	}
	var p params
	sql := render("evaluate/few", fragments{
		"Group": e.group(&p), "Where": e.s.seriesWhere(&p, e.sel.tenant, e.sel.matchers, e.sel.mint, e.sel.maxt), "Limit": p.i64(int64(limit) + 1),
	})
	var metric, label proto.ColStr
	var loc proto.ColUInt32
	var id proto.ColUInt64
	var keys []rosterKeys
	var g grouper
	groups, metrics := map[uint64]uint32{}, map[string]bool{}
	err := e.s.columns(ctx, sh, sql, p.args, proto.Results{
		{Name: "metric_name", Data: &metric}, {Name: "loc", Data: &loc}, {Name: "series_id", Data: &id}, {Name: "group_labels", Data: &label},
	}, func(n int) error {
		for i := range n {
			keys = append(keys, rosterKeys{loc[i], id[i]})
			groups[id[i]] = g.number(label.RowBytes(i))
			if len(metrics) <= 1000 {
				metrics[metric.Row(i)] = true
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	e.note(sql)
	if len(keys) > limit {
		if e.sel.one {
			return nil, nil
		}
		return nil, e.s.tooManySeries("evaluate")
	}
	return e.fewSeries(sh, keys, groups, g.labels, metrics)
}

// ofRows makes a shard's part of series that the request found before.
func (e *evaluation) ofRows(sh *shard, rows []seriesRow) (*part, error) {
	var keys []rosterKeys
	var g grouper
	var label []byte
	groups, metrics := map[uint64]uint32{}, map[string]bool{}
	for _, r := range rows {
		if r.shard != sh.index {
			continue
		}
		keys = append(keys, rosterKeys{r.loc, r.id})
		label = storage.AppendGroupLabels(label[:0], r.labels, e.g.Grouping, e.g.Without)
		groups[r.id] = g.number(label)
		metrics[r.metric] = true
	}
	return e.fewSeries(sh, keys, groups, g.labels, metrics)
}

// fewSeries makes a part of series with their groups.
func (e *evaluation) fewSeries(sh *shard, keys []rosterKeys, groups map[uint64]uint32, labels []storage.Labels, metrics map[string]bool) (*part, error) {
	r, err := newRoster(keys, e.days())
	if err != nil {
		return nil, err
	}
	m := &members{of: make([]uint32, len(r.ids)), labels: labels}
	for i, id := range r.ids {
		m.of[i] = groups[id]
	}
	x := &part{sh: sh, roster: r, members: m}
	if len(metrics) <= 1000 {
		x.metrics = slices.Sorted(maps.Keys(metrics))
	}
	return x, nil
}

func (s *Store) tooManySeries(op string) error {
	return storage.LimitErrorf(storage.KindTooLarge, op, "max-selected-series", "storage.clickhouse.maxSelectedSeries", "the query selects more than %d series", s.cfg.MaxSelectedSeries)
}

// membersName identifies members within a roster.
func (e *evaluation) membersName() string {
	names := slices.Clone(e.g.Grouping)
	slices.Sort(names)
	b := []byte(storage.FormatSelector(e.sel.matchers))
	if e.g.Without {
		b = append(b, 0)
	}
	for _, n := range slices.Compact(names) {
		b = storage.AppendLabel(b, n, "")
	}
	return string(b)
}

// loadWhole takes the metric's roster and the members from the cache, or reads them.
func (e *evaluation) loadWhole(ctx context.Context, sh *shard) (*part, error) {
	key, name := e.rosterKey(sh), e.membersName()
	entry := e.s.rosters.entry(key)
	x := &part{sh: sh, whole: true, metrics: []string{e.sel.metric}}
	if s := e.s.rosters.get(entry); s.sets[name] != nil {
		e.s.metrics.rosterHits.Inc()
		x.roster, x.members = s.roster, s.sets[name]
		return x, nil
	}
	if err := entry.lockTurn(ctx); err != nil {
		return nil, err
	}
	defer entry.unlockTurn()
	s := e.s.rosters.get(entry)
	if s.sets[name] == nil {
		e.s.metrics.rosterMisses.Inc()
		var err error
		if s, err = e.readMembers(ctx, sh, s, name); err != nil {
			return nil, err
		}
		e.s.rosters.put(key, entry, s)
	}
	x.roster, x.members = s.roster, s.sets[name]
	return x, nil
}

// readMembers reads the roster, if there is none, and the members of a selection.
func (e *evaluation) readMembers(ctx context.Context, sh *shard, s snapshot, name string) (snapshot, error) {
	if s.roster == nil {
		days := e.days()
		if !s.born.IsZero() {
			days = days.union(s.days)
		}
		keys, err := e.readKeys(ctx, sh, days)
		if err != nil {
			return s, err
		}
		s = snapshot{born: time.Now()}
		if s.roster, err = newRoster(keys, days); err != nil {
			return s, err
		}
	}
	m := &members{labels: []storage.Labels{nil}}
	if !onlyMetric(e.sel.matchers) || len(e.g.Grouping) > 0 || e.g.Without {
		var err error
		if m, err = e.readGroups(ctx, sh, s.roster); err != nil {
			return s, err
		}
	}
	return s.with(name, m), nil
}

// metricWhere is the WHERE of table series for all series of the metric.
func (e *evaluation) metricWhere(p *params) string {
	return "tenant = " + p.str(e.sel.tenant.String()) + " AND metric = " + p.str(e.sel.metric)
}

func dayWhere(p *params, days dayRange) string {
	return " AND day BETWEEN " + p.i64(days.first) + " AND " + p.i64(days.last)
}

func (e *evaluation) readKeys(ctx context.Context, sh *shard, days dayRange) ([]rosterKeys, error) {
	var p params
	sql := render("evaluate/roster", fragments{"Where": e.metricWhere(&p) + dayWhere(&p, days)})
	var loc proto.ColUInt32
	var id proto.ColUInt64
	var keys []rosterKeys
	limit := e.s.cfg.MaxSelectedSeries
	err := e.s.columns(ctx, sh, sql, p.args, proto.Results{{Name: "loc", Data: &loc}, {Name: "series_id", Data: &id}}, func(n int) error {
		for i := range n {
			keys = append(keys, rosterKeys{loc[i], id[i]})
		}
		if len(keys) > 2*limit { // rows of several days
			slices.SortFunc(keys, compareKeys)
			if keys = slices.Compact(keys); len(keys) > limit {
				return e.s.tooManySeries("evaluate")
			}
		}
		return nil
	})
	e.note(sql)
	return keys, err
}

// readGroups reads the groups of the matching series. Days are all that the roster's
// series are of: one of them may have no row on the days of the evaluation yet.
func (e *evaluation) readGroups(ctx context.Context, sh *shard, r *roster) (*members, error) {
	var p params
	sql := render("evaluate/groups", fragments{
		"Group": e.group(&p), "Where": e.s.matcherSQL(&p, e.sel.tenant, e.sel.matchers) + dayWhere(&p, r.days.union(e.days())),
	})
	var loc proto.ColUInt32
	var id proto.ColUInt64
	var label proto.ColStr
	m := &members{of: make([]uint32, len(r.ids))}
	for i := range m.of {
		m.of[i] = noGroup
	}
	var g grouper
	near, last, lastGroup := 0, []byte(nil), uint32(0)
	err := e.s.columns(ctx, sh, sql, p.args, proto.Results{
		{Name: "loc", Data: &loc}, {Name: "series_id", Data: &id}, {Name: "group_labels", Data: &label},
	}, func(n int) error {
		for i := range n {
			at, ok := r.find(id[i], near)
			if !ok {
				continue // new since the roster was read: its samples will tell
			}
			near = at + 1
			if l := label.RowBytes(i); len(g.labels) == 0 || string(l) != string(last) {
				lastGroup, last = g.number(l), append(last[:0], l...)
			}
			m.of[at] = lastGroup
		}
		return nil
	})
	e.note(sql)
	m.labels = g.labels
	return m, err
}

// labelsOf reads the labels of series by their ids.
func (s *Store) labelsOf(ctx context.Context, x *part, sel selection, want map[uint64][]int, found func(loc uint32, id uint64, ls storage.Labels)) error {
	ids := slices.Sorted(maps.Keys(want))
	for len(ids) > 0 {
		n := min(len(ids), maxBoundIDs)
		if err := s.labelsOfIDs(ctx, x.sh, sel.tenant, x.metrics, ids[:n], found); err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}

func (s *Store) labelsOfIDs(ctx context.Context, sh *shard, t storage.Tenant, metrics []string, ids []uint64, found func(loc uint32, id uint64, ls storage.Labels)) error {
	var p params
	where := "tenant = " + p.str(t.String())
	if metrics != nil {
		where += " AND metric IN " + p.strs(metrics)
	}
	sql := render("evaluate/labels", fragments{"Where": where + " AND series_id IN " + p.u64s(ids)})
	var loc proto.ColUInt32
	var id proto.ColUInt64
	var label proto.ColStr
	return s.columns(ctx, sh, sql, p.args, proto.Results{
		{Name: "loc", Data: &loc}, {Name: "series_id", Data: &id}, {Name: "labels", Data: &label},
	}, func(n int) error {
		for i := range n {
			found(loc[i], id[i], slices.Clone(label.RowBytes(i)))
		}
		return nil
	})
}

// extendRosters adds the series that an evaluation found samples of to the rosters. It
// returns how many of them there are.
func (s *Store) extendRosters(ctx context.Context, e *evaluation) (known int, err error) {
	for _, p := range e.parts {
		missing := e.unknown[p.sh.index]
		if len(missing) == 0 {
			continue
		}
		n, err := e.extend(ctx, p, missing)
		if err != nil {
			return 0, err
		}
		known += n
	}
	return known, nil
}

// extend replaces a part's roster by one that has the missing series, and its members
// with them. Other selections' members are dropped: they are read when they are asked
// for.
func (e *evaluation) extend(ctx context.Context, p *part, missing map[uint64]struct{}) (int, error) {
	key, name := e.rosterKey(p.sh), e.membersName()
	entry := e.s.rosters.entry(key)
	if err := entry.lockTurn(ctx); err != nil {
		return 0, err
	}
	defer entry.unlockTurn()
	old := e.s.rosters.get(entry)
	if old.roster == nil || len(missing) > maxBoundIDs || old.sets[name] == nil {
		// Read everything anew. Where it was the roster that was lacking, all but the
		// first of many evaluations find it done.
		if old.roster != nil && old.roster != p.roster {
			return len(missing), nil
		}
		e.s.rosters.put(key, entry, snapshot{days: p.roster.days.union(e.days()), born: time.Now()})
		return len(missing), nil
	}
	ids := map[uint64][]int{}
	for id := range missing {
		if _, ok := old.roster.find(id, 0); !ok {
			ids[id] = nil
		}
	}
	if len(ids) == 0 {
		return len(missing), nil // another evaluation was first
	}
	type newcomer struct {
		rosterKeys
		labels storage.Labels
	}
	var fresh []newcomer
	err := e.s.labelsOf(ctx, p, e.sel, ids, func(loc uint32, id uint64, ls storage.Labels) {
		fresh = append(fresh, newcomer{rosterKeys{loc, id}, ls})
	})
	if err != nil || len(fresh) == 0 {
		return 0, err
	}
	keys := make([]rosterKeys, 0, len(old.roster.ids)+len(fresh))
	for i, id := range old.roster.ids {
		keys = append(keys, rosterKeys{old.roster.locs[i], id})
	}
	labels := map[uint64]storage.Labels{}
	for _, n := range fresh {
		keys = append(keys, n.rosterKeys)
		labels[n.id] = n.labels
	}
	r, err := newRoster(keys, old.roster.days.union(e.days()))
	if err != nil {
		return 0, err
	}
	r.density.Store(old.roster.density.Load())
	next := snapshot{roster: r, born: old.born}
	next = next.with(name, e.extendMembers(old, name, r, labels))
	e.s.rosters.put(key, entry, next)
	return len(fresh), nil
}

// extendMembers carries members over to a larger roster and judges the new series.
func (e *evaluation) extendMembers(old snapshot, name string, r *roster, labels map[uint64]storage.Labels) *members {
	was := old.sets[name]
	if was.of == nil {
		return was
	}
	g := grouper{known: map[string]uint32{}, labels: slices.Clone(was.labels)}
	for i, l := range g.labels {
		g.known[string(l)] = uint32(i)
	}
	m := &members{of: make([]uint32, len(r.ids))}
	var key []byte
	at := 0 // in the old roster
	for i, id := range r.ids {
		if at < len(old.roster.ids) && old.roster.ids[at] == id {
			m.of[i] = was.of[at]
			at++
			continue
		}
		ls := labels[id]
		m.of[i] = noGroup
		if matches(e.sel.matchers, ls) {
			key = storage.AppendGroupLabels(key[:0], ls, e.g.Grouping, e.g.Without)
			m.of[i] = g.number(key)
		}
	}
	m.labels = g.labels
	return m
}

func matches(ms []*storage.Matcher, ls storage.Labels) bool {
	return !slices.ContainsFunc(ms, func(m *storage.Matcher) bool { return !m.Matches(ls.Get(m.Name)) })
}
