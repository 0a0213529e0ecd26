package badger

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// kvCollector tells of the key-value store below, at the time of a scrape. Badger
// counts by itself only under a global name for each directory, so it is asked.
type kvCollector struct {
	db                                   *DB
	tables, bytes, target, score, stale  *prometheus.Desc
	cacheHits, cacheMisses, cacheEvicted *prometheus.Desc
}

// registerKV registers what Badger tells of itself; db.kv must be open.
func registerKV(reg prometheus.Registerer, db *DB) {
	if reg == nil {
		return
	}
	level := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("luminate_badger_lsm_"+name, help, []string{"level"}, nil)
	}
	cache := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("luminate_badger_index_cache_"+name, help, nil, nil)
	}
	reg.MustRegister(&kvCollector{
		db:           db,
		tables:       level("tables", "Tables of a level of the LSM tree."),
		bytes:        level("bytes", "Bytes of the tables of a level of the LSM tree."),
		target:       level("target_bytes", "Size at which a level of the LSM tree is compacted."),
		score:        level("compaction_score", "How much a level of the LSM tree needs compaction: from 1 on it does."),
		stale:        level("stale_bytes", "Bytes of deleted or replaced values in the tables of a level."),
		cacheHits:    cache("hits_total", "Look-ups of a table's index that its cache answered. Blocks have no cache: their pages are the operating system's."),
		cacheMisses:  cache("misses_total", "Look-ups of a table's index that its cache could not answer."),
		cacheEvicted: cache("evicted_bytes_total", "Bytes of tables' indexes that the cache gave up."),
	})
}

// Describe implements prometheus.Collector.
func (c *kvCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.tables, c.bytes, c.target, c.score, c.stale, c.cacheHits, c.cacheMisses, c.cacheEvicted} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *kvCollector) Collect(ch chan<- prometheus.Metric) {
	if c.db.closed.Load() {
		return
	}
	for _, l := range c.db.kv.Levels() {
		level := strconv.Itoa(l.Level)
		for desc, v := range map[*prometheus.Desc]float64{
			c.tables: float64(l.NumTables), c.bytes: float64(l.Size), c.target: float64(l.TargetSize),
			c.score: l.Score, c.stale: float64(l.StaleDatSize),
		} {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, level)
		}
	}
	if m := c.db.kv.IndexCacheMetrics(); m != nil {
		ch <- prometheus.MustNewConstMetric(c.cacheHits, prometheus.CounterValue, float64(m.Hits()))
		ch <- prometheus.MustNewConstMetric(c.cacheMisses, prometheus.CounterValue, float64(m.Misses()))
		ch <- prometheus.MustNewConstMetric(c.cacheEvicted, prometheus.CounterValue, float64(m.CostEvicted()))
	}
}
