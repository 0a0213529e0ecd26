package clickhouse

import (
	"crypto/rand"
	"encoding/hex"
	"sync"
	"sync/atomic"
	"time"

	"github.com/luminate/luminate/storage"
)

// rowKind is the table that a block goes to.
type rowKind uint8

const (
	kindSamples rowKind = iota
	kindHistograms
	kindExemplars
)

var kindTables = [...]string{"samples", "histograms", "exemplars"}

// blockKey is what all rows of a block share: one partition of one shard's table.
type blockKey struct {
	shard int
	kind  rowKind
	day   int64
	class uint16
}

// newSeries is a row for table series, which must be stored before the block.
type newSeries struct {
	tenant, metric string
	loc            uint32
	id             uint64
	names, kv      []string
	key            uint64
	set            *tenantSeries
}

// block gathers the rows of several requests. Columns are filled under the buffer's
// lock; once sealed only the sender touches them, until done is closed.
type block struct {
	blockKey
	token string

	tenants, metrics []string
	locs             []uint32
	ids              []uint64
	times            []int64
	images           []uint64 // histograms: digests
	sts              []int64
	data             []string // histograms: messages; exemplars: labels
	positions        []uint32

	series []newSeries
	inNew  map[uint64]bool            // keys of series
	sets   map[*tenantSeries]struct{} // what "known" was judged by

	more  []*block // rows of further requests; of these only the columns are used
	count int      // rows in more

	timer *time.Timer
	done  chan struct{}
	err   error
}

func (b *block) rows() int { return len(b.ids) + b.count }

// buffer merges requests into blocks and hands them to send: a block goes out when it
// is full, or when its partition's last one is a flush age ago. So a lone request
// waits for nothing, and a stream of small ones makes few parts.
type buffer struct {
	maxRows   int
	maxQueued int
	send      func(*block)
	age       atomic.Int64 // nanoseconds

	mu       sync.Mutex
	blocks   map[blockKey]*block
	lastSent map[blockKey]time.Time
	queued   int // rows in blocks that are not yet stored
	closed   bool
	senders  sync.WaitGroup
}

func newBuffer(cfg Config, send func(*block)) *buffer {
	b := &buffer{
		maxRows: cfg.FlushRows, maxQueued: cfg.MaxBufferedRows, send: send,
		blocks: map[blockKey]*block{}, lastSent: map[blockKey]time.Time{},
	}
	b.age.Store(int64(cfg.FlushAge))
	return b
}

// add puts a request's rows into blocks and returns those blocks, to be waited for.
// Too many rows that wait are a KindUnavailable error, and nothing is taken.
func (b *buffer) add(parts map[blockKey]*block) ([]*block, error) {
	rows := 0
	for _, p := range parts {
		rows += p.rows()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, &storage.Error{Op: "append", Kind: storage.KindUnavailable, Err: errStoreClosed}
	}
	// An empty buffer takes any request: the body limit has bounded it already.
	if b.queued > 0 && b.queued+rows > b.maxQueued {
		return nil, storage.LimitErrorf(storage.KindUnavailable, "append", "max-buffered-rows", "storage.clickhouse.maxBufferedRows",
			"%d rows wait for ClickHouse, at most %d may", b.queued, b.maxQueued)
	}
	b.queued += rows
	waits := make([]*block, 0, len(parts))
	for key, p := range parts {
		waits = append(waits, b.mergeLocked(key, p))
	}
	return waits, nil
}

// mergeLocked adds p to its partition's open block, or makes it that block.
func (b *buffer) mergeLocked(key blockKey, p *block) *block {
	open := b.blocks[key]
	if open == nil {
		open = p
		open.done, open.token = make(chan struct{}), newToken()
		b.blocks[key] = open
		wait := time.Duration(b.age.Load()) - time.Since(b.lastSent[key])
		open.timer = time.AfterFunc(max(wait, 0), func() { b.flush(open) })
	} else {
		open.take(p)
	}
	if open.rows() >= b.maxRows {
		b.sealLocked(open)
	}
	return open
}

// take adds another request's rows. They stay where they are: the driver takes a
// column in several pieces.
func (b *block) take(p *block) {
	b.more = append(b.more, p)
	b.count += p.rows()
	for _, n := range p.series {
		if !b.inNew[n.key] {
			b.inNew[n.key] = true
			b.series = append(b.series, n)
		}
	}
	for set := range p.sets {
		b.sets[set] = struct{}{}
	}
}

// flush sends a block when its time has come, unless it went out before.
func (b *buffer) flush(open *block) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.blocks[open.blockKey] == open {
		b.sealLocked(open)
	}
}

// sealLocked closes a block to further rows and sends it.
func (b *buffer) sealLocked(open *block) {
	open.timer.Stop()
	delete(b.blocks, open.blockKey)
	if len(b.lastSent) > 10_000 { // a backfill of many days
		clear(b.lastSent)
	}
	b.lastSent[open.blockKey] = time.Now()
	b.senders.Go(func() {
		b.send(open)
		b.mu.Lock()
		b.queued -= open.rows()
		b.mu.Unlock()
		close(open.done)
	})
}

// close sends everything and waits for it; later adds are refused.
func (b *buffer) close() {
	b.mu.Lock()
	b.closed = true
	for _, open := range b.blocks {
		b.sealLocked(open)
	}
	b.mu.Unlock()
	b.senders.Wait()
}

// newToken returns a token that no other block has.
func newToken() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
