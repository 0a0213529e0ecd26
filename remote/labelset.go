package remote

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/luminate/luminate/storage"
)

// problem is why a label set, or one element of a series, is refused. The zero
// problem is none.
type problem struct {
	reason storage.RefusalReason
	format func(name string) string
	name   string // label name, or what format needs
}

func (p problem) text() string { return p.format(p.name) }

// The problems of a label set. They are constants in all but name, so that a
// refused series costs no more than a good one until it is named.
var (
	noMetricName   = problem{reason: storage.ReasonInvalidLabels, format: func(string) string { return "no metric name (label __name__)" }}
	emptyLabelName = problem{reason: storage.ReasonInvalidLabels, format: func(string) string { return "a label with an empty name" }}
)

func duplicateLabel(name string) problem {
	return problem{storage.ReasonInvalidLabels, func(n string) string { return fmt.Sprintf("duplicate label %q", n) }, name}
}

func invalidUTF8(name string) problem {
	return problem{storage.ReasonInvalidLabels, func(n string) string { return fmt.Sprintf("label %q is not valid UTF-8", n) }, name}
}

// What the messages of limits end with: their public ids and the settings that change
// them.
const (
	byLabels     = " (max-labels-per-series, set by limits.maxLabelsPerSeries)"
	byNameBytes  = " (max-label-name-bytes, set by limits.maxLabelNameBytes)"
	byValueBytes = " (max-label-value-bytes, set by limits.maxLabelValueBytes)"
)

func limitProblem(format string, args ...any) problem {
	return problem{reason: storage.ReasonLabelLimit, format: func(string) string { return fmt.Sprintf(format, args...) }}
}

// labelSet builds one label set in canonical form at the end of a byte slice. Pairs
// that come sorted are written where they stay; what is out of order, or has an
// empty value, is put right by finish.
type labelSet struct {
	buf     []byte // all label bytes so far; this set begins at begin
	begin   int
	prev    string // name of the pair before
	n       int    // pairs added, empty values included
	rewrite bool   // out of order, or an empty value
	named   bool   // has a __name__ with a value
	bad     problem
	scratch []byte
	pairs   []labelPair
}

type labelPair struct{ name, value string }

// maxSetBytes bounds the bytes of one label set whatever a tenant's limits allow:
// references of version 2 cost the sender a byte for each of them.
const maxSetBytes = 1 << 20

// start begins a new set at the end of buf.
func (s *labelSet) start(buf []byte) {
	s.buf, s.begin = buf, len(buf)
	s.prev, s.n = "", 0
	s.rewrite, s.named = false, false
	s.bad = problem{}
}

// add appends a pair. Once the set is bad only so much is kept as a message needs.
func (s *labelSet) add(name, value string, limits *ShapeLimits) {
	s.n++
	if name <= s.prev {
		s.rewrite = true // also for an empty name, which finish never sees
		if name == "" {
			s.refuse(emptyLabelName)
		}
	}
	if value == "" {
		s.rewrite = true
	}
	if len(name) > limits.NameBytes || len(value) > limits.ValueBytes || s.n > limits.Labels || s.size()+len(name)+len(value) > maxSetBytes {
		s.overLimit(name, value, limits)
		return
	}
	s.prev = name
	s.buf = storage.AppendLabel(s.buf, name, value)
	if name == storage.MetricName && value != "" {
		s.named = true
		if len(value) > limits.NameBytes {
			s.refuse(limitProblem("the metric name has %d bytes, at most %d are allowed"+byNameBytes, len(value), limits.NameBytes))
		}
	}
}

// addGood is add for a pair that is known to be sorted, not empty, within limits and
// not the metric name.
func (s *labelSet) addGood(name, value string) {
	s.n++
	s.prev = name
	if len(name) >= 0x80 || len(value) >= 0x80 {
		s.buf = storage.AppendLabel(s.buf, name, value)
		return
	}
	s.buf = append(append(s.buf, byte(len(name))), name...)
	s.buf = append(append(s.buf, byte(len(value))), value...)
}

func (s *labelSet) refuse(p problem) {
	if s.bad.reason == "" {
		s.bad = p
	}
}

func (s *labelSet) overLimit(name, value string, limits *ShapeLimits) {
	switch {
	case s.n > limits.Labels:
		s.refuse(limitProblem("more than %d labels"+byLabels, limits.Labels))
	case len(name) > limits.NameBytes:
		s.refuse(limitProblem("a label name has %d bytes, at most %d are allowed"+byNameBytes+": %.64q…", len(name), limits.NameBytes, name))
	case len(value) <= limits.ValueBytes:
		s.refuse(limitProblem("the labels have more than %d bytes together", maxSetBytes))
	default:
		s.refuse(limitProblem("the value of label %q has %d bytes, at most %d are allowed"+byValueBytes, name, len(value), limits.ValueBytes))
	}
}

// size counts the bytes of the set as it stands.
func (s *labelSet) size() int { return len(s.buf) - s.begin }

// labels returns the set as it stands.
func (s *labelSet) labels() storage.Labels { return storage.Labels(s.buf[s.begin:]) }

// finish puts the set into canonical form and returns the first thing that is wrong
// with it. checkUTF8 is false when the strings were checked before.
func (s *labelSet) finish(checkUTF8, needName bool) problem {
	if s.bad.reason != "" {
		return s.bad
	}
	if checkUTF8 && !isASCII(s.buf[s.begin:]) {
		for name, value := range s.labels().All() {
			if !utf8.ValidString(name) || !utf8.ValidString(value) {
				return invalidUTF8(name)
			}
		}
	}
	if needName && !s.named {
		return noMetricName
	}
	if s.rewrite {
		return s.canonicalise()
	}
	return problem{}
}

// canonicalise sorts the pairs, drops empty values and finds duplicate names.
func (s *labelSet) canonicalise() problem {
	s.scratch = append(s.scratch[:0], s.buf[s.begin:]...)
	s.pairs = s.pairs[:0]
	for name, value := range storage.Labels(s.scratch).All() {
		s.pairs = append(s.pairs, labelPair{name, value})
	}
	slices.SortStableFunc(s.pairs, func(a, b labelPair) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(s.pairs); i++ {
		if s.pairs[i].name == s.pairs[i-1].name {
			return duplicateLabel(s.pairs[i].name)
		}
	}
	s.buf = s.buf[:s.begin]
	for _, p := range s.pairs {
		if p.value != "" {
			s.buf = storage.AppendLabel(s.buf, p.name, p.value)
		}
	}
	return problem{}
}

// isASCII tells whether no byte has its high bit set; with lengths of 128 and more
// among the bytes it answers false for ASCII labels too, which costs only time.
func isASCII(b []byte) bool {
	const high = 0x8080808080808080
	for len(b) >= 32 {
		v := binary.LittleEndian.Uint64(b) | binary.LittleEndian.Uint64(b[8:]) |
			binary.LittleEndian.Uint64(b[16:]) | binary.LittleEndian.Uint64(b[24:])
		if v&high != 0 {
			return false
		}
		b = b[32:]
	}
	var tail byte
	for _, c := range b {
		tail |= c
	}
	return tail < 0x80
}
