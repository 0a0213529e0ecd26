package remote

import (
	"unsafe"

	"github.com/VictoriaMetrics/easyproto"

	"github.com/luminate/luminate/storage"
)

// decodeV1 decodes a prometheus.WriteRequest: timeseries = 1, metadata = 3. An
// error means that the message as a whole is not usable; what is wrong with single
// series is in d.refused.
func (d *decoder) decodeV1(src []byte) error {
	var fc easyproto.FieldContext
	var err error
	for n := 0; len(src) > 0; {
		if src, err = fc.NextField(src); err != nil {
			return brokenf("write request: %w", err)
		}
		switch fc.FieldNum {
		case 1:
			data, ok := fc.MessageData()
			if !ok {
				return brokenf("write request: field 1 is not a message")
			}
			if err := d.seriesV1(data); err != nil {
				return brokenSeries(n, err)
			}
			n++
		case 3:
			data, ok := fc.MessageData()
			if !ok {
				return brokenf("write request: field 3 is not a message")
			}
			if err := d.metadataV1(data); err != nil {
				return err
			}
		}
	}
	return nil
}

// brokenSeries tells which series the error is in; a size limit is of no series.
func brokenSeries(n int, err error) error {
	if storage.KindOf(err) != storage.KindInvalid {
		return err
	}
	return storage.Errorf(storage.KindInvalid, "", "series %d: %w", n, err)
}

// seriesV1 decodes a TimeSeries: labels = 1, samples = 2, exemplars = 3,
// histograms = 4.
func (d *decoder) seriesV1(src []byte) error {
	d.startSeries()
	src = d.series.addWire(src, &d.limits)
	var fc easyproto.FieldContext
	var err error
	for len(src) > 0 {
		if src, err = fc.NextField(src); err != nil {
			return brokenf("timeseries: %w", err)
		}
		data, ok := fc.MessageData()
		if !ok && fc.FieldNum >= 1 && fc.FieldNum <= 4 {
			return brokenf("timeseries: field %d is not a message", fc.FieldNum)
		}
		switch fc.FieldNum {
		case 1:
			err = d.labelV1(&d.series, data)
		case 2:
			err = d.sampleV1(data)
		case 3:
			err = d.exemplarV1(data)
		case 4:
			err = d.histogram(data, false)
		}
		if err != nil {
			return err
		}
	}
	bad := problem{}
	// A series without a single element asks for nothing, as in Prometheus.
	if d.held().all()+len(d.items) > 0 {
		bad = d.series.finish(true, true)
	}
	d.endSeries(bad)
	return d.checkSize()
}

func (d *decoder) sampleV1(src []byte) error {
	v, t, _, err := sampleFields(src)
	if err != nil {
		return err
	}
	d.batch.Samples = append(d.batch.Samples, storage.Sample{T: t, V: v})
	return nil
}

// addWire adds the labels at the begin of a TimeSeries as long as they are as almost
// all are: sorted, not empty, within limits, name before value, and shorter than 128
// bytes, so that the length bytes on the wire are those of the canonical form. It
// returns what it did not take; labelV1 knows every form.
func (s *labelSet) addWire(src []byte, limits *ShapeLimits) []byte {
	buf, prev := s.buf, s.prev
	for len(src) > 6 && src[0] == 0x0a && src[1] < 0x80 && int(src[1])+2 <= len(src) {
		l := src[2 : int(src[1])+2] // 0x0a len name 0x12 len value
		if len(l) < 6 || l[0] != 0x0a {
			break
		}
		nameEnd := 2 + int(l[1])
		if nameEnd == 2 || nameEnd+3 > len(l) || l[nameEnd] != 0x12 || int(l[nameEnd+1]) != len(l)-nameEnd-2 {
			break
		}
		name := view(l[2:nameEnd])
		if prev != "" && name[0] <= prev[0] && name <= prev ||
			s.n >= limits.Labels || len(l) > min(limits.NameBytes, limits.ValueBytes) || len(buf)-s.begin > maxSetBytes/2 {
			break
		}
		s.n++
		s.named = s.named || name == storage.MetricName
		prev = name
		buf = append(buf, l[1:nameEnd]...)
		buf = append(buf, l[nameEnd+1:]...)
		src = src[len(l)+2:]
	}
	s.buf, s.prev = buf, prev
	return src
}

// labelV1 decodes a Label, name = 1, value = 2, into set.
func (d *decoder) labelV1(set *labelSet, src []byte) error {
	var name, value string
	var fc easyproto.FieldContext
	var err error
	for len(src) > 0 {
		if src, err = fc.NextField(src); err != nil {
			return brokenf("label: %w", err)
		}
		ok := true
		switch fc.FieldNum {
		case 1:
			name, ok = fc.String()
		case 2:
			value, ok = fc.String()
		}
		if !ok {
			return brokenf("label: field %d is not a string", fc.FieldNum)
		}
	}
	set.add(name, value, &d.limits)
	return nil
}

// exemplarV1 decodes an Exemplar: labels = 1, value = 2, timestamp = 3.
func (d *decoder) exemplarV1(src []byte) error {
	d.other.start(d.other.buf)
	var t int64
	var v float64
	var fc easyproto.FieldContext
	var err error
	for len(src) > 0 {
		if src, err = fc.NextField(src); err != nil {
			return brokenf("exemplar: %w", err)
		}
		ok := true
		switch fc.FieldNum {
		case 1:
			var data []byte
			if data, ok = fc.MessageData(); ok {
				err = d.labelV1(&d.other, data)
			}
		case 2:
			v, ok = fc.Double()
		case 3:
			t, ok = fc.Int64()
		}
		if err != nil {
			return err
		}
		if !ok {
			return brokenf("exemplar: field %d has the wrong type", fc.FieldNum)
		}
	}
	// In version 1 the timestamp is optional: an exemplar is of the sample it came with.
	if n := len(d.batch.Samples); t == 0 && n > int(d.marks.SamplesEnd) {
		t = d.batch.Samples[n-1].T
	}
	d.endExemplar(t, v, d.other.finish(true, false))
	return d.checkSize()
}

// view returns b as a string without copying it.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
