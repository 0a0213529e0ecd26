package badger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger/internal/wal"
)

const (
	// maxCommitRequests and maxCommitSamples bound what one write to the log merges.
	maxCommitRequests = 256
	maxCommitSamples  = 1 << 20
	// maxSeriesRecordBytes bounds the labels of one record of new series.
	maxSeriesRecordBytes = 16 << 20
)

// submit hands r to the committer and waits for the answer. Once the committer has
// r it owns the batch until it answers, so a context that ends meanwhile does not
// end the wait: a commit takes milliseconds.
func (db *DB) submit(ctx context.Context, op string, r *request) error {
	if n := db.queued.Add(int64(r.samples)); n > int64(db.cfg.QueueSamples) && n > int64(r.samples) {
		db.queued.Add(int64(-r.samples))
		return storage.LimitErrorf(storage.KindUnavailable, op, "append-queue-full", "",
			"%d samples wait to be written", n)
	}
	defer db.queued.Add(int64(-r.samples))
	select {
	case db.queue <- r:
	default:
		select {
		case db.queue <- r:
		case <-ctx.Done():
			return storage.ContextError(ctx, op)
		case <-db.closing:
			return errClosed(op)
		}
	}
	select {
	case err := <-r.done:
		return err
	case <-db.committerGone:
		// The committer answers everything it took before it goes.
		select {
		case err := <-r.done:
			return err
		default:
			return errClosed(op)
		}
	}
}

// exclusive runs fn in the committer, between appends: fn sees every earlier append
// applied, and none runs beside it.
func (db *DB) exclusive(ctx context.Context, op string, fn func() error) error {
	r := &request{run: fn, done: make(chan error, 1)}
	return db.submit(ctx, op, r)
}

// committer is the one goroutine that assigns LSNs and changes the head.
func (db *DB) committer() {
	defer close(db.committerGone)
	var c commit
	c.db = db
	for {
		select {
		case r := <-db.queue:
			db.serve(&c, r)
		case <-db.closing:
			for { // what was queued before Close is still served
				select {
				case r := <-db.queue:
					db.serve(&c, r)
				default:
					return
				}
			}
		}
	}
}

// serve commits r with all appends that wait behind it.
func (db *DB) serve(c *commit, r *request) {
	for r != nil {
		if r.run != nil {
			r.done <- r.run()
			return
		}
		began := time.Now()
		c.requests = append(c.requests[:0], r)
		samples := r.samples
		r = nil
	collect:
		for len(c.requests) < maxCommitRequests && samples < maxCommitSamples {
			select {
			case next := <-db.queue:
				if next.run != nil {
					r = next
					break collect
				}
				c.requests = append(c.requests, next)
				samples += next.samples
			default:
				break collect
			}
		}
		c.run()
		db.met.commits.Inc()
		db.met.commitSeconds.Observe(time.Since(began).Seconds())
	}
}

// commit is one write to the log; its buffers are reused.
type commit struct {
	db       *DB
	requests []*request
	batch    wal.Batch
	series   wal.SeriesEncoder
	enc      wal.SamplesEncoder
	dirty    []*partition // with series that are not logged yet
	steps    []step
	buf      []byte
	labels   []byte
}

// step is what is to be applied for one record of the log.
type step struct {
	pr   *partRequest
	p    *partition
	kind wal.Type
	tn   *tenant
	meta []storage.Metadata
}

// run commits c.requests and answers them.
func (c *commit) run() {
	c.batch.Reset()
	c.dirty, c.steps = c.dirty[:0], c.steps[:0]
	live := c.requests[:0]
	for _, r := range c.requests {
		if err := c.resolve(r); err != nil {
			r.done <- err
			continue
		}
		live = append(live, r)
	}
	c.requests = live
	err := c.write()
	for _, r := range c.requests {
		r.done <- err
	}
	clear(c.requests)
	clear(c.steps)
}

// resolve finds or makes the tenant, the partitions and the series of a request.
func (c *commit) resolve(r *request) error {
	db := c.db
	tn, err := db.ensureTenant(r.tenant)
	if err != nil {
		return internal("append", err)
	}
	if r.tn != nil && r.tn != tn {
		return unavailable("append", "tenant %q was deleted meanwhile", r.tenant)
	}
	r.tn = tn
	for _, pr := range r.parts[:r.used] {
		p, err := db.ensurePartition(tn, pr.day)
		if err != nil {
			return internal("append", err)
		}
		if pr.p != nil && pr.p != p {
			return unavailable("append", "the day of the samples was dropped meanwhile")
		}
		pr.p = p
		if len(pr.missing) > 0 {
			if err := p.createMissing(r, pr); err != nil {
				return internal("append", err)
			}
			if pr.samples.Len() > 0 {
				if err := pr.encodeSamples(&c.enc, tn.id); err != nil {
					return internal("append", err)
				}
			}
		}
	}
	return nil
}

// write logs and applies everything that was resolved.
func (c *commit) write() error {
	db := c.db
	if len(c.requests) == 0 {
		return nil
	}
	for _, r := range c.requests {
		for _, pr := range r.parts[:r.used] {
			if err := c.addSeries(pr.p); err != nil {
				return internal("append", err)
			}
		}
	}
	for _, r := range c.requests {
		c.addRequest(r)
	}
	first, err := db.log(&c.batch)
	if err != nil {
		return err
	}
	for _, p := range c.dirty {
		p.mu.Lock()
		p.unlogged = p.unlogged[:0]
		p.mu.Unlock()
	}
	for i, s := range c.steps {
		if s.kind == wal.TypeMetadata {
			s.tn.putMetadata(s.meta, true)
			continue
		}
		db.apply(s, first+uint64(i))
	}
	db.applied.Store(first + uint64(len(c.steps)) - 1)
	c.account()
	db.flush.wake()
	return nil
}

// apply puts the samples of one record into the head.
func (db *DB) apply(s step, lsn uint64) {
	db.head.mu.Lock()
	defer db.head.mu.Unlock()
	switch s.kind {
	case wal.TypeSamples:
		db.orphans(db.head.applySamples(s.p, &s.pr.samples, lsn))
	case wal.TypeHistogram:
		db.orphans(db.head.applyHistograms(s.p, s.pr.hists, lsn))
	case wal.TypeExemplar:
		db.met.droppedExem.Add(float64(db.head.applyExemplars(s.p, s.pr.exemplars)))
	}
	s.p.applied = lsn
}

// orphans reports samples of series that have no group, which only a bug can cause.
// They are in the log; the next start finds their series.
func (db *DB) orphans(n int) {
	if n > 0 {
		db.met.lostSamples.Add(float64(n))
		db.logger.Error("samples have no place in memory: restart to recover them from the log", "samples", n)
	}
}

// addSeries adds the records of p's new series, before any of their samples. They
// include those of an earlier commit that the disk had no room for.
func (c *commit) addSeries(p *partition) error {
	if len(p.unlogged) == 0 { // only the committer changes it
		return nil
	}
	for _, d := range c.dirty {
		if d == p {
			return nil
		}
	}
	c.dirty = append(c.dirty, p)
	p.mu.RLock()
	defer p.mu.RUnlock()
	c.series.Reset(p.tenant.id, p.day)
	for i, id := range p.unlogged {
		var err error
		if c.labels, err = p.idx.AppendLabels(c.labels[:0], id); err != nil {
			return fmt.Errorf("encode new series: %w", err)
		}
		c.series.Add(id, c.labels)
		if c.series.Size() < maxSeriesRecordBytes && i+1 < len(p.unlogged) && c.series.Len() < wal.MaxSamples {
			continue
		}
		buf, err := c.series.AppendTo(c.batch.Start())
		if err != nil {
			return fmt.Errorf("encode new series: %w", err)
		}
		c.batch.Finish(wal.TypeSeries, buf)
		c.steps = append(c.steps, step{p: p, kind: wal.TypeSeries})
		c.series.Reset(p.tenant.id, p.day)
	}
	return nil
}

// addRequest adds the records of one request.
func (c *commit) addRequest(r *request) {
	for _, pr := range r.parts[:r.used] {
		if pr.samples.Len() > 0 {
			c.batch.Add(wal.TypeSamples, pr.payload)
			c.steps = append(c.steps, step{pr: pr, p: pr.p, kind: wal.TypeSamples})
		}
		if len(pr.hists) > 0 {
			c.buf = appendHistogramRecord(c.buf[:0], r.tn.id, pr.day, pr.hists)
			c.batch.Add(wal.TypeHistogram, c.buf)
			c.steps = append(c.steps, step{pr: pr, p: pr.p, kind: wal.TypeHistogram})
		}
		if len(pr.exemplars) > 0 {
			c.buf = appendExemplarRecord(c.buf[:0], r.tn.id, pr.day, pr.exemplars)
			c.batch.Add(wal.TypeExemplar, c.buf)
			c.steps = append(c.steps, step{pr: pr, p: pr.p, kind: wal.TypeExemplar})
		}
	}
	if len(r.metadata) > 0 {
		c.buf = appendMetadataRecord(c.buf[:0], r.tn.id, r.metadata)
		c.batch.Add(wal.TypeMetadata, c.buf)
		c.steps = append(c.steps, step{tn: r.tn, kind: wal.TypeMetadata, meta: r.metadata})
	}
}

// account updates counters after a commit.
func (c *commit) account() {
	now := c.db.now().UnixMilli()
	total := 0
	for _, r := range c.requests {
		total += r.samples
		r.tn.wrote(now, r.samples)
		for _, pr := range r.parts[:r.used] {
			pr.p.lastWrite.Store(now)
		}
	}
	c.db.met.samples.Add(float64(total))
	if c.db.head.bytes.Load() > c.db.cfg.HeadMaxBytes {
		select {
		case c.db.pressure <- struct{}{}:
		default:
		}
	}
}

// log writes a batch to the log and returns its first LSN. A full disk is
// KindUnavailable and passes; a broken log makes the store read-only until restart.
func (db *DB) log(b *wal.Batch) (uint64, error) {
	began := time.Now()
	first, err := db.wal.Load().Append(b)
	db.met.logSeconds.Observe(time.Since(began).Seconds())
	if err == nil {
		return first, nil
	}
	switch {
	case errors.Is(err, wal.ErrNoSpace):
		db.disk.full(err)
		return 0, unavailable("append", "the disk is full: %w", err)
	case errors.Is(err, wal.ErrBroken), errors.Is(err, wal.ErrClosed):
		db.disk.broken(err)
		return 0, unavailable("append", "the write-ahead log cannot be written, restart to recover it: %w", err)
	default:
		return 0, storage.Errorf(storage.KindInternal, "append", "%w", err)
	}
}
