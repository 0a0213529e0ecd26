package index

import (
	"context"
	"encoding/binary"
	"math/bits"

	"github.com/RoaringBitmap/roaring/v2"
)

// record returns the shape of a series and its value numbers, one for each name of the shape.
func (m *Mem) record(id uint32) (*shape, []uint32, bool) {
	if !m.has(id) {
		return nil, nil, false
	}
	first := *m.records.at(id) - 1
	s := &m.shapes[*m.values.at(first)]
	return s, m.values.view(first+1, uint32(len(s.names))), true
}

// valueOf returns the number of the series' value of a label, 0 if it has none.
func (m *Mem) valueOf(id, name uint32) (uint32, bool) {
	s, vals, ok := m.record(id)
	if !ok {
		return 0, false
	}
	if i := s.position(name); i >= 0 {
		return vals[i], true
	}
	return 0, true
}

// Hash implements Reader.
func (m *Mem) Hash(id uint32) (Hash128, error) {
	if !m.has(id) {
		return Hash128{}, unknownSeries(id)
	}
	return *m.hashes.at(id), nil
}

// Find implements Reader; it is Lookup.
func (m *Mem) Find(_ context.Context, hash Hash128) (uint32, bool, error) {
	id, ok := m.Lookup(hash)
	return id, ok, nil
}

// AppendLabels implements Reader.
func (m *Mem) AppendLabels(dst []byte, id uint32) ([]byte, error) {
	s, vals, ok := m.record(id)
	if !ok {
		return dst, unknownSeries(id)
	}
	for i, n := range s.names {
		dst = appendLabel(dst, m.names.value(&m.sym, n), m.label[n-1].value(&m.sym, vals[i]))
	}
	return dst, nil
}

func appendLabel[S []byte | string](dst []byte, name, value S) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(name)))
	dst = append(dst, name...)
	dst = binary.AppendUvarint(dst, uint64(len(value)))
	return append(dst, value...)
}

// ForEach implements Reader.
func (m *Mem) ForEach(ctx context.Context, ids *roaring.Bitmap, fn func(id uint32, hash Hash128, labels []byte) error) error {
	if ids == nil {
		ids = m.allBitmap()
	}
	var buf []byte
	return forEachID(ctx, ids, func(_ int, id uint32) error {
		var err error
		if buf, err = m.AppendLabels(buf[:0], id); err != nil {
			return err
		}
		return fn(id, *m.hashes.at(id), buf)
	})
}

// RecordRef names a packed series record: the series of one metric among the RecordIDs ids from FirstID on, a multiple
// of RecordIDs. Series is their number when the reference was made.
type RecordRef struct{ MetricID, FirstID, Series uint32 }

func (m *Mem) markDirty(g uint32) {
	m.dirty.extend(g>>6 + 1)
	*m.dirty.at(g >> 6) |= 1 << (g & 63)
}

// DirtyRecords lists up to limit (0 = all) records that hold series not yet written, in order of FirstID; with
// fullOnly those alone in which every id of the metric's groups is in use.
func (m *Mem) DirtyRecords(fullOnly bool, limit int) []RecordRef {
	var refs []RecordRef
	for w := range m.dirty.n {
		word := *m.dirty.at(w)
		for rest := word; rest != 0; {
			// Eight groups make a window; a window's groups may belong to several metrics.
			first := (w*64 + uint32(bits.TrailingZeros64(rest))) &^ (runGroups - 1)
			var seen [runGroups]uint32
			for i := range uint32(runGroups) {
				g := first + i
				if word>>(g&63)&1 == 0 {
					continue
				}
				owner := m.groups.at(g).owner
				if containsOwner(seen[:i], owner) {
					continue
				}
				seen[i] = owner
				ref := m.recordRef(owner-1, first*GroupSize)
				if fullOnly && !m.recordFull(owner-1, first) {
					continue
				}
				if refs = append(refs, ref); len(refs) == limit {
					return refs
				}
			}
			rest &^= (1<<runGroups - 1) << (first & 63)
		}
	}
	return refs
}

func containsOwner(seen []uint32, owner uint32) bool {
	for _, s := range seen {
		if s == owner {
			return true
		}
	}
	return false
}

// recordRef makes the reference of a metric's record with the present number of series.
func (m *Mem) recordRef(metricNo, firstID uint32) RecordRef {
	r := RecordRef{MetricID: m.metrics.at(metricNo).lowest, FirstID: firstID}
	for g := firstID / GroupSize; g < firstID/GroupSize+runGroups && g < m.groups.n; g++ {
		if e := m.groups.at(g); e.owner == metricNo+1 {
			r.Series += uint32(bits.OnesCount64(e.mask))
		}
	}
	return r
}

// recordFull tells whether Create will put no more series of the metric into the record that begins with group first.
func (m *Mem) recordFull(metricNo, first uint32) bool {
	x := m.metrics.at(metricNo)
	if cur := x.current - 1; x.current != 0 && cur >= first && cur < first+runGroups {
		return x.reserved == 0 && m.groups.at(cur).mask>>(GroupSize-1) != 0
	}
	return true
}

// MarkWritten notes that records were written durably. A record that has got more series since stays dirty.
func (m *Mem) MarkWritten(refs ...RecordRef) {
	for _, ref := range refs {
		first := ref.FirstID / GroupSize
		if ref.MetricID >= m.groups.n || m.groups.at(ref.MetricID).owner == 0 {
			continue
		}
		owner := m.groups.at(ref.MetricID).owner
		if m.recordRef(owner-1, ref.FirstID) != ref {
			continue
		}
		for g := first; g < first+runGroups && g>>6 < m.dirty.n; g++ {
			if g < m.groups.n && m.groups.at(g).owner == owner {
				*m.dirty.at(g >> 6) &^= 1 << (g & 63)
			}
		}
	}
}
