package index

import (
	"context"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// Select implements Reader. With an equality on __name__ alone it takes O(extents of the metric).
func (m *Mem) Select(ctx context.Context, matchers ...*labels.Matcher) (*roaring.Bitmap, error) {
	return selectSeries(ctx, m, matchers)
}

// fewSeries: looking at 128 series takes about as long as building one bitmap of a large metric.
func (m *Mem) fewSeries() uint64 { return 128 }

func (m *Mem) allSeries(context.Context) (*roaring.Bitmap, error) { return m.allBitmap(), nil }

func (m *Mem) having(_ context.Context, name string) (*roaring.Bitmap, error) {
	u := union{bound: m.IDBound()}
	if n := m.findName(name); n != 0 {
		for i := range m.shapes {
			if m.shapes[i].position(n) >= 0 {
				u.add(m.post.get(m.shapes[i].post))
			}
		}
	}
	return u.bitmap(), nil
}

// valueCount uses an order that exists, but builds none: the scan may turn out to be unnecessary.
func (m *Mem) valueCount(_ context.Context, name, prefix string) (uint64, error) {
	n := m.findName(name)
	if n == 0 {
		return 0, nil
	}
	x := m.label[n-1]
	o := x.order.Load()
	if prefix == "" || o == nil {
		return uint64(x.len()), nil
	}
	tail := int(x.len()) - len(o.byValue)
	return uint64(len(m.prefixRange(x, o.byValue, prefix)) + tail), nil
}

func (m *Mem) posting(name, value uint32) posting {
	if name == nameOfName {
		return posting{n: uint64(m.metrics.at(value).series), single: value, mem: m}
	}
	return m.post.get(*m.label[name-1].post.at(value - 1))
}

func (m *Mem) postings(_ context.Context, name string, values []string) ([]posting, error) {
	out := make([]posting, len(values))
	n := m.findName(name)
	if n == 0 {
		return out, nil
	}
	for i, v := range values {
		if no := m.findValue(n, v); no != 0 {
			out[i] = m.posting(n, no)
		}
	}
	return out, nil
}

func (m *Mem) scanValues(ctx context.Context, name, prefix string, fn func(value string, get func() (posting, error)) error) error {
	n := m.findName(name)
	if n == 0 {
		return nil
	}
	x := m.label[n-1]
	var current uint32
	get := func() (posting, error) { return m.posting(n, current), nil }
	from := uint32(1)
	if prefix != "" {
		order := m.orderOf(n)
		for _, v := range m.prefixRange(x, order, prefix) {
			current = v
			if err := fn(x.str(&m.sym, v), get); err != nil {
				return err
			}
		}
		from += uint32(len(order))
	}
	for v := from; v <= x.len(); v++ {
		value := x.str(&m.sym, v)
		if prefix != "" && !strings.HasPrefix(value, prefix) {
			continue
		}
		current = v
		if err := fn(value, get); err != nil {
			return err
		}
	}
	return nil
}

func (m *Mem) filter(ctx context.Context, ids *roaring.Bitmap, name string, match func(string) bool) (*roaring.Bitmap, error) {
	out := roaring.New()
	n := m.findName(name)
	if n == 0 {
		if match("") {
			return ids.Clone(), nil
		}
		return out, nil
	}
	x := m.label[n-1]
	lastValue, lastMatch := uint32(0), match("")
	var keep []uint32
	err := forEachID(ctx, ids, func(_ int, id uint32) error {
		v, ok := m.valueOf(id, n)
		if !ok {
			return unknownSeries(id)
		}
		if v != lastValue {
			lastValue, lastMatch = v, match(x.str(&m.sym, v))
		}
		if lastMatch {
			keep = append(keep, id)
		}
		return nil
	})
	out.AddMany(keep)
	return out, err
}
