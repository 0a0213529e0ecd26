package tenancy

import (
	"time"

	"github.com/luminate/luminate/storage"
)

// least returns the smaller of two bounds of which 0 is none.
func least(a, b int) int {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// queryLimits returns the limits of a read, nil for none.
func (s *guarded) queryLimits(t storage.Tenant) *Limits {
	if s.limiter == nil || s.limiter.cfg.Observe {
		return nil
	}
	return s.limiter.state(t).limits.Load()
}

// boundSelection puts the tenant's limits on a read of samples.
func (s *guarded) boundSelection(t storage.Tenant, q storage.Selection) (storage.Selection, error) {
	l := s.queryLimits(t)
	if l == nil {
		return q, nil
	}
	q.MaxSeries = least(q.MaxSeries, l.MaxSeriesPerQuery)
	q.MaxSamples = least(q.MaxSamples, l.MaxSamplesPerQuery)
	return q, s.checkRange(t, l, q.MinT, q.MaxT)
}

// boundGrid puts the tenant's limits on a grid.
func (s *guarded) boundGrid(t storage.Tenant, g storage.Grid) (storage.Grid, error) {
	l := s.queryLimits(t)
	if l == nil {
		return g, nil
	}
	g.MaxSeries = least(g.MaxSeries, l.MaxSeriesPerQuery)
	g.MaxSamples = least(g.MaxSamples, l.MaxSamplesPerQuery)
	g.MaxGroups = least(g.MaxGroups, l.MaxGroupsPerQuery)
	if g.Validate() != nil {
		return g, nil // the store tells what is wrong
	}
	mint, maxt := g.Bounds()
	return g, s.checkRange(t, l, mint, maxt)
}

// checkRange refuses a read over more time than the tenant may.
func (s *guarded) checkRange(t storage.Tenant, l *Limits, mint, maxt int64) error {
	allowed := time.Duration(l.MaxQueryRange).Milliseconds()
	if allowed == 0 || maxt < mint || uint64(maxt)-uint64(mint) <= uint64(allowed) {
		return nil
	}
	e := s.limiter.refuse(t, &LimitError{err: storage.LimitErrorf(storage.KindTooLarge, "select", "max-query-range", "limits.maxQueryRange",
		"the query reads samples of %d ms, more than %s", uint64(maxt)-uint64(mint), l.MaxQueryRange)})
	if e == nil {
		return nil
	}
	return e
}

// boundDiscovery cuts a listing to the newest time that the tenant may read at
// once: most callers name no range, so refusing would break them.
func (s *guarded) boundDiscovery(t storage.Tenant, q storage.Selection) storage.Selection {
	l := s.queryLimits(t)
	if l == nil {
		return q
	}
	if allowed := time.Duration(l.MaxQueryRange).Milliseconds(); allowed > 0 {
		end := min(q.MaxT, s.limiter.cfg.Now().Add(time.Hour).UnixMilli())
		if end-allowed > q.MinT {
			q.MinT = end - allowed
		}
	}
	return q
}
