package remote

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/luminate/luminate/storage"
)

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

// "custom_values [...] MUST be set for schema -53" and "MUST be empty" for every other:
// bounds and counts of custom buckets survive, wrong bounds are refused.
func TestSpec_CustomBuckets(t *testing.T) {
	s := newStack(t)
	good := histogram.Histogram{Schema: -53, Count: 6, Sum: 9, PositiveSpans: []histogram.Span{{Length: 1}, {Offset: 1, Length: 1}}, PositiveBuckets: []int64{2, 2}, CustomValues: []float64{-1, 0.5}}
	bounds := func(values ...float64) *histogram.Histogram {
		h := *good.Copy()
		h.CustomValues = values
		return &h
	}
	exponential := bounds(1)
	exponential.Schema = 2
	for name, h := range map[string]*histogram.Histogram{
		"falling": bounds(2, 1), "twice": bounds(1, 1), "NaN": bounds(1, math.NaN()), "infinite": bounds(1, math.Inf(1)),
		"too few": bounds(), "of another schema": exponential,
	} {
		for kind, wire := range map[string]writev2.Histogram{"int": writev2.FromIntHistogram(0, s.now, h), "float": writev2.FromFloatHistogram(0, s.now, h.ToFloat(nil))} {
			wire.CustomValues = h.CustomValues // the encoder leaves them out of other schemas
			w := s.writeV2(newV2().add(writev2.TimeSeries{Histograms: []writev2.Histogram{wire}}, "__name__", "h").build())
			if w.Code != http.StatusBadRequest {
				t.Errorf("bounds %s, %s: %d %s", name, kind, w.Code, w.Body)
			}
		}
	}
	b := newV2().add(writev2.TimeSeries{Histograms: []writev2.Histogram{
		writev2.FromIntHistogram(0, s.now, &good), writev2.FromFloatHistogram(0, s.now+1, good.ToFloat(nil)),
	}}, "__name__", "h")
	wantStatus(t, s.writeV2(b.build()), http.StatusNoContent)
	s.wantStored(storage.Series{Labels: storage.LabelsFromStrings("__name__", "h"),
		Histograms: []storage.HistogramSample{{T: s.now, H: &good}, {T: s.now + 1, FH: good.ToFloat(nil)}}})
}

// "reset_hint [...] tells about a counter reset": every hint is stored as it was sent.
func TestSpec_ResetHints(t *testing.T) {
	s := newStack(t)
	h := histogram.Histogram{Count: 1, Sum: 1, ZeroCount: 1, ZeroThreshold: 1}
	b := newV2()
	var want []histogram.CounterResetHint
	for hint := range writev2.Histogram_ResetHint_name {
		want = append(want, histogram.CounterResetHint(hint))
		wire := writev2.FromIntHistogram(0, s.now+int64(hint), &h)
		wire.ResetHint = writev2.Histogram_ResetHint(hint)
		float := writev2.FromFloatHistogram(0, s.now+int64(hint), h.ToFloat(nil))
		float.ResetHint = wire.ResetHint
		b.add(writev2.TimeSeries{Histograms: []writev2.Histogram{wire}}, "__name__", "int")
		b.add(writev2.TimeSeries{Histograms: []writev2.Histogram{float}}, "__name__", "float")
	}
	slices.Sort(want)
	wantStatus(t, s.writeV2(b.build()), http.StatusNoContent)
	for _, x := range s.stored() {
		var got []histogram.CounterResetHint
		for _, y := range x.Histograms {
			if y.FH != nil {
				got = append(got, y.FH.CounterResetHint)
			} else {
				got = append(got, y.H.CounterResetHint)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: hints %v, want %v", x.Labels, got, want)
		}
	}
}
