package badger

import (
	"context"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger/internal/index"
	"github.com/luminate/luminate/storage/internal/lookup"
)

// lookUp is a question of discovery. Of the selection only matchers and limit make
// the answer of a day; the range chooses the days.
type lookUp struct {
	op, label string
	s         storage.Selection
}

// listFunc answers a question from the index of one day; nil ids are all its series.
type listFunc func(r index.Reader, ids *roaring.Bitmap) (lookup.Answer, error)

// changed gives the partition's index a generation that its tenant never had: what
// was found before is not found in the cache any more. It is called after the change
// can be seen, and before anybody is told of it.
func (p *partition) changed() { p.generation.Store(p.tenant.generations.Add(1)) }

// indexAlone tells whether the index alone answers discovery: nothing was deleted on
// the day, and no retention has reached it.
func (p *partition) indexAlone(c *clock) bool {
	return len(*p.tombstones.Load()) == 0 && c.youngestCutoff() <= p.mint()
}

// youngestCutoff returns a time from which on samples of every metric are kept.
func (c *clock) youngestCutoff() int64 {
	t := c.cutoff("")
	for _, p := range c.policies {
		if p.Days > 0 {
			t = max(t, c.now-int64(p.Days)*dayMillis)
		}
	}
	return t
}

// lookUp answers a question over the days of its range. The answer is shared with the
// cache: the caller copies what it hands on.
func (db *DB) lookUp(ctx context.Context, t storage.Tenant, q lookUp, list listFunc) (lookup.Answer, error) {
	if err := db.enter(ctx, q.op, t); err != nil {
		return lookup.Answer{}, err
	}
	defer db.leave()
	if err := q.s.Validate(); err != nil {
		return lookup.Answer{}, err
	}
	tn := db.lookupTenant(t)
	if tn == nil {
		return lookup.Answer{}, nil
	}
	x := db.newSelection(tn, q.s)
	key, exact := q.key(tn).Number(uint64(len(x.parts))), len(x.parts) > 1
	for _, p := range x.parts {
		key = key.Number(p.generation.Load()) // before the index is looked at
		exact = exact && p.indexAlone(&x.clock)
	}
	if exact {
		if a, ok := db.lookups.Get(string(key)); ok {
			return a, nil
		}
	}
	var all lookup.Answer
	for _, p := range x.parts {
		a, err := db.lookUpDay(ctx, p, q, x.clock, list)
		if err != nil {
			if ctxErr := storage.ContextError(ctx, q.op); ctxErr != nil {
				return lookup.Answer{}, ctxErr
			}
			return lookup.Answer{}, internal(q.op, err)
		}
		all.Values = mergeSorted(all.Values, a.Values, strings.Compare)
		all.Series = mergeSorted(all.Series, a.Series, storage.CompareLabels)
	}
	if exact {
		db.lookups.Put(string(key), all)
	}
	return all, nil
}

// key begins the key of an answer, to which the generations of its days belong.
func (q *lookUp) key(tn *tenant) lookup.Key {
	return lookup.Key(nil).Number(uint64(tn.id)).Text(q.op).Text(q.label).Number(uint64(q.s.Limit)).Matchers(q.s.Matchers)
}

// lookUpDay answers for one day: from the cache if the index has not changed since.
func (db *DB) lookUpDay(ctx context.Context, p *partition, q lookUp, c clock, list listFunc) (a lookup.Answer, err error) {
	generation := p.generation.Load() // before the index is looked at
	if !p.indexAlone(&c) {
		ids, err := db.liveIDs(ctx, p, q.s, c)
		if err != nil || ids.IsEmpty() {
			return a, err
		}
		return a, db.withIndex(ctx, p, func(r index.Reader) error { a, err = list(r, ids); return err })
	}
	key := string(q.key(p.tenant).Number(1).Number(generation))
	if a, ok := db.lookups.Get(key); ok {
		return a, nil
	}
	err = db.withIndex(ctx, p, func(r index.Reader) error {
		var ids *roaring.Bitmap
		if len(q.s.Matchers) > 0 {
			if ids, err = r.Select(ctx, q.s.Matchers...); err != nil || ids.IsEmpty() {
				return err
			}
		}
		a, err = list(r, ids)
		return err
	})
	if err == nil {
		db.lookups.Put(key, a)
	}
	return a, err
}

// mergeSorted merges two ordered lists without repeats into one, which is a itself
// where b has nothing new; neither is changed.
func mergeSorted[T any](a, b []T, compare func(a, b T) int) []T {
	if len(a) == 0 {
		return b
	}
	var out []T // nil as long as all of b was in a
	from, i := 0, 0
	for k, v := range b {
		c := -1
		for i < len(a) {
			if c = compare(a[i], v); c >= 0 {
				break
			}
			i++
		}
		if i < len(a) && c == 0 {
			i++
			continue
		}
		if out == nil {
			out = make([]T, 0, len(a)+len(b)-k)
		}
		out = append(append(out, a[from:i]...), v)
		from = i
	}
	if out == nil {
		return a
	}
	return append(out, a[from:]...)
}
