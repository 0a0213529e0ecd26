package clickhouse

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	blocks       *prometheus.CounterVec
	rows         *prometheus.CounterVec
	blockSeconds prometheus.Histogram
	retries      prometheus.Counter
	backpressure prometheus.Counter
	staleCaches  prometheus.Counter
	flushAge     prometheus.Gauge
	activeParts  prometheus.Gauge
	evaluated    *prometheus.CounterVec
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
	}
}
