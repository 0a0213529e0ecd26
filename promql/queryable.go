package promql

import (
	"context"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/luminate/luminate/storage"
)

// QueryableOptions configure a Queryable.
type QueryableOptions struct {
	// Tenant finds the tenant of a call; required.
	Tenant func(context.Context) storage.Tenant
	// MaxSeries and MaxSamples bound one selection, 0 = no bound.
	MaxSeries, MaxSamples int
}

// Queryable shows a Store to Prometheus's engine and to everything else that
// speaks Prometheus's storage interfaces.
type Queryable struct {
	store storage.Store
	opts  QueryableOptions
}

var _ promstorage.SampleAndChunkQueryable = (*Queryable)(nil)

// NewQueryable returns a Queryable over store.
func NewQueryable(store storage.Store, opts QueryableOptions) *Queryable {
	return &Queryable{store: store, opts: opts}
}

// base is what the planner recognises a Queryable by, also where it is embedded.
func (q *Queryable) base() *Queryable { return q }

// Querier returns a querier of the inclusive range; it holds no resources.
func (q *Queryable) Querier(mint, maxt int64) (promstorage.Querier, error) {
	return &querier{Queryable: q, mint: mint, maxt: maxt}, nil
}

// ChunkQuerier returns a querier that encodes what Querier would answer.
func (q *Queryable) ChunkQuerier(mint, maxt int64) (promstorage.ChunkQuerier, error) {
	return &chunkQuerier{querier{Queryable: q, mint: mint, maxt: maxt}}, nil
}

type querier struct {
	*Queryable
	mint, maxt int64
}

// selection translates hints as Prometheus's own storage heeds them: their range
// takes the place of the querier's.
func (q *querier) selection(hints *promstorage.SelectHints, ms []*labels.Matcher) storage.Selection {
	s := storage.Selection{
		Matchers: ms, MinT: q.mint, MaxT: q.maxt,
		MaxSeries: q.opts.MaxSeries, MaxSamples: q.opts.MaxSamples,
	}
	if hints != nil {
		s.MinT, s.MaxT, s.Limit = hints.Start, hints.End, hints.Limit
	}
	return s
}

// Select implements promstorage.Querier. The store is asked when the set is first
// advanced; the set then holds all series.
func (q *querier) Select(ctx context.Context, sortSeries bool, hints *promstorage.SelectHints, ms ...*labels.Matcher) promstorage.SeriesSet {
	if set, ok := syntheticSet(ctx, ms); ok {
		return set
	}
	s := q.selection(hints, ms)
	if s.MinT > s.MaxT {
		return promstorage.EmptySeriesSet()
	}
	s.Unsorted = !sortSeries
	set := &seriesSet{}
	if hints != nil && hints.Func == "series" { // labels only
		set.load = func() ([]series, error) { return q.loadLabels(ctx, s) }
	} else {
		set.load = func() ([]series, error) { return q.loadSeries(ctx, s, pointsOf(hints)) }
	}
	return set
}

// pointsOf counts the points that the engine will make of each series.
func pointsOf(h *promstorage.SelectHints) int64 {
	if h == nil || h.Step <= 0 {
		return 1
	}
	return 1 + max(0, h.End-h.Start-h.Range)/h.Step
}

// loadSeries reads a selection; what it holds, and the points that will be made of
// each series, are counted as they arrive.
func (q *querier) loadSeries(ctx context.Context, s storage.Selection, points int64) ([]series, error) {
	var (
		out   []series
		b     labels.ScratchBuilder
		begin = time.Now()
	)
	held := reservationOf(ctx)
	if held.Counts() {
		s.Hold = held.Use
	}
	for data, err := range q.store.Select(ctx, q.opts.Tenant(ctx), s) {
		if err != nil {
			return nil, err
		}
		if err := held.Use(data.Bytes() + pointBytes*points); err != nil {
			return nil, err
		}
		out = append(out, series{labels: data.Labels.PrometheusInto(&b), data: data})
	}
	if err := q.setResetHints(ctx, s, out); err != nil {
		return nil, err
	}
	noteSelection(ctx, s, out, time.Since(begin))
	return out, nil
}

func (q *querier) loadLabels(ctx context.Context, s storage.Selection) ([]series, error) {
	var (
		out []series
		b   labels.ScratchBuilder
	)
	held := reservationOf(ctx)
	for ls, err := range q.store.SelectLabels(ctx, q.opts.Tenant(ctx), s) {
		if err != nil {
			return nil, err
		}
		if err := held.Use((&storage.Series{Labels: ls}).Bytes()); err != nil {
			return nil, err
		}
		out = append(out, series{labels: ls.PrometheusInto(&b)})
	}
	return out, nil
}

// LabelValues implements promstorage.LabelQuerier.
func (q *querier) LabelValues(ctx context.Context, name string, hints *promstorage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	values, err := q.store.LabelValues(ctx, q.opts.Tenant(ctx), name, q.labelSelection(hints, ms))
	return values, nil, err
}

// LabelNames implements promstorage.LabelQuerier.
func (q *querier) LabelNames(ctx context.Context, hints *promstorage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	names, err := q.store.LabelNames(ctx, q.opts.Tenant(ctx), q.labelSelection(hints, ms))
	return names, nil, err
}

func (q *querier) labelSelection(hints *promstorage.LabelHints, ms []*labels.Matcher) storage.Selection {
	s := storage.Selection{Matchers: ms, MinT: q.mint, MaxT: q.maxt}
	if hints != nil {
		s.Limit = hints.Limit
	}
	return s
}

// Close implements promstorage.LabelQuerier.
func (*querier) Close() error { return nil }

type chunkQuerier struct{ querier }

// Select implements promstorage.ChunkQuerier.
func (q *chunkQuerier) Select(ctx context.Context, sortSeries bool, hints *promstorage.SelectHints, ms ...*labels.Matcher) promstorage.ChunkSeriesSet {
	return promstorage.NewSeriesSetToChunkSet(q.querier.Select(ctx, sortSeries, hints, ms...))
}
