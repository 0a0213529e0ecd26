package tenancy

import (
	"context"
	"errors"
	"iter"
	"strings"
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

// queryLimits returns the limits of a read, nil for none, and whether they are only
// observed.
func (s *guarded) queryLimits(t storage.Tenant) (l *Limits, observed bool) {
	if s.limiter == nil {
		return nil, false
	}
	return s.limiter.state(t).limits.Load(), s.limiter.cfg.Observe
}

// boundSelection puts the tenant's limits on a read of samples.
func (s *guarded) boundSelection(t storage.Tenant, q storage.Selection) (storage.Selection, error) {
	l, observed := s.queryLimits(t)
	if l == nil {
		return q, nil
	}
	if !observed {
		q.MaxSeries = least(q.MaxSeries, l.MaxSeriesPerQuery)
		q.MaxSamples = least(q.MaxSamples, l.MaxSamplesPerQuery)
	}
	return q, s.checkRange(t, l, q.MinT, q.MaxT)
}

// boundGrid puts the tenant's limits on a grid.
func (s *guarded) boundGrid(t storage.Tenant, g storage.Grid) (storage.Grid, error) {
	l, _ := s.queryLimits(t)
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

// evaluate asks the store. A grid that a limit of the tenant refuses is counted; where
// limits are only observed it is asked again without them.
func (s *guarded) evaluate(ctx context.Context, t storage.Tenant, bounded, asked storage.Grid) (*storage.GridResult, error) {
	res, err := s.next.Evaluate(ctx, t, bounded)
	if s.met(t, err) && s.limiter.cfg.Observe {
		return s.next.Evaluate(ctx, t, asked)
	}
	return res, err
}

// met counts an error that is a limit of the tenant, and tells whether it is one.
func (s *guarded) met(t storage.Tenant, err error) bool {
	var e *storage.Error
	if err == nil || s.limiter == nil || !errors.As(err, &e) || e.ID == "" || !strings.HasPrefix(e.Setting, "limits.") {
		return false
	}
	s.limiter.Met(t, e)
	return true
}

// watched counts a refusal that ends the sequence, and, where limits are only observed,
// a sequence that one would have ended. size is how many series and samples an element
// has.
func watched[T any](s *guarded, t storage.Tenant, seq iter.Seq2[T, error], size func(T) int) iter.Seq2[T, error] {
	l, observed := s.queryLimits(t)
	if l == nil {
		return seq
	}
	return func(yield func(T, error) bool) {
		series, samples, told := 0, 0, false
		for x, err := range seq {
			switch {
			case err != nil:
				s.met(t, err)
			case observed && !told:
				series++
				samples += size(x)
				if id, setting := l.exceeded(series, samples); id != "" {
					told = true
					s.limiter.Met(t, storage.LimitErrorf(storage.KindTooLarge, "select", id, setting, "the query is over it"))
				}
			}
			if !yield(x, err) {
				return
			}
		}
	}
}

// exceeded names the limit that a read is over, "" if none.
func (l *Limits) exceeded(series, samples int) (id, setting string) {
	switch {
	case l.MaxSeriesPerQuery > 0 && series > l.MaxSeriesPerQuery:
		return "max-series-per-query", "limits.maxSeriesPerQuery"
	case l.MaxSamplesPerQuery > 0 && samples > l.MaxSamplesPerQuery:
		return "max-samples-per-query", "limits.maxSamplesPerQuery"
	default:
		return "", ""
	}
}

func samplesOf(x storage.Series) int { return len(x.Samples) + len(x.Histograms) }

func noSamples(storage.Labels) int { return 0 }

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
	l, observed := s.queryLimits(t)
	if l == nil || observed {
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
