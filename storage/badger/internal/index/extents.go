package index

import (
	"math/bits"

	"github.com/RoaringBitmap/roaring/v2"
)

const (
	// runGroups is how many groups a metric gets at once when it is large: aligned, so that a run is one packed record.
	runGroups = RecordIDs / GroupSize
	// largeMetric is the number of series from which a metric gets runs.
	largeMetric = RecordIDs
)

// group is GroupSize neighbouring ids.
type group struct {
	mask  uint64 // ids in use
	owner uint32 // number of the metric + 1, 0 = nobody's
	next  uint32 // next group of the metric + 1, 0 = none
}

// metric is the chain of a metric's groups.
type metric struct {
	first, last uint32 // groups + 1: the ends of the chain; 0 = no group
	lowest      uint32 // the lowest group
	current     uint32 // group + 1 that Create fills, 0 = a new extent is due
	reserved    uint32 // groups behind current that belong to the metric and are empty
	series      uint32
}

func (m *Mem) metricOf(s uint32, vals []uint32) uint32 {
	if i := m.shapes[s].position(nameOfName); i >= 0 {
		return vals[i]
	}
	return 0
}

func (m *Mem) metricString(metricNo uint32) string {
	return m.label[nameOfName-1].str(&m.sym, metricNo)
}

// nextID returns the next free id of the metric. Ids below the highest in use are never given out: after a recovery
// with losses, samples of a lost series may still lie there.
func (m *Mem) nextID(metricNo uint32) uint32 {
	x := m.metrics.at(metricNo)
	if x.current != 0 {
		g := x.current - 1
		if slot := uint32(bits.Len64(m.groups.at(g).mask)); slot < GroupSize {
			return g*GroupSize + slot
		}
		if x.reserved > 0 {
			x.reserved--
			x.current++
			return (g + 1) * GroupSize
		}
	}
	n := uint32(1)
	if x.series >= largeMetric {
		n = runGroups
		m.nextGroup = (m.nextGroup + runGroups - 1) &^ (runGroups - 1)
	}
	g := m.nextGroup
	for i := range n {
		m.claim(g+i, metricNo)
	}
	x.current, x.reserved = g+1, n-1
	return g * GroupSize
}

// claim makes a group the metric's, if it is not.
func (m *Mem) claim(g, metricNo uint32) {
	m.groups.extend(g + 1)
	m.nextGroup = max(m.nextGroup, g+1)
	x, e := m.metrics.at(metricNo), m.groups.at(g)
	if e.owner != 0 {
		return
	}
	e.owner = metricNo + 1
	if x.first == 0 {
		x.first, x.lowest = g+1, g
	} else {
		m.groups.at(x.last - 1).next = g + 1
	}
	x.last = g + 1
	if g < x.lowest { // packed records are found by the metric's number
		x.lowest = g
		for h := x.first; h != 0; h = m.groups.at(h - 1).next {
			m.markDirty(h - 1)
		}
	}
	if x.current < g+1 { // an inserted series: go on behind it
		x.current, x.reserved = g+1, 0
	}
}

// fill marks an id of the metric's as used and its record as not yet written.
func (m *Mem) fill(id, metricNo uint32) {
	g := m.groups.at(id / GroupSize)
	g.mask |= 1 << (id % GroupSize)
	m.metrics.at(metricNo).series++
	m.markDirty(id / GroupSize)
}

// has tells whether the id is that of a series.
func (m *Mem) has(id uint32) bool { return id < m.records.n && *m.records.at(id) != 0 }

// Seal ends all extents: the next series of every metric begins a new one, in a group not below nextGroup. After a
// recovery that lost series records, samples of the lost series may still be stored under ids that look free; Seal
// with a number above every group that has stored samples keeps new series away from them. It stands after the last
// Insert: an Insert into a new group opens its metric's extent again.
func (m *Mem) Seal(nextGroup uint32) {
	for i := range m.metrics.n {
		x := m.metrics.at(i)
		x.current, x.reserved = 0, 0
	}
	m.nextGroup = max(m.nextGroup, nextGroup)
}

// NextGroup returns the lowest group that no metric has.
func (m *Mem) NextGroup() uint32 { return m.nextGroup }

// SeriesCount returns the number of series.
func (m *Mem) SeriesCount() uint64 { return uint64(m.series) }

// IDBound returns a number above every id in use.
func (m *Mem) IDBound() uint32 { return m.hashes.n }

// MetricID returns the number of the metric that owns the group: its lowest group. Create never changes a metric's
// number; Insert lowers it when it is given a lower group.
func (m *Mem) MetricID(group uint32) (uint32, error) {
	if group >= m.groups.n || m.groups.at(group).owner == 0 {
		return 0, unknownSeries(group * GroupSize)
	}
	return m.metrics.at(m.groups.at(group).owner - 1).lowest, nil
}

// MetricName returns the name of the metric that owns the group.
func (m *Mem) MetricName(group uint32) (string, error) {
	if group >= m.groups.n || m.groups.at(group).owner == 0 {
		return "", unknownSeries(group * GroupSize)
	}
	return m.metricString(m.groups.at(group).owner - 1), nil
}

// GroupMask returns the ids in use of a group, bit i for id group*GroupSize+i.
func (m *Mem) GroupMask(group uint32) uint64 {
	if group >= m.groups.n {
		return 0
	}
	return m.groups.at(group).mask
}

// metricBitmap returns the series of a metric, in O(extents).
func (m *Mem) metricBitmap(metricNo uint32) *roaring.Bitmap {
	b := roaring.New()
	var r idRun
	for g := m.metrics.at(metricNo).first; g != 0; g = m.groups.at(g - 1).next {
		r.addMask(b, g-1, m.groups.at(g-1).mask)
	}
	r.flush(b)
	return b
}

// allBitmap returns all series.
func (m *Mem) allBitmap() *roaring.Bitmap {
	b := roaring.New()
	var r idRun
	for g := range m.groups.n {
		r.addMask(b, g, m.groups.at(g).mask)
	}
	r.flush(b)
	return b
}

// idRun joins neighbouring ids into ranges on their way into a bitmap.
type idRun struct{ from, to uint64 }

func (r *idRun) addMask(b *roaring.Bitmap, g uint32, mask uint64) {
	base := uint64(g) * GroupSize
	for mask != 0 {
		lo := bits.TrailingZeros64(mask)
		n := bits.TrailingZeros64(^(mask >> lo))
		r.addRange(b, base+uint64(lo), base+uint64(lo+n))
		if lo+n == GroupSize {
			return
		}
		mask &^= 1<<(lo+n) - 1
	}
}

func (r *idRun) addRange(b *roaring.Bitmap, from, to uint64) {
	if from == r.to {
		r.to = to
		return
	}
	r.flush(b)
	r.from, r.to = from, to
}

func (r *idRun) flush(b *roaring.Bitmap) {
	if r.to > r.from {
		b.AddRange(r.from, r.to)
	}
	r.from, r.to = 0, 0
}
