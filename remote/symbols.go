package remote

import (
	"fmt"
	"unicode/utf8"
	"unsafe"

	"github.com/VictoriaMetrics/easyproto"

	"github.com/luminate/luminate/storage"
)

// symbol is an entry of the symbol table. described makes a request of many
// series of one metric hold the metric's metadata once.
type symbol struct {
	text string
	use  symbolUse
	// described is the metadata that the metric of this name was last given.
	described descriptor
}

// symbolUse tells what a symbol is good for, found once for all series.
type symbolUse uint8

const (
	validUTF8  symbolUse = 1 << iota
	goodName             // valid, not empty, within the limit of names
	goodValue            // valid, not empty, within the limit of values
	metricName           // is __name__
)

func (d *decoder) useOf(s string) (use symbolUse) {
	if !isASCII(unsafe.Slice(unsafe.StringData(s), len(s))) && !utf8.ValidString(s) {
		return 0
	}
	use = validUTF8
	if s != "" && len(s) <= d.limits.NameBytes {
		use |= goodName
	}
	if s != "" && len(s) <= d.limits.ValueBytes {
		use |= goodValue
	}
	if s == storage.MetricName {
		use |= metricName
	}
	return use
}

// readSymbols reads the symbol table, which may stand anywhere in the message.
func (d *decoder) readSymbols(src []byte) error {
	d.symbols = d.symbols[:0]
	var fc easyproto.FieldContext
	var err error
	for len(src) > 0 {
		// Most symbols have fewer than 128 bytes: 0x22 len text.
		if len(src) > 2 && src[0] == 0x22 && src[1] < 0x80 && int(src[1])+2 <= len(src) && len(d.symbols) > 0 {
			s := view(src[2 : int(src[1])+2])
			d.symbols = append(d.symbols, symbol{text: s, use: d.useOf(s)})
			src = src[len(s)+2:]
			if len(d.symbols)*32 > d.maxBytes {
				return d.tooManySymbols()
			}
			continue
		}
		if src, err = fc.NextField(src); err != nil {
			return brokenf("request: %w", err)
		}
		if fc.FieldNum != 4 {
			continue
		}
		s, ok := fc.String()
		if !ok {
			return brokenf("request: symbol %d is not a string", len(d.symbols))
		}
		if len(d.symbols) == 0 && s != "" {
			return brokenf("request: the first symbol is %q, it must be the empty string", s)
		}
		d.symbols = append(d.symbols, symbol{text: s, use: d.useOf(s)})
		if len(d.symbols)*32 > d.maxBytes {
			return d.tooManySymbols()
		}
	}
	return nil
}

func (d *decoder) tooManySymbols() error {
	return storage.LimitErrorf(storage.KindTooLarge, "decode", "max-batch-bytes", "remote.maxBatchBytes",
		"the symbol table takes more than %d bytes", d.maxBytes)
}

// addPacked adds the labels of a series from its packed references, as long as they
// are as almost all are: small numbers, sorted names, nothing empty, too long or
// invalid. Otherwise it adds nothing, answers false, and resolve is to see all
// references.
func (d *decoder) addPacked(refs []byte) (nameRef uint32, ok bool) {
	set, symbols := &d.series, d.symbols
	for len(refs) > 0 && set.n < d.limits.Labels && set.size() < maxSetBytes/2 {
		name, n := smallVarint(refs)
		value, m := smallVarint(refs[n:])
		if n == 0 || m == 0 || int(max(name, value)) >= len(symbols) {
			break
		}
		ns, vs := &symbols[name], &symbols[value]
		if ns.use&goodName == 0 || vs.use&goodValue == 0 || len(ns.text)+len(vs.text) > maxSetBytes/2 {
			break
		}
		if ns.use&metricName != 0 {
			if vs.use&goodName == 0 {
				break
			}
			set.named, nameRef = true, value
		}
		if set.n > 0 && ns.text[0] <= set.prev[0] && ns.text <= set.prev {
			break
		}
		set.addGood(ns.text, vs.text)
		refs = refs[n+m:]
	}
	if len(refs) > 0 || set.n == 0 {
		set.start(set.buf[:set.begin])
		return 0, false
	}
	return nameRef, true
}

// smallVarint reads a number of at most three bytes; n is 0 for all others.
func smallVarint(b []byte) (v uint32, n int) {
	switch {
	case len(b) > 0 && b[0] < 0x80:
		return uint32(b[0]), 1
	case len(b) > 1 && b[1] < 0x80:
		return uint32(b[0]&0x7f) | uint32(b[1])<<7, 2
	case len(b) > 2 && b[2] < 0x80:
		return uint32(b[0]&0x7f) | uint32(b[1]&0x7f)<<7 | uint32(b[2])<<14, 3
	default:
		return 0, 0
	}
}

// unpackAgain undoes addPacked when more references follow in a field of their own.
func (d *decoder) unpackAgain() {
	if d.packed == nil {
		return
	}
	first := d.packed
	d.packed = nil
	d.series.start(d.series.buf[:d.series.begin])
	for len(first) > 0 {
		v, n := smallVarint(first)
		d.refs = append(d.refs, v)
		first = first[n:]
	}
}

// appendRefs unpacks references of the label set whose references begin at from; ok
// is false when the field holds none. What is certainly more than the labels
// allowed (a reference has at most 10 bytes) is not unpacked.
func (d *decoder) appendRefs(fc *easyproto.FieldContext, from int) (ok bool) {
	limit := 2 * d.limits.Labels
	packed, isPacked := fc.MessageData()
	if isPacked && len(packed) > 10*limit || len(d.refs)-from > limit {
		d.tooManyRefs = true
		return true
	}
	d.refs, ok = fc.UnpackUint32s(d.refs)
	return ok
}

// resolve adds the pairs that refs stand for to set. It also returns the reference
// of the metric name.
func (d *decoder) resolve(set *labelSet, refs []uint32, tooMany bool) (bad problem, nameRef uint32) {
	if tooMany {
		return limitProblem("more than %d labels"+byLabels, d.limits.Labels), 0
	}
	if len(refs)%2 != 0 {
		n := len(refs)
		return problem{reason: storage.ReasonInvalidLabels, format: func(string) string {
			return fmt.Sprintf("%d label references, they must be pairs", n)
		}}, 0
	}
	for i := 0; i < len(refs); i += 2 {
		name, value := refs[i], refs[i+1]
		if int(max(name, value)) >= len(d.symbols) {
			return badReference(max(name, value), len(d.symbols)), 0
		}
		n, v := &d.symbols[name], &d.symbols[value]
		if n.use&v.use&validUTF8 == 0 {
			return invalidUTF8(n.text), 0
		}
		if n.use&metricName != 0 {
			nameRef = value
		} else if n.use&goodName != 0 && v.use&goodValue != 0 && set.n < d.limits.Labels && set.n > 0 && set.size() < maxSetBytes/2 &&
			(n.text[0] > set.prev[0] || n.text > set.prev) {
			set.addGood(n.text, v.text)
			continue
		}
		set.add(n.text, v.text, &d.limits)
		if set.bad.reason != "" {
			break // what follows changes nothing, and could be very long
		}
	}
	return problem{}, nameRef
}
