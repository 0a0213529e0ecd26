package remote

import (
	"fmt"

	"github.com/VictoriaMetrics/easyproto"

	"github.com/luminate/luminate/storage"
)

// descriptor is the metadata of a series by reference; zero is none.
type descriptor struct {
	kind       int32
	help, unit uint32
}

// decodeV2 decodes an io.prometheus.write.v2.Request: symbols = 4, timeseries = 5.
// An error means that the message as a whole is not usable; what is wrong with
// single series is in d.refused.
func (d *decoder) decodeV2(src []byte) error {
	if err := d.readSymbols(src); err != nil {
		return err
	}
	var fc easyproto.FieldContext
	var err error
	for n := 0; len(src) > 0; {
		if src, err = fc.NextField(src); err != nil {
			return brokenf("request: %w", err)
		}
		if fc.FieldNum != 5 {
			continue
		}
		data, ok := fc.MessageData()
		if !ok {
			return brokenf("request: field 5 is not a message")
		}
		if n == 0 && len(d.symbols) == 0 {
			return brokenf("request: there are series but no symbols")
		}
		if err := d.seriesV2(data); err != nil {
			return brokenSeries(n, err)
		}
		n++
	}
	return nil
}

// seriesV2 decodes a TimeSeries: labels_refs = 1, samples = 2, histograms = 3,
// exemplars = 4, metadata = 5.
func (d *decoder) seriesV2(src []byte) error {
	d.startSeries()
	d.refs, d.tooManyRefs, d.packed = d.refs[:0], false, nil
	var meta descriptor
	var fc easyproto.FieldContext
	var err error
	for len(src) > 0 {
		if src, err = fc.NextField(src); err != nil {
			return brokenf("timeseries: %w", err)
		}
		if fc.FieldNum == 1 {
			if packed, ok := fc.MessageData(); ok && d.series.n == 0 && len(d.refs) == 0 {
				if nameRef, ok := d.addPacked(packed); ok {
					d.packed, d.nameRef = packed, nameRef
					continue
				}
			}
			d.unpackAgain()
			if !d.appendRefs(&fc, 0) {
				return brokenf("timeseries: labels_refs are not numbers")
			}
			continue
		}
		data, ok := fc.MessageData()
		if !ok && fc.FieldNum >= 2 && fc.FieldNum <= 5 {
			return brokenf("timeseries: field %d is not a message", fc.FieldNum)
		}
		switch fc.FieldNum {
		case 2:
			err = d.sampleV2(data)
		case 3:
			err = d.histogram(data, true)
		case 4:
			err = d.exemplarV2(data)
		case 5:
			err = meta.decode(data)
		}
		if err != nil {
			return err
		}
	}
	d.finishV2(meta)
	return d.checkSize()
}

// finishV2 resolves the references of a series and closes it.
func (d *decoder) finishV2(meta descriptor) {
	bad, nameRef := problem{}, d.nameRef
	if d.packed == nil {
		bad, nameRef = d.resolve(&d.series, d.refs, d.tooManyRefs)
	}
	if bad.reason == "" {
		bad = d.series.finish(false, true)
	}
	if bad.reason == "" && (int(meta.help) >= len(d.symbols) || int(meta.unit) >= len(d.symbols)) {
		bad = badReference(max(meta.help, meta.unit), len(d.symbols))
	}
	// The specification wants a sample or a histogram; upstream's schema and its
	// receiver suite also know series of exemplars or metadata alone. Nothing at all
	// is a mistake of the sender.
	if bad.reason == "" && d.held().all()+len(d.items) == 0 && meta == (descriptor{}) {
		bad = problem{reason: storage.ReasonInvalidValue, format: func(string) string {
			return "neither samples nor histograms"
		}}
	}
	if !d.endSeries(bad) || meta == (descriptor{}) {
		return
	}
	if name := &d.symbols[nameRef]; name.described != meta {
		name.described = meta
		t := metricType(meta.kind)
		d.addMetadata(storage.Metadata{
			Metric: familyOf(name.text, t),
			Type:   t,
			Unit:   d.symbols[meta.unit].text,
			Help:   d.symbols[meta.help].text,
		})
	}
}

func badReference(ref uint32, symbols int) problem {
	return problem{reason: storage.ReasonInvalidLabels, format: func(string) string {
		return fmt.Sprintf("reference %d points outside of the %d symbols", ref, symbols)
	}}
}

func (d *decoder) sampleV2(src []byte) error {
	v, t, st, err := sampleFields(src)
	if err != nil {
		return err
	}
	d.batch.AddSample(t, st, v)
	return nil
}

// exemplarV2 decodes an Exemplar: labels_refs = 1, value = 2, timestamp = 3.
func (d *decoder) exemplarV2(src []byte) error {
	d.other.start(d.other.buf)
	var t int64
	var v float64
	var fc easyproto.FieldContext
	var err error
	from, seriesTooMany := len(d.refs), d.tooManyRefs // the series' own references may be in use
	d.tooManyRefs = false
	for len(src) > 0 {
		if src, err = fc.NextField(src); err != nil {
			return brokenf("exemplar: %w", err)
		}
		ok := true
		switch fc.FieldNum {
		case 1:
			ok = d.appendRefs(&fc, from)
		case 2:
			v, ok = fc.Double()
		case 3:
			t, ok = fc.Int64()
		}
		if !ok {
			return brokenf("exemplar: field %d has the wrong type", fc.FieldNum)
		}
	}
	bad, _ := d.resolve(&d.other, d.refs[from:], d.tooManyRefs)
	d.refs, d.tooManyRefs = d.refs[:from], seriesTooMany
	if bad.reason == "" {
		bad = d.other.finish(false, false)
	}
	d.endExemplar(t, v, bad)
	return d.checkSize()
}

// decode reads a Metadata: type = 1, help_ref = 3, unit_ref = 4.
func (m *descriptor) decode(src []byte) error {
	var fc easyproto.FieldContext
	var err error
	for len(src) > 0 {
		if src, err = fc.NextField(src); err != nil {
			return brokenf("metadata: %w", err)
		}
		ok := true
		switch fc.FieldNum {
		case 1:
			m.kind, ok = fc.Enum()
		case 3:
			m.help, ok = fc.Uint32()
		case 4:
			m.unit, ok = fc.Uint32()
		}
		if !ok {
			return brokenf("metadata: field %d has the wrong type", fc.FieldNum)
		}
	}
	return nil
}
