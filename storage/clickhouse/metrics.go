package clickhouse

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	blocks       *prometheus.CounterVec
	rows         *prometheus.CounterVec
	blockSeconds prometheus.Histogram
	querySeconds *prometheus.HistogramVec
	retries      prometheus.Counter
	backpressure prometheus.Counter
	staleCaches  prometheus.Counter
	flushAge     prometheus.Gauge
	activeParts  prometheus.Gauge
	evaluated    *prometheus.CounterVec
	rosterHits   prometheus.Counter
	rosterMisses prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		blocks: f.NewCounterVec(prometheus.CounterOpts{
			Name: "luminate_clickhouse_blocks_total", Help: "Blocks sent to ClickHouse, by table and result.",
		}, []string{"table", "result"}),
		rows: f.NewCounterVec(prometheus.CounterOpts{
			Name: "luminate_clickhouse_rows_total", Help: "Rows stored in ClickHouse, by table.",
		}, []string{"table"}),
		blockSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name: "luminate_clickhouse_block_seconds", Help: "Time to store one block, retries included.",
			Buckets: prometheus.ExponentialBuckets(0.002, 2, 14),
		}),
		querySeconds: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "luminate_clickhouse_query_duration_seconds", Help: "Time from sending a reading statement to its first rows, by result.",
			Buckets: prometheus.ExponentialBuckets(0.002, 2, 14),
		}, []string{"result"}),
		retries: f.NewCounter(prometheus.CounterOpts{
			Name: "luminate_clickhouse_block_retries_total", Help: "Blocks that were sent again.",
		}),
		backpressure: f.NewCounter(prometheus.CounterOpts{
			Name: "luminate_clickhouse_backpressure_total", Help: "Appends refused because too many rows wait for ClickHouse.",
		}),
		staleCaches: f.NewCounter(prometheus.CounterOpts{
			Name: "luminate_clickhouse_stale_series_caches_total", Help: "Blocks built again because a delete had removed known series.",
		}),
		flushAge: f.NewGauge(prometheus.GaugeOpts{
			Name: "luminate_clickhouse_flush_age_seconds", Help: "Present age at which a write buffer is sent.",
		}),
		activeParts: f.NewGauge(prometheus.GaugeOpts{
			Name: "luminate_clickhouse_active_parts", Help: "Active parts of the partition that has most.",
		}),
		evaluated: f.NewCounterVec(prometheus.CounterOpts{
			Name: "luminate_clickhouse_grids_total", Help: "Grids asked, by how they were answered.",
		}, []string{"result"}),
		rosterHits: f.NewCounter(prometheus.CounterOpts{
			Name: "luminate_clickhouse_roster_hits_total", Help: "Evaluations of large metrics that found the series and their groups in memory.",
		}),
		rosterMisses: f.NewCounter(prometheus.CounterOpts{
			Name: "luminate_clickhouse_roster_misses_total", Help: "Evaluations of large metrics that had to read the series or their groups.",
		}),
	}
}

// registerLoad registers what the store's pools and buffer hold at a scrape.
func registerLoad(reg prometheus.Registerer, s *Store) {
	f := promauto.With(reg)
	gauge := func(name, help string, labels prometheus.Labels, fn func() float64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: "luminate_clickhouse_" + name, Help: help, ConstLabels: labels}, fn)
	}
	gauge("buffered_rows", "Rows that wait for ClickHouse to have them.", nil, func() float64 {
		s.buffer.mu.Lock()
		defer s.buffer.mu.Unlock()
		return float64(s.buffer.queued)
	})
	gauge("buffered_rows_limit", "Rows that may wait; more are refused.", nil, func() float64 { return float64(s.cfg.MaxBufferedRows) })
	gauge("roster_bytes", "Memory of the series lists of large metrics.", nil, func() float64 { return float64(s.rosters.bytes()) })
	gauge("roster_bytes_limit", "Memory that series lists of large metrics may take.", nil, func() float64 { return float64(s.cfg.MaxRosterBytes) })
	for kind, of := range map[string]func(*shard) *pool{
		"read": func(sh *shard) *pool { return sh.read }, "write": func(sh *shard) *pool { return sh.write },
	} {
		sum := func(count func(*pool) int) float64 {
			n := 0
			for _, sh := range s.shards {
				n += count(of(sh))
			}
			return float64(n)
		}
		labels := prometheus.Labels{"pool": kind}
		gauge("connections_in_use", "Connections to ClickHouse that are in use, of all shards, by pool.", labels, func() float64 {
			return sum(func(p *pool) int { return len(p.all) - len(p.free) })
		})
		gauge("connections_limit", "Connections to ClickHouse that may be in use, of all shards, by pool.", labels, func() float64 {
			return sum(func(p *pool) int { return len(p.all) })
		})
	}
}
