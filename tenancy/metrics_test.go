package tenancy

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/luminate/luminate/storage"
)

// TestMetricsOfTenants counts what a tenant stored and was refused, and forgets it
// with the tenant.
func TestMetricsOfTenants(t *testing.T) {
	limits := UnlimitedLimits()
	limits.MaxActiveSeries = 2
	x := newLimited(t, limits, func(c *LimiterConfig) { c.MaxTenants = 1 })
	now := x.clock.Now()
	if _, err := x.append(t, batchOf("m", 0, 5, now)); err != nil {
		t.Fatal(err)
	}
	older := batchOf("m", 0, 1, now.Add(-time.Minute))
	if _, err := x.append(t, older); err != nil {
		t.Fatal(err)
	}
	names := []string{
		"luminate_tenancy_accepted_samples_total", "luminate_tenancy_refused_samples_total", "luminate_tenancy_active_series", "luminate_tenancy_new_series_total",
	}
	want := `
# HELP luminate_tenancy_active_series Series of the tenant with a sample in the last 30 to 60 minutes, of all processes; only where a limit on series is set.
# TYPE luminate_tenancy_active_series gauge
luminate_tenancy_active_series{tenant="a"} 2
# HELP luminate_tenancy_new_series_total Series of the tenant that this process let in because they were not active; only where a limit on series is set.
# TYPE luminate_tenancy_new_series_total counter
luminate_tenancy_new_series_total{tenant="a"} 2
# HELP luminate_tenancy_accepted_samples_total Samples and histograms stored for the tenant by this process.
# TYPE luminate_tenancy_accepted_samples_total counter
luminate_tenancy_accepted_samples_total{tenant="a"} 3
# HELP luminate_tenancy_refused_samples_total Samples, or whole series, of accepted requests that were not stored, by tenant and reason.
# TYPE luminate_tenancy_refused_samples_total counter
luminate_tenancy_refused_samples_total{reason="` + string(storage.ReasonSeriesLimit) + `",tenant="a"} 3
`
	if err := testutil.GatherAndCompare(x.reg, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
	if got := x.limiter.state(tenantA).newest.Load(); got != now.UnixMilli() {
		t.Errorf("newest is %d, sent was %d and older", got, now.UnixMilli())
	}
	x.clock.add(time.Second)
	if _, err := x.Append(t.Context(), storage.MustTenant("b"), batchOf("m", 0, 1, now)); err != nil {
		t.Fatal(err)
	}
	want = `
# HELP luminate_tenancy_accepted_samples_total Samples and histograms stored for the tenant by this process.
# TYPE luminate_tenancy_accepted_samples_total counter
luminate_tenancy_accepted_samples_total{tenant="b"} 1
`
	if err := testutil.GatherAndCompare(x.reg, strings.NewReader(want), names[:2]...); err != nil {
		t.Errorf("after tenant a was forgotten: %v", err)
	}
}
