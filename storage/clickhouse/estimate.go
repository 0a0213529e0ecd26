package clickhouse

import (
	"context"
	"errors"
	"math"
	"sync"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/luminate/luminate/storage"
)

const (
	// estimatedSeries is up to how many series an estimate looks up, and keeps for the Select of the same request; of more
	// it knows the number alone.
	estimatedSeries = 4096
	// sampledSeries is of how many series an estimate counts the samples.
	sampledSeries = 8
)

// Estimate implements storage.Store. Samples are what the metric's series had where they were read or counted last.
func (s *Store) Estimate(ctx context.Context, t storage.Tenant, q storage.Selection) (storage.Estimate, error) {
	var e storage.Estimate
	if err := s.enter(ctx, "estimate", t); err != nil {
		return e, err
	}
	if err := q.Validate(); err != nil {
		return e, err
	}
	sel, empty, err := s.plan(ctx, t, q.Matchers, q.MinT, q.MaxT)
	if err != nil || empty {
		return e, translate(ctx, "estimate", err)
	}
	if !s.estimateRosters(sel, &e) {
		if err := s.estimate(ctx, sel, &e); err != nil {
			return e, translate(ctx, "estimate", err)
		}
	}
	e.Bytes = 16*e.Samples + 300*e.Series
	return e, nil
}

// estimateRosters answers for a whole metric that was read before.
func (s *Store) estimateRosters(sel selection, e *storage.Estimate) bool {
	if !sel.one || !onlyMetric(sel.matchers) {
		return false
	}
	var sum storage.Estimate
	for _, sh := range s.shards {
		r := s.rosters.peek(rosterKey{shard: sh.index, tenant: sel.tenant.String(), metric: sel.metric}).roster
		if r == nil || r.density.Load() == 0 {
			return false
		}
		n := float64(len(r.ids))
		sum.Series += uint64(n)
		sum.Samples += samplesOf(n, math.Float64frombits(r.density.Load()), sel)
	}
	*e = sum
	return true
}

// samplesOf is how many samples some series are expected to have.
func samplesOf(series, density float64, sel selection) uint64 {
	return uint64(series * max(1, density*float64(sel.maxt-sel.mint)))
}

func (s *Store) estimate(ctx context.Context, sel selection, e *storage.Estimate) error {
	rows, err := s.findSeries(ctx, "estimate", sel, estimatedSeries)
	switch {
	case err == nil:
		bytes := int64(0)
		for _, r := range rows {
			bytes += int64(len(r.labels)) + 80
		}
		storage.ScratchOf(ctx).Keep(scratchOf(sel), rows, bytes)
		e.Series = uint64(len(rows))
	case errors.Is(err, errManySeries):
		if e.Series, err = s.countSeries(ctx, sel); err != nil {
			return err
		}
	default:
		return err
	}
	if e.Series == 0 {
		return nil
	}
	density, known := s.densities.of(sel)
	if !known {
		if density, err = s.countSamples(ctx, sel, rows); err != nil {
			return err
		}
		s.densities.learn(sel, density)
	}
	e.Samples = samplesOf(float64(e.Series), density, sel)
	return nil
}

// countSeries counts the matching series.
func (s *Store) countSeries(ctx context.Context, sel selection) (sum uint64, err error) {
	count := "count()" // a series has one row each day
	if dayOf(sel.mint) != dayOf(sel.maxt) {
		count = "uniq(series_id)"
	}
	for _, sh := range s.shards {
		var p params
		sql := render("read/estimate", fragments{"Count": count, "Where": s.seriesWhere(&p, sel.tenant, sel.matchers, sel.mint, sel.maxt)})
		err := s.each(ctx, sh, sql, p.args, func(r driver.Rows) error {
			var n uint64
			err := r.Scan(&n)
			sum += n
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	return sum, nil
}

// countSamples counts the samples of a few of the matching series, and returns how many one has in a millisecond.
func (s *Store) countSamples(ctx context.Context, sel selection, rows []seriesRow) (density float64, err error) {
	var samples, of uint64
	for _, sh := range s.shards {
		var p params
		f := rowFilter{}
		var series string
		if rows != nil {
			var some []seriesRow
			for _, r := range rows {
				if r.shard == sh.index && len(some) < sampledSeries {
					some = append(some, r)
				}
			}
			if f = s.filterFor(sel, some, sh.index, false); f.none {
				continue
			}
		} else {
			if sel.one {
				f.metrics = []string{sel.metric}
			}
			series = render("read/estimate_some", fragments{
				"Where": s.seriesWhere(&p, sel.tenant, sel.matchers, sel.mint, sel.maxt), "Limit": p.i64(sampledSeries),
			})
		}
		where := s.where(&p, sel, f)
		if series != "" {
			where += " AND " + series
		}
		sql := render("read/estimate_samples", fragments{"Where": where})
		err := s.each(ctx, sh, sql, p.args, func(r driver.Rows) error {
			var n, series uint64
			err := r.Scan(&n, &series)
			samples, of = samples+n, of+series
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	return float64(samples) / float64(max(of, 1)) / float64(max(1, sel.maxt-sel.mint)), nil
}

// scratchSelection is the key of a selection's series in a request's scratch.
type scratchSelection struct {
	tenant, selector string
	mint, maxt       int64
}

func scratchOf(sel selection) scratchSelection {
	return scratchSelection{sel.tenant.String(), storage.FormatSelector(sel.matchers), sel.mint, sel.maxt}
}

// densities remember for metrics how many samples a series has in a millisecond.
type densities struct {
	mu    sync.Mutex
	known map[densityKey]float64
}

type densityKey struct{ tenant, metric string }

// maxDensities bounds the metrics that are remembered; at that number all are forgotten.
const maxDensities = 10_000

// of returns a metric's density.
func (d *densities) of(sel selection) (density float64, known bool) {
	if !sel.one {
		return 0, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	density, known = d.known[densityKey{sel.tenant.String(), sel.metric}]
	return density, known
}

// leastSeen is the shortest range that tells a density, in milliseconds.
const leastSeen = 60_000

// learn takes what was seen over a selection's range.
func (d *densities) learn(sel selection, density float64) {
	if !sel.one || sel.maxt-sel.mint < leastSeen {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known == nil || len(d.known) >= maxDensities {
		d.known = map[densityKey]float64{}
	}
	d.known[densityKey{sel.tenant.String(), sel.metric}] = density
}
