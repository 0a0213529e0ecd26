package clickhouse

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/luminate/luminate/storage"
)

// A roster lists series of one metric on one shard in the order of the key. An id is
// the hash of the labels, so what a roster says of a series stays true for ever; it can
// only lack series. A read notices that, because rows carry their series' id, and then
// the roster is extended and the read begins anew. So rosters are kept without asking
// the database whether they are still right, whoever writes or deletes.
type roster struct {
	locs  []uint32
	ids   []uint64
	slots []uint32 // open addressing by id: position + 1
	days  dayRange // of the rows that ids came from

	density atomic.Uint64 // bits of the samples a series and millisecond that a read found
}

// dayRange is an inclusive range of UTC days.
type dayRange struct{ first, last int64 }

func (d dayRange) union(o dayRange) dayRange {
	return dayRange{min(d.first, o.first), max(d.last, o.last)}
}

// rosterKeys are (loc, id) pairs that are put in order.
type rosterKeys struct {
	loc uint32
	id  uint64
}

func compareKeys(a, b rosterKeys) int {
	if a.loc != b.loc {
		return cmp.Compare(a.loc, b.loc)
	}
	return cmp.Compare(a.id, b.id)
}

// newRoster takes keys in any order, of several days. Two series with one id would be
// answered as one, so they are an error, however unlikely.
func newRoster(keys []rosterKeys, days dayRange) (*roster, error) {
	slices.SortFunc(keys, compareKeys)
	keys = slices.Compact(keys)
	r := &roster{locs: make([]uint32, len(keys)), ids: make([]uint64, len(keys)), days: days}
	for i, k := range keys {
		r.locs[i], r.ids[i] = k.loc, k.id
	}
	size := 8
	for size < 2*len(keys) {
		size *= 2
	}
	r.slots = make([]uint32, size)
	for i, id := range r.ids {
		at := id & uint64(size-1) // ids are hashes
		for r.slots[at] != 0 {
			if r.ids[r.slots[at]-1] == id {
				return nil, storage.Errorf(storage.KindInternal, "evaluate", "two series have the same id %d", id)
			}
			at = (at + 1) & uint64(size-1)
		}
		r.slots[at] = uint32(i) + 1
	}
	return r, nil
}

// scanAhead is how many positions find looks at before it asks the table of ids, which
// is out of the processor's caches where a metric is large: a part of the database has
// not every series, and so skips some.
const scanAhead = 24

// find returns a series' position. near and what follows is tried first: rows come in
// the roster's own order, mostly.
func (r *roster) find(id uint64, near int) (int, bool) {
	if near < len(r.ids) {
		for i, x := range r.ids[near:min(near+scanAhead, len(r.ids))] {
			if x == id {
				return near + i, true
			}
		}
	}
	mask := uint64(len(r.slots) - 1)
	for at := id & mask; r.slots[at] != 0; at = (at + 1) & mask {
		if n := int(r.slots[at]) - 1; r.ids[n] == id {
			return n, true
		}
	}
	return 0, false
}

func (r *roster) bytes() int64 { return int64(12*len(r.ids) + 4*len(r.slots)) }

// members says which series of a roster match a selection, and their groups.
type members struct {
	of     []uint32 // by position, noGroup of those that do not match; nil: all are of group 0
	labels []storage.Labels
}

// noGroup marks a series that does not match.
const noGroup = ^uint32(0)

func (m *members) bytes() int64 {
	n := int64(4 * len(m.of))
	for _, l := range m.labels {
		n += int64(len(l)) + 24
	}
	return n
}

func (m *members) group(at int) uint32 {
	if m.of == nil {
		return 0
	}
	return m.of[at]
}

// maxMembers is how many selections of one roster are kept.
const maxMembers = 16

// rosterCache keeps rosters, the least recently used are dropped above max bytes.
type rosterCache struct {
	max int64
	age time.Duration

	mu      sync.Mutex
	used    int64
	clock   uint64
	entries map[rosterKey]*rosterEntry
}

type rosterKey struct {
	shard          int
	tenant, metric string
}

// rosterEntry is one roster at work. Who holds turn may load and change it; readers
// take the snapshot.
type rosterEntry struct {
	turn chan struct{}

	// Guarded by the cache's mu.
	bytes int64
	last  uint64
	snapshot
}

// snapshot is a roster with the members that are known; both are never changed.
type snapshot struct {
	days   dayRange // what was known last, even if roster is nil: it has to be read anew
	roster *roster
	born   time.Time
	names  []string // of members, the oldest first
	sets   map[string]*members
}

func newRosterCache(cfg Config) *rosterCache {
	return &rosterCache{max: cfg.MaxRosterBytes, age: cfg.SeriesCacheAge, entries: map[rosterKey]*rosterEntry{}}
}

// entry returns the entry of a key, which may be empty.
func (c *rosterCache) entry(key rosterKey) *rosterEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[key]
	if e == nil {
		e = &rosterEntry{turn: make(chan struct{}, 1)}
		c.entries[key] = e
	}
	c.clock++
	e.last = c.clock
	return e
}

// peek returns what is held for a key.
func (c *rosterCache) peek(key rosterKey) snapshot {
	c.mu.Lock()
	e := c.entries[key]
	c.mu.Unlock()
	if e == nil {
		return snapshot{}
	}
	return c.get(e)
}

// get returns what the entry holds, nothing if it is too old.
func (c *rosterCache) get(e *rosterEntry) snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(e.born) > c.age {
		return snapshot{}
	}
	return e.snapshot
}

// put replaces what an entry holds and makes room. An entry that alone is too large is
// not kept; its caller goes on with what it has.
func (c *rosterCache) put(key rosterKey, e *rosterEntry, s snapshot) {
	size := int64(0)
	if s.roster != nil {
		size = s.roster.bytes()
	}
	for _, m := range s.sets {
		size += m.bytes()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[key] != e { // dropped meanwhile
		return
	}
	c.used += size - e.bytes
	e.bytes, e.snapshot = size, s
	for c.used > c.max {
		var oldest rosterKey
		least := ^uint64(0)
		for k, x := range c.entries {
			if x.bytes > 0 && x.last < least {
				oldest, least = k, x.last
			}
		}
		c.used -= c.entries[oldest].bytes
		delete(c.entries, oldest)
	}
}

func (c *rosterCache) bytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used
}

// with returns a snapshot that has m under the name too.
func (s snapshot) with(name string, m *members) snapshot {
	out := snapshot{days: s.roster.days, roster: s.roster, born: s.born, sets: map[string]*members{name: m}}
	for _, n := range s.names {
		if n != name {
			out.names = append(out.names, n)
		}
	}
	out.names = append(out.names, name)
	if n := len(out.names); n > maxMembers {
		out.names = out.names[n-maxMembers:]
	}
	for _, n := range out.names {
		if out.sets[n] == nil {
			out.sets[n] = s.sets[n]
		}
	}
	return out
}

// lockTurn waits until nobody else loads the entry.
func (e *rosterEntry) lockTurn(ctx context.Context) error {
	select {
	case e.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *rosterEntry) unlockTurn() { <-e.turn }
