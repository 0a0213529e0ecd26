package tenancy

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/luminate/luminate/storage"
)

func TestLimitsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.yaml")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("defaults:\n  maxActiveSeries: 10\ntenants:\n  a:\n    maxActiveSeries: 20\n    maxQueryRange: 90d\n")
	x := newLimited(t, DefaultLimits(), func(c *LimiterConfig) { c.File = path })
	b := storage.MustTenant("b")
	if x.limiter.LimitsOf(tenantA).MaxActiveSeries != 20 || x.limiter.LimitsOf(b).MaxActiveSeries != 10 || x.limiter.LimitsOf(b).SamplesPerSecond != 500_000 {
		t.Errorf("a %+v, b %+v", x.limiter.LimitsOf(tenantA), x.limiter.LimitsOf(b))
	}
	if d := time.Duration(x.limiter.LimitsOf(tenantA).MaxQueryRange); d != 90*24*time.Hour {
		t.Errorf("90d is %s", d)
	}
	if _, err := x.append(t, batchOf("m", 0, 1, x.clock.Now())); err != nil {
		t.Fatal(err)
	}
	hash := testutil.ToFloat64(x.limiter.metrics.hash)
	for name, c := range map[string]struct{ content, message string }{
		"unknown key":       {"tenants:\n  a:\n    maxActiveSerie: 5\n", `tenants.a: unknown key "maxActiveSerie", the nearest is "maxActiveSeries"`},
		"unknown section":   {"tenant: {}\n", `unknown key "tenant", the nearest is "tenants"`},
		"not YAML":          {"tenants: [\n", "yaml"},
		"twice":             {"tenants:\n  a: {}\n  a: {}\n", "already"},
		"bad tenant":        {"tenants:\n  ../x: {}\n", "tenants.../x"},
		"negative":          {"defaults:\n  maxActiveSeries: -1\n", "maxActiveSeries must not be negative"},
		"bad duration":      {"defaults:\n  maxPast: 7 days\n", "duration"},
		"number for a text": {"defaults:\n  maxPast: 7\n", "a duration is a string"},
		"gone":              {"", ""},
	} {
		write(c.content)
		if name == "gone" {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		err := x.limiter.reload()
		if err == nil || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%s: %v", name, err)
		}
		if x.limiter.LimitsOf(tenantA).MaxActiveSeries != 20 || testutil.ToFloat64(x.limiter.metrics.reloadOK) != 0 {
			t.Errorf("%s: the old values do not hold, or the metric does not tell", name)
		}
	}
	write("tenants:\n  a:\n    maxActiveSeries: 1\n    samplesPerSecond: 7\n")
	if err := x.limiter.reload(); err != nil {
		t.Fatal(err)
	}
	if testutil.ToFloat64(x.limiter.metrics.reloadOK) != 1 || testutil.ToFloat64(x.limiter.metrics.hash) == hash {
		t.Error("the metrics do not tell of the new file")
	}
	res, err := x.append(t, batchOf("m", 0, 3, x.clock.Now()))
	if err != nil || res.Samples != 1 {
		t.Errorf("the new limit does not act on a known tenant: %+v, %v", res, err)
	}
}

func TestAdminLimits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.yaml")
	if err := os.WriteFile(path, []byte("# a comment that stays\ntenants:\n  a: {maxActiveSeries: 20}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := func(c *LimiterConfig) { c.File = path }
	x := newLimited(t, DefaultLimits(), file)
	admin := NewContext(t.Context(), Identity{Tenant: tenantA, Authenticated: true, Scopes: []Scope{ScopeAdmin}})
	operator := NewContext(t.Context(), Identity{Authenticated: true, Scopes: []Scope{ScopeOperator}})
	if _, err := x.limiter.SetTenantLimits(admin, tenantA, json.RawMessage(`{"maxActiveSeries": 5}`)); err != nil {
		t.Fatalf("an admin lowers a limit: %v", err)
	}
	for name, c := range map[string]struct {
		ctx context.Context
		t   string
		doc string
	}{
		"an admin raises a limit":          {admin, "a", `{"maxActiveSeries": 21}`},
		"an admin takes a limit away":      {admin, "a", `{"samplesPerSecond": 0}`},
		"an admin sets another's":          {admin, "b", `{"maxActiveSeries": 1}`},
		"an unknown key":                   {operator, "a", `{"maxSeries": 1}`},
		"not an object":                    {operator, "a", `[1]`},
		"two documents":                    {operator, "a", `{} {}`},
		"a negative limit by the operator": {operator, "a", `{"maxMetrics": -1}`},
	} {
		_, err := x.limiter.SetTenantLimits(c.ctx, storage.MustTenant(c.t), json.RawMessage(c.doc))
		if k := storage.KindOf(err); err == nil || k != storage.KindInvalid && k != storage.KindNotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := x.limiter.LimitsOf(tenantA).MaxActiveSeries; got != 5 {
		t.Errorf("limit %d, want 5", got)
	}
	got, err := x.limiter.SetTenantLimits(operator, tenantA, json.RawMessage(`{"maxActiveSeries": 50}`))
	if err != nil || got.(TenantLimits).Limits.MaxActiveSeries != 50 || !strings.Contains(string(got.(TenantLimits).Own), "50") {
		t.Errorf("an operator raises a limit: %+v, %v", got, err)
	}
	// Another process, or the next start, has them too; the operator's file is as it was.
	again := newLimited(t, DefaultLimits(), file)
	if again.limiter.LimitsOf(tenantA).MaxActiveSeries != 50 {
		t.Error("the limit did not last")
	}
	if b, _ := os.ReadFile(path); !strings.Contains(string(b), "a comment that stays") {
		t.Errorf("the operator's file was rewritten: %s", b)
	}
	if _, err := again.limiter.SetTenantLimits(operator, tenantA, json.RawMessage(`{}`)); err != nil || again.limiter.LimitsOf(tenantA).MaxActiveSeries != 20 {
		t.Errorf("taken back: %v, %d", err, again.limiter.LimitsOf(tenantA).MaxActiveSeries)
	}
	if err := x.limiter.reload(); err != nil || x.limiter.LimitsOf(tenantA).MaxActiveSeries != 20 {
		t.Errorf("the other process: %v, %d", err, x.limiter.LimitsOf(tenantA).MaxActiveSeries)
	}
	none := newLimited(t, DefaultLimits(), nil)
	if _, err := none.limiter.SetTenantLimits(operator, tenantA, json.RawMessage(`{}`)); storage.KindOf(err) != storage.KindInvalid {
		t.Errorf("without a file: %v", err)
	}
	if _, err := x.limiter.TenantUsage(admin, storage.MustTenant("b")); storage.KindOf(err) != storage.KindNotFound {
		t.Errorf("the usage of another tenant: %v", err)
	}
}

func TestUsageIsWarnedOfAndSaved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.yaml")
	if err := os.WriteFile(path, []byte("defaults: {maxActiveSeries: 100, samplesPerDay: 1000}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	x := newLimited(t, UnlimitedLimits(), func(c *LimiterConfig) { c.File = path })
	warnings := func() int { return strings.Count(x.log.String(), "nearly used up") }
	step := func(first, n, want int) {
		t.Helper()
		if _, err := x.append(t, batchOf("m", first, n, x.clock.Now())); err != nil {
			t.Fatal(err)
		}
		x.clock.add(tick)
		x.limiter.measure(x.clock.Now())
		if warnings() != want {
			t.Errorf("%d warnings, want %d: %s", warnings(), want, x.log)
		}
	}
	step(0, 70, 0)
	step(70, 15, 1)
	step(85, 5, 1)
	if r := testutil.ToFloat64(x.limiter.metrics.usage.WithLabelValues("a", "max-active-series")); r != 0.9 {
		t.Errorf("usage %v, want 0.9", r)
	}
	u, err := x.limiter.TenantUsage(t.Context(), tenantA)
	if err != nil || u.(TenantUsage).SeriesToday != 90 || u.(TenantUsage).Accepted != 90 {
		t.Errorf("usage %+v, %v", u, err)
	}
	if _, err := json.Marshal(u); err != nil {
		t.Error(err)
	}
	x.limiter.saveUsage()
	again := newLimited(t, UnlimitedLimits(), func(c *LimiterConfig) { c.File, c.Now = path, x.clock.Now })
	if again.limiter.state(tenantA).today != 90 {
		t.Errorf("after a restart %d samples of the day are known, want 90", again.limiter.state(tenantA).today)
	}
}

func TestTenantsAreForgotten(t *testing.T) {
	x := newLimited(t, Limits{SamplesPerSecond: 1, SamplesBurst: 1}, func(c *LimiterConfig) { c.MaxTenants = 10 })
	for i := range 50 {
		x.clock.add(time.Millisecond)
		_, _ = x.Append(t.Context(), storage.MustTenant(fmt.Sprintf("t%d", i)), batchOf("m", 0, 2, x.clock.Now()))
	}
	if n := len(x.limiter.states); n != 10 {
		t.Errorf("%d tenants are kept", n)
	}
	if n := testutil.CollectAndCount(x.limiter.metrics.limited); n > 11 {
		t.Errorf("%d series of the metric are kept", n)
	}
}

func TestLimiterRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.yaml")
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	x := newLimited(t, UnlimitedLimits(), func(c *LimiterConfig) { c.File, c.Reload, c.Poll = path, time.Millisecond, time.Millisecond })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- x.limiter.Run(ctx, x.model) }()
	defer func() { cancel(); <-done }()
	if err := os.WriteFile(path, []byte("defaults: {maxMetrics: 7}"), 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return x.limiter.LimitsOf(tenantA).MaxMetrics == 7 })
}

func FuzzLimitFile(f *testing.F) {
	f.Add("defaults: {maxActiveSeries: 1}\ntenants: {a: {maxPast: 1h}}")
	f.Add(`{"tenants":{"a":null}}`)
	f.Add("defaults: 7")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := parseLimitFile([]byte(text))
		if err != nil {
			return
		}
		set, err := buildLimits(DefaultLimits(), file, limitFile{})
		if err == nil && set.defaults.Validate() != nil {
			t.Fatalf("limits that are not valid pass: %+v", set.defaults)
		}
	})
}
