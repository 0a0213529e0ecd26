package remote

import (
	"encoding/binary"
	"math"
	"unicode/utf8"

	"github.com/VictoriaMetrics/easyproto"

	"github.com/luminate/luminate/storage"
)

// decoder turns one remote-write message into a batch. It is reused: all its memory
// is kept for the next message. The batch holds strings of the message, which must
// live as long as the batch is used.
type decoder struct {
	batch    storage.Batch
	limits   ShapeLimits
	maxBytes int // of the batch
	refused  refusals
	sent     counts // elements in the message

	series labelSet // labels of the current series
	other  labelSet // labels of the current exemplar; its buf is the exemplars' slab
	items  []item   // refused elements of the current series
	marks  storage.BatchSeries
	bytes  int // taken by histograms, exemplars and metadata

	symbols []symbol // version 2 only, as what follows
	refs    []uint32
	// tooManyRefs is set when the current label set has more references than it may
	// have labels; they are not unpacked.
	tooManyRefs bool
	// packed is set when the current series' labels were added straight from its
	// references, nameRef is then the reference of its metric name.
	packed  []byte
	nameRef uint32
}

// item is a refused element of a series; its message needs the labels, which may
// come later on the wire.
type item struct {
	n   counts
	bad problem
}

// refusedBytes is about what a refused element takes until its series ends.
const refusedBytes = 256

// reset prepares for a message of a tenant with the given limits.
func (d *decoder) reset(limits ShapeLimits, maxBytes int) {
	d.batch.Reset()
	d.limits, d.maxBytes = limits, maxBytes
	d.refused.reset()
	d.sent = counts{}
	d.other.buf = d.other.buf[:0]
	d.bytes = 0
}

// startSeries begins a series at the end of the batch's columns.
func (d *decoder) startSeries() {
	b := &d.batch
	d.series.start(b.Labels)
	clear(d.items)
	d.items = d.items[:0]
	d.marks = storage.BatchSeries{
		LabelsEnd:     uint32(len(b.Labels)),
		SamplesEnd:    uint32(len(b.Samples)),
		HistogramsEnd: uint32(len(b.Histograms)),
		ExemplarsEnd:  uint32(len(b.Exemplars)),
	}
}

// held counts the elements of the current series that are in the batch.
func (d *decoder) held() counts {
	b := &d.batch
	return counts{
		samples:    len(b.Samples) - int(d.marks.SamplesEnd),
		histograms: len(b.Histograms) - int(d.marks.HistogramsEnd),
		exemplars:  len(b.Exemplars) - int(d.marks.ExemplarsEnd),
	}
}

// endSeries closes the current series: it goes into the batch, or, if its labels
// are bad, into the refusals. It reports whether the series was taken.
func (d *decoder) endSeries(bad problem) bool {
	held := d.held()
	d.sent.add(held)
	all := held
	for _, it := range d.items {
		d.sent.add(it.n)
		all.add(it.n)
	}
	if bad.reason != "" {
		d.refused.add(bad.reason, all, d.series.labels(), bad.text)
		d.dropSeries()
		return false
	}
	for _, it := range d.items {
		d.refused.add(it.bad.reason, it.n, d.series.labels(), it.bad.text)
	}
	if held.all() == 0 {
		d.dropSeries()
		return true
	}
	d.batch.Labels = d.series.buf
	d.batch.EndSeries()
	return true
}

// dropSeries takes the current series out of the batch again.
func (d *decoder) dropSeries() {
	b := &d.batch
	b.Labels = d.series.buf[:d.series.begin]
	b.Samples = b.Samples[:d.marks.SamplesEnd]
	if len(b.STs) > 0 {
		b.STs = b.STs[:d.marks.SamplesEnd]
	}
	clear(b.Histograms[d.marks.HistogramsEnd:])
	b.Histograms = b.Histograms[:d.marks.HistogramsEnd]
	clear(b.Exemplars[d.marks.ExemplarsEnd:])
	b.Exemplars = b.Exemplars[:d.marks.ExemplarsEnd]
}

// checkSize fails once the batch takes more memory than it may.
func (d *decoder) checkSize() error {
	b := &d.batch
	size := len(b.Labels) + 16*len(b.Series) + 24*len(b.Samples) + d.bytes
	if size <= d.maxBytes {
		return nil
	}
	return storage.LimitErrorf(storage.KindTooLarge, "decode", "max-batch-bytes", "remote.maxBatchBytes",
		"the message expands to more than %d bytes", d.maxBytes)
}

// brokenf is a message that is not valid protobuf, or not of its schema.
func brokenf(format string, args ...any) error {
	return storage.Errorf(storage.KindInvalid, "decode", format, args...)
}

// sampleFields decodes a Sample of either version: value = 1, timestamp = 2,
// start_timestamp = 3 (version 2 only; version 1 has no such field).
func sampleFields(src []byte) (v float64, t, st int64, err error) {
	// All senders write the fields in order: 0x09 value, 0x10 time [, 0x18 start].
	if len(src) > 10 && src[0] == 0x09 && src[9] == 0x10 {
		ts, n := binary.Uvarint(src[10:])
		rest := src[10+max(n, 0):]
		if n > 0 && len(rest) == 0 {
			return math.Float64frombits(binary.LittleEndian.Uint64(src[1:])), int64(ts), 0, nil
		}
		if n > 0 && rest[0] == 0x18 {
			start, n := binary.Uvarint(rest[1:])
			if n > 0 && n == len(rest)-1 {
				return math.Float64frombits(binary.LittleEndian.Uint64(src[1:])), int64(ts), int64(start), nil
			}
		}
	}
	var fc easyproto.FieldContext
	for len(src) > 0 {
		if src, err = fc.NextField(src); err != nil {
			return 0, 0, 0, brokenf("sample: %w", err)
		}
		ok := true
		switch fc.FieldNum {
		case 1:
			v, ok = fc.Double()
		case 2:
			t, ok = fc.Int64()
		case 3:
			st, ok = fc.Int64()
		}
		if !ok {
			return 0, 0, 0, brokenf("sample: field %d has the wrong type", fc.FieldNum)
		}
	}
	return v, t, st, nil
}

// maxExemplarRunes bounds the label set of an exemplar, names and values together,
// as OpenMetrics and Prometheus do.
const maxExemplarRunes = 128

// endExemplar takes an exemplar whose labels are in d.other, or refuses it.
func (d *decoder) endExemplar(t int64, v float64, bad problem) {
	if bad.reason == "" && exemplarRunes(d.other.labels()) > maxExemplarRunes {
		bad = limitProblem("the labels of an exemplar have more than %d characters", maxExemplarRunes)
	}
	if bad.reason == "" && t == 0 {
		bad = problem{reason: storage.ReasonInvalidValue, format: func(string) string { return "an exemplar without a timestamp" }}
	}
	if bad.reason != "" {
		d.other.buf = d.other.buf[:d.other.begin]
		d.items = append(d.items, item{n: counts{exemplars: 1}, bad: exemplarProblem(bad)})
		d.bytes += refusedBytes
		return
	}
	ls := d.other.labels()
	d.batch.Exemplars = append(d.batch.Exemplars, storage.Exemplar{Labels: ls[:len(ls):len(ls)], T: t, V: v})
	d.bytes += 64 + len(ls)
}

func exemplarProblem(p problem) problem {
	text := p.text()
	return problem{reason: p.reason, format: func(string) string { return "exemplar: " + text }}
}

func exemplarRunes(l storage.Labels) int {
	n := 0
	for name, value := range l.All() {
		n += utf8.RuneCountInString(name) + utf8.RuneCountInString(value)
	}
	return n
}
