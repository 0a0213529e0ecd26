package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestCensusTellsTheLargest fills more tenants and metrics than a census tells of.
func TestCensusTellsTheLargest(t *testing.T) {
	store, now := storagetest.NewModel(), time.Now()
	for n := range censusMetricTenants + 2 {
		tenant := storage.MustTenant(fmt.Sprintf("t%02d", n))
		var b storage.Batch
		var l storage.LabelsBuilder
		for metric := range censusMetrics + 3 {
			for series := range metric + 1 + n {
				l.Reset()
				l.Add("__name__", fmt.Sprintf("m%02d", metric))
				l.Add("n", fmt.Sprint(series))
				var err error
				if b.Labels, err = l.AppendTo(b.Labels); err != nil {
					t.Fatal(err)
				}
				b.AddSample(now.UnixMilli(), 0, 1)
				b.EndSeries()
			}
		}
		if _, err := store.Append(t.Context(), tenant, &b); err != nil {
			t.Fatal(err)
		}
	}
	reg := prometheus.NewPedanticRegistry()
	c := newCensus(reg)
	if n, err := testutil.GatherAndCount(reg); n != 0 || err != nil {
		t.Fatalf("before the first count: %d series, %v", n, err)
	}
	count, err := takeCensus(t.Context(), store, now)
	if err != nil {
		t.Fatal(err)
	}
	c.last.Store(count)
	for name, want := range map[string]int{
		"luminate_tenants": 1, "luminate_tenant_active_series": censusMetricTenants + 2,
		"luminate_tenant_metric_series": censusMetricTenants * censusMetrics, "luminate_census_timestamp_seconds": 1,
	} {
		if got, err := testutil.GatherAndCount(reg, name); got != want || err != nil {
			t.Errorf("%s: %d series, want %d (%v)", name, got, want, err)
		}
	}
	if got := count.largest[0]; got.Tenant != fmt.Sprintf("t%02d", censusMetricTenants+1) {
		t.Errorf("the largest tenant is %s", got.Tenant)
	}
	for tenant, metrics := range count.metrics {
		if tenant < "t02" || metrics[0].Name != fmt.Sprintf("m%02d", censusMetrics+2) || !strings.HasPrefix(metrics[len(metrics)-1].Name, "m03") {
			t.Errorf("tenant %s: largest metrics %v", tenant, metrics)
		}
	}
}
