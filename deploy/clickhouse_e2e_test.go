//go:build e2e

package deploy

import (
	"testing"

	"github.com/luminate/luminate/storage/clickhouse/chtest"
)

// TestEveryPanelHasDataOnClickHouse is TestEveryPanelHasData on the other backend.
func TestEveryPanelHasDataOnClickHouse(t *testing.T) {
	p := startObserved(t, "--storage.backend", "clickhouse", "--storage.clickhouse.dsn", chtest.DSN(t))
	testPanels(t, p.url, "storage-badger.json", map[string]string{
		"cardinality.json New series on Badger": "ClickHouse counts rows",
		"cardinality.json Series in memory":     "ClickHouse has no head",
	})
	checkLive(t, p, "luminate_badger_", "luminate_unclean_shutdown")
	t.Run("in Grafana's terms", func(t *testing.T) { testGrafanasRequests(t, p.url) })
}
