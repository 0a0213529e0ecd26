package clickhouse

import (
	"context"
	"errors"
	"slices"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/internal/grid"
)

// gatheredBytes is the memory of a gathered sample: as it came and by series.
const gatheredBytes = 20 + 24

// errTooMany ends a read of more samples than one statement may bring.
var errTooMany = errors.New("the statement brings too many samples")

// gather reads samples of some series of a roster and hands them on series by series.
// The statement has no order: sorting costs the server more than everything else, and
// rows come in runs of one series anyway. They are counted and put into their places.
type gather struct {
	budget *grid.Budget
	limit  int // samples of one statement
	taken  int64

	at     []uint32 // as they came: position - from, time, image
	ts     []int64
	images []uint64

	runT []int64 // a run while it is merged
	runV []uint64

	starts []uint32 // by series: its first sample, in what follows
	sorted []int64
	values []uint64
	floats []float64
}

// read runs the statement. unknown takes ids that the roster lacks.
func (g *gather) read(ctx context.Context, s *Store, sh *shard, x span, where string, p *params, unknown func(id uint64)) (sql string, err error) {
	var rows sampleRows
	sql = rows.statement(x, where, p)
	g.at, g.ts, g.images = g.at[:0], g.ts[:0], g.images[:0]
	find := finder{span: x, unknown: unknown}
	return sql, s.columns(ctx, sh, sql, p.args, rows.result(), func(n int) error { return g.take(&find, &rows, n) })
}

// take keeps a block's rows.
func (g *gather) take(find *finder, rows *sampleRows, n int) error {
	if have := len(g.at); have+n > g.limit && find.to-find.from > 1 {
		return errTooMany
	}
	if err := g.reserve(len(g.at) + n); err != nil {
		return err
	}
	for i, id := range rows.id[:n] {
		at := find.find(id)
		if at < 0 {
			continue
		}
		g.at, g.ts, g.images = append(g.at, uint32(at)), append(g.ts, rows.time(find.span, i)), append(g.images, rows.image[i])
	}
	return nil
}

// reserve makes room for n samples.
func (g *gather) reserve(n int) error {
	if n <= cap(g.at) {
		return nil
	}
	size := max(n, 2*cap(g.at), 4096)
	if err := g.budget.Take(int64(size)*gatheredBytes - g.taken); err != nil {
		return err
	}
	g.taken = int64(size) * gatheredBytes
	more := size - len(g.at)
	g.at, g.ts, g.images = slices.Grow(g.at, more), slices.Grow(g.ts, more), slices.Grow(g.images, more)
	return nil
}

// each calls add for every series that has samples, in the order of the roster, its
// times ascending. The slices are valid until the next read.
func (g *gather) each(x span, add func(at int, ts []int64, vs []float64) error) error {
	n := x.to - x.from
	g.starts = append(g.starts[:0], make([]uint32, n+1)...)
	for _, at := range g.at {
		g.starts[at+1]++
	}
	for i := range n {
		g.starts[i+1] += g.starts[i]
	}
	g.sorted = slices.Grow(g.sorted[:0], len(g.at))[:len(g.at)]
	g.values = slices.Grow(g.values[:0], len(g.at))[:len(g.at)]
	g.floats = slices.Grow(g.floats[:0], len(g.at))[:len(g.at)]
	for i, at := range g.at {
		to := g.starts[at]
		g.starts[at]++
		g.sorted[to], g.values[to] = g.ts[i], g.images[i]
	}
	from := uint32(0) // starts are the ends now
	for i := range n {
		to := g.starts[i]
		if from == to {
			continue
		}
		ts, images := g.inOrder(g.sorted[from:to], g.values[from:to])
		vs := g.floats[from : int(from)+len(ts)]
		for j, image := range images {
			vs[j] = storage.ValueOfImage(image)
		}
		if err := add(x.from+i, ts, vs); err != nil {
			return err
		}
		from = to
	}
	return nil
}

func (g *gather) free() { g.budget.Give(g.taken) }

// inOrder sorts samples by time and leaves the greatest image of each.
func (g *gather) inOrder(ts []int64, images []uint64) ([]int64, []uint64) {
	ascending, strictly := true, true
	for i := 1; i < len(ts); i++ {
		ascending = ascending && ts[i-1] <= ts[i]
		strictly = strictly && ts[i-1] < ts[i]
	}
	if strictly {
		return ts, images
	}
	if !ascending {
		g.sort(ts, images)
	}
	n := 0
	for i := range ts {
		if n > 0 && ts[n-1] == ts[i] {
			images[n-1] = max(images[n-1], images[i])
			continue
		}
		ts[n], images[n] = ts[i], images[i]
		n++
	}
	return ts[:n], images[:n]
}

// sort puts samples in order of time. They come in a few ascending runs, one of each
// part of the table.
func (g *gather) sort(ts []int64, images []uint64) {
	if len(ts) <= 24 {
		for i := 1; i < len(ts); i++ {
			for j := i; j > 0 && ts[j-1] > ts[j]; j-- {
				ts[j-1], ts[j] = ts[j], ts[j-1]
				images[j-1], images[j] = images[j], images[j-1]
			}
		}
		return
	}
	for end := 1; end < len(ts); {
		from := end
		for end < len(ts) && (end == from || ts[end-1] <= ts[end]) {
			end++
		}
		if ts[from-1] <= ts[from] {
			continue
		}
		// Merge [0, from) and [from, end) from behind.
		t, v := append(g.runT[:0], ts[from:end]...), append(g.runV[:0], images[from:end]...)
		i, to := from-1, end-1
		for j := len(t) - 1; j >= 0; to-- {
			if i >= 0 && ts[i] > t[j] {
				ts[to], images[to] = ts[i], images[i]
				i--
			} else {
				ts[to], images[to] = t[j], v[j]
				j--
			}
		}
		g.runT, g.runV = t, v
	}
}
