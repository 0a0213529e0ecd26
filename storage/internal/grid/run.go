package grid

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/luminate/luminate/storage"
)

// Worker evaluates chunks, one after the other, for one goroutine.
type Worker interface {
	// Chunk adds the series of the units [c.From, c.To) to s.
	Chunk(ctx context.Context, c Chunk, s *Shard) error
	// Close releases what the worker holds.
	Close()
}

// Source names groups and series by their labels when the answer is written.
type Source interface {
	GroupLabels(group uint32) (storage.Labels, error)
	SeriesLabels(series []uint32) ([]storage.Labels, error) // topk and bottomk only; called once
}

// Evaluate runs the chunks over the cores, each worker made by newWorker, and writes the answer: groups in order of
// their labels, without Series, Samples and Bytes. groups is the number of groups. The first error ends it.
func Evaluate(ctx context.Context, p *Plan, chunks []Chunk, groups uint32, newWorker func() Worker, src Source) (*storage.GridResult, error) {
	if groups == 0 || len(chunks) == 0 {
		return &storage.GridResult{}, nil
	}
	j := &joiner{p: p, waiting: make([]*shard, len(chunks)), values: make([]valueList, len(chunks))}
	var err error
	if len(chunks) > 1 {
		if j.total, err = newShard(p, 0, groups); err != nil {
			return nil, err
		}
	}
	err = parallel(ctx, len(chunks), func(ctx context.Context, next func() (int, bool)) error {
		w := newWorker()
		defer w.Close()
		kernel := NewKernel(p)
		for i, ok := next(); ok; i, ok = next() {
			c := chunks[i]
			if len(chunks) == 1 {
				c.Lo, c.Hi = 0, groups
			}
			s, err := newShard(p, c.Lo, c.Hi)
			if err != nil {
				return err
			}
			kernel.Reset()
			if err := w.Chunk(ctx, c, &Shard{shard: s, kernel: kernel}); err != nil {
				return err
			}
			if err := j.join(i, s); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return j.result(ctx, groups, src)
}

// parallel runs fn on every core; each call takes task numbers below n from next until there are none.
func parallel(ctx context.Context, n int, fn func(ctx context.Context, next func() (int, bool)) error) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	var taken atomic.Int64
	next := func() (int, bool) {
		if inner.Err() != nil {
			return 0, false
		}
		i := int(taken.Add(1)) - 1
		return i, i < n
	}
	var once sync.Once
	var first error
	run := func() {
		if err := fn(inner, next); err != nil {
			once.Do(func() { first = err })
			cancel()
		}
	}
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), n) - 1 {
		wg.Go(run)
	}
	run()
	wg.Wait()
	if first != nil {
		return first
	}
	return storage.ContextError(ctx, "evaluate")
}

// joiner merges the shards of chunks in the order of the chunks.
type joiner struct {
	p *Plan

	mu      sync.Mutex
	next    int
	waiting []*shard
	total   *shard
	values  []valueList // by chunk
}

func (j *joiner) join(i int, s *shard) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.values[i] = s.values
	if j.total == nil {
		j.total = s
		return nil
	}
	j.waiting[i] = s
	for ; j.next < len(j.waiting) && j.waiting[j.next] != nil; j.next++ {
		s := j.waiting[j.next]
		if err := j.total.merge(s); err != nil {
			return err
		}
		s.free()
		j.waiting[j.next] = nil
	}
	return nil
}

func (j *joiner) result(ctx context.Context, groups uint32, src Source) (*storage.GridResult, error) {
	live := j.liveGroups(groups)
	if limit := j.p.grid.MaxGroups; limit > 0 && len(live) > limit {
		return nil, storage.LimitErrorf(storage.KindTooLarge, "evaluate", "max-groups-per-query", "limits.maxGroupsPerQuery",
			"the query makes more than %d groups", limit)
	}
	if j.p.topk {
		return j.seriesResult(live, src)
	}
	quantiles, err := j.quantiles(ctx, groups)
	if err != nil {
		return nil, err
	}
	steps, aggs := j.p.steps, j.p.grid.Aggregates
	if err := j.p.budget.Take(int64(len(live)) * int64(len(aggs)*(8*steps+24)+64)); err != nil {
		return nil, err
	}
	res := &storage.GridResult{Groups: make([]storage.GridGroup, len(live))}
	rows := make([][]float64, len(live)*len(aggs))
	flat := make([]float64, len(live)*len(aggs)*steps)
	for n, group := range live {
		if n%4096 == 0 {
			if err := storage.ContextError(ctx, "evaluate"); err != nil {
				return nil, err
			}
		}
		labels, err := src.GroupLabels(group)
		if err != nil {
			return nil, err
		}
		g := storage.GridGroup{Labels: labels, Values: rows[n*len(aggs) : (n+1)*len(aggs) : (n+1)*len(aggs)]}
		for a := range aggs {
			from := (n*len(aggs) + a) * steps
			g.Values[a] = flat[from : from+steps : from+steps]
			j.writeRow(g.Values[a], a, int(group)*steps, quantiles)
		}
		res.Groups[n] = g
	}
	storage.SortGroups(res.Groups)
	return res, nil
}

// writeRow writes one aggregate of one group.
func (j *joiner) writeRow(row []float64, a, base int, quantiles [][]float64) {
	c := j.total.columns[a]
	for i := range row {
		count := j.total.counts[base+i]
		switch {
		case count == 0:
			row[i] = storage.Absent
		case c == nil:
			row[i] = quantiles[a][base+i]
		default:
			row[i] = c.value(base+i, count)
		}
	}
}

// liveGroups lists the groups that have a value.
func (j *joiner) liveGroups(groups uint32) (live []uint32) {
	steps := j.p.steps
	for g := range groups {
		if slices.ContainsFunc(j.total.counts[int(g)*steps:int(g+1)*steps], func(n uint64) bool { return n > 0 }) {
			live = append(live, g)
		}
	}
	return live
}

// quantiles sorts the collected values into their cells and returns each quantile aggregate's values by cell.
func (j *joiner) quantiles(ctx context.Context, groups uint32) ([][]float64, error) {
	if !j.p.quantile {
		return nil, nil
	}
	n := int(groups) * j.p.steps
	out := make([][]float64, len(j.p.grid.Aggregates))
	memory := int64(n) * 8
	for a, agg := range j.p.grid.Aggregates {
		if agg.Op == storage.AggQuantile {
			memory += int64(n) * 8
			out[a] = make([]float64, n)
		}
	}
	if err := j.p.budget.Take(memory); err != nil {
		return nil, err
	}
	ends := make([]uint64, n) // the next free place of each cell, at last its end
	total := uint64(0)
	for cell, count := range j.total.counts {
		ends[cell] = total
		total += count
	}
	sorted := make([]float64, total) // its memory was taken with the lists
	for i := range j.values {
		l := &j.values[i]
		for x, cell := range l.cells {
			sorted[ends[cell]] = l.values[x]
			ends[cell]++
		}
		l.cells, l.values = nil, nil
	}
	const batch = 256 // cells; a cell may hold one value or a million
	tasks := (n + batch - 1) / batch
	if n <= 64*batch {
		tasks = n
	}
	err := parallel(ctx, tasks, func(_ context.Context, next func() (int, bool)) error {
		for i, ok := next(); ok; i, ok = next() {
			from, to := i, i+1
			if tasks != n {
				from, to = i*batch, min(n, (i+1)*batch)
			}
			for cell := from; cell < to; cell++ {
				vs := sorted[ends[cell]-j.total.counts[cell] : ends[cell]]
				for a, agg := range j.p.grid.Aggregates {
					if agg.Op == storage.AggQuantile && len(vs) > 0 {
						out[a][cell] = quantile(agg.Arg, vs)
					}
				}
			}
		}
		return nil
	})
	return out, err
}

// seriesResult is the answer of topk and bottomk.
func (j *joiner) seriesResult(live []uint32, src Source) (*storage.GridResult, error) {
	res := &storage.GridResult{}
	var all []uint32
	for _, g := range live {
		series, rows, err := j.total.pickSeries(g)
		if err != nil {
			return nil, err
		}
		all = append(all, series...)
		for _, row := range rows {
			res.Groups = append(res.Groups, storage.GridGroup{Values: [][]float64{row}})
		}
	}
	labels, err := src.SeriesLabels(all)
	if err != nil {
		return nil, err
	}
	for i := range res.Groups {
		res.Groups[i].Labels = labels[i]
	}
	storage.SortGroups(res.Groups)
	return res, nil
}
