package tenancy

import (
	"slices"
	"strings"
	"time"

	"github.com/axiomhq/hyperloglog"

	"github.com/luminate/luminate/storage"
)

// seriesWindow is how long a generation of active series lasts: a series is active
// for one to two of them after its last sample. Generations begin by the clock, at the
// same time in every process.
const seriesWindow = 30 * time.Minute

// generationOf numbers generations.
func generationOf(now time.Time) int64 { return now.Unix() / int64(seriesWindow/time.Second) }

// seriesSet counts a tenant's active series exactly (but for collisions of 62-bit
// hashes: one in 10^6 sets of two million). The series stand in the order in which they
// came, since senders repeat it: the next series of a batch is looked for behind the last
// one, and only where it is not there by way of an open-addressing table, at most three
// quarters full. It never holds more series than the limit: 2 M series take 40 MiB. It is
// not safe for concurrent use.
type seriesSet struct {
	series []uint64 // hashes in order of arrival, the low two bits the generation last seen in
	metric []uint32 // of each of series, index into counts
	table  []uint32 // position in series, plus one; 0 is free
	gen    uint64   // the low two bits of generation
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
	// touched keeps the compiler from dropping loads that are for the cache alone.
	touched uint32
}

const (
	genMask      = 3
	minSlots     = 1024 // of the table
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
		table: make([]uint32, minSlots), metrics: map[string]uint32{},
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
// agreement: then the limits are this process's own. The hashes' seed makes the hash of a
// series unpredictable, so that nobody can write series that are counted as one; processes
// that share a store need the same hash and have none.
func (s *seriesSet) observe(b *storage.Batch, hashes []storage.Hash128, l *Limits, a *agreement, now time.Time, refused []refusedSeries) []refusedSeries {
	s.rotate(now)
	next := 0    // where the next series of the batch is, if it follows the one before
	touched := 0 // hashes before this one have their places in the table loaded
	for i, x := range hashes {
		h := keyOf(x)
		at := next
		if at >= len(s.series) || s.series[at]&^genMask != h {
			if i >= touched {
				touched = min(i+touchAhead, len(hashes))
				s.touch(hashes[i:touched])
			}
			if at = s.find(h); at < 0 {
				if f, over := s.insert(h, b.At(i).Labels, l, a, now); over {
					f.index = i
					refused = append(refused, f)
					continue
				}
				at = len(s.series) - 1
			}
		}
		if s.series[at]&genMask != s.gen {
			s.series[at] = h | s.gen
			s.announce(h, s.metric[at])
		}
		next = at + 1
	}
	return refused
}

// touchAhead is how many places of the table are loaded before they are looked at.
const touchAhead = 64

// touch loads places of the table: the loads are independent, so their cache misses
// overlap instead of adding up.
func (s *seriesSet) touch(hashes []storage.Hash128) {
	mask, sum := uint64(len(s.table)-1), uint32(0)
	for _, x := range hashes {
		sum += s.table[keyOf(x)>>2&mask]
	}
	s.touched = sum
}

// keyOf leaves the low bits to the generation.
func keyOf(x storage.Hash128) uint64 { return x.Lo &^ genMask }

// find returns the position of a series, -1 if it is not known.
func (s *seriesSet) find(h uint64) int {
	mask := uint64(len(s.table) - 1)
	for i := h >> 2 & mask; s.table[i] != 0; i = (i + 1) & mask {
		if at := int(s.table[i] - 1); s.series[at]&^genMask == h {
			return at
		}
	}
	return -1
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
	case l.MaxActiveSeries > 0 && s.len() >= l.MaxActiveSeries:
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
	if (len(s.series)+1)*4 > len(s.table)*3 {
		s.rebuild(len(s.table) * 2)
	}
	s.series, s.metric = append(s.series, v), append(s.metric, id)
	s.put(len(s.series) - 1)
	s.sketchOf(now).InsertHash(v &^ genMask)
}

// len is the number of active series.
func (s *seriesSet) len() int { return len(s.series) }

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
	for _, h := range m.hashes {
		h &^= genMask
		at := s.find(h)
		switch {
		case at < 0:
			s.add(h|gen, id, now)
		case gen == s.gen:
			s.series[at] = h | gen
		}
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

// put enters the series at a position into the table.
func (s *seriesSet) put(at int) {
	mask := uint64(len(s.table) - 1)
	i := s.series[at] >> 2 & mask
	for s.table[i] != 0 {
		i = (i + 1) & mask
	}
	s.table[i] = uint32(at + 1)
}

// sketchOf returns the sketch of the distinct series of the day.
func (s *seriesSet) sketchOf(now time.Time) *hyperloglog.Sketch {
	if day := now.Unix() / 86400; s.sketch == nil || day != s.day {
		s.day, s.sketch = day, hyperloglog.New14()
		for _, v := range s.series {
			s.sketch.InsertHash(v &^ genMask)
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
	n := 0
	for i, v := range s.series {
		if v&genMask == last && gone < 2 {
			s.series[n], s.metric[n] = v, s.metric[i]
			n++
		}
	}
	// New arrays, since those that are much too large would stay.
	s.series, s.metric = append([]uint64(nil), s.series[:n]...), append([]uint32(nil), s.metric[:n]...)
	s.recount()
	size := minSlots
	for size*3 < n*5 { // at most 60 % full, so that it need not grow at once
		size *= 2
	}
	s.rebuild(size)
	s.forgetNames()
}

// rebuild makes a table of the size, a power of two.
func (s *seriesSet) rebuild(size int) {
	s.table = make([]uint32, size)
	for at := range s.series {
		s.put(at)
	}
}

// recount counts the series of each metric again.
func (s *seriesSet) recount() {
	clear(s.counts)
	for _, id := range s.metric {
		s.counts[id]++
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
	for i, id := range s.metric {
		s.metric[i] = ids[id]
	}
	s.counts = counts
	s.news = slices.DeleteFunc(s.news, func(a announcement) bool { return !alive[a.metric] })
	for i, a := range s.news {
		s.news[i].metric = ids[a.metric]
	}
}

// seriesToday estimates the distinct series of the UTC day, within about 1 %.
func (s *seriesSet) seriesToday(now time.Time) uint64 { return s.sketchOf(now).Estimate() }
