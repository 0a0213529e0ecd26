package storage

import (
	"encoding/binary"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"
	"unsafe"

	promlabels "github.com/prometheus/prometheus/model/labels"
)

// MetricName is the label that holds the metric's name.
const MetricName = "__name__"

// Labels is a series' identity in canonical byte form: for each label, in
// ascending byte order of the names, uvarint(len(name)) name uvarint(len(value))
// value. Names are unique and not empty, values are not empty (a label with an
// empty value is the same as no label). Equal label sets have equal bytes.
//
// Labels is a byte slice so that decoders can build it in place; nobody changes
// it once it is handed on.
type Labels []byte

// All yields the pairs in order. The strings share l's memory: they are valid as
// long as l is neither changed nor freed.
func (l Labels) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for len(l) > 0 {
			name, value, rest, ok := l.next()
			if !ok || !yield(name, value) {
				return
			}
			l = rest
		}
	}
}

// next splits off the first pair; ok is false on malformed bytes.
func (l Labels) next() (name, value string, rest Labels, ok bool) {
	name, rest, ok = cutString(l)
	if !ok {
		return "", "", nil, false
	}
	value, rest, ok = cutString(rest)
	return name, value, rest, ok
}

func cutString(b []byte) (string, []byte, bool) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return "", nil, false
	}
	return viewString(b[w : w+int(n)]), b[w+int(n):], true
}

// viewString returns b as a string without copying it.
func viewString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// Get returns the value of the named label, "" if there is none. The string
// shares l's memory.
func (l Labels) Get(name string) string {
	for n, v := range l.All() {
		if n == name {
			return v
		}
	}
	return ""
}

// Metric returns the metric name, "" if there is none.
func (l Labels) Metric() string { return l.Get(MetricName) }

// Len counts the labels.
func (l Labels) Len() int {
	n := 0
	for range l.All() {
		n++
	}
	return n
}

// Clone returns a copy that owns its memory.
func (l Labels) Clone() Labels { return slices.Clone(l) }

// Validate checks the canonical form: well-formed lengths, ascending unique
// names, no empty name or value, valid UTF-8. The error is KindInvalid and names
// the label. The empty label set is valid.
func (l Labels) Validate() error {
	prev, first := "", true
	for rest := l; len(rest) > 0; {
		name, value, next, ok := rest.next()
		if !ok {
			return Errorf(KindInvalid, "labels", "label bytes are cut short at offset %d of %d", len(l)-len(rest), len(l))
		}
		switch {
		case name == "":
			return Errorf(KindInvalid, "labels", "label with an empty name (value %q)", value)
		case value == "":
			return Errorf(KindInvalid, "labels", "label %q has an empty value", name)
		case !first && name == prev:
			return Errorf(KindInvalid, "labels", "duplicate label %q", name)
		case !first && name < prev:
			return Errorf(KindInvalid, "labels", "label %q stands after %q: labels must be sorted by name", name, prev)
		case !utf8.ValidString(name):
			return Errorf(KindInvalid, "labels", "label name %q is not valid UTF-8", name)
		case !utf8.ValidString(value):
			return Errorf(KindInvalid, "labels", "value of label %q is not valid UTF-8: %q", name, value)
		}
		prev, first, rest = name, false, next
	}
	return nil
}

// String renders l as PromQL does: {__name__="up", job="a"}.
func (l Labels) String() string { return l.Prometheus().String() }

// Prometheus converts l to Prometheus's own type; the result owns its memory.
func (l Labels) Prometheus() promlabels.Labels {
	b := promlabels.NewScratchBuilder(l.Len())
	for n, v := range l.All() {
		b.Add(strings.Clone(n), strings.Clone(v))
	}
	return b.Labels()
}

// PrometheusInto is Prometheus with a builder to reuse; the builder is reset
// first. With Prometheus's default string-backed labels nothing is shared.
func (l Labels) PrometheusInto(b *promlabels.ScratchBuilder) promlabels.Labels {
	b.Reset()
	for n, v := range l.All() {
		b.Add(n, v)
	}
	return b.Labels()
}

// CompareLabels orders label sets as Prometheus's labels.Compare does: pair by
// pair, name before value, and a set that is a prefix of another before it.
func CompareLabels(a, b Labels) int {
	for len(a) > 0 && len(b) > 0 {
		an, av, arest, aok := a.next()
		bn, bv, brest, bok := b.next()
		if !aok || !bok {
			break
		}
		if c := strings.Compare(an, bn); c != 0 {
			return c
		}
		if c := strings.Compare(av, bv); c != 0 {
			return c
		}
		a, b = arest, brest
	}
	return len(a) - len(b)
}

// AppendLabel appends one pair to dst in canonical form. The caller keeps names
// ascending; LabelsBuilder does it for input in any order.
func AppendLabel(dst []byte, name, value string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(name)))
	dst = append(dst, name...)
	dst = binary.AppendUvarint(dst, uint64(len(value)))
	return append(dst, value...)
}

// LabelsFromPrometheus converts Prometheus labels, which are sorted and unique;
// labels with an empty value are left out.
func LabelsFromPrometheus(ls promlabels.Labels) Labels {
	return AppendPrometheusLabels(nil, ls)
}

// AppendPrometheusLabels appends ls in canonical form to dst.
func AppendPrometheusLabels(dst []byte, ls promlabels.Labels) []byte {
	ls.Range(func(l promlabels.Label) {
		if l.Value != "" {
			dst = AppendLabel(dst, l.Name, l.Value)
		}
	})
	return dst
}

// LabelsFromStrings builds Labels from name, value, name, value…, in any order,
// for tests and constants; it panics on an odd count or a duplicate name.
func LabelsFromStrings(pairs ...string) Labels {
	if len(pairs)%2 != 0 {
		panic("storage: LabelsFromStrings needs pairs")
	}
	var b LabelsBuilder
	for i := 0; i < len(pairs); i += 2 {
		b.Add(pairs[i], pairs[i+1])
	}
	ls, err := b.AppendTo(nil)
	if err != nil {
		panic(err)
	}
	return ls
}

// LabelsFromMap builds Labels from a map; empty values are left out.
func LabelsFromMap(m map[string]string) Labels {
	var b LabelsBuilder
	for k, v := range m {
		b.Add(k, v)
	}
	ls, _ := b.AppendTo(nil) // a map has no duplicate names
	return ls
}

// LabelsBuilder collects pairs in any order and writes them in canonical form.
// The zero value is ready; it keeps the strings it is given until Reset.
type LabelsBuilder struct{ pairs []labelPair }

type labelPair struct{ name, value string }

// Reset forgets the pairs and keeps the memory.
func (b *LabelsBuilder) Reset() { b.pairs = b.pairs[:0] }

// Add adds a pair; a pair with an empty value counts as no label.
func (b *LabelsBuilder) Add(name, value string) {
	if value != "" {
		b.pairs = append(b.pairs, labelPair{name, value})
	}
}

// AppendTo appends the canonical form to dst. A duplicate name, even with the
// same value, is a KindInvalid error that names it.
func (b *LabelsBuilder) AppendTo(dst []byte) ([]byte, error) {
	slices.SortFunc(b.pairs, func(x, y labelPair) int { return strings.Compare(x.name, y.name) })
	for i, p := range b.pairs {
		if i > 0 && b.pairs[i-1].name == p.name {
			return dst, Errorf(KindInvalid, "labels", "duplicate label %q", p.name)
		}
		dst = AppendLabel(dst, p.name, p.value)
	}
	return dst, nil
}
