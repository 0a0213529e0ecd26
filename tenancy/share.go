package tenancy

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/axiomhq/hyperloglog"

	"github.com/luminate/luminate/storage"
)

const (
	// exchangeEvery is the time between exchanges, heartbeatEvery between notes when
	// there is nothing to tell, exchangeApart between those that an append asks for.
	exchangeEvery  = time.Second
	heartbeatEvery = 5 * time.Second
	exchangeApart  = 100 * time.Millisecond
	// aliveFor is how long after its last note a process counts as alive. One that has
	// not exchanged for half of it goes by no lease any more.
	aliveFor = 20 * time.Second
	// overlap is read again each time: notes become visible a little after the time
	// that they bear.
	overlap = 10 * time.Second
	// exchangeTimeout bounds an exchange, for which appends may wait, and joinTimeout the
	// first, which reads the notes of an hour.
	exchangeTimeout = 2 * time.Second
	joinTimeout     = 5 * time.Second
	// sketchEvery is the time between two notes with the sketch of a tenant's day.
	sketchEvery = 10 * time.Minute
)

// share exchanges notes with the other processes on the same store, for limits that
// bind all of them together.
type share struct {
	limiter *Limiter
	process string
	apart   time.Duration // exchangeApart, but in tests

	begun   atomic.Int64 // exchanges so far
	success atomic.Int64 // when the last one ended well, Unix nanoseconds by Config.Now; 0 never
	live    atomic.Int64 // processes, this one among them

	mu       sync.Mutex // serialises exchanges and guards what follows
	store    storage.Store
	seq      uint64
	posted   time.Time // the last note
	newest   time.Time // At of the newest note read
	tried    time.Time
	lastSeq  map[string]uint64    // of other processes
	lastNote map[string]time.Time // of other processes
	off      bool                 // the store cannot
	failing  bool                 // the last exchange failed, and that was told
}

func newShare(l *Limiter) *share {
	x := &share{limiter: l, process: rand.Text(), apart: exchangeApart, lastSeq: map[string]uint64{}, lastNote: map[string]time.Time{}}
	x.live.Store(1)
	return x
}

// join begins to exchange over the store.
func (x *share) join(ctx context.Context, store storage.Store) {
	x.mu.Lock()
	x.store = store
	x.mu.Unlock()
	x.exchange(ctx)
}

// inForce tells whether there is an agreement to go by.
func (x *share) inForce(now time.Time) bool {
	last := x.success.Load()
	age := time.Duration(now.UnixNano() - last)
	return last != 0 && age < aliveFor/2 && age > -aliveFor
}

// soon waits for an exchange that begins after the call, unless one has just failed.
func (x *share) soon(ctx context.Context) {
	asked := x.begun.Load()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.begun.Load() > asked || x.store == nil || x.off {
		return
	}
	now := x.limiter.cfg.Now()
	since := now.Sub(x.tried)
	if x.success.Load() < x.tried.UnixNano() && since >= 0 && since < exchangeEvery {
		return
	}
	if since >= 0 && since < x.apart {
		timer := time.NewTimer(x.apart - since)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
	x.exchangeLocked(context.WithoutCancel(ctx)) // others wait for it too
}

// exchange posts what is new and reads what others have posted.
func (x *share) exchange(ctx context.Context) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.store != nil && !x.off {
		x.exchangeLocked(ctx)
	}
}

func (x *share) exchangeLocked(ctx context.Context) {
	x.begun.Add(1)
	now := x.limiter.cfg.Now()
	x.tried = now
	out := x.collect(now)
	note := storage.Note{Process: x.process, Seq: x.seq + 1}
	if len(out) > 0 || now.Sub(x.posted) >= heartbeatEvery || now.Before(x.posted) {
		notes := make([]tenantNote, 0, len(out))
		for _, o := range out {
			notes = append(notes, o.note)
		}
		note.Body = appendNote(nil, notes)
	}
	since, timeout := now.Add(-2*seriesWindow-time.Minute), joinTimeout
	if !x.newest.IsZero() {
		since, timeout = x.newest.Add(-overlap), exchangeTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	in, err := x.store.Exchange(ctx, note, since)
	if err != nil {
		x.failed(ctx, out, err)
		return
	}
	if len(note.Body) > 0 {
		x.seq, x.posted = note.Seq, now
	}
	x.read(in, now)
	x.settle(out)
	x.success.Store(max(1, x.limiter.cfg.Now().UnixNano()))
	if x.failing {
		x.failing = false
		x.limiter.log.Info("the exchange with other processes works again")
	}
	x.limiter.metrics.exchanged(nil, int(x.live.Load()), now)
}

// outgoing is what a note tells of a tenant, with whom it is about.
type outgoing struct {
	state *tenantState
	note  tenantNote
}

// collect takes what is to be told.
func (x *share) collect(now time.Time) []outgoing {
	var out []outgoing
	for _, s := range x.limiter.all() {
		s.mu.Lock()
		if s.series != nil && s.agreed != nil {
			s.series.rotate(now)
			n := tenantNote{tenant: s.tenant.String(), generation: s.series.generation}
			news := s.unsent
			if s.unsentOf < n.generation-1 {
				news = nil
			}
			n.series = append(news, s.series.takeNews()...)
			s.unsent = nil
			var changed bool
			n.reserved, changed = s.agreed.ask(s.limitOf)
			if s.series.len() > 0 && now.Sub(s.sketched) >= sketchEvery {
				if b, err := s.series.sketchOf(now).MarshalBinary(); err == nil {
					n.day, n.sketch, s.sketched = s.series.day, b, now
				}
			}
			if changed || len(n.series) > 0 || n.sketch != nil {
				out = append(out, outgoing{s, n})
			}
		}
		s.mu.Unlock()
	}
	return out
}

// failed keeps what was not told for the next note. The note may have arrived all the
// same; telling it again changes nothing.
func (x *share) failed(ctx context.Context, out []outgoing, err error) {
	for _, o := range out {
		o.state.mu.Lock()
		o.state.unsent, o.state.unsentOf = o.note.series, o.note.generation
		if o.state.agreed != nil {
			o.state.agreed.posted = nil // unknown
		}
		if o.note.sketch != nil {
			o.state.sketched = time.Time{}
		}
		o.state.mu.Unlock()
	}
	if storage.KindOf(err) == storage.KindUnsupported {
		x.off = true
		return
	}
	x.limiter.metrics.exchanged(err, int(x.live.Load()), x.limiter.cfg.Now())
	if !x.failing && !errors.Is(ctx.Err(), context.Canceled) {
		x.failing = true
		x.limiter.log.Warn("the exchange with other processes fails; after 10 s limits on series are each process's own", "err", err)
	}
}

// read takes in what other processes tell.
func (x *share) read(notes []storage.Note, now time.Time) {
	for _, n := range notes {
		if n.At.After(x.newest) {
			x.newest = n.At
		}
		if n.Process == x.process {
			continue
		}
		if n.At.After(x.lastNote[n.Process]) {
			x.lastNote[n.Process] = n.At
		}
		if n.Seq <= x.lastSeq[n.Process] {
			continue // of the overlap
		}
		x.lastSeq[n.Process] = n.Seq
		tenants, err := parseNote(n.Body)
		if err != nil {
			x.limiter.log.Warn("note of another process is not read", "process", n.Process, "err", err)
			continue
		}
		for _, t := range tenants {
			x.hear(n.Process, t, now)
		}
	}
	live := int64(1)
	for p, at := range x.lastNote {
		switch age := x.newest.Sub(at); {
		case age <= aliveFor:
			live++
		case age > storage.NoteLife:
			delete(x.lastNote, p)
			delete(x.lastSeq, p)
		}
	}
	if x.live.Swap(live) != live {
		x.limiter.processesChanged()
	}
}

// hear takes in what one process tells of one tenant.
func (x *share) hear(process string, n tenantNote, now time.Time) {
	t, err := storage.ParseTenant(n.tenant)
	if err != nil {
		return
	}
	limits := x.limiter.LimitsOf(t)
	if !limits.tracksSeries() {
		return
	}
	s := x.limiter.state(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trackLocked(now, true)
	for _, m := range n.series {
		s.series.learn(m, n.generation, now)
	}
	if len(n.reserved) > 0 {
		s.agreed.others[process] = n.reserved
	} else {
		delete(s.agreed.others, process)
	}
	if n.sketch != nil {
		var other hyperloglog.Sketch
		own := s.series.sketchOf(now)
		if n.day == s.series.day && other.UnmarshalBinary(n.sketch) == nil {
			_ = own.Merge(&other) // of the same precision
		}
	}
}

// settle turns what was asked for into what may be used.
func (x *share) settle(out []outgoing) {
	for _, o := range out {
		o.state.mu.Lock()
		if o.state.agreed != nil {
			o.state.agreed.posted = o.note.reserved
		}
		o.state.mu.Unlock()
	}
	alive := func(process string) bool { return x.newest.Sub(x.lastNote[process]) <= aliveFor }
	for _, s := range x.limiter.all() {
		s.mu.Lock()
		if s.agreed != nil && s.series != nil {
			s.agreed.processes = int(x.live.Load())
			s.agreed.forget(alive)
			s.agreed.grant(s.limitOf)
		}
		s.mu.Unlock()
	}
}

// limitOf returns the limit of a scope and how much of it is used; limit 0 is none.
// s.mu is held.
func (s *tenantState) limitOf(scope string) (limit, used int) {
	l := s.limits.Load()
	switch scope {
	case scopeSeries:
		return l.MaxActiveSeries, s.series.len()
	case scopeNames:
		return l.MaxMetrics, s.series.active
	default:
		return l.MaxActiveSeriesPerMetric, s.series.ofMetric(scope[len(scopeMetric):])
	}
}

// trackLocked makes the set of series if there is none.
func (s *tenantState) trackLocked(now time.Time, shared bool) {
	if s.series == nil {
		s.series = newSeriesSet(now, shared)
	}
	if shared && s.agreed == nil {
		s.agreed = newAgreement()
	}
}
