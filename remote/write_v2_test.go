package remote

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

// The tests of this file hold the receiver to the remote-write 2.0 specification
// (2.0-rc.4). Each is named after the sentence that it proves, given above it.

func v2Sample(t int64, v float64) writev2.TimeSeries {
	return writev2.TimeSeries{Samples: []writev2.Sample{{Timestamp: t, Value: v}}}
}

func up(s *stack) *writev2.Request {
	return newV2().add(v2Sample(s.now, 1), "__name__", "up").build()
}

func mustMarshal(t testing.TB, m interface{ Marshal() ([]byte, error) }) []byte {
	t.Helper()
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var upLabels = storage.LabelsFromStrings("__name__", "up")

// "Receivers MUST support the io.prometheus.write.v2.Request."
func TestSpec_ReceiversMustSupportV2Request(t *testing.T) {
	s := newStack(t)
	wantStatus(t, s.writeV2(up(s)), http.StatusNoContent)
	s.wantStored(floats(upLabels, float64(s.now), 1))
}

// "Snappy's block format MUST be used -- the framed format MUST NOT be used."
func TestSpec_FramedSnappyMustNotBeUsed(t *testing.T) {
	s := newStack(t)
	var framed strings.Builder
	zw := snappy.NewBufferedWriter(&framed)
	_, _ = zw.Write(mustMarshal(t, up(s)))
	_ = zw.Close()
	w := s.post([]byte(framed.String()), "Content-Type", contentV2, "Content-Encoding", "snappy")
	wantStatus(t, w, http.StatusBadRequest)
	if !strings.Contains(w.Body.String(), "send the block format") {
		t.Errorf("body %q", w.Body)
	}
}

// "Receivers MUST use the content type header to identify the Protobuf Message schema
// to use." And: "Receivers MUST return 415 HTTP Unsupported Media Type status code if
// they don't support a given content type or encoding provided by Senders."
func TestSpec_ContentTypeDecidesTheSchemaAnd415(t *testing.T) {
	const snappyEnc, version = "snappy", "X-Prometheus-Remote-Write-Version"
	for _, tc := range []struct {
		header []string
		status int // 204 as version 1 or 2
		v2     bool
	}{
		{[]string{"Content-Type", "application/x-protobuf", "Content-Encoding", snappyEnc}, 204, false},
		{[]string{"Content-Type", "application/x-protobuf;proto=prometheus.WriteRequest", "Content-Encoding", snappyEnc}, 204, false},
		{[]string{"Content-Type", "application/x-protobuf; proto=prometheus.WriteRequest", "Content-Encoding", snappyEnc}, 204, false},
		{[]string{"Content-Type", `Application/X-Protobuf ; Proto="prometheus.WriteRequest"`, "Content-Encoding", "Snappy"}, 204, false},
		{[]string{"Content-Type", "application/x-protobuf"}, 204, false},
		{[]string{"Content-Encoding", snappyEnc}, 204, false},
		{[]string{version, "0.1.0"}, 204, false},
		{[]string{"Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request", "Content-Encoding", snappyEnc}, 204, true},
		{[]string{"Content-Type", "application/x-protobuf; proto=io.prometheus.write.v2.Request; charset=utf-8"}, 204, true},
		// The version header never chooses the schema.
		{[]string{"Content-Type", "application/x-protobuf", version, "2.0.0"}, 204, false},
		{[]string{"Content-Type", "application/x-protobuf;proto=io.prometheus.write.v3.Request"}, 415, false},
		{[]string{"Content-Type", "application/x-protobuf;proto"}, 415, false},
		{[]string{"Content-Type", "application/json", "Content-Encoding", snappyEnc}, 415, false},
		{[]string{"Content-Type", "application/json", version, "2.0.0"}, 415, false},
		{[]string{"Content-Type", "image/png", "Content-Encoding", snappyEnc}, 415, false},
		{[]string{"Content-Type", "application/protobuf"}, 415, false},
		{[]string{"Content-Type", "application/x-protobuf", "Content-Encoding", "gzip"}, 415, false},
		{[]string{"Content-Type", "application/x-protobuf", "Content-Encoding", "identity"}, 415, false},
		{[]string{"Content-Type", "application/x-protobuf", "Content-Encoding", "snappy, gzip"}, 415, false},
		{nil, 415, false},
	} {
		t.Run(strings.Join(tc.header, "_"), func(t *testing.T) {
			s := newStack(t)
			body := mustMarshal(t, &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Labels: labelsV1("__name__", "up"), Samples: []prompb.Sample{{Timestamp: s.now, Value: 1}}}}})
			if tc.v2 {
				body = mustMarshal(t, up(s))
			}
			w := s.post(snappy.Encode(nil, body), tc.header...)
			wantStatus(t, w, tc.status)
			if tc.status == 204 {
				s.wantStored(floats(upLabels, float64(s.now), 1))
			} else if w.Body.Len() == 0 {
				t.Error("no message")
			}
		})
	}
}

// "Thanks to reserved fields in io.prometheus.write.v2.Request, Receiver accidental
// use of wrong schema with prometheus.WriteRequest will result in empty message."
func TestSpec_TheWrongSchemaIsAnEmptyMessage(t *testing.T) {
	s := newStack(t)
	w := s.post(snappy.Encode(nil, mustMarshal(t, up(s))), "Content-Type", contentV1)
	wantStatus(t, w, http.StatusNoContent)
	s.wantStored()
}

// "Receivers that written all data successfully MUST return a success 2xx HTTP status
// code. In such a successful case, the response body from the Receiver SHOULD be empty
// and the status code SHOULD be 204 HTTP No Content."
func TestSpec_SuccessIs204WithoutBody(t *testing.T) {
	s := newStack(t)
	w := s.writeV2(up(s))
	wantStatus(t, w, http.StatusNoContent)
	if w.Body.Len() != 0 {
		t.Errorf("body %q", w.Body)
	}
}

// "Receivers MUST NOT return a 2xx HTTP status code if any of the pieces of sent data
// known to the Receiver (e.g. Samples, Histograms, Exemplars) were NOT written
// successfully." "The Receiver MUST provide a human-readable error message in the
// response body", which "SHOULD contain information about the amount of the samples
// being rejected and for what reasons." "Receivers MUST return a 400 HTTP Bad Request
// status code for write requests that contain any invalid samples."
func TestSpec_AnythingNotWrittenIs400WithAmountAndReasons(t *testing.T) {
	s := newStack(t)
	bad := prompbHistogram(s.now, &histogram.Histogram{Count: 9, PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []int64{4, 5}})
	b := newV2()
	noTime := b.refs("trace_id", "x")
	b.add(v2Sample(s.now, 1), "__name__", "up")
	b.add(v2Sample(s.now, 1), "job", "a")
	b.add(v2Sample(s.now-400*24*3600*1000, 1), "__name__", "old")
	b.add(writev2.TimeSeries{Histograms: []writev2.Histogram{bad}}, "__name__", "h")
	b.add(writev2.TimeSeries{Samples: []writev2.Sample{{Timestamp: s.now}}, Exemplars: []writev2.Exemplar{{LabelsRefs: noTime, Value: 1}}}, "__name__", "ex")
	w := s.writeV2(b.build())
	wantStatus(t, w, http.StatusBadRequest)
	wantWritten(t, w, "2", "0", "0")
	for _, want := range []string{"refused 2 of 4 samples, 1 of 1 histograms, 1 of 1 exemplars", "invalid_labels 1", "invalid_value 2", "too_old 1",
		`series {job="a"}: no metric name`, `series {__name__="h"}: histogram at`, `series {__name__="ex"}: exemplar: an exemplar without a timestamp`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("body does not tell %q:\n%s", want, w.Body)
		}
	}
	s.wantStored(floats(storage.LabelsFromStrings("__name__", "ex"), float64(s.now), 0), floats(upLabels, float64(s.now), 1))
}

func prompbHistogram(t int64, h *histogram.Histogram) writev2.Histogram {
	return writev2.FromIntHistogram(0, t, h)
}

// "Once completed (with success or failure) for each important piece of data
// (currently Samples, Histograms and Exemplars) Receivers MUST send a dedicated HTTP
// X-Prometheus-Remote-Write-*-Written response header with the precise number of
// successfully written elements." "Each header value MUST be a single 64-bit integer."
func TestSpec_WrittenHeadersOnSuccessAndFailure(t *testing.T) {
	s := newStack(t)
	h := &histogram.Histogram{Count: 2, Sum: 1, ZeroCount: 2, ZeroThreshold: 0.1}
	b := newV2()
	refs := b.refs("trace_id", "x")
	b.add(writev2.TimeSeries{
		Samples:   []writev2.Sample{{Timestamp: s.now, Value: 1}, {Timestamp: s.now + 1, Value: 2}, {Timestamp: s.now + 2, Value: 3}},
		Exemplars: []writev2.Exemplar{{LabelsRefs: refs, Value: 1, Timestamp: s.now}},
	}, "__name__", "up")
	b.add(writev2.TimeSeries{Histograms: []writev2.Histogram{prompbHistogram(s.now, h), prompbHistogram(s.now+1, h)}}, "__name__", "h")
	w := s.writeV2(b.build())
	wantStatus(t, w, http.StatusNoContent)
	wantWritten(t, w, "3", "2", "1")
	for _, name := range []string{samplesWritten, histogramsWritten, exemplarsWritten} {
		if vs := w.Header().Values(name); len(vs) != 1 {
			t.Errorf("%s: %v", name, vs)
		} else if _, err := strconv.ParseInt(vs[0], 10, 64); err != nil {
			t.Error(err)
		}
	}
	b.add(v2Sample(s.now, 1), "job", "a")
	w = s.writeV2(b.build())
	wantStatus(t, w, http.StatusBadRequest)
	wantWritten(t, w, "3", "2", "1")
	s.faulty.SetScript(storagetest.FailWith(storage.KindUnavailable))
	w = s.writeV2(b.build())
	wantStatus(t, w, http.StatusServiceUnavailable)
	wantWritten(t, w, "0", "0", "0")
}

// "Receivers MAY write valid samples within a write request that also contains some
// invalid or otherwise unwritten samples, which represents a partial write case. In
// such a case, the Receiver MUST return non-2xx status code." "Receivers MAY return a
// 5xx HTTP or 429 HTTP status code on partial write [...]. In that case, the Receiver
// MUST support idempotency."
func TestSpec_PartialWritesAndIdempotency(t *testing.T) {
	s := newStack(t)
	req := newV2().add(v2Sample(s.now, 1), "__name__", "up").add(v2Sample(s.now, 1), "x", "y").build()
	for range 2 {
		w := s.writeV2(req)
		wantStatus(t, w, http.StatusBadRequest)
		wantWritten(t, w, "1", "0", "0")
		s.wantStored(floats(upLabels, float64(s.now), 1))
	}
	// With a retriable error of the store the whole request is to come again.
	s.faulty.SetScript(storagetest.FailWith(storage.KindLimited))
	wantStatus(t, s.writeV2(req), http.StatusTooManyRequests)
}

// "Receivers MAY return a 429 HTTP Too Many Requests status code to indicate the
// overloaded server situation. Receivers MAY return the Retry-After header."
func TestSpec_RetryAfterWith429And503(t *testing.T) {
	s := newStack(t, func(c *Config) { c.RetryAfter = 1500 * time.Millisecond })
	for kind, status := range map[storage.Kind]int{storage.KindLimited: 429, storage.KindUnavailable: 503} {
		s.faulty.SetScript(storagetest.FailWith(kind))
		w := s.writeV2(up(s))
		wantStatus(t, w, status)
		if got := w.Header().Get("Retry-After"); got != "2" {
			t.Errorf("Retry-After %q", got)
		}
	}
	s.faulty.SetScript(func(string) storagetest.Fault {
		return storagetest.Fault{Err: storage.Errorf(storage.KindLimited, "append", "%w", waitError{17 * time.Second})}
	})
	if got := s.writeV2(up(s)).Header().Get("Retry-After"); got != "17" {
		t.Errorf("Retry-After %q, want what the error knows", got)
	}
}

type waitError struct{ d time.Duration }

func (e waitError) Error() string             { return "wait" }
func (e waitError) RetryAfter() time.Duration { return e.d }

// "All timestamps MUST be int64 counted as milliseconds since the Unix epoch. Sample's
// values MUST be float64." "Stale markers MUST be signalled by the special NaN value
// 0x7ff0000000000002."
func TestSpec_ValuesKeepTheirBits(t *testing.T) {
	// Prometheus's own encoder loses the sign of zero, so -0 is not among them.
	values := []uint64{0, 1, 0x7ff0000000000000, 0xfff0000000000000, 0x7ff0000000000002, 0x7ff8000000000001,
		0xfff8000000000000, 0x7fefffffffffffff, 0x3ff0000000000001}
	s := newStack(t)
	ts := writev2.TimeSeries{}
	for i, bits := range values {
		ts.Samples = append(ts.Samples, writev2.Sample{Timestamp: s.now + int64(i), Value: math.Float64frombits(bits)})
	}
	wantStatus(t, s.writeV2(newV2().add(ts, "__name__", "up").build()), http.StatusNoContent)
	for i, x := range s.stored()[0].Samples {
		if got := math.Float64bits(x.V); got != values[i] || x.T != s.now+int64(i) {
			t.Errorf("%#x came back as %#x at %d", values[i], got, x.T-s.now)
		}
	}
	if n := len(s.stored()[0].Samples); n != len(values) {
		t.Errorf("%d samples stored", n)
	}
}

// "labels_refs MUST be provided."
func TestSpec_LabelsRefsMustBeProvided(t *testing.T) {
	s := newStack(t)
	w := s.writeV2(newV2().add(v2Sample(s.now, 1)).build())
	wantStatus(t, w, http.StatusBadRequest)
	wantWritten(t, w, "0", "0", "0")
}

// "At least one element in samples or in histograms MUST be provided." The schema and
// the compliance suite for receivers know exemplars and metadata alone; nothing at all
// is refused.
func TestSpec_AtLeastOneElementMustBeProvided(t *testing.T) {
	s := newStack(t)
	w := s.writeV2(newV2().add(writev2.TimeSeries{}, "__name__", "up").build())
	wantStatus(t, w, http.StatusBadRequest)
	if !strings.Contains(w.Body.String(), `{__name__="up"}: neither samples nor histograms`) {
		t.Errorf("body %q", w.Body)
	}
	b := newV2()
	b.add(writev2.TimeSeries{Metadata: writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_COUNTER, HelpRef: b.refs("Help.")[0]}}, "__name__", "orphan")
	wantStatus(t, s.writeV2(b.build()), http.StatusNoContent)
	if m := s.metadata(); len(m) != 1 || m[0].Metric != "orphan" {
		t.Errorf("metadata %+v", m)
	}
	b = newV2()
	refs := b.refs("trace_id", "x")
	b.add(writev2.TimeSeries{Exemplars: []writev2.Exemplar{{LabelsRefs: refs, Timestamp: s.now, Value: 1}}}, "__name__", "orphan")
	w = s.writeV2(b.build())
	wantStatus(t, w, http.StatusNoContent)
	wantWritten(t, w, "0", "0", "1")
}

// "A TimeSeries MUST NOT include both samples and histograms." That is for senders;
// what is sent so all the same is stored, as Prometheus does.
func TestSpec_SamplesAndHistogramsTogetherAreStored(t *testing.T) {
	s := newStack(t)
	h := &histogram.Histogram{Count: 2, Sum: 1, ZeroCount: 2, ZeroThreshold: 0.1}
	ts := v2Sample(s.now, 1)
	ts.Histograms = []writev2.Histogram{prompbHistogram(s.now+1, h)}
	w := s.writeV2(newV2().add(ts, "__name__", "up").build())
	wantStatus(t, w, http.StatusNoContent)
	wantWritten(t, w, "1", "1", "0")
	want := floats(upLabels, float64(s.now), 1)
	want.Histograms = []storage.HistogramSample{{T: s.now + 1, H: h}}
	s.wantStored(want)
}

// "metadata sub-fields SHOULD be provided." It is kept for the metric's family.
func TestSpec_MetadataIsStored(t *testing.T) {
	s := newStack(t)
	b := newV2()
	meta := func(t writev2.Metadata_MetricType, help, unit string) writev2.Metadata {
		return writev2.Metadata{Type: t, HelpRef: b.refs(help)[0], UnitRef: b.refs(unit)[0]}
	}
	add := func(m writev2.Metadata, labels ...string) {
		ts := v2Sample(s.now, 1)
		ts.Metadata = m
		b.add(ts, labels...)
	}
	add(meta(writev2.Metadata_METRIC_TYPE_COUNTER, "Requests.", ""), "__name__", "requests_total", "a", "1")
	add(meta(writev2.Metadata_METRIC_TYPE_COUNTER, "Requests.", ""), "__name__", "requests_total", "a", "2")
	add(meta(writev2.Metadata_METRIC_TYPE_HISTOGRAM, "Time.", "seconds"), "__name__", "latency_bucket", "le", "1")
	add(meta(writev2.Metadata_METRIC_TYPE_HISTOGRAM, "Time.", "seconds"), "__name__", "latency_sum")
	add(meta(writev2.Metadata_METRIC_TYPE_SUMMARY, "Size.", "bytes"), "__name__", "size_count")
	add(meta(writev2.Metadata_METRIC_TYPE_GAUGE, "Odd.", ""), "__name__", "odd_count")
	add(writev2.Metadata{}, "__name__", "nothing")
	wantStatus(t, s.writeV2(b.build()), http.StatusNoContent)
	want := []storage.Metadata{
		{Metric: "latency", Type: "histogram", Unit: "seconds", Help: "Time."},
		{Metric: "odd_count", Type: "gauge", Help: "Odd."},
		{Metric: "requests_total", Type: "counter", Help: "Requests."},
		{Metric: "size", Type: "summary", Unit: "bytes", Help: "Size."},
	}
	if got := s.metadata(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("metadata %+v, want %+v", got, want)
	}
}
