package index

import (
	"bytes"
	"context"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/prometheus/model/labels"
)

var _ Reader = (*Packed)(nil)

// Select implements Reader. It reads the blocks of postings that hold the wanted values, and all of a label's only for
// a regular expression without a literal beginning.
func (p *Packed) Select(ctx context.Context, matchers ...*labels.Matcher) (*roaring.Bitmap, error) {
	return selectSeries(ctx, p, matchers)
}

// fewSeries: a record costs as much to decode as a block of postings, and prepare has read those already.
func (p *Packed) fewSeries() uint64 { return 0 }

func (p *Packed) allSeries(ctx context.Context) (*roaring.Bitmap, error) {
	all, err := p.posting(ctx, 0, nil)
	if err != nil {
		return nil, err
	}
	if all.n != p.meta.series {
		return nil, damaged(KindMeta, nil, "%d series, want %d", all.n, p.meta.series)
	}
	return all.owned(), nil
}

// having takes the series that lack the label from all series.
func (p *Packed) having(ctx context.Context, name string) (*roaring.Bitmap, error) {
	no, n := p.name(name)
	if n == nil {
		return roaring.New(), nil
	}
	all, err := p.allSeries(ctx)
	if err != nil || n.series == p.meta.series {
		return all, err
	}
	lacking, err := p.posting(ctx, no, nil)
	if err != nil {
		return nil, err
	}
	all.AndNot(lacking.toBitmap())
	if all.GetCardinality() != n.series {
		return nil, damaged(KindMeta, nil, "%d series with %q, want %d", all.GetCardinality(), name, n.series)
	}
	return all, nil
}

// valueCount counts blocks by their keys when there is a prefix.
func (p *Packed) valueCount(ctx context.Context, name, prefix string) (uint64, error) {
	no, n := p.name(name)
	if n == nil || n.blocks == 0 {
		return 0, nil
	}
	if prefix == "" {
		return n.values, nil
	}
	blocks := uint64(0)
	from := postingsSeek(p.meta.generation, no, []byte(prefix))
	err := p.src.ScanKeys(KindPostings, appendU32s(nil, p.meta.generation, no), from, func(suffix []byte) (bool, error) {
		blocks++
		return bytes.HasPrefix(suffix, from), ctx.Err()
	})
	return blocks * (n.values/uint64(n.blocks) + 1), err
}

func (p *Packed) postings(ctx context.Context, name string, values []string) ([]posting, error) {
	out := make([]posting, len(values))
	no, n := p.name(name)
	if n == nil {
		return out, nil
	}
	for i, v := range values {
		var err error
		if out[i], err = p.posting(ctx, no, []byte(v)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (p *Packed) scanValues(ctx context.Context, name, prefix string, fn func(value string, get func() (posting, error)) error) error {
	no, n := p.name(name)
	if n == nil {
		return nil
	}
	var key []byte
	var entry *packedEntry
	get := func() (posting, error) {
		x, ok := entry.posting(p.meta.bound)
		if !ok {
			return posting{}, damaged(KindPostings, key, "impossible postings of %q", entry.value)
		}
		return x, nil
	}
	return p.eachEntry(ctx, no, []byte(prefix), func(k []byte, e *packedEntry) error {
		if len(e.value) == 0 {
			return nil // the series that lack the label
		}
		key, entry = k, e
		return fn(viewString(e.value), get)
	})
}

func (p *Packed) filter(ctx context.Context, ids *roaring.Bitmap, name string, match func(string) bool) (*roaring.Bitmap, error) {
	out := roaring.New()
	missing := match("")
	var keep []uint32
	err := p.eachCell(ctx, ids, []string{name}, func(c cellAt) {
		ok := missing
		if c.cell > 0 {
			ok = match(viewString(c.label.value(c.cell - 1)))
		}
		if ok {
			keep = append(keep, c.id)
		}
	})
	out.AddMany(keep)
	return out, err
}

// cellAt is one label of one series in its record.
type cellAt struct {
	i     int // position of the series among the ids
	name  int // position of the label among the names
	id    uint32
	fresh bool         // the first series of the record, or of it again after another record
	label *recordLabel // nil if no series of the record has the label
	cell  int          // 0, or 1 + the number of the value in label
}

// eachCell calls fn for each series and name.
func (p *Packed) eachCell(ctx context.Context, ids *roaring.Bitmap, names []string, fn func(cellAt)) error {
	serial := uint64(0)
	cols := make([]*recordLabel, len(names))
	return p.eachSeries(ctx, ids, func(i int, id uint32, r *seriesRecord, slot int) error {
		at := cellAt{i: i, id: id, fresh: r.serial != serial}
		if at.fresh {
			serial = r.serial
			for c, name := range names {
				cols[c] = r.label(name)
			}
		}
		for c, l := range cols {
			at.name, at.label, at.cell = c, l, 0
			if l != nil {
				at.cell = l.cell(slot)
			}
			fn(at)
		}
		return nil
	})
}
