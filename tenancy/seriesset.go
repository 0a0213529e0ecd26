package tenancy

import (
	"hash/maphash"
	"strings"
	"time"

	"github.com/axiomhq/hyperloglog"

	"github.com/luminate/luminate/storage"
)

// seriesWindow is how long a generation of active series lasts: a series is active
// for one to two of them after its last sample.
const seriesWindow = 30 * time.Minute

// seriesSeed makes the hash of a series unpredictable, so that nobody can write
// series that are counted as one.
var seriesSeed = maphash.MakeSeed()

// seriesSet counts a tenant's active series exactly (but for collisions of 62-bit
// hashes: one in 10^6 sets of two million). It is an open-addressing table of 12
// bytes a slot, at most three quarters full, and never holds more series than the
// limit: 2 M series take 48 MiB. It is not safe for concurrent use.
type seriesSet struct {
	slots  []uint64 // hash, the low two bits the generation last seen in; 0 is free
	metric []uint32 // of the slot's series, index into counts
	n      int
	gen    uint64 // 0 to 3
	since  time.Time

	metrics map[string]uint32
	counts  []int // active series of each metric
	active  int   // metrics with a series

	day    int64 // of the sketch, days since 1970
	sketch *hyperloglog.Sketch
	hashes []uint64 // scratch
	// touched keeps the compiler from dropping loads that are for the cache alone.
	touched uint64
}

const (
	genMask      = 3
	minSlots     = 1024
	maxIdleNames = 4096 // names without a series that are kept until a rotation
)

func newSeriesSet(now time.Time) *seriesSet {
	return &seriesSet{slots: make([]uint64, minSlots), metric: make([]uint32, minSlots), since: now, metrics: map[string]uint32{}}
}

// refusedSeries is a series of a batch that a limit refuses.
type refusedSeries struct {
	index   int
	limit   string // JSON name of the limit
	maximum int
}

// observe marks the series of the batch as active and returns those that are new
// and over a limit. elsewhere is a count of active series known from the store,
// which spans processes; 0 if unknown.
func (s *seriesSet) observe(b *storage.Batch, l *Limits, elsewhere int, now time.Time, refused []refusedSeries) []refusedSeries {
	s.rotate(now)
	s.hash(b)
	mask := uint64(len(s.slots) - 1)
	// Touch every slot first: the loads are independent, so the cache misses of a
	// batch overlap instead of adding up.
	var touched uint64
	for _, h := range s.hashes {
		touched += s.slots[h>>2&mask]
	}
	s.touched = touched
	for i, h := range s.hashes {
		if s.seen(h) {
			continue
		}
		if f, over := s.insert(h, b.At(i).Labels, l, elsewhere, now); over {
			f.index = i
			refused = append(refused, f)
		}
	}
	return refused
}

func (s *seriesSet) hash(b *storage.Batch) {
	s.hashes = s.hashes[:0]
	from := uint32(0)
	for _, x := range b.Series {
		h := maphash.Bytes(seriesSeed, b.Labels[from:x.LabelsEnd])
		from = x.LabelsEnd
		if h &^= genMask; h == 0 {
			h = genMask + 1
		}
		s.hashes = append(s.hashes, h)
	}
}

// seen marks a known series as active.
func (s *seriesSet) seen(h uint64) bool {
	mask := uint64(len(s.slots) - 1)
	for i := h >> 2 & mask; ; i = (i + 1) & mask {
		switch v := s.slots[i]; {
		case v == 0:
			return false
		case v&^genMask == h:
			if v&genMask != s.gen {
				s.slots[i] = h | s.gen
			}
			return true
		}
	}
}

// insert adds a new series, unless a limit refuses it.
func (s *seriesSet) insert(h uint64, ls storage.Labels, l *Limits, elsewhere int, now time.Time) (refusedSeries, bool) {
	if l.MaxActiveSeries > 0 && max(s.n, elsewhere) >= l.MaxActiveSeries {
		return refusedSeries{limit: "maxActiveSeries", maximum: l.MaxActiveSeries}, true
	}
	name := ls.Metric()
	id, known := s.metrics[name]
	if l.MaxMetrics > 0 && (!known || s.counts[id] == 0) && s.active >= l.MaxMetrics {
		return refusedSeries{limit: "maxMetrics", maximum: l.MaxMetrics}, true
	}
	if known && l.MaxActiveSeriesPerMetric > 0 && s.counts[id] >= l.MaxActiveSeriesPerMetric {
		return refusedSeries{limit: "maxActiveSeriesPerMetric", maximum: l.MaxActiveSeriesPerMetric}, true
	}
	if !known {
		id = uint32(len(s.counts))
		s.metrics[strings.Clone(name)] = id // name shares the batch's memory
		s.counts = append(s.counts, 0)
	}
	if s.counts[id]++; s.counts[id] == 1 {
		s.active++
	}
	if (s.n+1)*4 > len(s.slots)*3 {
		s.rebuild(len(s.slots)*2, func(uint64) bool { return true })
	}
	s.put(h|s.gen, id)
	s.n++
	s.sketchOf(now).InsertHash(h)
	return refusedSeries{}, false
}

func (s *seriesSet) put(v uint64, metric uint32) {
	mask := uint64(len(s.slots) - 1)
	i := v >> 2 & mask
	for s.slots[i] != 0 {
		i = (i + 1) & mask
	}
	s.slots[i], s.metric[i] = v, metric
}

// sketchOf returns the sketch of the distinct series of the day.
func (s *seriesSet) sketchOf(now time.Time) *hyperloglog.Sketch {
	if day := now.Unix() / 86400; s.sketch == nil || day != s.day {
		s.day, s.sketch = day, hyperloglog.New14()
		for _, v := range s.slots {
			if v != 0 {
				s.sketch.InsertHash(v &^ genMask)
			}
		}
	}
	return s.sketch
}

// rotate begins a new generation when it is time, and forgets series that were not
// seen in the last two.
func (s *seriesSet) rotate(now time.Time) {
	gone := now.Sub(s.since)
	if gone < seriesWindow && gone > -seriesWindow { // a clock that jumped back begins anew too
		return
	}
	s.since = now
	last := s.gen
	s.gen = (s.gen + 1) & genMask
	everything := gone >= 2*seriesWindow
	keep := func(v uint64) bool { return v&genMask == last && !everything }
	n := 0
	for _, v := range s.slots {
		if v != 0 && keep(v) {
			n++
		}
	}
	size := minSlots
	for size*3 < n*5 { // at most 60 % full, so that it need not grow at once
		size *= 2
	}
	s.rebuild(size, keep)
	s.n = n
	s.forgetNames()
}

// rebuild moves the slots that are kept into a table of the size, a power of two,
// and counts the series of each metric again.
func (s *seriesSet) rebuild(size int, keep func(uint64) bool) {
	slots, metric := s.slots, s.metric
	s.slots, s.metric = make([]uint64, size), make([]uint32, size)
	for i := range s.counts {
		s.counts[i] = 0
	}
	for i, v := range slots {
		if v != 0 && keep(v) {
			s.put(v, metric[i])
			s.counts[metric[i]]++
		}
	}
	s.active = 0
	for _, c := range s.counts {
		if c > 0 {
			s.active++
		}
	}
}

// forgetNames drops names without a series once there are many; ids change.
func (s *seriesSet) forgetNames() {
	if len(s.counts)-s.active < maxIdleNames {
		return
	}
	ids := make([]uint32, len(s.counts))
	var counts []int
	for name, id := range s.metrics {
		if s.counts[id] == 0 {
			delete(s.metrics, name)
			continue
		}
		ids[id] = uint32(len(counts))
		s.metrics[name] = ids[id]
		counts = append(counts, s.counts[id])
	}
	for i, v := range s.slots {
		if v != 0 {
			s.metric[i] = ids[s.metric[i]]
		}
	}
	s.counts = counts
}

// seriesToday estimates the distinct series of the UTC day, within about 1 %.
func (s *seriesSet) seriesToday(now time.Time) uint64 { return s.sketchOf(now).Estimate() }
