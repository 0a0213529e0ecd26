package remote

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/luminate/luminate/storage"
)

// maxNamedRefusals bounds the refusals that an answer names; all are counted.
// Prometheus logs the first 1,024 bytes of an error.
const maxNamedRefusals = 10

// maxShownLabelBytes bounds the labels that a message shows.
const maxShownLabelBytes = 512

// counts tells samples, histograms and exemplars apart.
type counts struct{ samples, histograms, exemplars int }

func (c counts) all() int { return c.samples + c.histograms + c.exemplars }

func (c *counts) add(o counts) {
	c.samples += o.samples
	c.histograms += o.histograms
	c.exemplars += o.exemplars
}

// reasonCount keeps reasons in order of appearance; there are few.
type reasonCount struct {
	reason storage.RefusalReason
	n      int
}

// refusals collects what a request was refused.
type refusals struct {
	counts      // elements refused
	empty   int // series refused that held no element
	reasons []reasonCount
	named   []Refused // the first maxNamedRefusals
}

func (f *refusals) reset() {
	f.counts, f.empty = counts{}, 0
	f.reasons = f.reasons[:0]
	clear(f.named)
	f.named = f.named[:0]
}

// any tells whether anything was refused.
func (f *refusals) any() bool { return f.all()+f.empty > 0 }

// add counts n elements of a series refused for one reason. why is called only if
// the refusal is to be named; labels are nil where it is of no series.
func (f *refusals) add(reason storage.RefusalReason, n counts, labels storage.Labels, why func() string) {
	f.counts.add(n)
	count := n.all()
	if count == 0 {
		f.empty++
		count = 1
	}
	i := slices.IndexFunc(f.reasons, func(r reasonCount) bool { return r.reason == reason })
	if i < 0 {
		i = len(f.reasons)
		f.reasons = append(f.reasons, reasonCount{reason: reason})
	}
	f.reasons[i].n += count
	if len(f.named) < maxNamedRefusals {
		r := Refused{Reason: reason, Count: count, Message: why()}
		if labels != nil {
			r.Series = showLabels(labels)
			if !strings.Contains(r.Message, r.Series) { // a store's message may have it
				r.Message = "series " + r.Series + ": " + r.Message
			}
		}
		f.named = append(f.named, r)
	}
}

// addStored adds what the store refused of the batch.
func (f *refusals) addStored(b *storage.Batch, refused []storage.Refusal) {
	for _, r := range refused {
		f.add(r.Reason, refusedCounts(b, r), b.At(r.Series).Labels, func() string {
			return cmp.Or(r.Message, string(r.Reason))
		})
	}
}

// refusedCounts tells what a store's refusal is of.
func refusedCounts(b *storage.Batch, r storage.Refusal) counts {
	switch {
	case r.Sample < 0:
		v := b.At(r.Series)
		return counts{len(v.Samples), len(v.Histograms), len(v.Exemplars)}
	case r.Histogram:
		return counts{histograms: 1}
	case r.Exemplar:
		return counts{exemplars: 1}
	default:
		return counts{samples: 1}
	}
}

// text is the body of the answer to a partial write: how much was refused and why,
// then the first refusals by name.
func (f *refusals) text(total counts) string {
	var b strings.Builder
	b.WriteString("refused ")
	sep := ""
	part := func(n, of int, what string) {
		if n > 0 {
			fmt.Fprintf(&b, "%s%d of %d %s", sep, n, of, what)
			sep = ", "
		}
	}
	part(f.samples, total.samples, "samples")
	part(f.histograms, total.histograms, "histograms")
	part(f.exemplars, total.exemplars, "exemplars")
	if f.empty > 0 {
		fmt.Fprintf(&b, "%s%d series without data", sep, f.empty)
	}
	b.WriteString("; the rest is stored; reasons:")
	for i, r := range f.reasons {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " %s %d", r.reason, r.n)
	}
	for _, n := range f.named {
		b.WriteByte('\n')
		b.WriteString(n.Message)
	}
	if rest := f.unnamed(); rest > 0 {
		fmt.Fprintf(&b, "\nand %d more", rest)
	}
	return b.String()
}

// unnamed counts what was refused beyond what is named.
func (f *refusals) unnamed() int {
	rest := f.all() + f.empty
	for _, n := range f.named {
		rest -= n.Count
	}
	return rest
}

// showLabels renders labels for a message, also those that are not valid.
func showLabels(l storage.Labels) string {
	var b strings.Builder
	b.WriteByte('{')
	first := true
	for name, value := range l.All() {
		if !first {
			b.WriteString(", ")
		}
		first = false
		if b.Len()+len(name)+len(value) > maxShownLabelBytes {
			b.WriteString("…")
			break
		}
		fmt.Fprintf(&b, "%s=%q", showName(name), value)
	}
	b.WriteByte('}')
	return b.String()
}

// showName quotes a label name that is not a plain one.
func showName(name string) string {
	for i := range len(name) {
		c := name[i]
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return fmt.Sprintf("%q", name)
		}
	}
	if name == "" {
		return `""`
	}
	return name
}
