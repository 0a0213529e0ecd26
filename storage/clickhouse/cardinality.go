package clickhouse

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/luminate/luminate/storage"
)

// defaultTopN is the length of lists when a query gives none.
const defaultTopN = 10

// Cardinality implements storage.Store from the label index.
func (s *Store) Cardinality(ctx context.Context, t storage.Tenant, q storage.CardinalityQuery) (storage.Cardinality, error) {
	if err := s.enter(ctx, "cardinality", t); err != nil {
		return storage.Cardinality{}, err
	}
	if err := q.Selection.Validate(); err != nil {
		return storage.Cardinality{}, err
	}
	c := &counter{s: s, top: q.TopN, metricsOnly: q.MetricsOnly}
	if c.top <= 0 {
		c.top = defaultTopN
	}
	sel, empty, err := s.plan(ctx, t, q.Selection.Matchers, q.Selection.MinT, q.Selection.MaxT)
	if err == nil && !empty {
		for _, sh := range s.shards {
			if err = c.shard(ctx, sh, sel, q.LabelNames); err != nil {
				break
			}
		}
	}
	return c.result(q.LabelNames), translate(ctx, "cardinality", err)
}

// counter adds up the shards' counts. Series of different shards are different, so
// counts of series add; distinct values of several shards are merged by value.
type counter struct {
	s       *Store
	top     int
	metrics map[string]uint64

	metricsOnly bool // leave out all but metrics
	names       map[string]uint64
	pairs       map[string]uint64
	values      map[string]map[string]uint64
	// of label names
	distinct, bytes map[string]uint64
	totalPairs      uint64
}

func (c *counter) shard(ctx context.Context, sh *shard, sel selection, labelNames []string) error {
	if c.metrics == nil {
		c.metrics, c.names, c.pairs = map[string]uint64{}, map[string]uint64{}, map[string]uint64{}
		c.values, c.distinct, c.bytes = map[string]map[string]uint64{}, map[string]uint64{}, map[string]uint64{}
	}
	err := c.count(ctx, sh, sel, "read/cardinality_metrics", func(*params) fragments { return fragments{} }, func(r driver.Rows) error {
		return addCount(r, c.metrics)
	})
	if err != nil || c.metricsOnly {
		return err
	}
	limit := c.s.cfg.MaxSelectedSeries
	if len(c.s.shards) == 1 {
		limit = c.top // the server counts and ranks
		if err := c.labelNames(ctx, sh, sel); err != nil {
			return err
		}
	}
	err = c.count(ctx, sh, sel, "read/cardinality_pairs", func(p *params) fragments {
		return fragments{"Limit": p.i64(int64(limit))}
	}, func(r driver.Rows) error { return addCount(r, c.pairs) })
	if err != nil {
		return err
	}
	for _, name := range labelNames {
		if err := c.labelValues(ctx, sh, sel, name); err != nil {
			return err
		}
	}
	return nil
}

// labelNames counts by label name on the only shard.
func (c *counter) labelNames(ctx context.Context, sh *shard, sel selection) error {
	return c.count(ctx, sh, sel, "read/cardinality_names", func(*params) fragments { return fragments{} }, func(r driver.Rows) error {
		var name string
		var series, vals, bytes uint64
		if err := r.Scan(&name, &series, &vals, &bytes); err != nil {
			return err
		}
		c.names[name] += series
		c.distinct[name] += vals
		c.totalPairs += vals
		// A pair holds the name and two lengths besides the value.
		c.bytes[name] += bytes - vals*uint64(len(pairOf(name, "x"))-1)
		return nil
	})
}

// namesFromPairs counts by label name from the pairs of several shards, of which one
// may be on more than one. A series has one pair of each of its names.
func (c *counter) namesFromPairs() {
	c.totalPairs = uint64(len(c.pairs))
	for pair, n := range c.pairs {
		name, value := splitPair(pair)
		c.names[name] += n
		c.distinct[name]++
		c.bytes[name] += uint64(len(value))
	}
}

func (c *counter) labelValues(ctx context.Context, sh *shard, sel selection, name string) error {
	if c.values[name] == nil {
		c.values[name] = map[string]uint64{}
	}
	return c.count(ctx, sh, sel, "read/cardinality_values", func(p *params) fragments {
		value := "metric"
		if name != storage.MetricName {
			value = valueOf(p, name)
		}
		return fragments{"Value": value, "Limit": p.i64(int64(c.s.cfg.MaxSelectedSeries))}
	}, func(r driver.Rows) error { return addCount(r, c.values[name]) })
}

// count runs one of the statements over table series.
func (c *counter) count(ctx context.Context, sh *shard, sel selection, name string, more func(*params) fragments, scan func(driver.Rows) error) error {
	var p params
	f := more(&p)
	where, err := c.s.discoveryWhere(ctx, &p, sh, sel)
	if err != nil {
		return err
	}
	f["Where"] = where
	return c.s.each(ctx, sh, render(name, f), p.args, scan)
}

func addCount(r driver.Rows, to map[string]uint64) error {
	var name string
	var n uint64
	err := r.Scan(&name, &n)
	to[name] += n
	return err
}

func (c *counter) result(labelNames []string) storage.Cardinality {
	if len(c.s.shards) > 1 {
		c.namesFromPairs()
	}
	out := storage.Cardinality{
		Metrics: c.topOf(withoutEmpty(c.metrics)), LabelNames: c.topOf(c.names), LabelValueCounts: c.topOf(c.distinct),
		LabelMemoryInBytes: c.topOf(c.bytes), TotalLabelNames: uint64(len(c.names)), TotalLabelPairs: c.totalPairs,
		LabelValues: map[string][]storage.Count{}, LabelValuesTotals: map[string]uint64{},
	}
	for name, n := range c.metrics {
		out.Series += n
		if name != "" {
			out.TotalMetrics++
		}
	}
	pairs := map[string]uint64{}
	for pair, n := range c.pairs {
		name, value := splitPair(pair)
		pairs[name+"="+value] += n
	}
	out.LabelPairs = c.topOf(pairs)
	for _, name := range labelNames {
		out.LabelValues[name] = c.topOf(c.values[name])
		out.LabelValuesTotals[name] = uint64(len(c.values[name]))
	}
	return out
}

// withoutEmpty leaves out the series that have no metric name.
func withoutEmpty(m map[string]uint64) map[string]uint64 {
	out := make(map[string]uint64, len(m))
	for k, v := range m {
		if k != "" {
			out[k] = v
		}
	}
	return out
}

// topOf returns the greatest counts first, then by name.
func (c *counter) topOf(m map[string]uint64) []storage.Count {
	out := make([]storage.Count, 0, len(m))
	for k, v := range m {
		out = append(out, storage.Count{Name: k, Count: v})
	}
	slices.SortFunc(out, func(a, b storage.Count) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Name, b.Name))
	})
	return out[:min(c.top, len(out))]
}
