package clickhouse

import (
	"context"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/luminate/luminate/storage"
)

// maskSettings make a lightweight DELETE answer when every replica hides the rows. It
// applies to the parts that exist when it starts, so later rows are not touched.
var maskSettings = clickhouse.Settings{"lightweight_deletes_sync": 2, "mutations_sync": 2}

// receipt is a row of table deletes.
type receipt struct {
	storage.DeleteReceipt
	tenant, kind string
}

// Kinds of receipts. All of them make every process forget the tenant's known series.
const (
	deleteSelection = "selection"
	deleteTenant    = "tenant"
	deleteCleanup   = "cleanup"
)

// Delete implements storage.Store. It answers when the rows are masked; Cleanup frees
// their bytes.
func (s *Store) Delete(ctx context.Context, t storage.Tenant, q storage.Selection) (storage.DeleteReceipt, error) {
	if err := s.enter(ctx, "delete", t); err != nil {
		return storage.DeleteReceipt{}, err
	}
	if err := q.Validate(); err != nil {
		return storage.DeleteReceipt{}, err
	}
	r := receipt{tenant: t.String(), kind: deleteSelection, DeleteReceipt: storage.DeleteReceipt{
		ID: newToken(), State: storage.DeleteHidden, Selector: storage.FormatSelector(q.Matchers), MinT: q.MinT, MaxT: q.MaxT, CreatedAt: s.cfg.now(),
	}}
	// What retention hides is deleted too: a longer policy must not bring it back.
	sel := selection{tenant: t, matchers: q.Matchers, mint: clampTime(q.MinT), maxt: clampTime(q.MaxT)}
	sel.metric, sel.one = storage.MetricOf(q.Matchers)
	rows, err := s.loadSeries(ctx, "delete", selection{tenant: t, matchers: q.Matchers, mint: sel.mint, maxt: sel.maxt, one: true})
	if err != nil {
		return storage.DeleteReceipt{}, translate(ctx, "delete", err)
	}
	r.MatchedSeries = uint64(len(rows))
	defer s.discovery.changed(t.String())
	if err := s.writeReceipt(ctx, r); err != nil {
		return storage.DeleteReceipt{}, translate(ctx, "delete", err)
	}
	if len(rows) > 0 {
		err = s.onShards(ctx, func(ctx context.Context, sh *shard) error { return s.maskSelection(ctx, sh, sel, rows) })
		if err != nil {
			return storage.DeleteReceipt{}, translate(ctx, "delete", err)
		}
	}
	// Again, as a new epoch: series rows that somebody stored meanwhile may be masked.
	return r.DeleteReceipt, translate(ctx, "delete", s.writeReceipt(ctx, r))
}

// maskSelection hides samples, histograms and exemplars of the series, and the series
// rows of the days that lie wholly in the range.
func (s *Store) maskSelection(ctx context.Context, sh *shard, sel selection, rows []seriesRow) error {
	f := s.filterFor(sel, rows, sh.index, true)
	if f.none {
		return nil
	}
	for _, table := range kindTables {
		var p params
		if err := s.mask(ctx, sh, table, s.where(&p, sel, f), p.args); err != nil {
			return err
		}
	}
	first, last := dayOf(sel.mint+dayMillis-1), dayOf(sel.maxt+1)-1
	if first > last {
		return nil
	}
	var p params
	where := s.matcherSQL(&p, sel.tenant, sel.matchers) + " AND day BETWEEN " + p.i64(first) + " AND " + p.i64(last)
	return s.mask(ctx, sh, "series", where, p.args)
}

// mask hides the rows of a table that exist now.
func (s *Store) mask(ctx context.Context, sh *shard, table, where string, args []any) error {
	sql := render("write/delete_rows", fragments{"Table": table, "OnCluster": "", "Where": where})
	return s.exec(ctx, sh, sql, args, maskSettings)
}

func (s *Store) writeReceipt(ctx context.Context, r receipt) error {
	erased := r.ErasedAt
	if erased.IsZero() {
		erased = time.Unix(0, 0)
	}
	return s.insert(ctx, s.home(), render("write/insert_deletes", nil), newToken(), []any{
		[]string{r.tenant}, []string{r.ID}, []string{r.kind}, []string{r.Selector}, []int64{r.MinT}, []int64{r.MaxT},
		[]uint64{r.MatchedSeries}, []time.Time{r.CreatedAt.UTC()}, []time.Time{erased.UTC()},
	})
}

// DeleteStatus implements storage.Store.
func (s *Store) DeleteStatus(ctx context.Context, t storage.Tenant, id string) (storage.DeleteReceipt, error) {
	if err := s.enter(ctx, "delete status", t); err != nil {
		return storage.DeleteReceipt{}, err
	}
	var p params
	sql := render("read/delete_status", fragments{"Where": "tenant = " + p.str(t.String()) + " AND id = " + p.str(id)})
	found := false
	r := storage.DeleteReceipt{State: storage.DeleteHidden}
	err := s.each(ctx, s.home(), sql, p.args, func(row driver.Rows) error {
		found = true
		return row.Scan(&r.ID, &r.Selector, &r.MinT, &r.MaxT, &r.MatchedSeries, &r.CreatedAt, &r.ErasedAt)
	})
	if err != nil {
		return storage.DeleteReceipt{}, translate(ctx, "delete status", err)
	}
	if !found {
		return storage.DeleteReceipt{}, storage.Errorf(storage.KindNotFound, "delete status", "no delete with id %q", id)
	}
	if r.ErasedAt.Unix() == 0 {
		r.ErasedAt = time.Time{}
	} else {
		r.State = storage.DeleteErased
	}
	return r, nil
}

// DeleteTenant implements storage.Store.
func (s *Store) DeleteTenant(ctx context.Context, t storage.Tenant) error {
	if err := s.enter(ctx, "delete tenant", t); err != nil {
		return err
	}
	defer s.discovery.changed(t.String())
	r := receipt{tenant: t.String(), kind: deleteTenant, DeleteReceipt: storage.DeleteReceipt{ID: newToken(), CreatedAt: s.cfg.now()}}
	if err := s.writeReceipt(ctx, r); err != nil {
		return translate(ctx, "delete tenant", err)
	}
	err := s.onShards(ctx, func(ctx context.Context, sh *shard) error {
		for _, table := range []string{"samples", "histograms", "exemplars", "series", "metric_meta", "retention"} {
			var p params
			if err := s.mask(ctx, sh, table, "tenant = "+p.str(t.String()), p.args); err != nil {
				return err
			}
		}
		var p params // receipts of its deletes go too; the epoch stays
		return s.mask(ctx, sh, "deletes", "tenant = "+p.str(t.String())+" AND kind = "+p.str(deleteSelection), p.args)
	})
	s.policies.forget(t.String())
	s.metadata.forget(t.String())
	s.activity.forget(t.String())
	if err != nil {
		return translate(ctx, "delete tenant", err)
	}
	return translate(ctx, "delete tenant", s.writeReceipt(ctx, r))
}
