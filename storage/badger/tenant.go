package badger

import (
	"encoding/binary"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/luminate/luminate/storage"
)

// minDay and maxDay bound the days that a key can name, with room for arithmetic.
const (
	minDay = -1 << 30
	maxDay = 1<<30 - 1
)

// tenant is one tenant's state. Its number is never reused, so keys and log records
// of a deleted tenant cannot become another's.
type tenant struct {
	id   uint32
	name string

	mu       sync.RWMutex
	parts    map[int32]*partition
	dropped  map[int32]uint64 // LSN at which a day was dropped
	metadata map[string]storage.Metadata
	unsaved  map[string]bool // metadata that is in the log only

	policies atomic.Pointer[[]storage.RetentionPolicy] // sorted, never changed in place

	generations atomic.Uint64 // the last that a partition's index got

	lastWrite atomic.Int64
	written   atomic.Int64  // samples since start
	rate      atomic.Uint64 // float bits, samples per second over the last maintenance interval
	rateBase  int64         // of maintenance alone
}

func newTenant(id uint32, name string) *tenant {
	t := &tenant{
		id: id, name: name, parts: map[int32]*partition{}, dropped: map[int32]uint64{},
		metadata: map[string]storage.Metadata{}, unsaved: map[string]bool{},
	}
	t.policies.Store(&[]storage.RetentionPolicy{})
	return t
}

func (t *tenant) part(day int32) *partition {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.parts[day]
}

func (t *tenant) droppedAt(day int32) uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.dropped[day]
}

// partitions returns the partitions that overlap [mint, maxt], oldest first.
func (t *tenant) partitions(mint, maxt int64) []*partition {
	from, to := dayOfBounded(mint), dayOfBounded(maxt)
	t.mu.RLock()
	defer t.mu.RUnlock()
	var out []*partition
	for day, p := range t.parts {
		if day >= from && day <= to {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *partition) int { return int(a.day) - int(b.day) })
	return out
}

// dayOfBounded is dayOf for any time: beyond the days that keys can name it is the
// first or last of them.
func dayOfBounded(t int64) int32 {
	return dayOf(min(max(t, dayStart(minDay)), dayStart(maxDay)))
}

func (t *tenant) wrote(now int64, samples int) {
	t.lastWrite.Store(now)
	t.written.Add(int64(samples))
}

func (t *tenant) samplesPerSecond() float64 { return math.Float64frombits(t.rate.Load()) }

func (db *DB) lookupTenant(t storage.Tenant) *tenant {
	db.mu.RLock()
	defer db.mu.RUnlock()
	return db.tenants[t.String()]
}

// allTenants returns the tenants in order of their names.
func (db *DB) allTenants() []*tenant {
	db.mu.RLock()
	defer db.mu.RUnlock()
	out := make([]*tenant, 0, len(db.tenants))
	for _, name := range slices.Sorted(maps.Keys(db.tenants)) {
		out = append(out, db.tenants[name])
	}
	return out
}

// allPartitions returns every partition, oldest days first.
func (db *DB) allPartitions() []*partition {
	var out []*partition
	for _, tn := range db.allTenants() {
		out = append(out, tn.partitions(math.MinInt64, math.MaxInt64)...)
	}
	slices.SortStableFunc(out, func(a, b *partition) int { return int(a.day) - int(b.day) })
	return out
}

// ensureTenant finds or registers a tenant. Its number is on stable storage before
// the first record that uses it.
func (db *DB) ensureTenant(t storage.Tenant) (*tenant, error) {
	if tn := db.lookupTenant(t); tn != nil {
		return tn, nil
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	if tn := db.tenants[t.String()]; tn != nil {
		return tn, nil
	}
	tn := newTenant(db.nextTenant, t.String())
	if err := db.put(tenantKey(tn.name), binary.BigEndian.AppendUint32(nil, tn.id)); err != nil {
		return nil, err
	}
	db.nextTenant++
	db.tenants[tn.name], db.byID[tn.id] = tn, tn
	return tn, nil
}

// changedMetadata returns copies of those entries that the tenant does not have.
// tn may be nil.
func (db *DB) changedMetadata(tn *tenant, in []storage.Metadata) []storage.Metadata {
	if len(in) == 0 {
		return nil
	}
	var out []storage.Metadata
	if tn != nil {
		tn.mu.RLock()
		defer tn.mu.RUnlock()
	}
	for _, m := range in {
		if tn != nil {
			if have, ok := tn.metadata[m.Metric]; ok && have == m {
				continue
			}
		}
		out = append(out, storage.Metadata{
			Metric: strings.Clone(m.Metric), Type: storage.MetricType(strings.Clone(string(m.Type))),
			Unit: strings.Clone(m.Unit), Help: strings.Clone(m.Help),
		})
	}
	return out
}

func (t *tenant) putMetadata(ms []storage.Metadata, unsaved bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range ms {
		t.metadata[m.Metric] = m
		if unsaved {
			t.unsaved[m.Metric] = true
		}
	}
}

// clock is the time of one operation and what follows from it.
type clock struct {
	now, future int64
	first       int64 // no older sample is kept
	days        int
	policies    []storage.RetentionPolicy
}

// clock returns the clock for a tenant, which may be nil.
func (db *DB) clock(tn *tenant) clock {
	c := clock{now: db.now().UnixMilli(), future: db.cfg.FutureLimit.Milliseconds(), days: db.cfg.RetentionDays}
	c.first = dayStart(max(db.firstDay.Load(), minDay))
	if tn != nil {
		c.policies = *tn.policies.Load()
	}
	return c
}

// perMetric tells whether limits differ between metrics.
func (c *clock) perMetric() bool { return len(c.policies) > 0 }

// cutoff returns the oldest time that is kept of a metric.
func (c *clock) cutoff(metric string) int64 {
	days := c.days
	if len(c.policies) > 0 {
		days = storage.RetentionOf(c.policies, metric, days)
	}
	if days == 0 {
		return c.first
	}
	return max(c.first, c.now-int64(days)*dayMillis)
}

func (c *clock) limits(metric string) limits {
	l := limits{mint: c.cutoff(metric), maxt: dayStart(maxDay)}
	if c.future > 0 {
		l.maxt = c.now + c.future
	}
	return l
}
