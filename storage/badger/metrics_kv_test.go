package badger

import (
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestMetricsOfTheTree gathers what Badger tells of itself, and nothing once it is
// closed: a scrape may come while the process shuts down.
func TestMetricsOfTheTree(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	db, err := Open(testConfig(t.TempDir()), slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	levels := len(db.kv.Levels())
	for name, want := range map[string]int{
		"luminate_badger_lsm_tables": levels, "luminate_badger_lsm_bytes": levels, "luminate_badger_lsm_target_bytes": levels,
		"luminate_badger_lsm_compaction_score": levels, "luminate_badger_lsm_stale_bytes": levels,
		"luminate_badger_index_cache_hits_total": 1, "luminate_badger_index_cache_misses_total": 1, "luminate_badger_index_cache_evicted_bytes_total": 1,
	} {
		if got, err := testutil.GatherAndCount(reg, name); got != want || err != nil {
			t.Errorf("%s: %d series, want %d (%v)", name, got, want, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := testutil.GatherAndCount(reg, "luminate_badger_lsm_tables"); got != 0 || err != nil {
		t.Errorf("closed: %d series, %v", got, err)
	}
}
