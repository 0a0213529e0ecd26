package clickhouse

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/luminate/luminate/storage"
)

// activity counts what this process wrote, for Tenants.
type activity struct {
	now func() time.Time

	mu      sync.Mutex
	tenants map[string]time.Time
}

func newActivity(cfg Config) *activity {
	return &activity{now: cfg.now, tenants: map[string]time.Time{}}
}

func (a *activity) wrote(tenant string, samples int) {
	if samples == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tenants[tenant] = a.now()
}

func (a *activity) last(tenant string) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tenants[tenant]
}

func (a *activity) forget(tenant string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.tenants, tenant)
}

// rateWindow is what SamplesPerSecond looks back at.
const rateWindow = 5 * time.Minute

// Tenants implements storage.Store. LastWrite of other processes is known to an hour.
func (s *Store) Tenants(ctx context.Context) ([]storage.TenantStats, error) {
	if err := s.open(ctx, "tenants"); err != nil {
		return nil, err
	}
	byName := map[string]storage.TenantStats{}
	now := s.cfg.now()
	for _, sh := range s.shards {
		var p params
		sql := render("read/tenants", fragments{"Today": p.i64(dayOf(now.UnixMilli()))})
		err := s.each(ctx, sh, sql, p.args, func(r driver.Rows) error {
			var x storage.TenantStats
			if err := r.Scan(&x.Tenant, &x.ActiveSeries, &x.LastWrite); err != nil {
				return err
			}
			old := byName[x.Tenant]
			x.ActiveSeries += old.ActiveSeries
			x.LastWrite = latest(x.LastWrite, old.LastWrite, s.activity.last(x.Tenant))
			byName[x.Tenant] = x
			return nil
		})
		if err == nil {
			err = s.addRates(ctx, sh, byName, now)
		}
		if err != nil {
			return nil, translate(ctx, "tenants", err)
		}
	}
	out := make([]storage.TenantStats, 0, len(byName))
	for _, x := range byName {
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b storage.TenantStats) int {
		if a.Tenant < b.Tenant {
			return -1
		}
		return 1
	})
	return out, nil
}

func (s *Store) addRates(ctx context.Context, sh *shard, byName map[string]storage.TenantStats, now time.Time) error {
	var p params
	from := now.Add(-rateWindow).UnixMilli()
	sql := render("read/tenant_rates", fragments{
		"Seconds": p.f64(rateWindow.Seconds()), "Where": "ts > " + p.time(from) + " AND ts <= " + p.time(now.UnixMilli()),
	})
	return s.each(ctx, sh, sql, p.args, func(r driver.Rows) error {
		var tenant string
		var rate float64
		err := r.Scan(&tenant, &rate)
		if x, ok := byName[tenant]; ok {
			x.SamplesPerSecond += rate
			byName[tenant] = x
		}
		return err
	})
}

func latest(ts ...time.Time) (t time.Time) {
	for _, x := range ts {
		if x.After(t) {
			t = x
		}
	}
	return t
}

// healthTimeout bounds Health: a probe wants an answer, not patience.
const healthTimeout = 2 * time.Second

// Health implements storage.Store: every shard must answer.
func (s *Store) Health(ctx context.Context) storage.Health {
	h := storage.Health{Backend: "clickhouse", Status: storage.HealthOK}
	err := s.open(ctx, "health")
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, healthTimeout)
		defer cancel()
		for _, sh := range s.shards {
			err = errors.Join(err, s.shardHealth(ctx, sh, &h))
		}
		err = translate(ctx, "health", err)
	}
	if err != nil {
		h.Status, h.Error = storage.HealthDown, err.Error()
	}
	return h
}

func (s *Store) shardHealth(ctx context.Context, sh *shard, h *storage.Health) error {
	var used, free uint64
	err := s.each(ctx, sh, render("read/disk", nil), nil, func(r driver.Rows) error { return r.Scan(&used) })
	if err != nil {
		return err
	}
	err = s.each(ctx, sh, render("read/disk_free", nil), nil, func(r driver.Rows) error { return r.Scan(&free) })
	h.DiskUsedBytes += used
	h.DiskFreeBytes += free
	return err
}

// Cleanup implements storage.Store: rows that a policy hides are masked, then the
// bytes of all masked rows are freed and the receipts of deletes say so. Whole
// partitions beyond their class are dropped by the tables' TTL.
func (s *Store) Cleanup(ctx context.Context) (storage.CleanupReport, error) {
	var report storage.CleanupReport
	if err := s.open(ctx, "cleanup"); err != nil {
		return report, err
	}
	pending, err := s.pendingReceipts(ctx)
	if err != nil {
		return report, translate(ctx, "cleanup", err)
	}
	tenants, err := s.policyTenants(ctx)
	if err != nil {
		return report, translate(ctx, "cleanup", err)
	}
	for _, tenant := range tenants {
		n, err := s.cleanTenant(ctx, tenant)
		report.Metrics += n
		if err != nil {
			return report, translate(ctx, "cleanup", err)
		}
	}
	err = s.onShards(ctx, func(ctx context.Context, sh *shard) error {
		for _, table := range []string{"samples", "histograms", "exemplars", "series"} {
			if err := s.exec(ctx, sh, render("write/erase", fragments{"Table": table, "OnCluster": ""}), nil, maskSettings); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return report, translate(ctx, "cleanup", err)
	}
	for _, r := range pending {
		r.ErasedAt = s.cfg.now()
		if err := s.writeReceipt(ctx, r); err != nil {
			return report, translate(ctx, "cleanup", err)
		}
		report.DeletesErased++
	}
	return report, nil
}

// pendingReceipts lists the deletes whose bytes are not freed.
func (s *Store) pendingReceipts(ctx context.Context) (out []receipt, err error) {
	err = s.each(ctx, s.home(), render("read/deletes_pending", nil), nil, func(row driver.Rows) error {
		var r receipt
		var erased time.Time
		err := row.Scan(&r.tenant, &r.ID, &r.kind, &r.Selector, &r.MinT, &r.MaxT, &r.MatchedSeries, &r.CreatedAt, &erased)
		out = append(out, r)
		return err
	})
	return out, err
}

func (s *Store) policyTenants(ctx context.Context) (out []string, err error) {
	err = s.each(ctx, s.home(), render("read/retention_tenants", nil), nil, func(r driver.Rows) error {
		var tenant string
		err := r.Scan(&tenant)
		out = append(out, tenant)
		return err
	})
	return out, err
}

// cleanTenant masks what the policies of a tenant hide; it returns how many metrics
// had something to hide.
func (s *Store) cleanTenant(ctx context.Context, tenant string) (int, error) {
	pol, err := s.readPolicies(ctx, tenant)
	if err != nil || len(pol.list) == 0 {
		return 0, err
	}
	now := s.cfg.now().UnixMilli()
	byBound := map[int64][]string{}
	for _, sh := range s.shards {
		var p params
		err := s.each(ctx, sh, render("read/metrics", fragments{"Where": "tenant = " + p.str(tenant)}), p.args, func(r driver.Rows) error {
			var metric string
			err := r.Scan(&metric)
			if m := pol.mint(metric, now); m > minTime && !slices.Contains(byBound[m], metric) {
				byBound[m] = append(byBound[m], metric)
			}
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	if len(byBound) == 0 {
		return 0, nil
	}
	metrics := 0
	for mint, names := range byBound {
		n, err := s.maskOlder(ctx, tenant, names, mint)
		if err != nil {
			return metrics, err
		}
		metrics += n
	}
	if metrics == 0 {
		return 0, nil
	}
	s.discovery.changed(tenant)
	return metrics, s.writeReceipt(ctx, receipt{tenant: tenant, kind: deleteCleanup, DeleteReceipt: storage.DeleteReceipt{ID: newToken(), CreatedAt: s.cfg.now()}})
}

// maskOlder hides the rows of some metrics before mint, where there are any.
func (s *Store) maskOlder(ctx context.Context, tenant string, metrics []string, mint int64) (int, error) {
	found := 0
	err := s.onShards(ctx, func(ctx context.Context, sh *shard) error {
		var p params
		old := "tenant = " + p.str(tenant) + " AND metric IN " + p.strs(metrics) + " AND day < " + p.i64(dayOf(mint)+1)
		n := 0
		err := s.each(ctx, sh, render("read/metrics", fragments{"Where": old}), p.args, func(driver.Rows) error { n++; return nil })
		if err != nil || n == 0 {
			return err
		}
		found = n
		for _, table := range kindTables {
			var p params
			where := "tenant = " + p.str(tenant) + " AND metric IN " + p.strs(metrics) + " AND ts < " + p.time(mint)
			if err := s.mask(ctx, sh, table, where, p.args); err != nil {
				return err
			}
		}
		var dp params
		where := "tenant = " + dp.str(tenant) + " AND metric IN " + dp.strs(metrics) + " AND day < " + dp.i64(dayOf(mint))
		return s.mask(ctx, sh, "series", where, dp.args)
	})
	return found, err
}
