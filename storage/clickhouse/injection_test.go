package clickhouse_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/clickhouse/chtest"
	"github.com/luminate/luminate/storage/storagetest"
)

// TestHostileLabels stores and finds labels that would do harm as SQL.
func TestHostileLabels(t *testing.T) {
	s, model := open(t, testConfig(chtest.DSN(t))), storagetest.NewModel()
	now := time.Now().UnixMilli()
	hostile := []string{
		`'; DROP TABLE samples; --`, `\'`, "`", `"`, "{p0:String}", "a\x00b", "\n", "\t", "日本'", `\\`, "' OR 1=1 --", strings.Repeat("'", 300), "[]", "%",
	}
	var b storage.Batch
	for _, x := range hostile {
		b.Add(storage.LabelsFromStrings(storage.MetricName, x, "l", x, x, "v", "customer_id", x), storage.Sample{T: now, V: 1})
	}
	storagetest.MustAppend(t, s, "a", &b)
	storagetest.MustAppend(t, model, "a", &b)
	for _, x := range hostile {
		for _, ms := range [][]*storage.Matcher{
			{storagetest.Eq(storage.MetricName, x)}, {storagetest.Eq("l", x)}, {storagetest.Ne("l", x)}, {storagetest.Eq(x, "v")},
			{storagetest.Re("l", ".*"+regexp.QuoteMeta(x)+".*")}, {storagetest.Re("l", regexp.QuoteMeta(x)+"|other")}, {storagetest.Eq("customer_id", x)},
		} {
			sel := storage.Selection{Matchers: ms, MinT: now - 1000, MaxT: now}
			if d := storagetest.DiffSeries(storagetest.Collect(t, s, "a", sel), storagetest.Collect(t, model, "a", sel)); d != "" {
				t.Fatalf("%s: %s", storage.FormatSelector(ms), d)
			}
		}
		got, err := s.LabelValues(t.Context(), storage.MustTenant("a"), x, storage.Selection{MinT: now - 1000, MaxT: now})
		if err != nil || len(got) != 1 || got[0] != "v" {
			t.Fatalf("values of %q: %q, %v", x, got, err)
		}
	}
}
