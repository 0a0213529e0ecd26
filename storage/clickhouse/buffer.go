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
	labels         storage.Labels
	loc            uint32
	id             uint64
	key            uint64
	set            *tenantSeries
}

// block gathers the rows of several requests, each as it came. It is filled under the
// buffer's lock; once sealed only the sender touches it, until done is closed.
type block struct {
	blockKey
	token    string
	pieces   []*piece
	count    int // rows in pieces, once the block is in the buffer
	requests int

	series []newSeries
	inNew  map[uint64]bool            // keys of series
	sets   map[*tenantSeries]struct{} // what "known" was judged by

	opened time.Time
	timer  *time.Timer
	done   chan struct{}
	err    error
}

func (b *block) rows() int {
	n := 0
	for _, p := range b.pieces {
		n += len(p.ids)
	}
	return n
}

// lane is a partition's stream of blocks.
type lane struct {
	open               *block // nil: no row waits
	inFlight           int
	lastSent, lastDone time.Time
	late               time.Duration // how long after lastDone a sender is waited for
	// expected is how many requests the open block may get soon: those that waited when
	// the last block was answered, and one of each sender who had that answer.
	expected int
}

// buffer merges requests into blocks and hands them to send. A full block goes out at
// once. One that is not goes out when its lane has none on the way, the last was sent a
// flush age ago, and the senders of the last one are back or late. So a lone request
// waits for nothing; a stream of small ones makes few parts; the slower ClickHouse is,
// the larger are the blocks.
type buffer struct {
	maxRows   int
	maxQueued int
	maxAge    time.Duration // a block waits no longer for those on the way
	send      func(*block)
	age       atomic.Int64 // nanoseconds

	mu      sync.Mutex
	lanes   map[blockKey]*lane
	queued  int // rows in blocks that are not yet stored
	closed  bool
	senders sync.WaitGroup
}

// maxLanes bounds the lanes that are remembered: a backfill has one for each day.
const maxLanes = 10_000

// late is how long after the last answer a sender is waited for at least. Where blocks
// take long it is half of what the last one took: what is gained by a sender's rows is
// the cost of another block.
const late = 10 * time.Millisecond

func newBuffer(cfg Config, send func(*block)) *buffer {
	b := &buffer{
		maxRows: cfg.FlushRows, maxQueued: cfg.MaxBufferedRows, maxAge: cfg.FlushAgeMax, send: send,
		lanes: map[blockKey]*lane{},
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

// mergeLocked adds p to its lane's open block, or makes it that block.
func (b *buffer) mergeLocked(key blockKey, p *block) *block {
	l := b.lanes[key]
	if l == nil {
		b.forgetLocked()
		l = &lane{}
		b.lanes[key] = l
	}
	p.count = p.rows()
	open := l.open
	if open == nil {
		open = p
		open.done, open.token, open.opened = make(chan struct{}), newToken(), time.Now()
		l.open = open
	} else {
		open.take(p)
	}
	b.planLocked(l)
	return open
}

// forgetLocked makes room where many lanes are remembered.
func (b *buffer) forgetLocked() {
	if len(b.lanes) < maxLanes {
		return
	}
	for key, l := range b.lanes {
		if l.open == nil && l.inFlight == 0 {
			delete(b.lanes, key)
		}
	}
}

// take adds another request's rows. They stay where they are: the driver takes a
// column in several pieces.
func (b *block) take(p *block) {
	b.pieces = append(b.pieces, p.pieces...)
	b.count += p.count
	b.requests += p.requests
	for _, n := range p.series {
		if !b.inNew[n.key] {
			if b.inNew == nil {
				b.inNew = map[uint64]bool{}
			}
			b.inNew[n.key] = true
			b.series = append(b.series, n)
		}
	}
	for set := range p.sets {
		b.sets[set] = struct{}{}
	}
}

// planLocked sends the lane's open block, or sets the time at which it is looked at
// again. It is called whenever something changes.
func (b *buffer) planLocked(l *lane) {
	open := l.open
	if open == nil {
		return
	}
	due := l.lastSent.Add(time.Duration(b.age.Load()))
	if open.requests < l.expected {
		due = later(due, l.lastDone.Add(l.late))
	}
	if l.inFlight > 0 {
		due = later(due, open.opened.Add(b.maxAge))
	}
	wait := time.Until(due)
	if open.count >= b.maxRows || wait <= 0 || b.closed {
		b.sealLocked(l)
		return
	}
	if open.timer == nil {
		open.timer = time.AfterFunc(wait, func() { b.look(l, open) })
	} else {
		open.timer.Reset(wait)
	}
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// look plans a block again when its timer fires, unless it went out before.
func (b *buffer) look(l *lane, open *block) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l.open == open {
		b.planLocked(l)
	}
}

// sealLocked closes a lane's block to further rows and sends it.
func (b *buffer) sealLocked(l *lane) {
	open := l.open
	if open.timer != nil {
		open.timer.Stop()
	}
	sent := time.Now()
	l.open, l.lastSent = nil, sent
	l.inFlight++
	b.senders.Go(func() {
		b.send(open)
		for _, p := range open.pieces {
			p.recycle()
		}
		open.pieces = nil
		b.mu.Lock()
		b.queued -= open.count
		l.inFlight--
		l.lastDone, l.expected = time.Now(), open.requests
		l.late = min(max(late, l.lastDone.Sub(sent)/2), b.maxAge)
		if l.open != nil {
			l.expected += l.open.requests
		}
		b.planLocked(l)
		b.mu.Unlock()
		close(open.done)
	})
}

// close sends everything and waits for it; later adds are refused.
func (b *buffer) close() {
	b.mu.Lock()
	b.closed = true
	for _, l := range b.lanes {
		b.planLocked(l)
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
