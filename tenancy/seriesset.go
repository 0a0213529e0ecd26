package tenancy

import (
	"hash/maphash"
	"slices"
	"strings"
	"time"

	"github.com/axiomhq/hyperloglog"
	"github.com/zeebo/xxh3"

	"github.com/luminate/luminate/storage"
)

// seriesWindow is how long a generation of active series lasts: a series is active
// for one to two of them after its last sample. Generations begin by the clock, at the
// same time in every process.
const seriesWindow = 30 * time.Minute

// generationOf numbers generations.
func generationOf(now time.Time) int64 { return now.Unix() / int64(seriesWindow/time.Second) }

// seriesSeed makes the hash of a series unpredictable, so that nobody can write
// series that are counted as one. Processes that share a store need the same hash: there
// it is the one that the store's own series ids have.
var seriesSeed = maphash.MakeSeed()

// seriesSet counts a tenant's active series exactly (but for collisions of 62-bit
// hashes: one in 10^6 sets of two million). It is an open-addressing table of 12
// bytes a slot, at most three quarters full, and never holds more series than the
// limit: 2 M series take 48 MiB. It is not safe for concurrent use.
type seriesSet struct {
	slots  []uint64 // hash, the low two bits the generation last seen in; 0 is free
	metric []uint32 // of the slot's series, index into counts
	n      int
	gen    uint64 // the low two bits of generation
	// generation is that of the last rotation.
	generation int64
	shared     bool           // other processes are told of its series
	news       []announcement // what they are not told yet, with shared

	metrics map[string]uint32
	counts  []int // active series of each metric
	active  int   // metrics with a series

	admitted uint64 // new series let in by this process, since it began

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

// announcement is a series that this process saw first in its generation.
type announcement struct {
	hash   uint64
	metric uint32
}

func newSeriesSet(now time.Time, shared bool) *seriesSet {
	g := generationOf(now)
	return &seriesSet{
		slots: make([]uint64, minSlots), metric: make([]uint32, minSlots), metrics: map[string]uint32{},
		generation: g, gen: uint64(g) & genMask, shared: shared,
	}
}

// refusedSeries is a series of a batch that a limit refuses.
type refusedSeries struct {
	index   int
	limit   string // JSON name of the limit
	maximum int
	waits   bool // an exchange with the other processes may still let it in
}

// observe marks the series of the batch as active and returns those that are new
// and over a limit. a is what processes agree on, nil where there is one process or no
// agreement: then the limits are this process's own.
func (s *seriesSet) observe(b *storage.Batch, l *Limits, a *agreement, now time.Time, refused []refusedSeries) []refusedSeries {
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
		if f, over := s.insert(h, b.At(i).Labels, l, a, now); over {
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
		var h uint64
		if s.shared {
			h = xxh3.Hash(b.Labels[from:x.LabelsEnd])
		} else {
			h = maphash.Bytes(seriesSeed, b.Labels[from:x.LabelsEnd])
		}
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
				s.announce(h, s.metric[i])
			}
			return true
		}
	}
}

func (s *seriesSet) announce(h uint64, metric uint32) {
	if s.shared {
		s.news = append(s.news, announcement{h, metric})
	}
}

// insert adds a new series, unless a limit refuses it.
func (s *seriesSet) insert(h uint64, ls storage.Labels, l *Limits, a *agreement, now time.Time) (refusedSeries, bool) {
	name := ls.Metric()
	id, known := s.metrics[name]
	newName := !known || s.counts[id] == 0
	switch {
	case l.MaxActiveSeries > 0 && s.n >= l.MaxActiveSeries:
		return refusedSeries{limit: "maxActiveSeries", maximum: l.MaxActiveSeries}, true
	case l.MaxMetrics > 0 && newName && s.active >= l.MaxMetrics:
		return refusedSeries{limit: "maxMetrics", maximum: l.MaxMetrics}, true
	case l.MaxActiveSeriesPerMetric > 0 && known && s.counts[id] >= l.MaxActiveSeriesPerMetric:
		return refusedSeries{limit: "maxActiveSeriesPerMetric", maximum: l.MaxActiveSeriesPerMetric}, true
	}
	if a != nil {
		if limit, maximum, state := a.admit(l, s, name, newName); state != admitted {
			return refusedSeries{limit: limit, maximum: maximum, waits: state == waits}, true
		}
	}
	id = s.nameID(name)
	s.add(h|s.gen, id, now)
	s.announce(h, id)
	s.admitted++
	return refusedSeries{}, false
}

// nameID returns the number of a metric's name, which may share its memory with others.
func (s *seriesSet) nameID(name string) uint32 {
	id, known := s.metrics[name]
	if !known {
		id = uint32(len(s.counts))
		s.metrics[strings.Clone(name)] = id
		s.counts = append(s.counts, 0)
	}
	return id
}

// ofMetric counts a metric's active series.
func (s *seriesSet) ofMetric(name string) int {
	if id, ok := s.metrics[name]; ok {
		return s.counts[id]
	}
	return 0
}

// add puts a series that is not in the set into it.
func (s *seriesSet) add(v uint64, id uint32, now time.Time) {
	if s.counts[id]++; s.counts[id] == 1 {
		s.active++
	}
	if (s.n+1)*4 > len(s.slots)*3 {
		s.rebuild(len(s.slots)*2, func(uint64) bool { return true })
	}
	s.put(v, id)
	s.n++
	s.sketchOf(now).InsertHash(v &^ genMask)
}

// learn marks series that another process has seen in a generation. Those of the one
// before the last are not active any more.
func (s *seriesSet) learn(m metricSeries, generation int64, now time.Time) {
	s.rotate(now)
	gen := s.gen
	switch {
	case generation == s.generation-1:
		gen = (s.gen - 1) & genMask
	case generation < s.generation:
		return
	}
	id := s.nameID(m.metric)
	mask := uint64(len(s.slots) - 1)
next:
	for _, h := range m.hashes {
		if h &^= genMask; h == 0 {
			continue // nobody's
		}
		for i := h >> 2 & mask; s.slots[i] != 0; i = (i + 1) & mask {
			if s.slots[i]&^genMask == h {
				if gen == s.gen {
					s.slots[i] = h | gen
				}
				continue next
			}
		}
		s.add(h|gen, id, now)
		mask = uint64(len(s.slots) - 1)
	}
}

// takeNews returns what others are not told yet, by metric.
func (s *seriesSet) takeNews() []metricSeries {
	if len(s.news) == 0 {
		return nil
	}
	names := make(map[uint32]string, len(s.metrics))
	for name, id := range s.metrics {
		names[id] = name
	}
	out := byMetric(s.news, names)
	s.news = nil
	return out
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
	g := generationOf(now)
	gone := g - s.generation
	if gone == 0 || gone == -1 { // set back by a little: the generation that has begun goes on
		return
	}
	last := s.gen
	s.generation, s.gen = g, uint64(g)&genMask
	everything := gone >= 2
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
	ids, alive := make([]uint32, len(s.counts)), make([]bool, len(s.counts))
	var counts []int
	for name, id := range s.metrics {
		if s.counts[id] == 0 {
			delete(s.metrics, name)
			continue
		}
		ids[id], alive[id] = uint32(len(counts)), true
		s.metrics[name] = ids[id]
		counts = append(counts, s.counts[id])
	}
	for i, v := range s.slots {
		if v != 0 {
			s.metric[i] = ids[s.metric[i]]
		}
	}
	s.counts = counts
	s.news = slices.DeleteFunc(s.news, func(a announcement) bool { return !alive[a.metric] })
	for i, a := range s.news {
		s.news[i].metric = ids[a.metric]
	}
}

// seriesToday estimates the distinct series of the UTC day, within about 1 %.
func (s *seriesSet) seriesToday(now time.Time) uint64 { return s.sketchOf(now).Estimate() }
