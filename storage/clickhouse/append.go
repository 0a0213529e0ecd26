package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/zeebo/xxh3"

	"github.com/luminate/luminate/storage"
)

// errStaleCache says that a delete removed series rows that a block relied on.
var errStaleCache = errors.New("a delete made the cache of series stale")

// maxStale bounds how often an append begins anew because of deletes.
const maxStale = 10

// Append implements storage.Store. It answers when ClickHouse has every block with a
// row of the batch. If ctx ends first, or the server stops answering, the rows may be
// stored all the same.
func (s *Store) Append(ctx context.Context, t storage.Tenant, b *storage.Batch) (_ storage.AppendResult, err error) {
	ctx, done := s.vigil.attend(ctx)
	defer func() { err = done(err) }()
	if err := s.enter(ctx, "append", t); err != nil {
		return storage.AppendResult{}, err
	}
	pol, err := s.policiesOf(ctx, t)
	if err != nil {
		return storage.AppendResult{}, translate(ctx, "append", err)
	}
	for range maxStale {
		a := &appender{s: s, tenant: t.String(), pol: pol, set: s.series.of(t.String()), parts: map[blockKey]*block{}, now: s.cfg.now().UnixMilli()}
		a.addAll(b)
		err = s.store(ctx, a)
		if errors.Is(err, errStaleCache) {
			s.metrics.staleCaches.Inc()
			continue
		}
		if err == nil {
			err = s.storeMetadata(ctx, t, b.Metadata)
		}
		if err != nil {
			return storage.AppendResult{}, translate(ctx, "append", err)
		}
		s.activity.wrote(t.String(), a.res.Samples+a.res.Histograms)
		return a.res, nil
	}
	return storage.AppendResult{}, storage.Errorf(storage.KindUnavailable, "append", "deletes keep removing the series that are appended")
}

// store buffers the rows and waits for their blocks.
func (s *Store) store(ctx context.Context, a *appender) error {
	if len(a.parts) == 0 {
		return nil
	}
	waits, err := s.buffer.add(a.parts)
	if err != nil {
		s.metrics.backpressure.Inc()
		return err
	}
	var first error
	for _, w := range waits {
		select {
		case <-w.done:
			if w.err != nil && (first == nil || errors.Is(w.err, errStaleCache)) {
				first = w.err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return first
}

// appender turns a batch into blocks.
type appender struct {
	s      *Store
	tenant string
	pol    policies
	set    *tenantSeries
	parts  map[blockKey]*block
	now    int64
	res    storage.AppendResult
	// last is the block of the row before: neighbours mostly share it.
	last *block

	metrics map[string]*metricWindow
	metric  *metricWindow // of the present series
}

// metricWindow is what the samples of one metric share.
type metricWindow struct {
	name       string
	mint, maxt int64
	class      uint16
}

// seriesKey is what the rows of one series share.
type seriesKey struct {
	labels   storage.Labels
	loc      uint32
	id       uint64
	known    bool // the series' row is stored for knownDay
	knownDay int64
}

// addAll adds every series. The set of known ones is held still meanwhile: a look-up
// for each series would else lock it each time.
func (a *appender) addAll(b *storage.Batch) {
	a.set.mu.RLock()
	defer a.set.mu.RUnlock()
	for i := range b.Series {
		a.add(i, b.At(i))
	}
}

func (a *appender) add(i int, v storage.BatchView) {
	k := seriesKey{labels: v.Labels, id: xxh3.Hash(v.Labels)}
	a.metric = a.windowOf(a.keyLabels(&k))
	// A series that is known to be stored has been valid: equal ids are equal bytes.
	if a.look(&k, v); !k.known {
		if err := v.Labels.Validate(); err != nil {
			a.refuse(storage.Refusal{Series: i, Sample: -1, Reason: storage.ReasonInvalidLabels}, err.Error())
			return
		}
	}
	for j, x := range v.Samples {
		if !a.inWindow(i, j, x.T, v.Labels, false, false) {
			continue
		}
		p := a.row(kindSamples, &k, x.T)
		p.images = append(p.images, storage.ValueImage(x.V))
		if v.STs != nil {
			p.addST(v.STs[j])
		}
		a.res.Samples++
	}
	for j, h := range v.Histograms {
		if !a.inWindow(i, j, h.T, v.Labels, true, false) {
			continue
		}
		p := a.row(kindHistograms, &k, h.T)
		data := storage.EncodeHistogram(nil, h)
		p.images = append(p.images, xxh3.Hash(data))
		p.addST(h.ST)
		p.data = append(p.data, string(data))
		a.res.Histograms++
	}
	for j, e := range v.Exemplars {
		if !a.inWindow(i, j, e.T, v.Labels, false, true) {
			continue
		}
		p := a.row(kindExemplars, &k, e.T)
		p.images = append(p.images, storage.ValueImage(e.V))
		p.data = append(p.data, string(e.Labels))
		p.positions = append(p.positions, uint32(j))
		a.res.Exemplars++
	}
}

// keyLabels returns the metric of a series and notes its locality. Both labels mostly
// stand near the front, so the others are not looked at.
func (a *appender) keyLabels(k *seriesKey) (metric string) {
	wanted := 2
	for name, value := range k.labels.All() {
		found := false
		if name == storage.MetricName {
			metric, found = value, true
		}
		if name == a.s.locality {
			k.loc, found = locOf(value), true
		}
		if found {
			if wanted--; wanted == 0 {
				break
			}
		}
	}
	return metric
}

// look notes whether the row of a series is stored for the day of its first sample.
func (a *appender) look(k *seriesKey, v storage.BatchView) {
	if len(v.Samples) > 0 {
		k.knownDay = dayOf(v.Samples[0].T)
		k.known = a.set.hasLocked(rowKey(k.id, k.knownDay, a.metric.class))
	}
}

// windowOf finds the window and retention class of a metric.
func (a *appender) windowOf(metric string) *metricWindow {
	if a.metric != nil && a.metric.name == metric {
		return a.metric
	}
	if w := a.metrics[metric]; w != nil {
		return w
	}
	metric = strings.Clone(metric)
	w := &metricWindow{name: metric, mint: max(a.pol.mint(metric, a.now), minTime), maxt: maxTime, class: a.s.cfg.classOf(a.pol.days(metric))}
	if limit := a.s.cfg.FutureLimit; limit > 0 {
		w.maxt = min(w.maxt, a.now+limit.Milliseconds())
	}
	if a.metrics == nil {
		a.metrics = map[string]*metricWindow{}
	}
	a.metrics[metric] = w
	return w
}

func (a *appender) inWindow(i, j int, t int64, ls storage.Labels, hist, exemplar bool) bool {
	r := storage.Refusal{Series: i, Sample: j, T: t, Histogram: hist, Exemplar: exemplar}
	switch {
	case t < a.metric.mint:
		r.Reason = storage.ReasonTooOld
	case t > a.metric.maxt:
		r.Reason = storage.ReasonTooFarAhead
	default:
		return true
	}
	msg := ""
	if len(a.res.Refused) < storage.MaxNamedRefusals {
		msg = fmt.Sprintf("sample of %s at %d is outside [%d, %d]", ls, t, a.metric.mint, a.metric.maxt)
	}
	a.refuse(r, msg)
	return false
}

func (a *appender) refuse(r storage.Refusal, msg string) {
	if len(a.res.Refused) < storage.MaxNamedRefusals {
		r.Message = msg
	}
	a.res.Refused = append(a.res.Refused, r)
}

// row adds a row to its block, in the columns that every table has.
func (a *appender) row(kind rowKind, k *seriesKey, t int64) *piece {
	key := blockKey{shard: a.s.shardOf(k.id), kind: kind, day: dayOf(t), class: a.metric.class}
	b := a.last
	if b == nil || b.blockKey != key {
		b = a.block(key)
		a.last = b
	}
	p := b.pieces[0]
	n := len(p.ids)
	if n == 0 || p.ids[n-1] != k.id {
		a.announce(b, k)
		if last := len(p.metrics) - 1; last < 0 || p.metrics[last].name != a.metric.name {
			p.metrics = append(p.metrics, metricRun{name: a.metric.name})
		}
	}
	p.metrics[len(p.metrics)-1].until = n + 1
	p.locs = append(p.locs, k.loc)
	p.ids = append(p.ids, k.id)
	p.times = append(p.times, t)
	return p
}

// block returns the batch's block of a partition.
func (a *appender) block(key blockKey) *block {
	b := a.parts[key]
	if b == nil {
		p := pieces.Get().(*piece)
		p.tenant = a.tenant
		b = &block{blockKey: key, pieces: []*piece{p}, requests: 1, sets: map[*tenantSeries]struct{}{a.set: {}}}
		a.parts[key] = b
	}
	return b
}

// announce adds the series' row to the block unless it is known to be stored.
func (a *appender) announce(b *block, k *seriesKey) {
	if k.known && k.knownDay == b.day {
		return
	}
	row := rowKey(k.id, b.day, b.class)
	if a.set.hasLocked(row) || b.inNew[row] {
		return
	}
	n := newSeries{tenant: a.tenant, metric: a.metric.name, labels: k.labels.Clone(), loc: k.loc, id: k.id, key: row, set: a.set}
	if b.inNew == nil {
		b.inNew = map[uint64]bool{}
	}
	b.inNew[row] = true
	b.series = append(b.series, n)
}
