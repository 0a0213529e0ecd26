package index

import (
	"context"
	"fmt"
	"slices"
)

// LoadConfig tells LoadMem what it may take for granted.
type LoadConfig struct {
	// Incomplete allows fewer series than the packed index counts: metrics were dropped on purpose since.
	Incomplete bool
}

// LoadMem rebuilds the index in memory from the series records in src. Every key of the partition may be there or
// none, so that it serves an open partition after a crash as well as a closed one that late data reopens. Series that
// are loaded count as written. It fails with ErrDamaged, or with ErrConflict when records contradict each other, and
// when the packed index, if there is one, counts more series.
func LoadMem(ctx context.Context, src Source, cfg LoadConfig) (*Mem, error) {
	meta, err := readMeta(src)
	if err != nil {
		return nil, fmt.Errorf("load index: %w", err)
	}
	l := loader{m: NewMem()}
	err = src.Scan(KindSeries, nil, nil, func(suffix, value []byte) (bool, error) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		return true, l.record(suffix, value)
	})
	if err != nil {
		return nil, fmt.Errorf("load index: %w", err)
	}
	if l.m.SeriesCount() < meta.series && !cfg.Incomplete {
		return nil, fmt.Errorf("load index: %w", damaged(KindSeries, nil, "%d series, want %d", l.m.SeriesCount(), meta.series))
	}
	l.finish(meta)
	return l.m, nil
}

// InsertRecord enters the series of one packed record, the suffix and value of a KindSeries key, as Insert would each.
// They count as not yet written. It needs the write lock.
func (m *Mem) InsertRecord(suffix, value []byte) error {
	l := loader{m: m}
	return l.record(suffix, value)
}

type loader struct {
	m       *Mem
	rec     seriesRecord
	payload []byte
	names   []uint32   // number of each label of the record
	values  [][]uint32 // number of each value of each label
	shape   []uint32
	vals    []uint32
	keys    [][2]uint32 // metric and first id of each record
}

func (l *loader) record(suffix, value []byte) error {
	metricID, first, parts, _, ok := splitSeriesKey(suffix)
	if !ok {
		return damaged(KindSeries, suffix, "impossible key")
	}
	var err error
	if l.payload, err = open(l.payload, KindSeries, suffix, value); err != nil {
		return err
	}
	if _, split := recordParts(l.payload); split && parts == 1 {
		return nil
	}
	if uint64(first)+RecordIDs > MaxSeriesID || !l.rec.decode(first, l.payload) {
		return damaged(KindSeries, suffix, "impossible field")
	}
	if err := l.numberLabels(); err != nil {
		return err
	}
	l.keys = append(l.keys, [2]uint32{metricID, first})
	for off := range uint32(RecordIDs) {
		if slot, ok := l.rec.slot(first + off); ok {
			if err := l.series(first+off, slot); err != nil {
				return fmt.Errorf("index key %s: %w", keyString(KindSeries, suffix), err)
			}
		}
	}
	return nil
}

// numberLabels enters the record's names and values into the symbols.
func (l *loader) numberLabels() error {
	l.names = l.names[:0]
	for len(l.values) < len(l.rec.names) {
		l.values = append(l.values, nil)
	}
	for i := range l.rec.names {
		x := &l.rec.names[i]
		if err := l.m.sym.fits(len(x.name)); err != nil {
			return err
		}
		no := l.m.nameNumber(x.name)
		l.names = append(l.names, no)
		l.values[i] = l.values[i][:0]
		for v := range x.values() {
			if err := l.m.sym.fits(len(x.value(v))); err != nil {
				return err
			}
			l.values[i] = append(l.values[i], l.m.valueNumber(no, x.value(v)))
		}
	}
	return nil
}

func (l *loader) series(id uint32, slot int) error {
	m := l.m
	l.shape, l.vals = l.shape[:0], l.vals[:0]
	for i := range l.rec.names {
		if c := l.rec.names[i].cell(slot); c > 0 {
			l.shape = append(l.shape, l.names[i])
			l.vals = append(l.vals, l.values[i][c-1])
		}
	}
	if int(m.lastShape) >= len(m.shapes) || !slices.Equal(m.shapes[m.lastShape].names, l.shape) {
		m.lastShape = m.shapeNumber(slices.Clone(l.shape))
	}
	hash := l.rec.hash(slot)
	if old, ok := m.Lookup(hash); ok {
		if s, vals, _ := m.record(old); old != id || s != &m.shapes[m.lastShape] || !slices.Equal(vals, l.vals) {
			return fmt.Errorf("series %d has the hash of series %d: %w", id, old, ErrConflict)
		}
		return nil
	}
	if m.has(id) {
		return fmt.Errorf("series %d has two hashes: %w", id, ErrConflict)
	}
	metric := m.metricOf(m.lastShape, l.vals)
	if g := id / GroupSize; g < m.groups.n && m.groups.at(g).owner != 0 && m.groups.at(g).owner != metric+1 {
		return fmt.Errorf("series %d: its group belongs to two metrics: %w", id, ErrConflict)
	}
	m.insert(id, hash, m.lastShape, l.vals)
	return nil
}

// finish marks everything as written, except records that stand under another number of their metric.
func (l *loader) finish(meta metaRecord) {
	m := l.m
	for i := range m.dirty.n {
		*m.dirty.at(i) = 0
	}
	for _, k := range l.keys {
		for g := k[1] / GroupSize; g < k[1]/GroupSize+runGroups && g < m.groups.n; g++ {
			if owner := m.groups.at(g).owner; owner != 0 && m.metrics.at(owner-1).lowest != k[0] && l.misplaced(owner, k) {
				m.markDirty(g)
			}
		}
	}
	// Ids of dropped metrics are not given out again.
	m.nextGroup = max(m.nextGroup, (meta.bound+GroupSize-1)/GroupSize)
}

// misplaced tells whether a record under key k is of that owner: another metric's record may share the window.
func (l *loader) misplaced(owner uint32, k [2]uint32) bool {
	return k[0] >= l.m.groups.n || l.m.groups.at(k[0]).owner == owner || l.m.groups.at(k[0]).owner == 0
}
