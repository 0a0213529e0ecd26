package main

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/luminate/luminate/storage"
	"golang.org/x/sync/errgroup"
)

// longestRetryWait bounds the wait between two tries of a batch.
const longestRetryWait = 10 * time.Second

// refusals is what the destination refused of a day.
type refusals struct {
	mu      sync.Mutex
	sum     fingerprint
	reasons map[storage.RefusalReason]uint64
}

// dayCopy copies one day: series in order of labels, in batches of bounded size, a
// bounded number of them under way.
type dayCopy struct {
	m       *migration
	tenant  storage.Tenant
	group   *errgroup.Group
	ctx     context.Context
	batch   *storage.Batch
	held    int // samples, histograms and exemplars in batch
	refused *refusals
	source  fingerprint
	hash    elementHash
}

// copy returns the fingerprint of all that the source has, and what was refused of it.
func (m *migration) copy(ctx context.Context, t storage.Tenant, day int64) (fingerprint, *refusals, error) {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(m.o.concurrency)
	c := &dayCopy{m: m, tenant: t, group: group, ctx: gctx, batch: new(storage.Batch), refused: &refusals{}}
	err := c.read(day)
	c.flush()
	// What went wrong with a batch ends the reading with a cancelled context: it is
	// the cause.
	if aerr := group.Wait(); aerr != nil {
		err = aerr
	}
	return c.source, c.refused, err
}

func (c *dayCopy) read(day int64) error {
	mint, maxt := day*dayMillis, (day+1)*dayMillis-1
	for s, err := range c.m.from.Select(c.ctx, c.tenant, storage.Selection{MinT: mint, MaxT: maxt}) {
		if err != nil {
			return fmt.Errorf("read the source: %w", err)
		}
		c.source.addSeries(&c.hash, s)
		c.add(s)
	}
	return c.m.exemplars(c.ctx, c.m.from, c.tenant, mint, maxt, func(x storage.ExemplarSeries) {
		c.source.addExemplars(&c.hash, x)
		for len(x.Exemplars) > 0 {
			n := min(c.room(), len(x.Exemplars))
			c.batch.Labels = append(c.batch.Labels, x.Labels...)
			c.batch.Exemplars = append(c.batch.Exemplars, x.Exemplars[:n]...)
			c.end(n)
			x.Exemplars = x.Exemplars[n:]
		}
	})
}

// add puts a series into batches; one with many samples goes into several.
func (c *dayCopy) add(s storage.Series) {
	i, h := 0, 0
	for i < len(s.Samples) || h < len(s.Histograms) {
		n := c.room()
		floats := min(n, len(s.Samples)-i)
		hists := min(n-floats, len(s.Histograms)-h)
		c.batch.Labels = append(c.batch.Labels, s.Labels...)
		for j := i; j < i+floats; j++ {
			c.batch.AddSample(s.Samples[j].T, startOf(s, j), s.Samples[j].V)
		}
		c.batch.Histograms = append(c.batch.Histograms, s.Histograms[h:h+hists]...)
		i, h = i+floats, h+hists
		c.end(floats + hists)
	}
}

func startOf(s storage.Series, i int) int64 {
	if s.STs == nil {
		return 0
	}
	return s.STs[i]
}

// room is how much the batch can still take; it is never 0.
func (c *dayCopy) room() int { return c.m.o.batchSamples - c.held }

func (c *dayCopy) end(n int) {
	c.batch.EndSeries()
	if c.held += n; c.room() <= 0 {
		c.flush()
	}
}

// flush hands the batch over, and waits while too many are under way.
func (c *dayCopy) flush() {
	if c.held == 0 {
		return
	}
	full, n := c.batch, c.held
	c.batch, c.held = new(storage.Batch), 0
	c.group.Go(func() error {
		res, err := c.m.append(c.ctx, c.tenant, full)
		if err != nil {
			return fmt.Errorf("append to the destination: %w", err)
		}
		c.refused.count(full, res.Refused)
		return nil
	})
	c.m.o.progress.moved(n)
}

// append tries again while the destination says that a later try may succeed.
func (m *migration) append(ctx context.Context, t storage.Tenant, b *storage.Batch) (storage.AppendResult, error) {
	wait := m.o.firstRetry
	for try := 0; ; try++ {
		res, err := m.to.Append(ctx, t, b)
		kind := storage.KindOf(err)
		if err == nil || try >= m.o.retries || ctx.Err() != nil || kind != storage.KindUnavailable && kind != storage.KindTimeout {
			return res, err
		}
		select {
		case <-time.After(wait):
			wait = min(2*wait, longestRetryWait)
		case <-ctx.Done():
			return res, err
		}
	}
}

// count adds up what was refused of a batch, element by element, so that the
// destination can be compared with the rest.
func (r *refusals) count(b *storage.Batch, list []storage.Refusal) {
	if len(list) == 0 {
		return
	}
	var sum fingerprint
	var hash elementHash
	reasons := map[storage.RefusalReason]uint64{}
	for _, f := range list {
		v, before := b.At(f.Series), sum.elements()
		switch {
		case f.Sample < 0:
			sum.addSeries(&hash, storage.Series{Labels: v.Labels, Samples: v.Samples, STs: v.STs, Histograms: v.Histograms})
			sum.addExemplars(&hash, storage.ExemplarSeries{Labels: v.Labels, Exemplars: v.Exemplars})
		case f.Exemplar:
			sum.addExemplars(&hash, storage.ExemplarSeries{Labels: v.Labels, Exemplars: v.Exemplars[f.Sample : f.Sample+1]})
		case f.Histogram:
			sum.addSeries(&hash, storage.Series{Labels: v.Labels, Histograms: v.Histograms[f.Sample : f.Sample+1]})
		default:
			one := storage.Series{Labels: v.Labels, Samples: v.Samples[f.Sample : f.Sample+1]}
			if v.STs != nil {
				one.STs = v.STs[f.Sample : f.Sample+1]
			}
			sum.addSeries(&hash, one)
		}
		reasons[f.Reason] += sum.elements() - before
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sum.merge(sum)
	if r.reasons == nil {
		r.reasons = maps.Clone(reasons)
		return
	}
	for reason, n := range reasons {
		r.reasons[reason] += n
	}
}

// read takes the fingerprint of a day in one of the stores. Nothing in it depends
// on the order of series.
func (m *migration) read(ctx context.Context, s storage.Store, t storage.Tenant, day int64, unsorted bool) (fingerprint, error) {
	var f fingerprint
	var hash elementHash
	mint, maxt := day*dayMillis, (day+1)*dayMillis-1
	for x, err := range s.Select(ctx, t, storage.Selection{MinT: mint, MaxT: maxt, Unsorted: unsorted}) {
		if err != nil {
			return f, err
		}
		f.addSeries(&hash, x)
	}
	err := m.exemplars(ctx, s, t, mint, maxt, func(x storage.ExemplarSeries) { f.addExemplars(&hash, x) })
	return f, err
}

// exemplars yields all exemplars of the range. A query answers a bounded number and
// does not tell what it left out, so a full answer is asked for again by halves.
func (m *migration) exemplars(ctx context.Context, s storage.Store, t storage.Tenant, mint, maxt int64, yield func(storage.ExemplarSeries)) error {
	found, err := s.Exemplars(ctx, t, storage.ExemplarQuery{Selectors: everySeries(), MinT: mint, MaxT: maxt, Limit: m.o.exemplarsPage})
	if err != nil {
		return fmt.Errorf("read exemplars: %w", err)
	}
	n := 0
	for _, x := range found {
		n += len(x.Exemplars)
	}
	if n < m.o.exemplarsPage {
		for _, x := range found {
			yield(x)
		}
		return nil
	}
	if mint == maxt {
		return fmt.Errorf("read exemplars: there are %d or more at %d, more than can be read", n, mint)
	}
	middle := mint + (maxt-mint)/2
	if err := m.exemplars(ctx, s, t, mint, middle, yield); err != nil {
		return err
	}
	return m.exemplars(ctx, s, t, middle+1, maxt, yield)
}
