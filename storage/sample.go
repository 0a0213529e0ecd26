package storage

import (
	"bytes"
	"cmp"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
)

// Sample is a float at a time. The value's bits are kept exactly, staleness
// markers and other NaN payloads included.
type Sample struct {
	T int64 // Unix milliseconds
	V float64
}

// HistogramSample is a native histogram at a time: exactly one of H and FH is
// set. ST is the start timestamp in milliseconds, 0 if unset.
type HistogramSample struct {
	T, ST int64
	H     *histogram.Histogram
	FH    *histogram.FloatHistogram
}

// Float returns the histogram as a float histogram; it converts an integer one
// into a new object.
func (h HistogramSample) Float() *histogram.FloatHistogram {
	if h.FH != nil {
		return h.FH
	}
	return h.H.ToFloat(nil)
}

// IsStale tells whether the histogram is a staleness marker (its sum carries the
// marker's bits).
func (h HistogramSample) IsStale() bool {
	if h.FH != nil {
		return value.IsStaleNaN(h.FH.Sum)
	}
	return value.IsStaleNaN(h.H.Sum)
}

// StaleNaN is the staleness marker: the NaN with Prometheus's reserved bits.
var StaleNaN = math.Float64frombits(value.StaleNaN)

// IsStale tells whether v is the staleness marker, by its bits.
func IsStale(v float64) bool { return value.IsStaleNaN(v) }

// Exemplar is an exemplar of a series; T is in Unix milliseconds.
type Exemplar struct {
	Labels Labels
	T      int64
	V      float64
}

// MetricType is a metric's type as Prometheus names them: counter, gauge,
// histogram, gaugehistogram, summary, info, stateset, unknown.
type MetricType string

// Metadata describes a metric of a tenant.
type Metadata struct {
	Metric string
	Type   MetricType
	Unit   string
	Help   string
}

// ValueImage maps a float to an unsigned integer so that the integer order is
// the order in which samples of one series at one timestamp win: staleness
// marker < other NaN < -Inf < … < +Inf. It is a bijection; ValueOfImage inverts
// it. ClickHouse stores the same image, so both backends agree to the bit.
func ValueImage(v float64) uint64 {
	bits := math.Float64bits(v)
	if bits>>63 != 0 {
		bits = ^bits
	} else {
		bits ^= 1 << 63
	}
	return bits + 0x000FFFFFFFFFFFFF
}

// ValueOfImage is the inverse of ValueImage.
func ValueOfImage(image uint64) float64 {
	bits := image - 0x000FFFFFFFFFFFFF
	if bits>>63 != 0 {
		bits ^= 1 << 63
	} else {
		bits = ^bits
	}
	return math.Float64frombits(bits)
}

// CompareValues orders two floats at one timestamp; the greater wins.
func CompareValues(a, b float64) int { return cmp.Compare(ValueImage(a), ValueImage(b)) }

// CompareHistograms orders two histograms at one timestamp; the greater wins:
// by count, then sum (CompareValues), then the bytes of EncodeHistogram.
func CompareHistograms(a, b HistogramSample) int {
	ac, as := countSum(a)
	bc, bs := countSum(b)
	if c := CompareValues(ac, bc); c != 0 {
		return c
	}
	if c := CompareValues(as, bs); c != 0 {
		return c
	}
	return bytes.Compare(EncodeHistogram(nil, a), EncodeHistogram(nil, b))
}

func countSum(h HistogramSample) (count, sum float64) {
	if h.FH != nil {
		return h.FH.Count, h.FH.Sum
	}
	return float64(h.H.Count), h.H.Sum
}

// EncodeHistogram appends the histogram's canonical bytes to dst: Prometheus's
// remote-write 1.0 protobuf message without a timestamp. Start timestamps are
// not part of it.
func EncodeHistogram(dst []byte, h HistogramSample) []byte {
	var p prompb.Histogram
	if h.FH != nil {
		p = prompb.FromFloatHistogram(0, h.FH)
	} else {
		p = prompb.FromIntHistogram(0, h.H)
	}
	b, err := p.Marshal()
	if err != nil {
		panic("storage: marshalling a histogram into memory: " + err.Error())
	}
	return append(dst, b...)
}

// DecodeHistogram is the inverse of EncodeHistogram; t and st are set on the
// result. Damaged bytes give a KindInvalid error.
func DecodeHistogram(b []byte, t, st int64) (HistogramSample, error) {
	var p prompb.Histogram
	if err := p.Unmarshal(b); err != nil {
		return HistogramSample{}, Errorf(KindInvalid, "histogram", "decode: %w", err)
	}
	s := HistogramSample{T: t, ST: st}
	if p.IsFloatHistogram() {
		s.FH = p.ToFloatHistogram()
	} else {
		s.H = p.ToIntHistogram()
	}
	return s, nil
}
