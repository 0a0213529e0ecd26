package remote

import (
	"encoding/base64"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/easyproto"
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
	wantWritten(t, w, "0", "0", "0")
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

// "The symbols table MUST be provided." "The first element of the symbols table MUST be
// an empty string." "References MUST point to the existing index in the symbols string
// array." "This list's length is always a multiple of two."
func TestSpec_SymbolTableErrors(t *testing.T) {
	s := newStack(t)
	name := []uint32{1, 2}
	symbols := []string{"", "__name__", "up", "\xff"}
	for _, tc := range []struct {
		name string
		req  writev2.Request
		want string
	}{
		{"no symbols", writev2.Request{Timeseries: []writev2.TimeSeries{{LabelsRefs: name, Samples: v2Sample(s.now, 1).Samples}}}, "there are series but no symbols"},
		{"first not empty", writev2.Request{Symbols: []string{"__name__", "up"}, Timeseries: []writev2.TimeSeries{{LabelsRefs: []uint32{0, 1}, Samples: v2Sample(s.now, 1).Samples}}}, `the first symbol is "__name__", it must be the empty string`},
		{"reference outside", writev2.Request{Symbols: symbols, Timeseries: []writev2.TimeSeries{{LabelsRefs: []uint32{1, 9}, Samples: v2Sample(s.now, 1).Samples}}}, "reference 9 points outside of the 4 symbols"},
		{"odd references", writev2.Request{Symbols: symbols, Timeseries: []writev2.TimeSeries{{LabelsRefs: []uint32{1, 2, 2}, Samples: v2Sample(s.now, 1).Samples}}}, "3 label references, they must be pairs"},
		{"help outside", writev2.Request{Symbols: symbols, Timeseries: []writev2.TimeSeries{{LabelsRefs: name, Samples: v2Sample(s.now, 1).Samples, Metadata: writev2.Metadata{Type: 1, HelpRef: 7}}}}, "reference 7 points outside"},
		{"exemplar outside", writev2.Request{Symbols: symbols, Timeseries: []writev2.TimeSeries{{LabelsRefs: name, Exemplars: []writev2.Exemplar{{LabelsRefs: []uint32{8, 8}, Timestamp: s.now}}}}}, "exemplar: reference 8 points outside"},
		{"exemplar odd", writev2.Request{Symbols: symbols, Timeseries: []writev2.TimeSeries{{LabelsRefs: name, Exemplars: []writev2.Exemplar{{LabelsRefs: []uint32{1}, Timestamp: s.now}}}}}, "exemplar: 1 label references"},
		{"bad UTF-8", writev2.Request{Symbols: symbols, Timeseries: []writev2.TimeSeries{{LabelsRefs: []uint32{1, 3}, Samples: v2Sample(s.now, 1).Samples}}}, `label "__name__" is not valid UTF-8`},
		{"very many references", writev2.Request{Symbols: symbols, Timeseries: []writev2.TimeSeries{{LabelsRefs: make([]uint32, 100_000), Samples: v2Sample(s.now, 1).Samples}}}, "more than 64 labels"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := s.writeV2(&tc.req)
			wantStatus(t, w, http.StatusBadRequest)
			if !strings.Contains(w.Body.String(), tc.want) {
				t.Errorf("body %q does not tell %q", w.Body, tc.want)
			}
			s.wantStored()
		})
	}
}

// The table may stand behind what refers to it: protobuf promises no order.
func TestSymbolsMayComeLast(t *testing.T) {
	s := newStack(t)
	req := up(s)
	b := append(mustMarshal(t, &writev2.Request{Timeseries: req.Timeseries}), mustMarshal(t, &writev2.Request{Symbols: req.Symbols})...)
	wantStatus(t, s.post(snappy.Encode(nil, b), "Content-Type", contentV2), http.StatusNoContent)
	s.wantStored(floats(upLabels, float64(s.now), 1))
}

// The label set "SHOULD contain a __name__ label", "MUST NOT contain repeated label
// names", "MUST have label names sorted in lexicographical order", "MUST NOT contain
// any empty label names or values". Names and values "MUST be any sequence of UTF-8
// characters". As Prometheus does, unsorted labels are sorted and empty values left
// out; the others are refused.
func TestSpec_SeriesLabels(t *testing.T) {
	for _, tc := range []struct {
		labels []string
		want   storage.Labels // nil: refused
		text   string
	}{
		{[]string{"__name__", "up", "a", "1", "b", "2"}, storage.LabelsFromStrings("__name__", "up", "a", "1", "b", "2"), ""},
		{[]string{"b", "2", "__name__", "up", "a", "1"}, storage.LabelsFromStrings("__name__", "up", "a", "1", "b", "2"), ""},
		{[]string{"__name__", "up", "a", ""}, upLabels, ""},
		{[]string{"__name__", "µ.p", "größe x", "☃\n"}, storage.LabelsFromStrings("__name__", "µ.p", "größe x", "☃\n"), ""},
		{[]string{"__name__", "up", "a", strings.Repeat("x", 300)}, storage.LabelsFromStrings("__name__", "up", "a", strings.Repeat("x", 300)), ""},
		{[]string{"a", "1"}, nil, "no metric name"},
		{[]string{"__name__", ""}, nil, "no metric name"},
		{[]string{"__name__", "up", "a", "1", "a", "1"}, nil, `duplicate label "a"`},
		{[]string{"b", "1", "__name__", "up", "b", "2"}, nil, `duplicate label "b"`},
		{[]string{"__name__", "up", "__name__", "down"}, nil, `duplicate label "__name__"`},
		{[]string{"__name__", "up", "", "1"}, nil, "empty name"},
		{[]string{"__name__", "up", "a", "\xc3"}, nil, "not valid UTF-8"},
		{[]string{"__name__", "up", "a", strings.Repeat("x", 4097)}, nil, "4097 bytes, at most 4096"},
		{[]string{"__name__", strings.Repeat("x", 1025)}, nil, "1025 bytes, at most 1024"},
	} {
		t.Run(fmt.Sprintf("%.60q", tc.labels), func(t *testing.T) {
			s := newStack(t)
			w := s.writeV2(newV2().add(v2Sample(s.now, 1), tc.labels...).build())
			if tc.want == nil {
				wantStatus(t, w, http.StatusBadRequest)
				if !strings.Contains(w.Body.String(), tc.text) {
					t.Errorf("body %q does not tell %q", w.Body, tc.text)
				}
				s.wantStored()
				return
			}
			wantStatus(t, w, http.StatusNoContent)
			s.wantStored(floats(tc.want, float64(s.now), 1))
		})
	}
}

// "Receivers also MAY impose limits on the number and length of labels." They are the
// tenant's.
func TestSpec_LabelLimitsAreTheTenants(t *testing.T) {
	s := newStack(t, func(c *Config) {
		c.Limits = func(tenant storage.Tenant) ShapeLimits {
			if tenant.String() != testTenant {
				t.Errorf("limits of %q asked for", tenant)
			}
			return ShapeLimits{Labels: 2, NameBytes: 10, ValueBytes: 5}
		}
	})
	b := newV2().add(v2Sample(s.now, 1), "__name__", "up", "a", "12345")
	b.add(v2Sample(s.now, 1), "__name__", "up", "a", "123456")
	b.add(v2Sample(s.now, 1), "__name__", "up", "a", "1", "b", "2")
	b.add(v2Sample(s.now, 1), "__name__", "up", "abcdefghijk", "1")
	w := s.writeV2(b.build())
	wantStatus(t, w, http.StatusBadRequest)
	wantWritten(t, w, "1", "0", "0")
	if !strings.Contains(w.Body.String(), "label_limit 3") {
		t.Errorf("body %q", w.Body)
	}
}

// "Senders MUST send samples (or histograms) for any given TimeSeries in timestamp
// order." Accepting other orders is the receiver's choice, and the same series may
// repeat in a request: both are taken.
func TestSpec_OutOfOrderAndRepeatedSeriesAreTaken(t *testing.T) {
	s := newStack(t)
	b := newV2()
	b.add(writev2.TimeSeries{Samples: []writev2.Sample{{Timestamp: s.now, Value: 3}, {Timestamp: s.now - 2000, Value: 1}}}, "__name__", "up")
	b.add(v2Sample(s.now-1000, 2), "__name__", "up")
	wantStatus(t, s.writeV2(b.build()), http.StatusNoContent)
	now := float64(s.now)
	s.wantStored(floats(upLabels, now-2000, 1, now-1000, 2, now, 3))
	// Another value for a time that is stored: the greater stays, whichever comes last.
	wantStatus(t, s.writeV2(newV2().add(v2Sample(s.now, 2), "__name__", "up").build()), http.StatusNoContent)
	s.wantStored(floats(upLabels, now-2000, 1, now-1000, 2, now, 3))
}

// "Sample's or Histogram's start_timestamp SHOULD be provided for types that follow
// counter semantics." "Given optionality, the 0 value MUST be treated by receivers as
// unset value." "-1" is a time.
func TestSpec_StartTimestamps(t *testing.T) {
	s := newStack(t)
	h := writev2.FromIntHistogram(0, s.now, &histogram.Histogram{Count: 1, ZeroCount: 1, ZeroThreshold: 1})
	h.StartTimestamp = s.now - 500
	b := newV2().add(v2Sample(s.now, 0), "__name__", "a")
	b.add(writev2.TimeSeries{Samples: []writev2.Sample{{Timestamp: s.now, Value: 1}, {Timestamp: s.now + 1, Value: 1, StartTimestamp: s.now - 60_000}, {Timestamp: s.now + 2, StartTimestamp: -1}}}, "__name__", "b")
	b.add(v2Sample(s.now, 0), "__name__", "c")
	b.add(writev2.TimeSeries{Histograms: []writev2.Histogram{h}}, "__name__", "d")
	wantStatus(t, s.writeV2(b.build()), http.StatusNoContent)
	var got []string
	for _, x := range s.stored() {
		line := fmt.Sprint(x.Labels.Metric(), " ", x.STs)
		for _, h := range x.Histograms {
			line += fmt.Sprint(" h ", h.ST)
		}
		got = append(got, line)
	}
	want := []string{"a []", fmt.Sprintf("b [0 %d -1]", s.now-60_000), "c []", fmt.Sprintf("d [] h %d", s.now-500)}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("start timestamps %q, want %q", got, want)
	}
}

// "Exemplars SHOULD be provided if they exist for a series." An exemplar "MUST contain
// a value", "MAY contain labels", "MUST contain a timestamp".
func TestSpec_Exemplars(t *testing.T) {
	s := newStack(t)
	b := newV2()
	trace, unsorted, long := b.refs("trace_id", "é"), b.refs("b", "2", "a", "1"), b.refs("trace_id", strings.Repeat("x", 121))
	dup := b.refs("a", "1", "a", "2")
	ts := v2Sample(s.now, 1)
	ts.Exemplars = []writev2.Exemplar{
		{LabelsRefs: trace, Timestamp: s.now, Value: 0.5}, {Timestamp: s.now + 1, Value: math.Inf(-1)}, {LabelsRefs: unsorted, Timestamp: s.now + 2},
		{LabelsRefs: long, Timestamp: s.now + 3}, {LabelsRefs: dup, Timestamp: s.now + 4}, {LabelsRefs: trace, Value: 7},
	}
	w := s.writeV2(b.add(ts, "__name__", "up").build())
	wantStatus(t, w, http.StatusBadRequest)
	wantWritten(t, w, "1", "0", "3")
	for _, want := range []string{"refused 3 of 6 exemplars", "more than 128 characters", `duplicate label "a"`, "without a timestamp"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("body %q does not tell %q", w.Body, want)
		}
	}
	want := []storage.Exemplar{
		{Labels: storage.LabelsFromStrings("trace_id", "é"), T: s.now, V: 0.5},
		{T: s.now + 1, V: math.Inf(-1)},
		{Labels: storage.LabelsFromStrings("a", "1", "b", "2"), T: s.now + 2},
	}
	got := s.exemplars()
	if len(got) != 1 || len(got[0].Exemplars) != len(want) {
		t.Fatalf("exemplars %+v", got)
	}
	for i, e := range got[0].Exemplars {
		if string(e.Labels) != string(want[i].Labels) || e.T != want[i].T || e.V != want[i].V {
			t.Errorf("exemplar %d: %+v, want %+v", i, e, want[i])
		}
	}
}

// Native histograms: "valid numbers are -53 and numbers in range of -4 <= n <= 8";
// receivers may reduce the resolution of 9 to 52.
func TestSpec_HistogramSchemas(t *testing.T) {
	for schema := int32(-55); schema <= 54; schema++ {
		s := newStack(t)
		h := &histogram.Histogram{Schema: schema, Count: 3, Sum: 2, PositiveSpans: []histogram.Span{{Offset: 1, Length: 2}}, PositiveBuckets: []int64{1, 1}}
		if schema == -53 {
			h.CustomValues = []float64{0.5, 1, 2}
		}
		for name, wire := range map[string]writev2.Histogram{"int": writev2.FromIntHistogram(0, s.now, h), "float": writev2.FromFloatHistogram(0, s.now, h.ToFloat(nil))} {
			s := newStack(t)
			w := s.writeV2(newV2().add(writev2.TimeSeries{Histograms: []writev2.Histogram{wire}}, "__name__", "h").build())
			stored := schema == -53 || schema >= -4 && schema <= 52
			if !stored {
				wantStatus(t, w, http.StatusBadRequest)
				if !strings.Contains(w.Body.String(), "invalid schema") {
					t.Errorf("schema %d: body %q", schema, w.Body)
				}
				continue
			}
			wantStatus(t, w, http.StatusNoContent)
			x := s.stored()[0].Histograms[0]
			if got := x.Float(); got.Schema != min(schema, 8) || got.Count != 3 || got.Sum != 2 {
				t.Errorf("%s schema %d came back as %+v", name, schema, got)
			}
			if isFloat := x.FH != nil; isFloat != (name == "float") {
				t.Errorf("%s schema %d: float is %v", name, schema, isFloat)
			}
		}
	}
}

func TestHistogramDetailsSurvive(t *testing.T) {
	hs := []*histogram.Histogram{
		{CounterResetHint: histogram.GaugeType, Schema: 3, Count: 12, Sum: -3.25, ZeroCount: 2, ZeroThreshold: 0.001,
			PositiveSpans: []histogram.Span{{Offset: -2, Length: 2}, {Offset: 3, Length: 1}}, PositiveBuckets: []int64{1, 1, -1},
			NegativeSpans: []histogram.Span{{Offset: 0, Length: 2}}, NegativeBuckets: []int64{3, 0}},
		{CounterResetHint: histogram.CounterReset, Schema: 0, Count: 1, Sum: 1, ZeroCount: 1, ZeroThreshold: 1},
		{Schema: -53, Count: 4, Sum: 9, PositiveSpans: []histogram.Span{{Length: 3}}, PositiveBuckets: []int64{1, 0, 1}, CustomValues: []float64{1, 2}},
		{Sum: storage.StaleNaN},
	}
	s := newStack(t)
	b := newV2()
	var want []storage.Series
	for i, h := range hs {
		fh := h.ToFloat(nil)
		b.add(writev2.TimeSeries{Histograms: []writev2.Histogram{writev2.FromIntHistogram(0, s.now, h), writev2.FromFloatHistogram(0, s.now+1, fh)}}, "__name__", fmt.Sprint("h", i))
		want = append(want, storage.Series{Labels: storage.LabelsFromStrings("__name__", fmt.Sprint("h", i)),
			Histograms: []storage.HistogramSample{{T: s.now, H: h}, {T: s.now + 1, FH: fh}}})
	}
	wantStatus(t, s.writeV2(b.build()), http.StatusNoContent)
	s.wantStored(want...)
	if !s.stored()[3].Histograms[0].IsStale() {
		t.Error("the stale histogram is not stale any more")
	}
}

// GET on a write path is a health check (Vector), not a write.
func TestGetOnWritePaths(t *testing.T) {
	s := newStack(t)
	for _, path := range []string{"/api/v1/write", "/api/v1/push", "/api/prom/push"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		w := s.do(req)
		wantStatus(t, w, http.StatusOK)
		if w.Body.Len() != 0 {
			t.Errorf("%s: body %q", path, w.Body)
		}
		post := newPost(path, snappy.Encode(nil, mustMarshal(t, up(s))), "Content-Type", contentV2)
		wantStatus(t, s.do(post), http.StatusNoContent)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, "/api/v1/write", http.NoBody)
	wantStatus(t, s.do(req), http.StatusMethodNotAllowed)
}

func TestIsRemoteWrite(t *testing.T) {
	for _, tc := range []struct {
		header []string
		want   bool
	}{
		{nil, false},
		{[]string{"Content-Type", "application/json"}, false},
		{[]string{"Content-Type", "application/json", "Content-Encoding", "gzip"}, false},
		{[]string{"Content-Type", "application/x-ndjson"}, false},
		{[]string{"Content-Type", "application/x-protobuf"}, true},
		{[]string{"Content-Type", "application/x-protobuf;proto=nonsense"}, true},
		{[]string{"Content-Type", "application/json", "Content-Encoding", "snappy"}, true},
		{[]string{"Content-Type", "application/json", "X-Prometheus-Remote-Write-Version", "2.0.0"}, true},
		{[]string{"Content-Encoding", "snappy"}, true},
	} {
		if got := IsRemoteWrite(newPost("/api/v1/write", nil, tc.header...)); got != tc.want {
			t.Errorf("%v: %v", tc.header, got)
		}
	}
}

// A request of few bytes must not become a batch of gigabytes through its symbols.
func TestSymbolsCannotMultiplyWithoutBound(t *testing.T) {
	s := newStack(t, func(c *Config) { c.MaxBatchBytes = 1 << 20 })
	b := newV2()
	for range 2000 {
		b.add(v2Sample(s.now, 1), "__name__", "up", "a", strings.Repeat("x", 4000))
	}
	w := s.writeV2(b.build())
	wantStatus(t, w, http.StatusRequestEntityTooLarge)
	if !strings.Contains(w.Body.String(), "max-batch-bytes") {
		t.Errorf("body %q", w.Body)
	}
	s.wantStored()
}

// Writes under way are bounded: one more waits, and is told to come again.
func TestInFlightLimit(t *testing.T) {
	s := newStack(t, func(c *Config) { c.QueueTimeout = time.Millisecond; c.MaxInFlightBytes = c.MaxDecodedBytes })
	if !s.api.inFlight.TryAcquire(s.api.cfg.MaxInFlightBytes) {
		t.Fatal("not free")
	}
	w := s.writeV2(up(s))
	wantStatus(t, w, http.StatusServiceUnavailable)
	if w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "max-in-flight-bytes") {
		t.Errorf("%v %q", w.Header(), w.Body)
	}
	s.api.inFlight.Release(s.api.cfg.MaxInFlightBytes)
	wantStatus(t, s.writeV2(up(s)), http.StatusNoContent)
}

// What was refused before the store is handed to whoever keeps the tenant's list.
func TestOnRefused(t *testing.T) {
	var got []Refused
	s := newStack(t, func(c *Config) {
		c.OnRefused = func(tenant storage.Tenant, r Refused) { got = append(got, r) }
	})
	s.writeV2(newV2().add(v2Sample(s.now, 1), "a", "b").build())
	if len(got) != 1 || got[0].Reason != storage.ReasonInvalidLabels || got[0].Count != 1 || got[0].Message == "" {
		t.Errorf("told of %+v", got)
	}
}

// Both ways of reading a sample agree, in any order of the fields.
func TestSampleFields(t *testing.T) {
	var m easyproto.MarshalerPool
	for _, order := range []string{"vt", "tv", "vts", "stv", "v", "t", "s", "", "vvtt"} {
		mm := m.Get()
		out := mm.MessageMarshaler()
		var wantV float64
		var wantT, wantST int64
		for i, f := range order {
			switch f {
			case 'v':
				wantV = math.Copysign(0, -1) * float64(i+1)
				out.AppendDouble(1, wantV)
			case 't':
				wantT = -1_700_000_000_000 + int64(i)
				out.AppendInt64(2, wantT)
			case 's':
				wantST = 1_600_000_000_000
				out.AppendInt64(3, wantST)
			}
		}
		v, ts, st, err := sampleFields(mm.Marshal(nil))
		if err != nil || math.Float64bits(v) != math.Float64bits(wantV) || ts != wantT || st != wantST {
			t.Errorf("%q: %v %d %d %v", order, v, ts, st, err)
		}
	}
}

func TestEmptyMessages(t *testing.T) {
	s := newStack(t)
	for _, ct := range []string{contentV1, contentV2} {
		w := s.post(snappy.Encode(nil, nil), "Content-Type", ct)
		wantStatus(t, w, http.StatusNoContent)
		wantWritten(t, w, "0", "0", "0")
	}
	raw, err := base64.StdEncoding.DecodeString("KgA=") // one empty series
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(t, s.post(snappy.Encode(nil, raw), "Content-Type", contentV2), http.StatusBadRequest)
}
