package badger

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are the engine's own; every name begins with luminate_badger_.
type metrics struct {
	samples        prometheus.Counter
	refused        *prometheus.CounterVec
	series         prometheus.Counter
	commits        prometheus.Counter
	commitSeconds  prometheus.Histogram
	logSeconds     prometheus.Histogram
	snapSeconds    prometheus.Histogram
	flushedGroups  prometheus.Counter
	flushedSamples prometheus.Counter
	flushedBytes   prometheus.Counter
	flushErrors    prometheus.Counter
	snapshots      prometheus.Counter
	snapshotErrors prometheus.Counter
	lostRecords    prometheus.Counter
	lostSamples    prometheus.Counter
	damaged        prometheus.Counter
	droppedParts   prometheus.Counter
	droppedExem    prometheus.Counter
	readOnly       prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, db *DB) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "luminate_badger_" + name, Help: help})
	}
	gauge := func(name, help string, fn func() float64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: "luminate_badger_" + name, Help: help}, fn)
	}
	m := &metrics{
		samples: counter("appended_samples_total", "Samples and histograms taken."),
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "luminate_badger_refused_samples_total", Help: "Samples refused on append, by reason.",
		}, []string{"reason"}),
		series:  counter("created_series_total", "Series created; a series is created anew on each UTC day."),
		commits: counter("commits_total", "Writes to the log; one serves all requests that wait."),
		commitSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name: "luminate_badger_commit_duration_seconds", Help: "Time from taking requests off the queue to their answers.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		logSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name: "luminate_badger_wal_write_duration_seconds", Help: "Time of one write to the log, with its fsync where walSync is always.",
			Buckets: prometheus.ExponentialBuckets(0.00001, 4, 10),
		}),
		snapSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name: "luminate_badger_snapshot_duration_seconds", Help: "Time to write a snapshot of the head, failed ones included.",
			Buckets: prometheus.ExponentialBuckets(0.005, 3, 10),
		}),
		flushedGroups:  counter("flushed_groups_total", "Groups of 64 series written as blocks."),
		flushedSamples: counter("flushed_samples_total", "Samples written in blocks."),
		flushedBytes:   counter("flushed_bytes_total", "Bytes of blocks written."),
		flushErrors:    counter("flush_errors_total", "Flushes that failed; their samples stay in memory and in the log."),
		snapshots:      counter("snapshots_total", "Snapshots of the head."),
		snapshotErrors: counter("snapshot_errors_total", "Snapshots that failed; the log is kept instead."),
		lostRecords:    counter("wal_lost_records_total", "Log records that recovery could not read."),
		lostSamples:    counter("wal_orphan_samples_total", "Samples in the log whose series record was lost."),
		damaged:        counter("damaged_values_total", "Stored values found damaged on reading."),
		droppedParts:   counter("dropped_partitions_total", "Days of a tenant dropped by retention or maxBytes."),
		droppedExem:    counter("dropped_exemplars_total", "Exemplars replaced by newer ones of their series."),
		readOnly: f.NewGauge(prometheus.GaugeOpts{
			Name: "luminate_badger_read_only", Help: "1 while writes are refused: low disk space or a broken log.",
		}),
	}
	gauge("head_bytes", "Memory that holds samples not yet in blocks.", func() float64 { return float64(db.head.bytes.Load()) })
	gauge("queue_samples", "Samples that wait for the committer.", func() float64 { return float64(db.queued.Load()) })
	gauge("queue_capacity_samples", "Bound of the samples that wait.", func() float64 { return float64(db.cfg.QueueSamples) })
	gauge("wal_bytes", "Size of the write-ahead log.", func() float64 {
		if l := db.wal.Load(); l != nil {
			return float64(l.Size())
		}
		return 0
	})
	gauge("last_snapshot_timestamp_seconds", "When the last snapshot was made, Unix time; 0 before the first.", func() float64 { return float64(db.snapAt.Load()) / 1000 })
	gauge("head_limit_bytes", "Memory of samples not yet in blocks at which they are written out early.", func() float64 { return float64(db.cfg.HeadMaxBytes) })
	gauge("disk_free_bytes", "Free bytes of the data directory's file system.", func() float64 { return float64(db.disk.free.Load()) })
	gauge("disk_size_bytes", "Size of the data directory's file system; 0 where it cannot be measured.", func() float64 { return float64(db.disk.total.Load()) })
	gauge("disk_floor_bytes", "Free bytes below which writes are refused.", func() float64 { return float64(db.cfg.MinFreeBytes) })
	gauge("open_partitions", "Days of tenants that are in memory.", func() float64 { return float64(db.openParts.Load()) })
	gauge("open_series", "Series of the days that are in memory.", func() float64 { return float64(db.openSeries.Load()) })
	return m
}
