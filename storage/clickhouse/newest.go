package clickhouse

import (
	"context"
	"math"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/internal/grid"
)

// newestBytes is the memory of a series in newest.
const newestBytes = 8 + 8

// noTime is before every time that a sample may have.
const noTime = math.MinInt64

// newest finds the newest sample of each series, where that decides alone. It needs room for each series and not for each
// sample, so one statement may bring any number of them.
type newest struct {
	budget *grid.Budget
	taken  int64

	ts     []int64 // by position - from: noTime where there is none
	images []uint64
	rows   int // that the statement brought
}

// staleImage is how a staleness marker is stored: only one NaN that nobody writes comes before it.
var staleImage = storage.ValueImage(storage.StaleNaN)

// read runs the statement. Where no series has a staleness marker in the span's range and values do not matter, ids tell
// everything: with only they are all that is read, and images are 0. unknown takes ids that the roster lacks.
func (l *newest) read(ctx context.Context, s *Store, sh *shard, x span, only bool, where string, p *params, unknown func(id uint64)) (sql string, err error) {
	if err := l.reset(x.to - x.from); err != nil {
		return "", err
	}
	find := finder{span: x, unknown: unknown}
	if only {
		var ids proto.ColUInt64
		sql = render("evaluate/present", fragments{"Where": where})
		return sql, s.columns(ctx, sh, sql, p.args, proto.Results{{Name: "series_id", Data: &ids}}, func(n int) error {
			l.rows += n
			l.mark(&find, ids[:n])
			return nil
		})
	}
	var rows sampleRows
	sql = rows.statement(x, where, p)
	return sql, s.columns(ctx, sh, sql, p.args, rows.result(), func(n int) error {
		l.rows += n
		l.take(&find, &rows, n)
		return nil
	})
}

// reset makes room for n series.
func (l *newest) reset(n int) error {
	if need := int64(n) * newestBytes; need > l.taken {
		if err := l.budget.Take(need - l.taken); err != nil {
			return err
		}
		l.taken, l.ts, l.images = need, make([]int64, n), make([]uint64, n)
	}
	l.ts, l.images = l.ts[:n], l.images[:n]
	for i := range l.ts {
		l.ts[i] = noTime
	}
	clear(l.images)
	l.rows = 0
	return nil
}

// mark notes that series have a sample.
func (l *newest) mark(find *finder, ids []uint64) {
	last := ^uint64(0)
	for _, id := range ids {
		if id == last {
			continue
		}
		last = id
		if at := find.find(id); at >= 0 {
			l.ts[at] = find.maxt
		}
	}
}

// take keeps the newest of a block's rows, of several at one time the greatest image.
func (l *newest) take(find *finder, rows *sampleRows, n int) {
	for i, id := range rows.id[:n] {
		at := find.find(id)
		if at < 0 {
			continue
		}
		t, image := rows.time(find.span, i), rows.image[i]
		switch {
		case t > l.ts[at]:
			l.ts[at], l.images[at] = t, image
		case t == l.ts[at]:
			l.images[at] = max(l.images[at], image)
		}
	}
}

// each calls add for every series that has a sample, in the order of the roster.
func (l *newest) each(from int, add func(at int, v float64) error) error {
	for i, t := range l.ts {
		if t == noTime {
			continue
		}
		if err := add(from+i, storage.ValueOfImage(l.images[i])); err != nil {
			return err
		}
	}
	return nil
}

func (l *newest) free() { l.budget.Give(l.taken) }
