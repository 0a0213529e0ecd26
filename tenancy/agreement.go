package tenancy

import "maps"

// An agreement keeps a tenant's series within its limits over several processes. New
// series are admitted out of a lease: a number that this process has posted to the
// others before it uses it, and that they subtract from what is left. Whoever posts
// reads the others' notes afterwards, so of two processes at least the later one sees
// the other's lease, and what all may admit together is never more than what is left.
// Only the allowance, a hundredth of the limit, is not agreed on: it lets a tenant's
// first series in without waiting.
type agreement struct {
	processes int // alive, this one among them
	leases    map[string]*lease
	others    map[string]map[string]int // reserved by other processes: process, scope
	posted    map[string]int            // what our last note reserved, by scope; nil if unknown
}

// Scopes of leases. A metric's own is scopeMetric followed by its name.
const (
	scopeSeries = "s"
	scopeNames  = "n"
	scopeMetric = "m"
)

// How much is reserved: a part of what is left while that is much, and no less than a
// part of the limit, so that all reservations together keep at most a fiftieth of a
// nearly full limit from whoever needs it.
const (
	reserveLeft  = 8
	reserveLimit = 50
	allowedPart  = 100
	// idleExchanges is how many exchanges an unused lease is held.
	idleExchanges = 3
)

// lease is what this process may admit under one limit until the next exchange.
type lease struct {
	granted   int
	allowance int
	asked     int  // posted beyond granted, and not granted yet
	missed    int  // series that found it empty since the last note
	tried     bool // the note on its way asks because of that
	full      bool // the last exchange could not give more
	idle      int  // exchanges since a series was admitted
}

func newAgreement() *agreement {
	return &agreement{processes: 1, leases: map[string]*lease{}, others: map[string]map[string]int{}}
}

// reservedByOthers sums what others have reserved.
func (a *agreement) reservedByOthers(scope string) int {
	n := 0
	for _, scopes := range a.others {
		n += scopes[scope]
	}
	return n
}

// of returns the scope's lease. limit and used are those of its limit.
func (a *agreement) of(scope string, limit, used int) *lease {
	x := a.leases[scope]
	if x == nil {
		x = &lease{}
		a.leases[scope] = x
		x.allow(limit, limit-used-a.reservedByOthers(scope), a.processes)
	}
	return x
}

// allow renews the allowance; left is what nobody has reserved.
func (x *lease) allow(limit, left, processes int) {
	x.allowance = max(0, min(limit/(allowedPart*processes), left/(4*processes)))
}

func (x *lease) empty() bool { return x.granted+x.allowance <= 0 }

func (x *lease) use() {
	x.idle = 0
	if x.granted > 0 {
		x.granted--
	} else {
		x.allowance--
	}
}

// target is what a process reserves of what is left: a little ahead of its need, and as
// much as it needs if the others could have as much. One that is alone leaves room for a
// second that may have just begun.
func target(limit, left, need, processes int) int {
	if left <= 0 {
		return 0
	}
	ahead := max(left/reserveLeft, limit/reserveLimit) / max(2, processes)
	return max(1, min(ahead, left/processes), min(need, left/processes))
}

// ask prepares the reservations of the next note: leases grow or shrink towards their
// target, and those not in use are given back. It returns what is to be posted, and
// whether that is news. limitOf gives limit and use of a scope, limit 0 for none.
func (a *agreement) ask(limitOf func(scope string) (limit, used int)) (reserved map[string]int, news bool) {
	reserved = map[string]int{}
	for scope, x := range a.leases {
		limit, used := limitOf(scope)
		x.idle++
		if limit == 0 || x.idle > idleExchanges && x.missed == 0 {
			delete(a.leases, scope)
			continue
		}
		want := target(limit, limit-used-a.reservedByOthers(scope), x.missed, a.processes)
		x.tried, x.asked, x.missed = x.missed > 0, 0, 0
		switch {
		case x.granted > want+want/4:
			x.granted = want
		case x.tried && x.granted < want, x.granted < want/2:
			x.asked = want - x.granted
		}
		if n := x.granted + x.asked; n > 0 {
			reserved[scope] = n
		}
	}
	return reserved, a.posted == nil && len(reserved) > 0 || a.posted != nil && !maps.Equal(reserved, a.posted)
}

// grant gives what was asked for, as far as the others' notes, read after it was
// posted, leave room.
func (a *agreement) grant(limitOf func(scope string) (limit, used int)) {
	for scope, x := range a.leases {
		limit, used := limitOf(scope)
		left := limit - used - a.reservedByOthers(scope)
		before := x.granted
		x.granted = max(0, min(x.granted+x.asked, left))
		x.asked = 0
		x.allow(limit, left-x.granted, a.processes)
		x.full = x.tried && x.granted <= before && x.empty()
	}
}

// forget drops the reservations of processes that are gone.
func (a *agreement) forget(alive func(process string) bool) {
	for p := range a.others {
		if !alive(p) {
			delete(a.others, p)
		}
	}
}

// admission says why a new series waits.
type admission uint8

const (
	admitted admission = iota
	waits              // an exchange may give more
	isFull             // it did not, lately
)

// admit takes one series out of every lease that it falls under, or names the limit of
// the one that is empty.
func (a *agreement) admit(l *Limits, s *seriesSet, name string, newName bool) (limit string, maximum int, state admission) {
	type share struct {
		lease   *lease
		limit   string
		maximum int
	}
	var shares [3]share
	n := 0
	if l.MaxActiveSeries > 0 {
		shares[n] = share{a.of(scopeSeries, l.MaxActiveSeries, s.len()), "maxActiveSeries", l.MaxActiveSeries}
		n++
	}
	if l.MaxActiveSeriesPerMetric > 0 {
		shares[n] = share{a.of(scopeMetric+name, l.MaxActiveSeriesPerMetric, s.ofMetric(name)), "maxActiveSeriesPerMetric", l.MaxActiveSeriesPerMetric}
		n++
	}
	if l.MaxMetrics > 0 && newName {
		shares[n] = share{a.of(scopeNames, l.MaxMetrics, s.active), "maxMetrics", l.MaxMetrics}
		n++
	}
	for _, x := range shares[:n] {
		if x.lease.empty() {
			x.lease.missed++
			if x.lease.full {
				return x.limit, x.maximum, isFull
			}
			return x.limit, x.maximum, waits
		}
	}
	for _, x := range shares[:n] {
		x.lease.use()
	}
	return "", 0, admitted
}
