package remote

import (
	"fmt"

	"github.com/VictoriaMetrics/easyproto"
	"github.com/prometheus/prometheus/model/histogram"

	"github.com/luminate/luminate/storage"
)

// wireHistogram is a Histogram message of either version; version 2 adds the start
// timestamp.
type wireHistogram struct {
	isFloat                        bool
	count, zeroCount               uint64
	countFloat, zeroFloat          float64
	sum, zeroThreshold             float64
	schema                         int32
	negativeSpans, positiveSpans   []histogram.Span
	negativeDeltas, positiveDeltas []int64
	negativeCounts, positiveCounts []float64
	hint                           int32
	t, st                          int64
	custom                         []float64
}

// histogram decodes a Histogram into the batch, or refuses it when it is not
// consistent. Histograms own their memory: they are as rare as they are large.
func (d *decoder) histogram(src []byte, withST bool) error {
	var w wireHistogram
	if err := w.decode(src); err != nil {
		return err
	}
	if !withST {
		w.st = 0
	}
	h := storage.HistogramSample{T: w.t, ST: w.st}
	if w.isFloat {
		h.FH = w.float()
	} else {
		h.H = w.integer()
	}
	if err := checkHistogram(h); err != nil {
		d.items = append(d.items, item{n: counts{histograms: 1}, bad: problem{
			reason: storage.ReasonInvalidValue,
			format: func(string) string { return fmt.Sprintf("histogram at %d: %v", w.t, err) },
		}})
		d.bytes += refusedBytes
		return d.checkSize()
	}
	d.batch.Histograms = append(d.batch.Histograms, h)
	d.bytes += 256 + 8*(len(w.negativeSpans)+len(w.positiveSpans)+len(w.negativeDeltas)+len(w.positiveDeltas)+
		len(w.negativeCounts)+len(w.positiveCounts)+len(w.custom))
	return d.checkSize()
}

// checkHistogram validates a histogram as Prometheus does, and brings resolutions
// that it does not store (schemas 9 to 52) down to the finest that it does.
func checkHistogram(h storage.HistogramSample) error {
	if h.FH != nil {
		if reducible(h.FH.Schema) {
			if err := h.FH.ReduceResolution(histogram.ExponentialSchemaMax); err != nil {
				return err
			}
		}
		return h.FH.Validate()
	}
	if reducible(h.H.Schema) {
		if err := h.H.ReduceResolution(histogram.ExponentialSchemaMax); err != nil {
			return err
		}
	}
	return h.H.Validate()
}

func reducible(schema int32) bool {
	return schema > histogram.ExponentialSchemaMax && histogram.IsExponentialSchemaReserved(schema)
}

// hintOf keeps the reset hints that are known; a later version's counts as none.
func hintOf(n int32) histogram.CounterResetHint {
	if n < 0 || n > int32(histogram.GaugeType) {
		return histogram.UnknownCounterReset
	}
	return histogram.CounterResetHint(n)
}

func (w *wireHistogram) integer() *histogram.Histogram {
	return &histogram.Histogram{
		CounterResetHint: hintOf(w.hint),
		Schema:           w.schema,
		ZeroThreshold:    w.zeroThreshold,
		ZeroCount:        w.zeroCount,
		Count:            w.count,
		Sum:              w.sum,
		PositiveSpans:    w.positiveSpans,
		PositiveBuckets:  w.positiveDeltas,
		NegativeSpans:    w.negativeSpans,
		NegativeBuckets:  w.negativeDeltas,
		CustomValues:     w.custom,
	}
}

func (w *wireHistogram) float() *histogram.FloatHistogram {
	return &histogram.FloatHistogram{
		CounterResetHint: hintOf(w.hint),
		Schema:           w.schema,
		ZeroThreshold:    w.zeroThreshold,
		ZeroCount:        w.zeroFloat,
		Count:            w.countFloat,
		Sum:              w.sum,
		PositiveSpans:    w.positiveSpans,
		PositiveBuckets:  w.positiveCounts,
		NegativeSpans:    w.negativeSpans,
		NegativeBuckets:  w.negativeCounts,
		CustomValues:     w.custom,
	}
}

// decode reads the message. Field numbers 1 to 16 are those of both versions.
func (w *wireHistogram) decode(src []byte) error {
	var fc easyproto.FieldContext
	var err error
	for len(src) > 0 {
		if src, err = fc.NextField(src); err != nil {
			return brokenf("histogram: %w", err)
		}
		var ok bool
		switch {
		case fc.FieldNum >= 8 && fc.FieldNum <= 13 || fc.FieldNum == 16:
			ok, err = w.buckets(&fc)
		default:
			ok = w.scalar(&fc)
		}
		if err != nil {
			return err
		}
		if !ok {
			return brokenf("histogram: field %d has the wrong type", fc.FieldNum)
		}
	}
	return nil
}

func (w *wireHistogram) scalar(fc *easyproto.FieldContext) (ok bool) {
	switch fc.FieldNum {
	case 1:
		w.count, ok = fc.Uint64()
		w.isFloat = false
	case 2:
		w.countFloat, ok = fc.Double()
		w.isFloat = true
	case 3:
		w.sum, ok = fc.Double()
	case 4:
		w.schema, ok = fc.Sint32()
	case 5:
		w.zeroThreshold, ok = fc.Double()
	case 6:
		w.zeroCount, ok = fc.Uint64()
		w.zeroFloat = 0 // of a oneof the last on the wire counts
	case 7:
		w.zeroFloat, ok = fc.Double()
		w.zeroCount = 0
	case 14:
		w.hint, ok = fc.Enum()
	case 15:
		w.t, ok = fc.Int64()
	case 17:
		w.st, ok = fc.Int64()
	default:
		ok = true // of a later version
	}
	return ok
}

func (w *wireHistogram) buckets(fc *easyproto.FieldContext) (ok bool, err error) {
	switch fc.FieldNum {
	case 8:
		w.negativeSpans, ok, err = appendSpan(w.negativeSpans, fc)
	case 9:
		w.negativeDeltas, ok = fc.UnpackSint64s(w.negativeDeltas)
	case 10:
		w.negativeCounts, ok = fc.UnpackDoubles(w.negativeCounts)
	case 11:
		w.positiveSpans, ok, err = appendSpan(w.positiveSpans, fc)
	case 12:
		w.positiveDeltas, ok = fc.UnpackSint64s(w.positiveDeltas)
	case 13:
		w.positiveCounts, ok = fc.UnpackDoubles(w.positiveCounts)
	case 16:
		w.custom, ok = fc.UnpackDoubles(w.custom)
	}
	return ok, err
}

// appendSpan decodes a BucketSpan: offset = 1, length = 2.
func appendSpan(spans []histogram.Span, fc *easyproto.FieldContext) ([]histogram.Span, bool, error) {
	src, ok := fc.MessageData()
	if !ok {
		return spans, false, nil
	}
	var s histogram.Span
	var err error
	for len(src) > 0 {
		if src, err = fc.NextField(src); err != nil {
			return spans, false, brokenf("bucket span: %w", err)
		}
		ok := true
		switch fc.FieldNum {
		case 1:
			s.Offset, ok = fc.Sint32()
		case 2:
			s.Length, ok = fc.Uint32()
		}
		if !ok {
			return spans, false, brokenf("bucket span: field %d has the wrong type", fc.FieldNum)
		}
	}
	return append(spans, s), true, nil
}
