package storagetest

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/luminate/luminate/storage"
)

// ModelConfig configures a Model; NewModel uses DefaultModelConfig.
type ModelConfig struct {
	RetentionDays int           // where no policy matches; 0 keeps for ever
	FutureLimit   time.Duration // samples further ahead are refused; 0 = no limit
	Now           func() time.Time
}

// DefaultModelConfig is what every backend does by default.
func DefaultModelConfig() ModelConfig {
	return ModelConfig{RetentionDays: storage.DefaultRetentionDays, FutureLimit: time.Hour, Now: time.Now}
}

// Model is a storage.Store in memory, simple enough to be seen to be correct.
// Nothing is fast in it.
type Model struct {
	cfg ModelConfig

	mu      sync.RWMutex
	closed  bool
	tenants map[string]*modelTenant
	deletes int
	notes   []storage.Note // in the order they were posted
}

type modelTenant struct {
	series    map[string]*modelSeries // by label bytes
	metadata  map[string]storage.Metadata
	retention []storage.RetentionPolicy
	receipts  map[string]storage.DeleteReceipt
	lastWrite time.Time
}

// modelSeries keeps one point for each timestamp.
type modelSeries struct {
	labels    storage.Labels
	points    map[int64]modelPoint
	exemplars []storage.Exemplar
}

type modelPoint struct {
	v    float64
	st   int64
	hist *storage.HistogramSample
}

// NewModel returns an empty model with the defaults.
func NewModel() *Model { return NewModelWith(DefaultModelConfig()) }

// NewModelWith returns an empty model.
func NewModelWith(cfg ModelConfig) *Model {
	return &Model{cfg: cfg, tenants: map[string]*modelTenant{}}
}

// enter is what every method does first; the caller holds mu.
func (m *Model) enter(ctx context.Context, op string, t storage.Tenant) error {
	if err := t.Validate(); err != nil {
		return err
	}
	return m.open(ctx, op)
}

func (m *Model) open(ctx context.Context, op string) error {
	if m.closed {
		return storage.Errorf(storage.KindUnavailable, op, "the store is closed")
	}
	return storage.ContextError(ctx, op)
}

// tenant returns the tenant's data, creating it.
func (m *Model) tenant(t storage.Tenant) *modelTenant {
	d := m.tenants[t.String()]
	if d == nil {
		d = &modelTenant{
			series: map[string]*modelSeries{}, metadata: map[string]storage.Metadata{},
			receipts: map[string]storage.DeleteReceipt{},
		}
		m.tenants[t.String()] = d
	}
	return d
}

// Append implements storage.Store.
func (m *Model) Append(ctx context.Context, t storage.Tenant, b *storage.Batch) (storage.AppendResult, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var res storage.AppendResult
	if err := m.enter(ctx, "append", t); err != nil {
		return res, err
	}
	d := m.tenant(t)
	d.lastWrite = m.cfg.Now()
	for i := range b.Series {
		m.appendSeries(d, i, b.At(i), &res)
	}
	for _, md := range b.Metadata {
		// The strings may be views into the caller's memory.
		d.metadata[strings.Clone(md.Metric)] = storage.Metadata{
			Metric: strings.Clone(md.Metric), Type: storage.MetricType(strings.Clone(string(md.Type))),
			Unit: strings.Clone(md.Unit), Help: strings.Clone(md.Help),
		}
	}
	return res, nil
}

func (m *Model) appendSeries(d *modelTenant, i int, v storage.BatchView, res *storage.AppendResult) {
	if err := v.Labels.Validate(); err != nil {
		refuse(res, storage.Refusal{Series: i, Sample: -1, Reason: storage.ReasonInvalidLabels, Message: err.Error()})
		return
	}
	s := d.series[string(v.Labels)]
	if s == nil {
		s = &modelSeries{labels: v.Labels.Clone(), points: map[int64]modelPoint{}}
	}
	mint, maxt := m.window(d, v.Labels.Metric())
	check := func(j int, t int64, hist, exemplar bool) bool {
		r := storage.Refusal{Series: i, Sample: j, T: t, Histogram: hist, Exemplar: exemplar}
		switch {
		case t < mint:
			r.Reason = storage.ReasonTooOld
		case t > maxt:
			r.Reason = storage.ReasonTooFarAhead
		default:
			return true
		}
		r.Message = fmt.Sprintf("sample of %s at %d is outside [%d, %d]", v.Labels, t, mint, maxt)
		refuse(res, r)
		return false
	}
	for j, x := range v.Samples {
		if !check(j, x.T, false, false) {
			continue
		}
		p := modelPoint{v: x.V}
		if v.STs != nil {
			p.st = v.STs[j]
		}
		s.put(x.T, p)
		res.Samples++
	}
	for j, h := range v.Histograms {
		if check(j, h.T, true, false) {
			c := cloneHistogram(h)
			s.put(h.T, modelPoint{st: h.ST, hist: &c})
			res.Histograms++
		}
	}
	for j, e := range v.Exemplars {
		if check(j, e.T, false, true) {
			s.putExemplar(e)
			res.Exemplars++
		}
	}
	if len(s.points) > 0 || len(s.exemplars) > 0 {
		d.series[string(v.Labels)] = s
	}
}

// window returns the times that a metric's samples may have.
func (m *Model) window(d *modelTenant, metric string) (mint, maxt int64) {
	mint, maxt = -1<<62, 1<<62
	now := m.cfg.Now().UnixMilli()
	if days := storage.RetentionOf(d.retention, metric, m.cfg.RetentionDays); days > 0 {
		mint = now - int64(days)*24*3600*1000
	}
	if m.cfg.FutureLimit > 0 {
		maxt = now + m.cfg.FutureLimit.Milliseconds()
	}
	return mint, maxt
}

func refuse(res *storage.AppendResult, r storage.Refusal) {
	if len(res.Refused) >= storage.MaxNamedRefusals {
		r.Message = ""
	}
	res.Refused = append(res.Refused, r)
}

// put applies the duplicate rule: the greater wins; of equal values the greater
// start timestamp does.
func (s *modelSeries) put(t int64, p modelPoint) {
	old, ok := s.points[t]
	if ok && comparePoints(old, p) >= 0 {
		return
	}
	s.points[t] = p
}

func comparePoints(a, b modelPoint) int {
	var c int
	switch {
	case a.hist != nil && b.hist != nil:
		c = storage.CompareHistograms(*a.hist, *b.hist)
	case a.hist != nil:
		return 1
	case b.hist != nil:
		return -1
	default:
		c = storage.CompareValues(a.v, b.v)
	}
	if c == 0 {
		c = cmp.Compare(a.st, b.st)
	}
	return c
}

func (s *modelSeries) putExemplar(e storage.Exemplar) {
	for _, x := range s.exemplars {
		if x.T == e.T && x.V == e.V && string(x.Labels) == string(e.Labels) {
			return
		}
	}
	e.Labels = e.Labels.Clone()
	e.Labels = e.Labels.Clone()
	s.exemplars = append(s.exemplars, e)
	slices.SortStableFunc(s.exemplars, func(a, b storage.Exemplar) int { return cmp.Compare(a.T, b.T) })
}

func cloneHistogram(h storage.HistogramSample) storage.HistogramSample {
	if h.H != nil {
		h.H = h.H.Copy()
	}
	if h.FH != nil {
		h.FH = h.FH.Copy()
	}
	return h
}

// Select implements storage.Store.
func (m *Model) Select(ctx context.Context, t storage.Tenant, q storage.Selection) iter.Seq2[storage.Series, error] {
	return func(yield func(storage.Series, error) bool) {
		all, err := m.selectAll(ctx, "select", t, q)
		if err != nil {
			yield(storage.Series{}, err)
			return
		}
		for _, s := range all {
			if err := storage.ContextError(ctx, "select"); err != nil {
				yield(storage.Series{}, err)
				return
			}
			if !yield(s, nil) {
				return
			}
		}
	}
}

func (m *Model) selectAll(ctx context.Context, op string, t storage.Tenant, q storage.Selection) ([]storage.Series, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.enter(ctx, op, t); err != nil {
		return nil, err
	}
	if err := q.Validate(); err != nil {
		return nil, err
	}
	d := m.tenants[t.String()]
	if d == nil {
		return nil, nil
	}
	var out []storage.Series
	samples := 0
	for _, s := range d.series {
		if !storage.Matches(s.labels, q.Matchers) {
			continue
		}
		mint, _ := m.window(d, s.labels.Metric())
		x := s.between(max(mint, q.MinT), q.MaxT)
		if len(x.Samples)+len(x.Histograms) == 0 {
			continue
		}
		samples += len(x.Samples) + len(x.Histograms)
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b storage.Series) int { return storage.CompareLabels(a.Labels, b.Labels) })
	if q.Limit > 0 && len(out) > q.Limit {
		return out[:q.Limit], nil
	}
	if q.MaxSeries > 0 && len(out) > q.MaxSeries {
		return nil, storage.LimitErrorf(storage.KindTooLarge, op, "max-series-per-query", "limits.maxSeriesPerQuery", "the query selects %d series, more than %d", len(out), q.MaxSeries)
	}
	if q.MaxSamples > 0 && samples > q.MaxSamples {
		return nil, storage.LimitErrorf(storage.KindTooLarge, op, "max-samples-per-query", "limits.maxSamplesPerQuery", "the query selects %d samples, more than %d", samples, q.MaxSamples)
	}
	return out, nil
}

// between returns a copy of the points in the range.
func (s *modelSeries) between(mint, maxt int64) storage.Series {
	out := storage.Series{Labels: s.labels.Clone()}
	for _, t := range slices.Sorted(maps.Keys(s.points)) {
		p := s.points[t]
		switch {
		case t < mint || t > maxt:
		case p.hist != nil:
			h := cloneHistogram(*p.hist)
			out.Histograms = append(out.Histograms, h)
		default:
			out.Samples = append(out.Samples, storage.Sample{T: t, V: p.v})
			out.STs = append(out.STs, p.st)
		}
	}
	if !slices.ContainsFunc(out.STs, func(st int64) bool { return st != 0 }) {
		out.STs = nil
	}
	return out
}

// SelectLabels implements storage.Store.
func (m *Model) SelectLabels(ctx context.Context, t storage.Tenant, q storage.Selection) iter.Seq2[storage.Labels, error] {
	return func(yield func(storage.Labels, error) bool) {
		for s, err := range m.Select(ctx, t, q) {
			if !yield(s.Labels, err) {
				return
			}
		}
	}
}

// Evaluate implements storage.Store by the reference evaluation.
func (m *Model) Evaluate(ctx context.Context, t storage.Tenant, g storage.Grid) (*storage.GridResult, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	q := g.Selection()
	q.Unsorted = false
	return storage.EvaluateSeries(ctx, m.Select(ctx, t, q), g)
}

// Estimate implements storage.Store.
func (m *Model) Estimate(ctx context.Context, t storage.Tenant, q storage.Selection) (storage.Estimate, error) {
	q.MaxSeries, q.MaxSamples = 0, 0
	all, err := m.selectAll(ctx, "estimate", t, q)
	var e storage.Estimate
	for _, s := range all {
		e.Series++
		e.Samples += uint64(len(s.Samples) + len(s.Histograms))
	}
	e.Bytes = 16*e.Samples + 200*e.Series
	return e, err
}

// Close implements storage.Store.
func (m *Model) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}
