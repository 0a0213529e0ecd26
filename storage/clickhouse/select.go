package clickhouse

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"golang.org/x/sync/errgroup"

	"github.com/luminate/luminate/storage"
)

// maxBoundIDs is how many series a statement names by id; more are found by the
// matchers again, on the server.
const maxBoundIDs = 20_000

// errBufferFull ends a read whose answer does not fit the buffer.
var errBufferFull = errors.New("select buffer is full")

// Select implements storage.Store. Labels of all matching series are in memory;
// samples are as many as Config.SelectBuffer, or those of one series if unsorted.
func (s *Store) Select(ctx context.Context, t storage.Tenant, q storage.Selection) iter.Seq2[storage.Series, error] {
	return func(yield func(storage.Series, error) bool) {
		err := s.selectSeries(ctx, t, q, func(_ seriesRow, x storage.Series) bool { return yield(x, nil) })
		if err != nil {
			yield(storage.Series{}, translate(ctx, "select", err))
		}
	}
}

// reader carries a Select through its chunks.
type reader struct {
	s       *Store
	sel     selection
	q       storage.Selection
	emit    func(seriesRow, storage.Series) bool
	series  int
	samples int
	stopped bool
}

func (s *Store) selectSeries(ctx context.Context, t storage.Tenant, q storage.Selection, emit func(seriesRow, storage.Series) bool) error {
	if err := s.enter(ctx, "select", t); err != nil {
		return err
	}
	if err := q.Validate(); err != nil {
		return err
	}
	sel, empty, err := s.plan(ctx, t, q.Matchers, q.MinT, q.MaxT)
	if err != nil || empty {
		return err
	}
	all, err := s.selectedSeries(ctx, sel)
	if err != nil || len(all) == 0 {
		return err
	}
	r := &reader{s: s, sel: sel, q: q, emit: emit}
	if !q.Unsorted {
		sortSeries(all)
	}
	return r.run(ctx, all, true)
}

// selectedSeries returns the matching series, which the request may have found before.
func (s *Store) selectedSeries(ctx context.Context, sel selection) ([]seriesRow, error) {
	if found, ok := storage.ScratchOf(ctx).Find(scratchOf(sel)); ok {
		if rows, ok := found.([]seriesRow); ok {
			return slices.Clone(rows), nil
		}
	}
	return s.loadSeries(ctx, "select", sel)
}

// run reads the series chunk by chunk; entire says that they are all that the
// selection matches. Then the first chunk is all of them; where that overflows the
// buffer it is tried again with a quarter. Parts of a selection are named by ids.
func (r *reader) run(ctx context.Context, all []seriesRow, entire bool) error {
	size := len(all)
	for len(all) > 0 && !r.stopped {
		whole := entire && size >= len(all)
		size = min(size, len(all))
		if !whole {
			size = min(size, maxBoundIDs)
		}
		err := r.chunk(ctx, all[:size], whole)
		if errors.Is(err, errBufferFull) && size > 1 {
			entire, size = false, (size+3)/4
			continue
		}
		if err != nil {
			return err
		}
		all, entire = all[size:], false
	}
	return nil
}

// chunk reads and emits some series; whole says that they are the entire selection.
func (r *reader) chunk(ctx context.Context, rows []seriesRow, whole bool) error {
	index, err := indexSeries(rows)
	if err != nil {
		return err
	}
	c := &chunk{reader: r, rows: rows, index: index, data: make([]storage.Series, len(rows)), current: -1}
	filters := make([]rowFilter, len(r.s.shards))
	for i := range r.s.shards {
		filters[i] = r.s.filterFor(r.sel, rows, i, whole)
	}
	if !r.q.Unsorted {
		if err := c.readAll(ctx, filters); err != nil {
			return err
		}
		if whole && r.sel.one && r.sel.maxt > r.sel.mint {
			r.s.densities.learn(r.sel, float64(c.buffered.Load())/float64(len(rows))/float64(r.sel.maxt-r.sel.mint))
		}
		return c.emitRest()
	}
	// Histograms first, of all shards: afterwards series go out, and a chunk that
	// overflows then could not begin anew.
	for i, sh := range r.s.shards {
		if err := c.readHistograms(ctx, sh, filters[i]); err != nil {
			return err
		}
	}
	for i, sh := range r.s.shards {
		if err := c.readSamples(ctx, sh, filters[i]); err != nil || r.stopped {
			return err
		}
	}
	return c.emitRest()
}

// readAll reads everything before anything goes out, all statements at once: a series
// is on one shard, and its samples and histograms are apart.
func (c *chunk) readAll(ctx context.Context, filters []rowFilter) error {
	g, ctx := errgroup.WithContext(ctx)
	for i, sh := range c.s.shards {
		g.Go(func() error { return c.readHistograms(ctx, sh, filters[i]) })
		g.Go(func() error { return c.readSamples(ctx, sh, filters[i]) })
	}
	return g.Wait()
}

// chunk gathers the samples of some series.
type chunk struct {
	*reader
	rows     []seriesRow
	index    map[uint64]int
	data     []storage.Series
	buffered atomic.Int64 // samples that are held back
	current  int          // the series whose samples arrive, when they go out unsorted
}

// rowFilter says which rows of samples, histograms or exemplars belong to a chunk.
type rowFilter struct {
	none    bool
	metrics []string // nil: any
	locs    []uint32
	ids     []uint64 // nil: all of the metrics, or those that match (subquery)
	keys    []string // further conditions on the key
	match   bool
}

// filterFor describes the rows of the given series on one shard.
func (s *Store) filterFor(sel selection, rows []seriesRow, shardIndex int, whole bool) rowFilter {
	f := rowFilter{}
	n := 0
	metrics, locs := map[string]bool{}, map[uint32]bool{}
	for _, r := range rows {
		if r.shard != shardIndex {
			continue
		}
		n++
		if len(metrics) <= 1000 {
			metrics[r.metric] = true
		}
		if len(locs) <= 1000 {
			locs[r.loc] = true
		}
	}
	f.none = n == 0
	if len(metrics) <= 1000 {
		f.metrics = keys(metrics)
	}
	if len(locs) <= 1000 {
		f.locs = keys(locs)
	}
	switch {
	case whole && onlyMetric(sel.matchers):
		f.locs = nil
	case whole && n > maxBoundIDs:
		f.match = true
	default:
		f.ids = make([]uint64, 0, n)
		for _, r := range rows {
			if r.shard == shardIndex {
				f.ids = append(f.ids, r.id)
			}
		}
	}
	return f
}

func keys[K interface{ ~string | ~uint32 }](m map[K]bool) []K {
	out := make([]K, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// onlyMetric tells whether the matchers look at nothing but the metric's name.
func onlyMetric(ms []*storage.Matcher) bool {
	return !slices.ContainsFunc(ms, func(m *storage.Matcher) bool { return m.Name != storage.MetricName })
}

// where is the WHERE of samples, histograms and exemplars.
func (s *Store) where(p *params, sel selection, f rowFilter) string {
	conds := []string{"tenant = " + p.str(sel.tenant.String())}
	if f.metrics != nil {
		conds = append(conds, "metric IN "+p.strs(f.metrics))
	}
	if f.locs != nil {
		conds = append(conds, "loc IN "+p.u32s(f.locs))
	}
	if f.ids != nil {
		conds = append(conds, "series_id IN "+p.u64s(f.ids))
	}
	conds = append(conds, f.keys...)
	if f.match {
		conds = append(conds, render("read/series_in", fragments{"Where": s.seriesWhere(p, sel.tenant, sel.matchers, sel.mint, sel.maxt)}))
	}
	conds = append(conds, "ts >= "+p.time(sel.mint), "ts <= "+p.time(sel.maxt))
	return strings.Join(conds, " AND ")
}

func (c *chunk) readHistograms(ctx context.Context, sh *shard, f rowFilter) error {
	if f.none {
		return nil
	}
	var p params
	sql := render("read/histograms", fragments{"Where": c.s.where(&p, c.sel, f)})
	return c.s.each(ctx, sh, sql, p.args, func(r driver.Rows) error {
		var id uint64
		var t, st int64
		var data []byte
		if err := r.Scan(&id, &t, &st, &data); err != nil {
			return err
		}
		i, ok := c.index[id]
		if !ok || t < c.rows[i].mint {
			return nil
		}
		h, err := storage.DecodeHistogram(data, t, st)
		if err != nil {
			return storage.Errorf(storage.KindInternal, "select", "series %s at %d: %w", c.rows[i].labels, t, err)
		}
		hs := &c.data[i].Histograms
		if n := len(*hs); n > 0 && (*hs)[n-1].T == t {
			if old := (*hs)[n-1]; storage.CompareHistograms(h, old) > 0 || sameHistogram(h, old) && h.ST > old.ST {
				(*hs)[n-1] = h
			}
			return nil
		}
		*hs = append(*hs, h)
		return c.grow(16) // a histogram takes about as much as so many floats
	})
}

func sameHistogram(a, b storage.HistogramSample) bool { return storage.CompareHistograms(a, b) == 0 }

// grow counts what is held back.
func (c *chunk) grow(n int) error {
	if c.buffered.Add(int64(n)) > int64(c.s.cfg.SelectBuffer) && len(c.rows) > 1 {
		return errBufferFull
	}
	return nil
}

// errStopped ends a read whose answer nobody wants any more.
var errStopped = errors.New("stopped")

func (c *chunk) readSamples(ctx context.Context, sh *shard, f rowFilter) error {
	if f.none {
		return nil
	}
	var p params
	sql := render("read/samples", fragments{"Where": c.s.where(&p, c.sel, f), "Order": keyOrder(f)})
	in := sampleReader{chunk: c, at: -1}
	err := c.s.columns(ctx, sh, sql, p.args, proto.Results{
		{Name: "series_id", Data: &in.id}, {Name: "t", Data: &in.t}, {Name: "image", Data: &in.image}, {Name: "st", Data: &in.st},
	}, in.take)
	if errors.Is(err, errStopped) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.finish()
}

// sampleReader takes the rows of statement read/samples, which come in the order of the key.
type sampleReader struct {
	*chunk
	id    proto.ColUInt64
	t     proto.ColInt64
	image proto.ColUInt64
	st    proto.ColInt64

	at        int // the series of the last row, -1 before the first
	known     bool
	last      uint64 // its id
	lastImage uint64
}

// take takes a block of rows.
func (in *sampleReader) take(n int) error {
	for i := range n {
		if in.at < 0 || in.id[i] != in.last {
			if err := in.begin(in.id[i]); err != nil {
				return err
			}
		}
		if !in.known || in.t[i] < in.rows[in.at].mint {
			continue
		}
		added := in.add(&in.data[in.at], in.t[i], in.st[i], in.image[i], &in.lastImage)
		if !in.q.Unsorted && added {
			if err := in.grow(1); err != nil {
				return err
			}
		}
	}
	return nil
}

// begin goes on to the next series.
func (in *sampleReader) begin(id uint64) error {
	if err := in.finish(); err != nil {
		return err
	}
	if in.stopped {
		return errStopped
	}
	in.last = id
	if in.at, in.known = in.index[id]; in.known && in.q.Unsorted {
		in.current = in.at
	}
	return nil
}

// keyOrder is the order of the key. What is fixed by an equality is left out: comparing
// tenants and metrics of every row took the server seven times as long.
func keyOrder(f rowFilter) string {
	if len(f.metrics) == 1 {
		return "loc, series_id, ts"
	}
	return "metric, loc, series_id, ts"
}

// add puts one row behind the others of its series. Rows arrive in order of time;
// of several at one time the greatest image stays.
func (c *chunk) add(x *storage.Series, t, st int64, image uint64, lastImage *uint64) (added bool) {
	n := len(x.Samples)
	if n > 0 && x.Samples[n-1].T == t {
		stored := int64(0)
		if x.STs != nil {
			stored = x.STs[n-1]
		}
		if image < *lastImage || image == *lastImage && st <= stored {
			return false
		}
		x.Samples[n-1].V = storage.ValueOfImage(image)
		n--
	} else {
		x.Samples = append(x.Samples, storage.Sample{T: t, V: storage.ValueOfImage(image)})
		if x.STs != nil {
			x.STs = append(x.STs, 0)
		}
		added = true
	}
	*lastImage = image
	if st != 0 && x.STs == nil {
		x.STs = make([]int64, len(x.Samples), cap(x.Samples))
	}
	if x.STs != nil {
		x.STs[n] = st
	}
	return added
}

// finish sends out the series whose samples have all arrived, where order is free.
func (c *chunk) finish() error {
	if c.current < 0 {
		return nil
	}
	i := c.current
	c.current = -1
	return c.send(i)
}

// emitRest sends out the series that are still held, in order.
func (c *chunk) emitRest() error {
	for i := range c.data {
		if c.stopped {
			return nil
		}
		if err := c.send(i); err != nil {
			return err
		}
	}
	return nil
}

// send emits series i, unless it has nothing in the range, and forgets it.
func (c *chunk) send(i int) error {
	x := c.data[i]
	c.data[i] = storage.Series{}
	if len(x.Samples)+len(x.Histograms) == 0 {
		return nil
	}
	x.Labels = c.rows[i].labels
	dropShadowed(&x)
	if !slices.ContainsFunc(x.STs, func(st int64) bool { return st != 0 }) {
		x.STs = nil
	}
	c.series++
	c.samples += len(x.Samples) + len(x.Histograms)
	if c.q.MaxSeries > 0 && c.series > c.q.MaxSeries {
		return storage.LimitErrorf(storage.KindTooLarge, "select", "max-series-per-query", "limits.maxSeriesPerQuery", "the query selects more than %d series", c.q.MaxSeries)
	}
	if c.q.MaxSamples > 0 && c.samples > c.q.MaxSamples {
		return storage.LimitErrorf(storage.KindTooLarge, "select", "max-samples-per-query", "limits.maxSamplesPerQuery", "the query selects more than %d samples", c.q.MaxSamples)
	}
	if !c.emit(c.rows[i], x) || c.q.Limit > 0 && c.series >= c.q.Limit {
		c.stopped = true
	}
	return nil
}

// dropShadowed removes floats at times that have a histogram, which is greater.
func dropShadowed(x *storage.Series) {
	if len(x.Histograms) == 0 || len(x.Samples) == 0 {
		return
	}
	n, h := 0, 0
	for i, f := range x.Samples {
		for h < len(x.Histograms) && x.Histograms[h].T < f.T {
			h++
		}
		if h < len(x.Histograms) && x.Histograms[h].T == f.T {
			continue
		}
		x.Samples[n] = f
		if x.STs != nil {
			x.STs[n] = x.STs[i]
		}
		n++
	}
	x.Samples = x.Samples[:n]
	if x.STs != nil {
		x.STs = x.STs[:n]
	}
}
