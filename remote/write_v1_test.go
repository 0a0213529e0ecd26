package remote

import (
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/prompb"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

func TestV1StoresEverything(t *testing.T) {
	s := newStack(t)
	h := &histogram.Histogram{Schema: 1, Count: 3, Sum: 4.5, PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []int64{1, 1}}
	fh := &histogram.FloatHistogram{Schema: 0, Count: 3, Sum: 1, ZeroCount: 3, ZeroThreshold: 0.5}
	w := s.writeV1(&prompb.WriteRequest{
		Timeseries: []prompb.TimeSeries{
			{
				Labels:    labelsV1("__name__", "up", "job", "a"),
				Samples:   []prompb.Sample{{Timestamp: s.now, Value: 1}, {Timestamp: s.now + 1, Value: storage.StaleNaN}, {Timestamp: s.now + 2}},
				Exemplars: []prompb.Exemplar{{Labels: labelsV1("trace_id", "x"), Value: 0.5, Timestamp: s.now}, {Value: 2}},
			},
			{
				Labels:     labelsV1("__name__", "latency"),
				Histograms: []prompb.Histogram{prompb.FromIntHistogram(s.now, h), prompb.FromFloatHistogram(s.now+5, fh)},
			},
		},
		Metadata: []prompb.MetricMetadata{{MetricFamilyName: "up", Type: prompb.MetricMetadata_GAUGE, Help: "Is it up?", Unit: "bool"}},
	})
	wantStatus(t, w, http.StatusNoContent)
	if w.Body.Len() != 0 {
		t.Errorf("body %q, want none", w.Body)
	}
	wantWritten(t, w, "", "", "") // headers of 2.0
	now := float64(s.now)
	s.wantStored(
		storage.Series{Labels: storage.LabelsFromStrings("__name__", "latency"), Histograms: []storage.HistogramSample{{T: s.now, H: h}, {T: s.now + 5, FH: fh}}},
		floats(storage.LabelsFromStrings("__name__", "up", "job", "a"), now, 1, now+1, storage.StaleNaN, now+2, 0),
	)
	if bits := math.Float64bits(s.stored()[1].Samples[1].V); bits != 0x7ff0000000000002 {
		t.Errorf("the stale marker came back as %#x", bits)
	}
	if got, want := s.metadata(), (storage.Metadata{Metric: "up", Type: "gauge", Unit: "bool", Help: "Is it up?"}); len(got) != 1 || got[0] != want {
		t.Errorf("metadata %+v, want %+v", got, want)
	}
	ex := s.exemplars()
	if len(ex) != 1 || len(ex[0].Exemplars) != 2 || ex[0].Exemplars[0].Labels.Get("trace_id") != "x" && ex[0].Exemplars[1].Labels.Get("trace_id") != "x" {
		t.Fatalf("exemplars %+v", ex)
	}
	// One without a timestamp is of the sample it came with: the last.
	if last := ex[0].Exemplars[1]; last.T != s.now+2 || last.V != 2 {
		t.Errorf("exemplar without timestamp became %+v", last)
	}
}

// TestV1BadSeries: what is wrong with one series is told, and the others are stored.
func TestV1BadSeries(t *testing.T) {
	long := strings.Repeat("x", 5000)
	many := []string{"__name__", "m"}
	for i := range 64 {
		many = append(many, "l"+string(rune('A'+i/26))+string(rune('a'+i%26)), "v")
	}
	for _, tc := range []struct {
		name   string
		labels []prompb.Label
		want   string
	}{
		{"no metric name", labelsV1("job", "a"), `{job="a"}: no metric name`},
		{"no labels", nil, `{}: no metric name`},
		{"empty metric name", labelsV1("__name__", "", "job", "a"), `no metric name`},
		{"duplicate", labelsV1("__name__", "m", "a", "1", "a", "2"), `duplicate label "a"`},
		{"duplicate, same value", labelsV1("__name__", "m", "a", "1", "a", "1"), `duplicate label "a"`},
		{"duplicate, unsorted", labelsV1("a", "1", "__name__", "m", "a", "2"), `duplicate label "a"`},
		{"duplicate, one empty", labelsV1("__name__", "m", "a", "", "a", "2"), `duplicate label "a"`},
		{"empty name", labelsV1("__name__", "m", "", "1"), `a label with an empty name`},
		{"empty name first", labelsV1("", "1", "__name__", "m"), `a label with an empty name`},
		{"bad UTF-8 in value", labelsV1("__name__", "m", "a", "\xff"), `label "a" is not valid UTF-8`},
		{"bad UTF-8 in name", labelsV1("__name__", "m", "a\xff", "1"), `label "a\xff" is not valid UTF-8`},
		{"bad UTF-8 in long value", labelsV1("__name__", "m", "a", strings.Repeat("é", 200)+"\xc3"), `label "a" is not valid UTF-8`},
		{"long value", labelsV1("__name__", "m", "a", long), `the value of label "a" has 5000 bytes, at most 4096 are allowed`},
		{"long name", labelsV1("__name__", "m", long, "1"), `a label name has 5000 bytes, at most 1024 are allowed`},
		{"long metric name", labelsV1("__name__", long[:2000], "a", "1"), `the metric name has 2000 bytes, at most 1024 are allowed`},
		{"many labels", labelsV1(many...), `more than 64 labels`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStack(t)
			good := storage.LabelsFromStrings("__name__", "good")
			sample := []prompb.Sample{{Timestamp: s.now, Value: 1}}
			w := s.writeV1(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{
				{Labels: labelsV1("__name__", "good"), Samples: sample},
				{Labels: tc.labels, Samples: sample},
				{Labels: labelsV1("__name__", "good", "x", "1"), Samples: sample},
			}})
			wantStatus(t, w, http.StatusBadRequest)
			wantWritten(t, w, "", "", "") // headers of 2.0
			if body := w.Body.String(); !strings.Contains(body, tc.want) || !strings.Contains(body, "refused 1 of 3 samples") {
				t.Errorf("body %q does not tell %q", body, tc.want)
			}
			s.wantStored(floats(good, float64(s.now), 1), floats(storage.LabelsFromStrings("__name__", "good", "x", "1"), float64(s.now), 1))
		})
	}
}

// TestV1AcceptedLabels: what Prometheus takes is taken, in canonical form.
func TestV1AcceptedLabels(t *testing.T) {
	value127, value128 := strings.Repeat("v", 127), strings.Repeat("v", 128)
	for _, tc := range []struct {
		name   string
		labels []prompb.Label
		want   storage.Labels
	}{
		{"unsorted", labelsV1("job", "a", "__name__", "m", "b", "2"), storage.LabelsFromStrings("__name__", "m", "b", "2", "job", "a")},
		{"empty value", labelsV1("__name__", "m", "a", "", "b", "2"), storage.LabelsFromStrings("__name__", "m", "b", "2")},
		{"upper case sorts first", labelsV1("A", "1", "__name__", "m"), storage.LabelsFromStrings("A", "1", "__name__", "m")},
		{"UTF-8", labelsV1("__name__", "µ", "größe", "☃"), storage.LabelsFromStrings("__name__", "µ", "größe", "☃")},
		{"127 bytes", labelsV1("__name__", "m", "a", value127), storage.LabelsFromStrings("__name__", "m", "a", value127)},
		{"128 bytes", labelsV1("__name__", "m", "a", value128), storage.LabelsFromStrings("__name__", "m", "a", value128)},
		{"one-byte names", labelsV1("__name__", "m", "a", "1", "b", "2"), storage.LabelsFromStrings("__name__", "m", "a", "1", "b", "2")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStack(t)
			w := s.writeV1(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Labels: tc.labels, Samples: []prompb.Sample{{Timestamp: s.now, Value: 1}}}}})
			wantStatus(t, w, http.StatusNoContent)
			s.wantStored(floats(tc.want, float64(s.now), 1))
		})
	}
}

func TestV1SeriesWithoutElementsIsNothing(t *testing.T) {
	s := newStack(t)
	w := s.writeV1(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Labels: labelsV1("__name__", "m")}, {}}})
	wantStatus(t, w, http.StatusNoContent)
	s.wantStored()
}

// TestBadBodies: every malformed body has its status and says what is wrong.
func TestBadBodies(t *testing.T) {
	good, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels: labelsV1("__name__", "m", "a", "1"), Samples: []prompb.Sample{{Timestamp: 1, Value: 1}},
	}}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	compressed := snappy.Encode(nil, good)
	claim4GiB := append([]byte{0xff, 0xff, 0xff, 0xff, 0x0f}, compressed...)
	claimMore := append([]byte{0xff, 0xff, 0xff, 0xff, 0x7f}, compressed...)
	for _, tc := range []struct {
		name   string
		body   []byte
		status int
		want   string
	}{
		{"empty", nil, 400, "decompress"},
		{"truncated snappy", compressed[:len(compressed)-3], 400, "snappy: corrupt input"},
		{"claims 4 GiB", claim4GiB, 413, "decompresses to 4294967295 bytes, at most 33554432"},
		{"claims more than snappy can", claimMore, 400, "snappy: corrupt input"},
		{"claims what it cannot hold", append([]byte{0x80, 0x80, 0x80, 0x08}, compressed...), 400, "snappy: corrupt input"},
		{"framed snappy", []byte("\xff\x06\x00\x00sNaPpY\x00\x00\x00\x00\x00"), 400, "framed format"},
		{"not compressed", good, 400, "snappy"},
		{"broken protobuf", snappy.Encode(nil, good[:len(good)-1]), 400, "decode: write request"},
		{"broken inside", snappy.Encode(nil, []byte{0x0a, 0x03, 0x12, 0x05, 0x09}), 400, "series 0: decode: timeseries"},
		{"wrong wire type", snappy.Encode(nil, []byte{0x08, 0x01}), 400, "field 1 is not a message"},
		{"trailing garbage", snappy.Encode(nil, append(append([]byte{}, good...), 0xff)), 400, "decode: write request"},
		{"string where a label is", snappy.Encode(nil, []byte{0x0a, 0x04, 0x0a, 0x02, 0x08, 0x01}), 400, "label: field 1 is not a string"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStack(t)
			w := s.post(tc.body, "Content-Type", contentV1, "Content-Encoding", "snappy")
			wantStatus(t, w, tc.status)
			if !strings.Contains(w.Body.String(), tc.want) {
				t.Errorf("body %q does not tell %q", w.Body, tc.want)
			}
			wantWritten(t, w, "", "", "") // headers of 2.0
			s.wantStored()
		})
	}
}

func TestUnknownFieldsAreIgnored(t *testing.T) {
	s := newStack(t)
	req := &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Labels: labelsV1("__name__", "m"), Samples: []prompb.Sample{{Timestamp: s.now, Value: 1}}}}}
	b, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, 0xf8, 0x07, 0x01) // field 127, varint: of a later version
	w := s.post(snappy.Encode(nil, b), "Content-Type", contentV1, "Content-Encoding", "snappy")
	wantStatus(t, w, http.StatusNoContent)
	s.wantStored(floats(storage.LabelsFromStrings("__name__", "m"), float64(s.now), 1))
}

func TestSizeLimits(t *testing.T) {
	big := benchV1(100)
	for _, tc := range []struct {
		name string
		edit func(*Config)
		want string
	}{
		{"body", func(c *Config) { c.MaxBodyBytes = 100 }, "max-body-bytes"},
		{"decoded", func(c *Config) { c.MaxDecodedBytes = 1000 }, "max-decoded-bytes"},
		{"batch", func(c *Config) { c.MaxBatchBytes = 1000 }, "max-batch-bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStack(t, tc.edit)
			body := snappy.Encode(nil, big)
			wantStatus(t, s.post(body, "Content-Type", contentV1), http.StatusRequestEntityTooLarge)
			req := newPost("/api/v1/write", body, "Content-Type", contentV1)
			req.ContentLength = -1 // chunked: the length is not known before
			w := s.do(req)
			wantStatus(t, w, http.StatusRequestEntityTooLarge)
			if !strings.Contains(w.Body.String(), tc.want) {
				t.Errorf("body %q does not name %s", w.Body, tc.want)
			}
			s.wantStored()
		})
	}
}

// TestAnswersByKind: every kind of store error has one answer, and what is our fault
// is never a 4xx.
func TestAnswersByKind(t *testing.T) {
	want := map[storage.Kind]int{
		storage.KindInternal: 500, storage.KindInvalid: 400, storage.KindUnsupported: 400, storage.KindNotFound: 500,
		storage.KindLimited: 429, storage.KindTooLarge: 413, storage.KindUnavailable: 503, storage.KindTimeout: 503,
		storage.KindCanceled: 503,
	}
	for _, k := range storage.Kinds() {
		t.Run(k.String(), func(t *testing.T) {
			s := newStack(t)
			s.faulty.SetScript(storagetest.FailWith(k))
			w := s.writeV1(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Labels: labelsV1("__name__", "m"), Samples: []prompb.Sample{{Timestamp: s.now, Value: 1}}}}})
			status, ok := want[k]
			if !ok {
				t.Fatalf("kind %s has no answer", k)
			}
			wantStatus(t, w, status)
			wantWritten(t, w, "", "", "") // headers of 2.0
			if retry := w.Header().Get("Retry-After"); (status == 429 || status == 503) != (retry == "5") {
				t.Errorf("Retry-After %q with status %d", retry, status)
			}
			if leaks := strings.Contains(w.Body.String(), "scripted"); leaks != (status != 500) {
				t.Errorf("body %q with status %d", w.Body, status)
			}
		})
	}
}
