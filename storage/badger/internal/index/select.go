package index

import (
	"context"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// source is what Select needs from an index. Bitmaps and postings it returns are not to be changed unless said.
type source interface {
	IDBound() uint32
	// allSeries returns every series; the caller may change it.
	allSeries(ctx context.Context) (*roaring.Bitmap, error)
	// having returns the series that have the label.
	having(ctx context.Context, name string) (*roaring.Bitmap, error)
	// valueCount bounds the number of values that begin with prefix.
	valueCount(ctx context.Context, name, prefix string) (uint64, error)
	// postings returns the series of each value, none being an empty posting.
	postings(ctx context.Context, name string, values []string) ([]posting, error)
	// scanValues calls fn for each value that begins with prefix, in any order; value and get are valid during the
	// call only. A value may come more than once, with a part of its series each time.
	scanValues(ctx context.Context, name, prefix string, fn func(value string, get func() (posting, error)) error) error
	// filter returns the ids whose value of the label ("" if missing) matches; the caller may change it.
	filter(ctx context.Context, ids *roaring.Bitmap, name string, match func(string) bool) (*roaring.Bitmap, error)
	// fewSeries is the size up to which filter beats any set operation.
	fewSeries() uint64
}

// scanFactor is how many times more values than selected series a label must have before a regular expression is
// evaluated for each series instead of each value: a value costs a step in order, a series a jump.
const scanFactor = 6

// termKind says how a matcher is answered from postings.
type termKind uint8

const (
	termIn         termKind = iota // label is one of values
	termHas                        // label is there
	termInOrLack                   // label is one of values, or missing
	termHasNotIn                   // label is there and none of values
	termLack                       // label is missing
	termNotIn                      // label is none of values, or missing
	termScan                       // label's value matches; the missing label does not
	termScanNot                    // as termScan, but the missing label matches too
	termAnything                   // always true
	termImpossible                 // never true
)

type term struct {
	kind   termKind
	m      *labels.Matcher
	values []string
	prefix string // of the values to scan: those that match, or with termScanNot those that do not
	sets   []posting
	size   uint64
}

// newTerm classifies a matcher.
func newTerm(m *labels.Matcher) term {
	t := term{m: m}
	missing := m.Matches("")
	set := m.SetMatches()
	regex := m.Type == labels.MatchRegexp || m.Type == labels.MatchNotRegexp
	positive := m.Type == labels.MatchEqual || m.Type == labels.MatchRegexp
	switch {
	case !regex:
		t.values = []string{m.Value}
	case m.Value == "": // only the empty value
		t.values = []string{""}
	case m.Value == ".*" && positive:
		t.kind = termAnything
		return t
	case m.Value == ".*":
		t.kind = termImpossible
		return t
	case m.Value == ".+" && positive:
		t.kind = termHas
		return t
	case m.Value == ".+":
		t.kind = termLack
		return t
	case len(set) > 0:
		t.values = slices.Clone(set)
	case missing:
		t.kind = termScanNot
		if !positive {
			t.prefix = m.Prefix()
		}
		return t
	default:
		t.kind = termScan
		if positive {
			t.prefix = m.Prefix()
		}
		return t
	}
	t.values = slices.DeleteFunc(t.values, func(v string) bool { return v == "" })
	slices.Sort(t.values)
	t.values = slices.Compact(t.values)
	switch {
	case positive && missing && len(t.values) == 0:
		t.kind = termLack
	case positive && missing:
		t.kind = termInOrLack
	case positive:
		t.kind = termIn
	case !missing && len(t.values) == 0:
		t.kind = termHas
	case !missing:
		t.kind = termHasNotIn
	default:
		t.kind = termNotIn
	}
	return t
}

// selectSeries answers Select: sets of known values first, the smallest before the others, then what takes series
// away, then scans over values, the label with the fewest first.
func selectSeries(ctx context.Context, src source, ms []*labels.Matcher) (*roaring.Bitmap, error) {
	s := selector{ctx: ctx, src: src}
	terms := make([]term, 0, len(ms))
	for _, m := range ms {
		switch t := newTerm(m); t.kind {
		case termAnything:
		case termImpossible:
			return roaring.New(), nil
		default:
			if err := s.prepare(&t); err != nil {
				return nil, err
			}
			if t.kind == termIn && t.size == 0 {
				return roaring.New(), nil
			}
			terms = append(terms, t)
		}
	}
	slices.SortStableFunc(terms, func(a, b term) int {
		if stage(a.kind) != stage(b.kind) || a.size == b.size {
			return stage(a.kind) - stage(b.kind)
		}
		if a.size < b.size {
			return -1
		}
		return 1
	})
	for i := range terms {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := s.apply(&terms[i]); err != nil {
			return nil, err
		}
		if s.cur != nil && s.cur.IsEmpty() {
			return s.cur, nil
		}
	}
	if s.cur == nil {
		return src.allSeries(ctx)
	}
	return s.cur, nil
}

func stage(k termKind) int {
	switch k {
	case termIn:
		return 0
	case termScan, termScanNot:
		return 2
	default:
		return 1
	}
}

// selector carries the series that are still selected; nil is all.
type selector struct {
	ctx context.Context
	src source
	cur *roaring.Bitmap
}

// prepare fetches the postings of known values and the size that orders the term.
func (s *selector) prepare(t *term) (err error) {
	switch t.kind {
	case termScan, termScanNot:
		t.size, err = s.src.valueCount(s.ctx, t.m.Name, t.prefix)
	case termIn, termNotIn, termInOrLack, termHasNotIn:
		t.sets, err = s.src.postings(s.ctx, t.m.Name, t.values)
		for _, p := range t.sets {
			t.size += p.n
		}
	}
	return err
}

func (s *selector) apply(t *term) error {
	if s.cur != nil {
		n := s.cur.GetCardinality()
		scan := t.kind == termScan || t.kind == termScanNot
		if n <= s.src.fewSeries() || scan && t.size > scanFactor*n {
			var err error
			s.cur, err = s.src.filter(s.ctx, s.cur, t.m.Name, t.m.Matches)
			return err
		}
	}
	switch t.kind {
	case termIn:
		s.intersect(s.unite(t.sets))
		return nil
	case termNotIn:
		if t.size == 0 {
			return nil
		}
		return s.subtract(s.unite(t.sets))
	case termScan, termScanNot:
		return s.scan(t)
	}
	having, err := s.src.having(s.ctx, t.m.Name)
	if err != nil {
		return err
	}
	switch t.kind {
	case termHas:
		s.intersect(having)
	case termHasNotIn:
		s.intersect(having)
		return s.subtract(s.unite(t.sets))
	case termLack:
		return s.subtract(having)
	case termInOrLack:
		return s.subtract(roaring.AndNot(having, s.unite(t.sets)))
	}
	return nil
}

// scan evaluates the matcher for each value.
func (s *selector) scan(t *term) error {
	want := t.kind == termScan // else collect what does not match, and take it away
	u := union{bound: s.src.IDBound()}
	steps := 0
	err := s.src.scanValues(s.ctx, t.m.Name, t.prefix, func(value string, get func() (posting, error)) error {
		if steps++; steps%ctxEvery == 0 {
			if err := s.ctx.Err(); err != nil {
				return err
			}
		}
		if t.m.Matches(value) != want {
			return nil
		}
		p, err := get()
		u.add(p)
		return err
	})
	if err != nil {
		return err
	}
	if want {
		s.intersect(u.bitmap())
		return nil
	}
	return s.subtract(u.bitmap())
}

// unite returns the union of sets, possibly the index's own bitmap.
func (s *selector) unite(sets []posting) *roaring.Bitmap {
	if len(sets) == 1 {
		return sets[0].toBitmap()
	}
	u := union{bound: s.src.IDBound()}
	for _, p := range sets {
		u.add(p)
	}
	return u.bitmap()
}

// intersect never keeps b itself, which may be the index's.
func (s *selector) intersect(b *roaring.Bitmap) {
	if s.cur == nil {
		s.cur = b.Clone()
		return
	}
	s.cur.And(b)
}

func (s *selector) subtract(b *roaring.Bitmap) error {
	if s.cur == nil {
		var err error
		if s.cur, err = s.src.allSeries(s.ctx); err != nil {
			return err
		}
	}
	s.cur.AndNot(b)
	return nil
}
