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
		a := &appender{s: s, tenant: t.String(), pol: pol, set: s.series.of(t.String()), parts: map[blockKey]*block{}, samples: len(b.Samples), now: s.cfg.now().UnixMilli()}
		for i := range b.Series {
			a.add(i, b.At(i))
		}
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
	// samples is how many the batch has, a guess at the size of a block.
	samples int
	res     storage.AppendResult

	// The metric of the series before: neighbours often share it.
	metric     string
	mint, maxt int64
	class      uint16
}

// seriesKey is what the rows of one series share.
type seriesKey struct {
	labels storage.Labels
	metric string
	loc    uint32
	id     uint64
}

func (a *appender) add(i int, v storage.BatchView) {
	if err := v.Labels.Validate(); err != nil {
		a.refuse(storage.Refusal{Series: i, Sample: -1, Reason: storage.ReasonInvalidLabels}, err.Error())
		return
	}
	a.setMetric(v.Labels.Metric())
	k := seriesKey{labels: v.Labels, metric: a.metric, id: xxh3.Hash(v.Labels)}
	if a.s.locality != "" {
		k.loc = locOf(v.Labels.Get(a.s.locality))
	}
	for j, x := range v.Samples {
		if !a.inWindow(i, j, x.T, v.Labels, false, false) {
			continue
		}
		b := a.block(kindSamples, k, x.T)
		b.images = append(b.images, storage.ValueImage(x.V))
		st := int64(0)
		if v.STs != nil {
			st = v.STs[j]
		}
		b.sts = append(b.sts, st)
		a.res.Samples++
	}
	for j, h := range v.Histograms {
		if !a.inWindow(i, j, h.T, v.Labels, true, false) {
			continue
		}
		b := a.block(kindHistograms, k, h.T)
		data := storage.EncodeHistogram(nil, h)
		b.images = append(b.images, xxh3.Hash(data))
		b.sts = append(b.sts, h.ST)
		b.data = append(b.data, string(data))
		a.res.Histograms++
	}
	for j, e := range v.Exemplars {
		if !a.inWindow(i, j, e.T, v.Labels, false, true) {
			continue
		}
		b := a.block(kindExemplars, k, e.T)
		b.images = append(b.images, storage.ValueImage(e.V))
		b.data = append(b.data, string(e.Labels))
		b.positions = append(b.positions, uint32(j))
		a.res.Exemplars++
	}
}

// setMetric finds the window and retention class of a metric.
func (a *appender) setMetric(metric string) {
	if metric == a.metric && a.maxt != 0 {
		return
	}
	a.metric = strings.Clone(metric)
	a.mint, a.maxt = max(a.pol.mint(a.metric, a.now), minTime), maxTime
	if limit := a.s.cfg.FutureLimit; limit > 0 {
		a.maxt = min(a.maxt, a.now+limit.Milliseconds())
	}
	a.class = a.s.cfg.classOf(a.pol.days(a.metric))
}

func (a *appender) inWindow(i, j int, t int64, ls storage.Labels, hist, exemplar bool) bool {
	r := storage.Refusal{Series: i, Sample: j, T: t, Histogram: hist, Exemplar: exemplar}
	switch {
	case t < a.mint:
		r.Reason = storage.ReasonTooOld
	case t > a.maxt:
		r.Reason = storage.ReasonTooFarAhead
	default:
		return true
	}
	msg := ""
	if len(a.res.Refused) < storage.MaxNamedRefusals {
		msg = fmt.Sprintf("sample of %s at %d is outside [%d, %d]", ls, t, a.mint, a.maxt)
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

// block returns the block of a row and fills the columns that every table has.
func (a *appender) block(kind rowKind, k seriesKey, t int64) *block {
	key := blockKey{shard: a.s.shardOf(k.id), kind: kind, day: dayOf(t), class: a.class}
	b := a.parts[key]
	if b == nil {
		b = &block{blockKey: key, inNew: map[uint64]bool{}, sets: map[*tenantSeries]struct{}{a.set: {}}}
		b.reserve(min(a.samples, maxReserved))
		a.parts[key] = b
	}
	if n := len(b.ids); n == 0 || b.ids[n-1] != k.id {
		a.announce(b, k)
	}
	b.tenants = append(b.tenants, a.tenant)
	b.metrics = append(b.metrics, k.metric)
	b.locs = append(b.locs, k.loc)
	b.ids = append(b.ids, k.id)
	b.times = append(b.times, t)
	return b
}

// maxReserved bounds the rows that a block makes room for at once: most batches fall
// into one partition, a backfill into many.
const maxReserved = 10_000

func (b *block) reserve(n int) {
	b.tenants, b.metrics = make([]string, 0, n), make([]string, 0, n)
	b.locs, b.ids, b.times = make([]uint32, 0, n), make([]uint64, 0, n), make([]int64, 0, n)
	b.images, b.sts = make([]uint64, 0, n), make([]int64, 0, n)
}

// announce adds the series' row to the block unless it is known to be stored.
func (a *appender) announce(b *block, k seriesKey) {
	row := rowKey(k.id, b.day, b.class)
	if b.inNew[row] || a.set.has(row) {
		return
	}
	n := newSeries{tenant: a.tenant, metric: k.metric, loc: k.loc, id: k.id, key: row, set: a.set}
	for name, value := range k.labels.All() {
		n.names = append(n.names, strings.Clone(name))
		n.kv = append(n.kv, pairOf(name, value))
	}
	b.inNew[row] = true
	b.series = append(b.series, n)
}
