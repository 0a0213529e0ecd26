package remote

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

var fuzzLimits = ShapeLimits{Labels: 6, NameBytes: 20, ValueBytes: 150}

// checkBatch holds whatever a decoder made to what a Store may rely on.
func checkBatch(t *testing.T, d *decoder) {
	t.Helper()
	held := counts{}
	var from storage.BatchSeries
	for i, to := range d.batch.Series {
		if to.LabelsEnd < from.LabelsEnd || to.SamplesEnd < from.SamplesEnd || to.HistogramsEnd < from.HistogramsEnd || to.ExemplarsEnd < from.ExemplarsEnd {
			t.Fatalf("series %d ends before it begins: %+v after %+v", i, to, from)
		}
		from = to
		v := d.batch.At(i)
		if err := v.Labels.Validate(); err != nil {
			t.Fatalf("series %d: %v", i, err)
		}
		if v.Labels.Metric() == "" || v.Labels.Len() > fuzzLimits.Labels {
			t.Fatalf("series %d was taken: %s", i, v.Labels)
		}
		if v.STs != nil && len(v.STs) != len(v.Samples) {
			t.Fatalf("series %d: %d start timestamps of %d samples", i, len(v.STs), len(v.Samples))
		}
		for _, h := range v.Histograms {
			if (h.H == nil) == (h.FH == nil) || checkHistogram(h) != nil {
				t.Fatalf("series %d: histogram %+v", i, h)
			}
		}
		for _, e := range v.Exemplars {
			if err := e.Labels.Validate(); err != nil || e.T == 0 {
				t.Fatalf("series %d: exemplar %+v: %v", i, e, err)
			}
		}
		held.add(counts{len(v.Samples), len(v.Histograms), len(v.Exemplars)})
	}
	if int(from.LabelsEnd) != len(d.batch.Labels) || int(from.SamplesEnd) != len(d.batch.Samples) ||
		int(from.HistogramsEnd) != len(d.batch.Histograms) || int(from.ExemplarsEnd) != len(d.batch.Exemplars) {
		t.Fatalf("columns are longer than the last series: %+v", from)
	}
	held.add(d.refused.counts)
	if held != d.sent {
		t.Fatalf("taken and refused are %+v, sent were %+v", held, d.sent)
	}
	if d.refused.any() != (d.refused.text(d.sent) != "" && len(d.refused.named) > 0) {
		t.Fatal("a refusal without a name")
	}
}

// reference is what a simple receiver makes of a series: its labels, sorted and
// without empty values; ok is false where it refuses them.
func reference(pairs [][2]string) (ls storage.Labels, ok bool) {
	if len(pairs) > fuzzLimits.Labels {
		return nil, false
	}
	pairs = slices.Clone(pairs)
	slices.SortStableFunc(pairs, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	named := false
	for i, p := range pairs {
		if p[0] == "" || !utf8.ValidString(p[0]) || !utf8.ValidString(p[1]) || len(p[0]) > fuzzLimits.NameBytes || len(p[1]) > fuzzLimits.ValueBytes ||
			i > 0 && p[0] == pairs[i-1][0] || p[0] == storage.MetricName && len(p[1]) > fuzzLimits.NameBytes {
			return nil, false
		}
		if p[1] != "" {
			named = named || p[0] == storage.MetricName
			ls = storage.AppendLabel(ls, p[0], p[1])
		}
	}
	return ls, named
}

// line renders what must be equal in a series of either decoder.
func line(ls storage.Labels, samples []storage.Sample, histograms int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q", []byte(ls))
	for _, s := range samples {
		fmt.Fprintf(&b, " %d=%x", s.T, math.Float64bits(s.V))
	}
	return fmt.Sprintf("%s +%d", b.String(), histograms)
}

func linesOf(d *decoder) (out []string) {
	for i := range d.batch.Series {
		v := d.batch.At(i)
		if len(v.Samples)+len(v.Histograms) > 0 {
			out = append(out, line(v.Labels, v.Samples, len(v.Histograms)))
		}
	}
	return out
}

func goodHistograms[H interface {
	IsFloatHistogram() bool
	ToIntHistogram() *histogram.Histogram
	ToFloatHistogram() *histogram.FloatHistogram
}](hs []H) (n int) {
	for _, h := range hs {
		var s storage.HistogramSample
		if h.IsFloatHistogram() {
			s.FH = h.ToFloatHistogram()
		} else {
			s.H = h.ToIntHistogram()
		}
		if checkHistogram(s) == nil {
			n++
		}
	}
	return n
}

// FuzzDecodeV1 checks the decoder against Prometheus's generated one.
func FuzzDecodeV1(f *testing.F) {
	h := &histogram.Histogram{Schema: 1, Count: 3, Sum: 4.5, PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []int64{1, 1}}
	for _, req := range []prompb.WriteRequest{
		{},
		{Timeseries: []prompb.TimeSeries{{Labels: labelsV1("__name__", "m", "a", "1"), Samples: []prompb.Sample{{Value: 1, Timestamp: 2}, {Timestamp: 3}}}}},
		{Timeseries: []prompb.TimeSeries{{Labels: labelsV1("z", "", "__name__", "m", "a", "\xff"), Samples: []prompb.Sample{{Value: 1, Timestamp: -2}}}, {}}},
		{Timeseries: []prompb.TimeSeries{{Labels: labelsV1("__name__", "m", "b", strings.Repeat("x", 140)), Histograms: []prompb.Histogram{prompb.FromIntHistogram(1, h), prompb.FromFloatHistogram(2, h.ToFloat(nil))},
			Exemplars: []prompb.Exemplar{{Labels: labelsV1("b", "1", "a", "2"), Value: 1, Timestamp: 1}, {Value: 2}}}},
			Metadata: []prompb.MetricMetadata{{MetricFamilyName: "m", Type: 3, Help: "h", Unit: "u"}, {Help: "x"}}},
	} {
		f.Add(mustMarshal(f, &req))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var d decoder
		d.reset(fuzzLimits, 1<<20)
		if err := d.decodeV1(data); err != nil {
			return
		}
		checkBatch(t, &d)
		var req prompb.WriteRequest
		if req.Unmarshal(data) != nil {
			return
		}
		var want []string
		for _, ts := range req.Timeseries {
			var pairs [][2]string
			for _, l := range ts.Labels {
				pairs = append(pairs, [2]string{l.Name, l.Value})
			}
			var samples []storage.Sample
			for _, s := range ts.Samples {
				samples = append(samples, storage.Sample{T: s.Timestamp, V: s.Value})
			}
			n := goodHistograms(ts.Histograms)
			if ls, ok := reference(pairs); ok && len(samples)+n > 0 {
				want = append(want, line(ls, samples, n))
			}
		}
		if got := linesOf(&d); !slices.Equal(got, want) {
			t.Fatalf("decoded %q, Prometheus's decoder gives %q", got, want)
		}
	})
}

// FuzzDecodeV2 checks the decoder against Prometheus's generated one.
func FuzzDecodeV2(f *testing.F) {
	h := &histogram.Histogram{Schema: -53, Count: 2, CustomValues: []float64{1}, PositiveSpans: []histogram.Span{{Length: 2}}, PositiveBuckets: []int64{1, 0}}
	b := newV2()
	trace := b.refs("trace_id", "x")
	b.add(writev2.TimeSeries{Samples: []writev2.Sample{{Value: 1, Timestamp: 2, StartTimestamp: 1}, {Timestamp: 5}}, Metadata: writev2.Metadata{Type: 3, HelpRef: 1, UnitRef: 2}}, "__name__", "m", "a", "1")
	b.add(writev2.TimeSeries{Histograms: []writev2.Histogram{writev2.FromIntHistogram(3, 4, h)}, Exemplars: []writev2.Exemplar{{LabelsRefs: trace, Value: 2, Timestamp: 4}}}, "z", "1", "__name__", "m_bucket")
	b.add(writev2.TimeSeries{Samples: []writev2.Sample{{}}}, "a", "")
	f.Add(mustMarshal(f, b.build()))
	f.Add(mustMarshal(f, &writev2.Request{Symbols: []string{"", "a"}, Timeseries: []writev2.TimeSeries{{LabelsRefs: []uint32{1, 1, 1, 7, 0}}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		var d decoder
		d.reset(fuzzLimits, 1<<20)
		if err := d.decodeV2(data); err != nil {
			return
		}
		checkBatch(t, &d)
		var req writev2.Request
		if req.Unmarshal(data) != nil {
			return
		}
		var want []string
		for _, ts := range req.Timeseries {
			ls, ok := referenceV2(&req, &ts)
			var samples []storage.Sample
			for _, s := range ts.Samples {
				samples = append(samples, storage.Sample{T: s.Timestamp, V: s.Value})
			}
			n := goodHistograms(ts.Histograms)
			if ok && len(samples)+n > 0 {
				want = append(want, line(ls, samples, n))
			}
		}
		if got := linesOf(&d); !slices.Equal(got, want) {
			t.Fatalf("decoded %q, Prometheus's decoder gives %q", got, want)
		}
	})
}

func referenceV2(req *writev2.Request, ts *writev2.TimeSeries) (storage.Labels, bool) {
	if len(ts.LabelsRefs)%2 != 0 || int(max(ts.Metadata.HelpRef, ts.Metadata.UnitRef)) >= len(req.Symbols) {
		return nil, false
	}
	var pairs [][2]string
	for i := 0; i < len(ts.LabelsRefs); i += 2 {
		if int(max(ts.LabelsRefs[i], ts.LabelsRefs[i+1])) >= len(req.Symbols) {
			return nil, false
		}
		pairs = append(pairs, [2]string{req.Symbols[ts.LabelsRefs[i]], req.Symbols[ts.LabelsRefs[i+1]]})
	}
	return reference(pairs)
}

// fuzzHandler checks that no body makes a handler fail in a way that is not the
// sender's.
func fuzzHandler(f *testing.F, path string, compress bool, header ...string) {
	s := newStack(f, func(c *Config) {
		c.MaxBodyBytes, c.MaxDecodedBytes, c.MaxBatchBytes = 1<<16, 1<<16, 1<<18
		c.Read.MaxSamples = 10_000
	})
	var b storage.Batch
	b.Add(storage.LabelsFromStrings("__name__", "m", "a", "1"), storage.Sample{T: s.now, V: 1}, storage.Sample{T: s.now + 1, V: 2})
	storagetest.MustAppend(f, s.model, testTenant, &b)
	f.Fuzz(func(t *testing.T, data []byte) {
		if compress {
			data = snappy.Encode(nil, data)
		}
		w := httptest.NewRecorder()
		s.h.ServeHTTP(w, newPost(path, data, header...))
		switch w.Code {
		case http.StatusOK, http.StatusNoContent, http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		default:
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
	})
}

func FuzzRead(f *testing.F) {
	for _, types := range [][]prompb.ReadRequest_ResponseType{nil, chunked, {9}} {
		f.Add(mustMarshal(f, &prompb.ReadRequest{AcceptedResponseTypes: types, Queries: []*prompb.Query{
			{StartTimestampMs: 0, EndTimestampMs: math.MaxInt64, Matchers: []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_RE, Name: "a", Value: ".*"}}, Hints: &prompb.ReadHints{Func: "series"}},
		}}))
	}
	fuzzHandler(f, "/api/v1/read", true)
}

func FuzzSnappyBody(f *testing.F) {
	f.Add(snappy.Encode(nil, benchV1(2)))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0})
	fuzzHandler(f, "/api/v1/write", false, "Content-Type", contentV1)
}

func FuzzOTLPProtobuf(f *testing.F) {
	s := newStack(f)
	o := newOTLP(s)
	o.gauge("g", 1).Attributes().PutStr("a", "b")
	o.sum("s", 2, 1, 2)
	h := o.metric("h").SetEmptyExponentialHistogram()
	h.SetAggregationTemporality(2)
	dp := h.DataPoints().AppendEmpty()
	dp.SetTimestamp(o.t)
	dp.SetCount(3)
	dp.Positive().BucketCounts().FromRaw([]uint64{1, 2})
	f.Add(o.proto(f))
	fuzzHandler(f, "/otlp/v1/metrics", false, "Content-Type", protobufType)
}

func FuzzOTLPJSON(f *testing.F) {
	s := newStack(f)
	o := newOTLP(s)
	o.gauge("g", 1).Attributes().PutStr("a", "b")
	o.sum("s", 2, 1, 2)
	f.Add(o.json(f))
	fuzzHandler(f, "/otlp/v1/metrics", false, "Content-Type", jsonType)
}
