package clickhouse

import (
	"encoding/binary"
	"fmt"
	"strings"

	promlabels "github.com/prometheus/prometheus/model/labels"
	"github.com/zeebo/xxh3"

	"github.com/luminate/luminate/storage"
)

const dayMillis = 24 * 3600 * 1000

// dayOf returns the UTC day of a time, in days since 1970; times before round down.
func dayOf(ms int64) int64 {
	d := ms / dayMillis
	if ms%dayMillis < 0 {
		d--
	}
	return d
}

// pairOf is one element of column kv: the pair's canonical bytes. So the elements put
// together are the series' labels, and no name or value can be taken for another.
func pairOf(name, value string) string {
	return string(storage.AppendLabel(nil, name, value))
}

// splitPair is the inverse of pairOf.
func splitPair(pair string) (name, value string) {
	for n, v := range storage.Labels(pair).All() {
		return strings.Clone(n), strings.Clone(v)
	}
	return "", ""
}

// locOf is the locality key of a series: equal for all with the same value.
func locOf(value string) uint32 {
	if value == "" {
		return 0
	}
	return uint32(xxh3.HashString(value) >> 32)
}

// valueOf is the SQL for the value of a label in a row of table series, "" if there is
// none. The pair is prefixed by the name in canonical form, then by the value's length
// in one to three bytes, which the pair's own length tells.
func valueOf(p *params, name string) string {
	pair := "kv[indexOf(names, " + p.str(name) + ")]"
	prefix := len(binary.AppendUvarint(nil, uint64(len(name)))) + len(name)
	n := p.i64(int64(prefix))
	return fmt.Sprintf("substring(%s, %s + multiIf(length(%s) <= %s + 128, 2, length(%s) <= %s + 16385, 3, 4))", pair, n, pair, n, pair, n)
}

// condition is the SQL for one matcher over table series.
func (s *Store) condition(p *params, m *storage.Matcher) string {
	if m.Name == storage.MetricName {
		return metricCondition(p, m)
	}
	has := func() string { return "has(names, " + p.str(m.Name) + ")" }
	switch m.Type {
	case promlabels.MatchEqual:
		if m.Value == "" {
			return "NOT " + has()
		}
		cond := "has(kv, " + p.str(pairOf(m.Name, m.Value)) + ")"
		if m.Name == s.locality {
			cond = "loc = " + p.i64(int64(locOf(m.Value))) + " AND " + cond
		}
		return cond
	case promlabels.MatchNotEqual:
		if m.Value == "" {
			return has()
		}
		return "NOT has(kv, " + p.str(pairOf(m.Name, m.Value)) + ")"
	}
	cond := regexCondition(p, m, has)
	if m.Type == promlabels.MatchNotRegexp {
		return "NOT (" + cond + ")"
	}
	return cond
}

func metricCondition(p *params, m *storage.Matcher) string {
	switch m.Type {
	case promlabels.MatchEqual:
		return "metric = " + p.str(m.Value)
	case promlabels.MatchNotEqual:
		return "metric != " + p.str(m.Value)
	}
	var cond string
	if set := m.SetMatches(); len(set) > 0 {
		cond = "metric IN " + p.strs(set)
	} else {
		cond = "match(metric, " + p.str(anchored(m.Value)) + ")"
	}
	if m.Type == promlabels.MatchNotRegexp {
		return "NOT (" + cond + ")"
	}
	return cond
}

// regexCondition is the SQL for a regex that must match; has tells whether a row has
// the label at all.
func regexCondition(p *params, m *storage.Matcher, has func() string) string {
	if set := m.SetMatches(); len(set) > 0 {
		var pairs []string
		absent := false
		for _, v := range set {
			if v == "" {
				absent = true
			} else {
				pairs = append(pairs, pairOf(m.Name, v))
			}
		}
		cond := "hasAny(kv, " + p.strs(pairs) + ")"
		switch {
		case len(pairs) == 0:
			return "NOT " + has()
		case absent:
			return "(" + cond + " OR NOT " + has() + ")"
		}
		return cond
	}
	return "match(" + valueOf(p, m.Name) + ", " + p.str(anchored(m.Value)) + ")"
}

// anchored is the expression as Prometheus compiles it.
func anchored(re string) string { return "^(?s:" + re + ")$" }

// matcherSQL joins conditions over table series by AND.
func (s *Store) matcherSQL(p *params, t storage.Tenant, ms []*storage.Matcher) string {
	conds := []string{"tenant = " + p.str(t.String())}
	for _, m := range ms {
		conds = append(conds, s.condition(p, m))
	}
	return strings.Join(conds, " AND ")
}

// seriesWhere is the WHERE of table series for a selection's matchers and days.
func (s *Store) seriesWhere(p *params, t storage.Tenant, ms []*storage.Matcher, mint, maxt int64) string {
	return s.matcherSQL(p, t, ms) + " AND day BETWEEN " + p.i64(clampDay(mint)) + " AND " + p.i64(clampDay(maxt))
}

func clampDay(ms int64) int64 {
	return dayOf(clampTime(ms))
}
