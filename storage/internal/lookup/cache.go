package lookup

import (
	"container/list"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/luminate/luminate/storage"
)

// Answer is what one look-up found. It is shared: nobody changes it.
type Answer struct {
	Values []string         // of label names or values
	Series []storage.Labels // of series

	Metadata []storage.Metadata
}

// Overheads that a size counts beside the text: of a string or slice header, and of
// an entry with its key in the map and the list.
const (
	headerBytes = 24
	entryBytes  = 200
)

func (a Answer) bytes() int64 {
	n := int64(len(a.Values)+len(a.Series)) * headerBytes
	for _, v := range a.Values {
		n += int64(len(v))
	}
	for _, s := range a.Series {
		n += int64(len(s))
	}
	for _, m := range a.Metadata {
		n += 4*headerBytes + int64(len(m.Metric)+len(m.Type)+len(m.Unit)+len(m.Help))
	}
	return n
}

// Cache keeps the answers that were used last, up to a number of bytes. Methods are
// safe for concurrent use. A nil Cache keeps nothing.
type Cache struct {
	limit   int64
	metrics *metrics

	mu      sync.Mutex
	used    int64
	entries map[string]*list.Element
	order   *list.List // of *entry, the one used last in front
}

type entry struct {
	key    string
	answer Answer
	bytes  int64
}

// New returns a cache of at most limit bytes, nil for 0. Its metrics begin with
// prefix.
func New(limit int64, prefix string, reg prometheus.Registerer) *Cache {
	c := &Cache{limit: limit, entries: map[string]*list.Element{}, order: list.New()}
	c.metrics = newMetrics(c, prefix, reg)
	if limit <= 0 {
		return nil
	}
	return c
}

// Get returns the answer kept under a key.
func (c *Cache) Get(key string) (Answer, bool) {
	if c == nil {
		return Answer{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok {
		c.metrics.misses.Inc()
		return Answer{}, false
	}
	c.metrics.hits.Inc()
	c.order.MoveToFront(e)
	return e.Value.(*entry).answer, true
}

// Put keeps an answer, which the caller does not change from now on, and gives up
// those used longest ago. One that would take more than an eighth of the cache is
// not kept: it would push out what is asked more often.
func (c *Cache) Put(key string, a Answer) {
	if c == nil {
		return
	}
	n := a.bytes() + int64(len(key)) + entryBytes
	if n > c.limit/8 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.entries[key]; ok {
		c.drop(old)
	}
	for c.used+n > c.limit {
		c.drop(c.order.Back())
		c.metrics.evicted.Inc()
	}
	c.entries[key] = c.order.PushFront(&entry{key, a, n})
	c.used += n
}

func (c *Cache) drop(e *list.Element) {
	x := c.order.Remove(e).(*entry)
	delete(c.entries, x.key)
	c.used -= x.bytes
}

// Bytes returns the size of what is kept.
func (c *Cache) Bytes() int64 {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used
}

type metrics struct{ hits, misses, evicted prometheus.Counter }

func newMetrics(c *Cache, prefix string, reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: prefix + "discovery_cache_bytes", Help: "Bytes of answers of discovery (label names, values, series, metadata) that are kept.",
	}, func() float64 { return float64(c.Bytes()) })
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: prefix + "discovery_cache_limit_bytes", Help: "Bytes of answers of discovery that may be kept.",
	}, func() float64 { return float64(c.limit) })
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: prefix + "discovery_cache_" + name, Help: help})
	}
	return &metrics{
		hits:    counter("hits_total", "Look-ups of discovery, of a day or a range, that the cache answered."),
		misses:  counter("misses_total", "Look-ups of discovery, of a day or a range, that the cache could not answer."),
		evicted: counter("evictions_total", "Answers of discovery that the cache gave up for newer ones."),
	}
}
