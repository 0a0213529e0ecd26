package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/luminate/luminate/storage"
)

// failingBody breaks off with an error.
type failingBody struct{ err error }

func (b failingBody) Read([]byte) (int, error) { return 0, b.err }
func (failingBody) Close() error               { return nil }

// TestBodiesThatBreakOff: who is at fault decides the status.
func TestBodiesThatBreakOff(t *testing.T) {
	for _, tc := range []struct {
		name   string
		body   func(http.ResponseWriter) io.ReadCloser
		status int
	}{
		{"cut", func(http.ResponseWriter) io.ReadCloser { return failingBody{io.ErrUnexpectedEOF} }, 400},
		{"deadline", func(http.ResponseWriter) io.ReadCloser {
			return failingBody{fmt.Errorf("read: %w", context.DeadlineExceeded)}
		}, 503},
		{"canceled", func(http.ResponseWriter) io.ReadCloser { return failingBody{context.Canceled} }, 503},
		{"limit of the middleware", func(w http.ResponseWriter) io.ReadCloser {
			return http.MaxBytesReader(w, io.NopCloser(strings.NewReader(strings.Repeat("x", 100))), 10)
		}, 413},
	} {
		for _, path := range []string{"/api/v1/write", "/api/v1/read", "/otlp/v1/metrics"} {
			t.Run(tc.name+path, func(t *testing.T) {
				s := newStack(t)
				req := newPost(path, nil, "Content-Type", protobufType)
				req.ContentLength = -1
				req.Body = tc.body(nil)
				wantStatus(t, s.do(req), tc.status)
			})
		}
	}
}

// refusing answers with refusals of the test's choice.
type refusing struct {
	storage.Store
	res storage.AppendResult
}

func (r refusing) Append(context.Context, storage.Tenant, *storage.Batch) (storage.AppendResult, error) {
	return r.res, nil
}

// TestRefusalsOfTheStore: whatever a store refuses is counted as what it is, and named
// by its series even where the store gives no text.
func TestRefusalsOfTheStore(t *testing.T) {
	h := &histogram.Histogram{Count: 1, ZeroCount: 1, ZeroThreshold: 1}
	for _, tc := range []struct {
		refusal storage.Refusal
		want    []string
	}{
		{storage.Refusal{Sample: 1, Reason: storage.ReasonTooOld}, []string{"refused 1 of 2 samples;", "too_old 1", `series {__name__="m"}: too_old`}},
		{storage.Refusal{Sample: 0, Histogram: true, Reason: storage.ReasonTooFarAhead, Message: "in the year 2200"}, []string{"refused 1 of 1 histograms;", `series {__name__="m"}: in the year 2200`}},
		{storage.Refusal{Sample: 0, Exemplar: true, Reason: storage.ReasonInvalidValue}, []string{"refused 1 of 1 exemplars;"}},
		{storage.Refusal{Sample: -1, Reason: storage.ReasonSeriesLimit, Message: `no more series: {__name__="m"}`},
			[]string{"refused 2 of 2 samples, 1 of 1 histograms, 1 of 1 exemplars;", "series_limit 4", "\nno more series: {__name__=\"m\"}"}},
	} {
		s := newStack(t)
		s.api.store = refusing{s.model, storage.AppendResult{Samples: 7, Refused: []storage.Refusal{tc.refusal}}}
		ts := writev2.TimeSeries{
			Samples:    []writev2.Sample{{Timestamp: s.now}, {Timestamp: s.now + 1}},
			Histograms: []writev2.Histogram{prompbHistogram(s.now+2, h)},
			Exemplars:  []writev2.Exemplar{{Timestamp: s.now, Value: 1}},
		}
		w := s.writeV2(newV2().add(ts, "__name__", "m").build())
		wantStatus(t, w, http.StatusBadRequest)
		wantWritten(t, w, "7", "0", "0")
		for _, want := range tc.want {
			if !strings.Contains(w.Body.String(), want) {
				t.Errorf("body does not tell %q:\n%s", want, w.Body)
			}
		}
	}
}

// TestOTLPRefusalsOfTheStore: a data point that was refused in many parts is one.
func TestOTLPRefusalsOfTheStore(t *testing.T) {
	s := newStack(t)
	o := everyKind(s)
	batch := &storage.Batch{}
	app := newBatchAppender(batch, DefaultConfig().Shape, maxMessageBytes)
	if err := s.api.translate(t.Context(), o.md, app, &rejections{}); err != nil {
		t.Fatal(err)
	}
	app.finish()
	var res storage.AppendResult
	for i := range batch.Series {
		res.Refused = append(res.Refused, storage.Refusal{Series: i, Sample: -1, Reason: storage.ReasonSeriesLimit})
	}
	s.api.store = refusing{s.model, res}
	if points, message := s.sendOTLP(o); points != 5 || !strings.Contains(message, "; and 2 more") {
		t.Errorf("rejected %d: %s", points, message)
	}
	res.Refused = res.Refused[:0]
	for i := range batch.Series {
		v := batch.At(i)
		for j, x := range v.Samples {
			res.Refused = append(res.Refused, storage.Refusal{Series: i, Sample: j, T: x.T, Reason: storage.ReasonTooOld})
		}
	}
	s.api.store = refusing{s.model, res}
	if points, _ := s.sendOTLP(o); points != 4 {
		t.Errorf("rejected %d, all but the native histogram are 4", points)
	}
}

func TestManyRefusalsAreCountedNotListed(t *testing.T) {
	s := newStack(t)
	b := newV2()
	for i := range 500 {
		b.add(v2Sample(s.now, 1), "bad", fmt.Sprint(i), "long", strings.Repeat("y", 700))
	}
	w := s.writeV2(b.build())
	wantStatus(t, w, http.StatusBadRequest)
	body := w.Body.String()
	if !strings.HasPrefix(body, "refused 500 of 500 samples; the rest is stored; reasons: invalid_labels 500\n") ||
		!strings.Contains(body, "and 490 more") || strings.Count(body, "\n") != maxNamedRefusals+2 || len(body) > 3000 {
		t.Errorf("%d bytes: %s", len(body), body)
	}
}

func TestMetadataIsMended(t *testing.T) {
	s := newStack(t)
	long := strings.Repeat("é", 3000)
	w := s.writeV1(&prompb.WriteRequest{Metadata: []prompb.MetricMetadata{
		{MetricFamilyName: "long", Help: long, Type: 99},
		{MetricFamilyName: "broken", Help: "a\xffb", Unit: "\xff"},
	}})
	wantStatus(t, w, http.StatusNoContent)
	want := []storage.Metadata{{Metric: "broken", Type: "unknown", Help: "a\uFFFDb", Unit: "\uFFFD"}, {Metric: "long", Type: "unknown", Help: strings.Repeat("é", 2048)}}
	if got := s.metadata(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("metadata %+v", got)
	}
	w = s.writeV1(&prompb.WriteRequest{Metadata: []prompb.MetricMetadata{{Help: "of what?"}}})
	wantStatus(t, w, http.StatusBadRequest)
	if !strings.Contains(w.Body.String(), "metadata without a usable metric name") {
		t.Errorf("body %q", w.Body)
	}
}

// TestReferencesInSeveralFields: protobuf allows a packed list to come in parts, and
// unpacked.
func TestReferencesInSeveralFields(t *testing.T) {
	s := newStack(t)
	symbols := mustMarshal(t, &writev2.Request{Symbols: []string{"", "__name__", "up", "a", "1"}})
	sample := mustMarshal(t, &writev2.TimeSeries{Samples: v2Sample(s.now, 1).Samples})
	want := storage.LabelsFromStrings("__name__", "up", "a", "1")
	for name, refs := range map[string][]byte{
		"packed":            {0x0a, 4, 1, 2, 3, 4},
		"two packed":        {0x0a, 2, 1, 2, 0x0a, 2, 3, 4},
		"split in a pair":   {0x0a, 3, 1, 2, 3, 0x0a, 1, 4},
		"unpacked":          {0x08, 1, 0x08, 2, 0x08, 3, 0x08, 4},
		"packed, unpacked":  {0x0a, 2, 1, 2, 0x08, 3, 0x08, 4},
		"unpacked, packed":  {0x08, 1, 0x08, 2, 0x0a, 2, 3, 4},
		"long numbers":      {0x0a, 8, 0x81, 0x80, 0x80, 0x80, 0, 2, 3, 4},
		"three-byte number": {0x0a, 6, 0x81, 0x80, 0, 2, 3, 4},
		"unsorted":          {0x0a, 4, 3, 4, 1, 2},
	} {
		series := append(append([]byte{}, refs...), sample...)
		body := append(append([]byte{}, symbols...), append([]byte{0x2a, byte(len(series))}, series...)...)
		s := newStack(t)
		w := s.post(snappy.Encode(nil, body), "Content-Type", contentV2)
		if w.Code != http.StatusNoContent {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
			continue
		}
		if got := s.stored(); len(got) != 1 || string(got[0].Labels) != string(want) {
			t.Errorf("%s: stored %+v", name, got)
		}
	}
}

// TestSymbolTableIsBounded: empty symbols cost a sender two bytes each.
func TestSymbolTableIsBounded(t *testing.T) {
	s := newStack(t, func(c *Config) { c.MaxBatchBytes = 10_000 })
	for name, symbols := range map[string][]byte{"short": []byte(strings.Repeat("\x22\x00", 5000)), "long": []byte(strings.Repeat("\x22\x80\x01"+strings.Repeat("x", 128), 1000))} {
		w := s.post(snappy.Encode(nil, append([]byte("\x22\x00"), symbols...)), "Content-Type", contentV2)
		if w.Code != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

// TestOTLPPruneKinds: a bad point of any kind of metric is taken out alone.
func TestOTLPPruneKinds(t *testing.T) {
	s := newStack(t)
	o := newOTLP(s)
	// An attribute without a name has no label name.
	bad := func(attributes pcommon.Map) { attributes.PutStr("", "x") }
	gauge := o.metric("g").SetEmptyGauge().DataPoints()
	sum := o.metric("s").SetEmptySum()
	hist := o.metric("h").SetEmptyHistogram()
	exp := o.metric("e").SetEmptyExponentialHistogram()
	summary := o.metric("q").SetEmptySummary().DataPoints()
	sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	hist.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	exp.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	for i := range 3 {
		ts := o.t - pcommon.Timestamp(i)*pcommon.Timestamp(time.Second)
		points := []interface {
			Attributes() pcommon.Map
			SetTimestamp(pcommon.Timestamp)
		}{gauge.AppendEmpty(), sum.DataPoints().AppendEmpty(), hist.DataPoints().AppendEmpty(), exp.DataPoints().AppendEmpty(), summary.AppendEmpty()}
		for _, p := range points {
			p.SetTimestamp(ts)
			if i == 1 {
				bad(p.Attributes())
			}
		}
	}
	points, message := s.sendOTLP(o)
	if points != 5 {
		t.Fatalf("rejected %d: %s", points, message)
	}
	got := map[string]int{}
	for _, x := range s.stored() {
		got[x.Labels.Metric()] += len(x.Samples) + len(x.Histograms)
	}
	for _, name := range []string{"g", "s", "h_count", "h_bucket", "e", "q_sum", "q_count"} {
		if got[name] != 2 {
			t.Errorf("%s has %d samples, want 2", name, got[name])
		}
	}
}

// TestOTLPExemplars: without a time an exemplar has its point's, and a bad one does not
// take the point with it.
func TestOTLPExemplars(t *testing.T) {
	s := newStack(t)
	o := newOTLP(s)
	o.sum("s", pmetric.AggregationTemporalityCumulative, 1)
	es := o.sm.Metrics().At(0).Sum().DataPoints().At(0).Exemplars()
	for _, value := range []string{"good", "\xff"} {
		e := es.AppendEmpty()
		e.SetIntValue(3)
		e.FilteredAttributes().PutStr("a", value)
	}
	points, message := s.sendOTLP(o)
	if points != 0 || !strings.Contains(message, "the labels of an exemplar are not valid UTF-8") {
		t.Errorf("rejected %d: %s", points, message)
	}
	got := s.exemplars()
	if len(got) != 1 || len(got[0].Exemplars) != 1 || got[0].Exemplars[0].T != s.now || got[0].Exemplars[0].Labels.Get("a") != "good" {
		t.Errorf("exemplars %+v", got)
	}
}

// TestCanceledRequestsAreNoSuccess: a client that goes away is not told anything, but
// what is answered is a status to retry.
func TestCanceledRequestsAreNoSuccess(t *testing.T) {
	s := newStack(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := everyKind(s)
	wantStatus(t, s.do(newPost("/otlp/v1/metrics", o.proto(t), "Content-Type", protobufType).WithContext(ctx)), http.StatusServiceUnavailable)
	if err := pruneBadPoints(ctx, o.md, s.api.cfg.OTLP.settings(), &rejections{}); !errors.Is(err, context.Canceled) {
		t.Errorf("pruning went on: %v", err)
	}
	body := snappy.Encode(nil, mustMarshal(t, up(s)))
	wantStatus(t, s.do(newPost("/api/v1/write", body, "Content-Type", contentV2).WithContext(ctx)), http.StatusServiceUnavailable)
	s.wantStored()
}
