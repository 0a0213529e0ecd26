package clickhouse_test

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/clickhouse"
	"github.com/luminate/luminate/storage/clickhouse/chtest"
	"github.com/luminate/luminate/storage/storagetest"
)

// BenchmarkBackup backs up and restores two million samples of 20,000 series: the times
// of the runbook.
func BenchmarkBackup(b *testing.B) {
	const series, scrapes = 20_000, 100
	server := chtest.Own(b)
	cfg := testConfig(server.Database(b))
	cfg.BackupTo = "File('" + server.Folder(b) + "')"
	s, now := open(b, cfg), time.Now().UnixMilli()
	g := storagetest.NewGenerator(storagetest.PerformanceWorkload(series, 20))
	for scrape := range scrapes {
		for from := 0; from < series; from += 10_000 {
			var batch storage.Batch
			g.Scrape(&batch, now-int64(scrapes-scrape)*15_000, from, from+10_000)
			storagetest.MustAppend(b, s, "a", &batch)
		}
	}
	var backup, restore, backupCPU, restoreCPU time.Duration
	for b.Loop() {
		var w bytes.Buffer
		began, cpu := time.Now(), server.CPU()
		if _, err := s.Backup(b.Context(), &w); err != nil {
			b.Fatal(err)
		}
		backup, backupCPU = backup+time.Since(began), backupCPU+server.CPU()-cpu
		m, err := clickhouse.ReadManifest(&w)
		if err != nil {
			b.Fatal(err)
		}
		to := cfg
		to.Shards = []string{server.Database(b)}
		began, cpu = time.Now(), server.CPU()
		if _, err := clickhouse.Restore(b.Context(), to, m, false, slog.New(slog.DiscardHandler)); err != nil {
			b.Fatal(err)
		}
		restore, restoreCPU = restore+time.Since(began), restoreCPU+server.CPU()-cpu
	}
	per := func(d time.Duration) float64 { return d.Seconds() / float64(b.N) / (series * scrapes / 1e6) }
	b.ReportMetric(per(backup), "backup-s/M")
	b.ReportMetric(per(backupCPU), "backup-CPU-s/M")
	b.ReportMetric(per(restore), "restore-s/M")
	b.ReportMetric(per(restoreCPU), "restore-CPU-s/M")
}
