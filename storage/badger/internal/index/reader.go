package index

import (
	"context"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// Reader answers questions about the series of one partition. A nil ids means every series. Returned bitmaps, slices
// and strings belong to the caller. An id that is no series of the partition gives ErrUnknownSeries.
type Reader interface {
	// Select returns the series that fulfil all matchers, with Prometheus's rules: a missing label is an empty value.
	// No matcher selects every series.
	Select(ctx context.Context, matchers ...*labels.Matcher) (*roaring.Bitmap, error)
	// Find returns the id of the series with the hash.
	Find(ctx context.Context, hash Hash128) (id uint32, ok bool, err error)
	// Hash returns the hash of a series.
	Hash(id uint32) (Hash128, error)
	// AppendLabels appends the canonical label bytes of a series to dst.
	AppendLabels(dst []byte, id uint32) ([]byte, error)
	// ForEach calls fn for the series in order of id; the labels are valid during the call only.
	ForEach(ctx context.Context, ids *roaring.Bitmap, fn func(id uint32, hash Hash128, labels []byte) error) error
	// GroupBy puts series with equal grouping labels into groups.
	GroupBy(ctx context.Context, ids *roaring.Bitmap, names []string, without bool) (Groups, error)

	// MetricID returns the number of the metric that owns a group (id / GroupSize), MetricName its name.
	MetricID(group uint32) (uint32, error)
	MetricName(group uint32) (string, error)
	// Metrics counts series by metric, ordered by name; the name is "" for series without one.
	Metrics(ctx context.Context, ids *roaring.Bitmap) ([]Count, error)

	// LabelNames lists the names of the labels of the series, ascending.
	LabelNames(ctx context.Context, ids *roaring.Bitmap) ([]string, error)
	// LabelValues lists the values of a label of the series, ascending; at most limit, 0 = all.
	LabelValues(ctx context.Context, name string, ids *roaring.Bitmap, limit int) ([]string, error)
	// LabelCounts counts series and distinct values of each label, ordered by name.
	LabelCounts(ctx context.Context, ids *roaring.Bitmap) ([]LabelCount, error)
	// ValueCounts counts series by the value of a label: the topN most frequent (0 = all), the greatest first, then by
	// value; and the number of distinct values.
	ValueCounts(ctx context.Context, name string, ids *roaring.Bitmap, topN int) ([]Count, uint64, error)
	// SeriesCount returns the number of series of the partition.
	SeriesCount() uint64
	// IDBound returns a number above every series id.
	IDBound() uint32
}

// Count is a name or value with its number of series.
type Count struct {
	Name   string
	Series uint64
}

// LabelCount describes one label name.
type LabelCount struct {
	Name   string
	Series uint64 // series that have the label
	Values uint64 // distinct values
	Bytes  uint64 // of the distinct values
}

// Groups tells the group of each series. With "by", groups are by the values of the names, a missing label being its
// own group; with "without", by all labels but the names and __name__.
type Groups struct {
	Of     []uint32 // the group of each series, in ascending order of id
	Labels [][]byte // canonical label bytes of each group: the grouping labels that it has
}

var _ Reader = (*Mem)(nil)

// ctxEvery is after how many cheap steps a loop looks at its context.
const ctxEvery = 4096

// forEachID calls fn for the ids in ascending order with the position of each, and stops at a done context.
func forEachID(ctx context.Context, ids *roaring.Bitmap, fn func(i int, id uint32) error) error {
	var buf [1024]uint32
	it := ids.ManyIterator()
	i := 0
	for n := it.NextMany(buf[:]); n > 0; n = it.NextMany(buf[:]) {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, id := range buf[:n] {
			if err := fn(i, id); err != nil {
				return err
			}
			i++
		}
	}
	return nil
}
