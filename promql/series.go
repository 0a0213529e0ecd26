package promql

import (
	"math"
	"sort"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/luminate/luminate/storage"
)

// seriesSet asks the store when it is first advanced and holds the answer: the
// engine materialises every selection anyway.
type seriesSet struct {
	load   func() ([]series, error) // nil once called
	series []series
	at     int // index after the current series
	err    error

	warnings annotations.Annotations
}

// Next implements promstorage.SeriesSet.
func (s *seriesSet) Next() bool {
	if s.load != nil {
		s.series, s.err = s.load()
		s.load = nil
	}
	if s.at >= len(s.series) {
		return false
	}
	s.at++
	return true
}

// At implements promstorage.SeriesSet.
func (s *seriesSet) At() promstorage.Series { return &s.series[s.at-1] }

// Err implements promstorage.SeriesSet.
func (s *seriesSet) Err() error { return s.err }

// Warnings implements promstorage.SeriesSet.
func (s *seriesSet) Warnings() annotations.Annotations { return s.warnings }

// series is a storage.Series as the engine sees it.
type series struct {
	labels labels.Labels
	data   storage.Series
}

// Labels implements promstorage.Labels.
func (s *series) Labels() labels.Labels { return s.labels }

// Iterator implements promstorage.SampleIterable; it reuses an iterator of ours.
func (s *series) Iterator(reuse chunkenc.Iterator) chunkenc.Iterator {
	it, ok := reuse.(*seriesIterator)
	if !ok {
		it = new(seriesIterator)
	}
	*it = seriesIterator{data: &s.data}
	return it
}

// unixMilli is a time. As an alias it keeps vet from taking Seek for io.Seeker's.
type unixMilli = int64

// seriesIterator walks floats and histograms of a series together in order of
// time. It reads the series' own memory; histograms are copied out because the
// engine changes them.
type seriesIterator struct {
	data *storage.Series
	f, h int // the next float and histogram
	cur  chunkenc.ValueType
}

// Next implements chunkenc.Iterator.
func (it *seriesIterator) Next() chunkenc.ValueType {
	fs, hs := it.data.Samples, it.data.Histograms
	switch {
	case it.f < len(fs) && (it.h >= len(hs) || fs[it.f].T < hs[it.h].T):
		it.f++
		it.cur = chunkenc.ValFloat
	case it.h < len(hs):
		it.h++
		it.cur = chunkenc.ValFloatHistogram
		if hs[it.h-1].H != nil {
			it.cur = chunkenc.ValHistogram
		}
	default:
		it.cur = chunkenc.ValNone
	}
	return it.cur
}

// Seek implements chunkenc.Iterator.
func (it *seriesIterator) Seek(t unixMilli) chunkenc.ValueType {
	if it.cur != chunkenc.ValNone && it.AtT() >= t {
		return it.cur
	}
	fs, hs := it.data.Samples[it.f:], it.data.Histograms[it.h:]
	it.f += sort.Search(len(fs), func(i int) bool { return fs[i].T >= t })
	it.h += sort.Search(len(hs), func(i int) bool { return hs[i].T >= t })
	return it.Next()
}

// At implements chunkenc.Iterator.
func (it *seriesIterator) At() (int64, float64) {
	s := it.data.Samples[it.f-1]
	return s.T, s.V
}

// AtHistogram implements chunkenc.Iterator.
func (it *seriesIterator) AtHistogram(reuse *histogram.Histogram) (int64, *histogram.Histogram) {
	s := &it.data.Histograms[it.h-1]
	if reuse == nil {
		return s.T, s.H.Copy()
	}
	s.H.CopyTo(reuse)
	return s.T, reuse
}

// AtFloatHistogram implements chunkenc.Iterator.
func (it *seriesIterator) AtFloatHistogram(reuse *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	s := &it.data.Histograms[it.h-1]
	switch {
	case s.H != nil:
		return s.T, s.H.ToFloat(reuse)
	case reuse == nil:
		return s.T, s.FH.Copy()
	default:
		s.FH.CopyTo(reuse)
		return s.T, reuse
	}
}

// AtT implements chunkenc.Iterator.
func (it *seriesIterator) AtT() int64 {
	switch it.cur {
	case chunkenc.ValFloat:
		return it.data.Samples[it.f-1].T
	case chunkenc.ValNone:
		return math.MinInt64
	default:
		return it.data.Histograms[it.h-1].T
	}
}

// AtST implements chunkenc.Iterator.
func (it *seriesIterator) AtST() int64 {
	switch {
	case it.cur == chunkenc.ValFloat && len(it.data.STs) > 0:
		return it.data.STs[it.f-1]
	case it.cur == chunkenc.ValHistogram, it.cur == chunkenc.ValFloatHistogram:
		return it.data.Histograms[it.h-1].ST
	default:
		return 0
	}
}

// Err implements chunkenc.Iterator.
func (it *seriesIterator) Err() error { return nil }
