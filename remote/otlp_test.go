package remote

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/luminate/luminate/storage"
)

// otlpMetrics builds a request with one resource and scope.
type otlpMetrics struct {
	md pmetric.Metrics
	sm pmetric.ScopeMetrics
	t  pcommon.Timestamp
}

func newOTLP(s *stack) *otlpMetrics {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", "shop")
	rm.Resource().Attributes().PutStr("service.instance.id", "pod-1")
	rm.Resource().Attributes().PutStr("cloud.region", "eu")
	sm := rm.ScopeMetrics().AppendEmpty()
	sm.Scope().SetName("lib")
	sm.Scope().SetVersion("1.2")
	return &otlpMetrics{md: md, sm: sm, t: pcommon.NewTimestampFromTime(time.UnixMilli(s.now))}
}

func (o *otlpMetrics) metric(name string) pmetric.Metric {
	m := o.sm.Metrics().AppendEmpty()
	m.SetName(name)
	return m
}

func (o *otlpMetrics) gauge(name string, v float64) pmetric.NumberDataPoint {
	dp := o.metric(name).SetEmptyGauge().DataPoints().AppendEmpty()
	dp.SetTimestamp(o.t)
	dp.SetDoubleValue(v)
	return dp
}

func (o *otlpMetrics) sum(name string, temporality pmetric.AggregationTemporality, values ...int64) {
	sum := o.metric(name).SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(temporality)
	for i, v := range values {
		dp := sum.DataPoints().AppendEmpty()
		dp.SetTimestamp(o.t)
		dp.SetStartTimestamp(o.t - pcommon.Timestamp(time.Minute))
		dp.SetIntValue(v)
		dp.Attributes().PutInt("i", int64(i))
	}
}

func (o *otlpMetrics) proto(t testing.TB) []byte {
	t.Helper()
	b, err := pmetricotlp.NewExportRequestFromMetrics(o.md).MarshalProto()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (o *otlpMetrics) json(t testing.TB) []byte {
	t.Helper()
	b, err := pmetricotlp.NewExportRequestFromMetrics(o.md).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s *stack) postOTLP(body []byte, header ...string) *httptest.ResponseRecorder {
	s.tb.Helper()
	return s.do(newPost("/api/v1/otlp/v1/metrics", body, header...))
}

func (s *stack) sendOTLP(o *otlpMetrics) (points int64, message string) {
	s.tb.Helper()
	w := s.postOTLP(o.proto(s.tb), "Content-Type", "application/x-protobuf")
	wantStatus(s.tb, w, http.StatusOK)
	resp := pmetricotlp.NewExportResponse()
	if err := resp.UnmarshalProto(w.Body.Bytes()); err != nil {
		s.tb.Fatal(err)
	}
	return resp.PartialSuccess().RejectedDataPoints(), resp.PartialSuccess().ErrorMessage()
}

// storedNames lists what is stored as "name{label=value,…} last-value".
func (s *stack) storedText() (out []string) {
	for _, x := range s.stored() {
		v := "histogram"
		if n := len(x.Samples); n > 0 {
			v = fmt.Sprint(x.Samples[n-1].V)
		}
		out = append(out, x.Labels.String()+" "+v)
	}
	slices.Sort(out)
	return out
}

// everyKind is a request with a metric of every kind.
func everyKind(s *stack) *otlpMetrics {
	o := newOTLP(s)
	o.gauge("queue.depth", 7.5).Attributes().PutStr("queue.name", "mail")
	o.sum("orders", pmetric.AggregationTemporalityCumulative, 3)
	h := o.metric("latency")
	h.SetUnit("s")
	h.SetDescription("How long it took.")
	hist := h.SetEmptyHistogram()
	hist.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	dp := hist.DataPoints().AppendEmpty()
	dp.SetTimestamp(o.t)
	dp.SetCount(3)
	dp.SetSum(4)
	dp.ExplicitBounds().FromRaw([]float64{0.5, 1})
	dp.BucketCounts().FromRaw([]uint64{1, 1, 1})
	ex := dp.Exemplars().AppendEmpty()
	ex.SetDoubleValue(0.7)
	ex.SetTimestamp(o.t)
	ex.SetTraceID([16]byte{1, 2, 3})
	exp := o.metric("size").SetEmptyExponentialHistogram()
	exp.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	edp := exp.DataPoints().AppendEmpty()
	edp.SetTimestamp(o.t)
	edp.SetScale(10) // finer than is stored
	edp.SetCount(4)
	edp.SetSum(10)
	edp.Positive().BucketCounts().FromRaw([]uint64{1, 2, 1})
	sum := o.metric("rpc").SetEmptySummary().DataPoints().AppendEmpty()
	sum.SetTimestamp(o.t)
	sum.SetCount(2)
	sum.SetSum(3)
	q := sum.QuantileValues().AppendEmpty()
	q.SetQuantile(0.9)
	q.SetValue(1.5)
	return o
}

func TestOTLPKinds(t *testing.T) {
	s := newStack(t)
	if points, message := s.sendOTLP(everyKind(s)); points != 0 || message != "" {
		t.Errorf("rejected %d: %s", points, message)
	}
	want := []string{
		`{__name__="latency_seconds_bucket", instance="pod-1", job="shop", le="+Inf"} 3`,
		`{__name__="latency_seconds_bucket", instance="pod-1", job="shop", le="0.5"} 1`,
		`{__name__="latency_seconds_bucket", instance="pod-1", job="shop", le="1"} 2`,
		`{__name__="latency_seconds_count", instance="pod-1", job="shop"} 3`,
		`{__name__="latency_seconds_sum", instance="pod-1", job="shop"} 4`,
		`{__name__="orders_total", i="0", instance="pod-1", job="shop"} 3`,
		`{__name__="queue_depth", instance="pod-1", job="shop", queue_name="mail"} 7.5`,
		`{__name__="rpc", instance="pod-1", job="shop", quantile="0.9"} 1.5`,
		`{__name__="rpc_count", instance="pod-1", job="shop"} 2`,
		`{__name__="rpc_sum", instance="pod-1", job="shop"} 3`,
		`{__name__="size", instance="pod-1", job="shop"} histogram`,
		`{__name__="target_info", cloud_region="eu", instance="pod-1", job="shop"} 1`,
	}
	if got := s.storedText(); !slices.Equal(got, want) {
		t.Errorf("stored:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, x := range s.stored() {
		switch x.Labels.Metric() {
		case "orders_total":
			if len(x.STs) != 1 || x.STs[0] != s.now-60_000 {
				t.Errorf("start timestamps %v", x.STs)
			}
		case "size":
			if h := x.Histograms[0].H; h == nil || h.Schema != 8 || h.Count != 4 {
				t.Errorf("native histogram %+v", x.Histograms[0])
			}
		}
	}
	exemplars := s.exemplars()
	if len(exemplars) != 1 || exemplars[0].Labels.Get("le") != "1" || !strings.HasPrefix(exemplars[0].Exemplars[0].Labels.Get("trace_id"), "010203") {
		t.Errorf("exemplars %+v", exemplars)
	}
	found := false
	for _, m := range s.metadata() {
		found = found || m == storage.Metadata{Metric: "latency_seconds", Type: "histogram", Unit: "seconds", Help: "How long it took."}
	}
	if !found {
		t.Errorf("metadata %+v", s.metadata())
	}
}

func TestOTLPTranslation(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(*OTLPConfig)
		want string
	}{
		{"default", func(*OTLPConfig) {}, `{__name__="http_requests_total", instance="pod-1", job="shop", url_path="/"} 1`},
		{"no suffixes", func(c *OTLPConfig) { c.TranslationStrategy = otlptranslator.UnderscoreEscapingWithoutSuffixes }, `{__name__="http_requests", instance="pod-1", job="shop", url_path="/"} 1`},
		{"UTF-8", func(c *OTLPConfig) { c.TranslationStrategy = otlptranslator.NoUTF8EscapingWithSuffixes }, `{__name__="http.requests_total", instance="pod-1", job="shop", "url.path"="/"} 1`},
		{"none", func(c *OTLPConfig) { c.TranslationStrategy = otlptranslator.NoTranslation }, `{__name__="http.requests", instance="pod-1", job="shop", "url.path"="/"} 1`},
		{"promoted", func(c *OTLPConfig) { c.PromoteResourceAttributes = []string{"cloud.region"} }, `{__name__="http_requests_total", cloud_region="eu", instance="pod-1", job="shop", url_path="/"} 1`},
		{"all promoted but", func(c *OTLPConfig) {
			c.PromoteAllResourceAttributes = true
			c.IgnoreResourceAttributes = []string{"service.name", "service.instance.id"}
		}, `{__name__="http_requests_total", cloud_region="eu", instance="pod-1", job="shop", url_path="/"} 1`},
		{"scope", func(c *OTLPConfig) { c.PromoteScopeMetadata = true }, `{__name__="http_requests_total", instance="pod-1", job="shop", otel_scope_name="lib", otel_scope_version="1.2", url_path="/"} 1`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStack(t, func(c *Config) { tc.edit(&c.OTLP) })
			o := newOTLP(s)
			sum := o.metric("http.requests").SetEmptySum()
			sum.SetIsMonotonic(true)
			sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			dp := sum.DataPoints().AppendEmpty()
			dp.SetTimestamp(o.t)
			dp.SetIntValue(1)
			dp.Attributes().PutStr("url.path", "/")
			if points, message := s.sendOTLP(o); points != 0 {
				t.Fatalf("rejected %d: %s", points, message)
			}
			var got []string
			for _, l := range s.storedText() {
				if !strings.Contains(l, "target_info") {
					got = append(got, l)
				}
			}
			if len(got) != 1 || got[0] != tc.want {
				t.Errorf("stored %v, want %s", got, tc.want)
			}
		})
	}
}

func TestOTLPNHCB(t *testing.T) {
	s := newStack(t, func(c *Config) { c.OTLP.ConvertHistogramsToNHCB = true })
	o := newOTLP(s)
	hist := o.metric("latency").SetEmptyHistogram()
	hist.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	dp := hist.DataPoints().AppendEmpty()
	dp.SetTimestamp(o.t)
	dp.SetCount(3)
	dp.SetSum(4)
	dp.ExplicitBounds().FromRaw([]float64{0.5, 1})
	dp.BucketCounts().FromRaw([]uint64{1, 1, 1})
	if points, message := s.sendOTLP(o); points != 0 {
		t.Fatalf("rejected %d: %s", points, message)
	}
	stored := s.stored()
	if len(stored) != 2 || len(stored[0].Histograms) != 1 || stored[0].Histograms[0].H.Schema != -53 {
		t.Errorf("stored %+v", stored)
	}
}

// TestOTLPPartialSuccess: what cannot be stored is counted in data points and named,
// and everything else is stored.
func TestOTLPPartialSuccess(t *testing.T) {
	for _, tc := range []struct {
		name   string
		add    func(*otlpMetrics)
		points int64
		want   string
	}{
		{"delta", func(o *otlpMetrics) { o.sum("d", pmetric.AggregationTemporalityDelta, 1, 2, 3) }, 3, `metric "d" has delta temporality, which is not stored: send cumulative`},
		{"no temporality", func(o *otlpMetrics) { o.sum("u", pmetric.AggregationTemporalityUnspecified, 1) }, 1, "no aggregation temporality"},
		{"no data", func(o *otlpMetrics) { o.metric("e") }, 0, `metric "e" has no data`},
		{"no name", func(o *otlpMetrics) { o.gauge("", 1) }, 1, `metric ""`},
		{"scale", func(o *otlpMetrics) {
			h := o.metric("x").SetEmptyExponentialHistogram()
			h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			for _, scale := range []int32{-5, 3, -6} {
				dp := h.DataPoints().AppendEmpty()
				dp.SetTimestamp(o.t)
				dp.SetScale(scale)
				dp.Attributes().PutInt("scale", int64(scale))
			}
		}, 2, "Scale must be >= -4"},
		{"count", func(o *otlpMetrics) {
			h := o.metric("x").SetEmptyExponentialHistogram()
			h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			dp := h.DataPoints().AppendEmpty()
			dp.SetTimestamp(o.t)
			dp.SetCount(1)
			dp.Positive().BucketCounts().FromRaw([]uint64{5, 6})
		}, 1, "observations found in buckets"},
		{"long value", func(o *otlpMetrics) { o.gauge("long", 1).Attributes().PutStr("a", strings.Repeat("x", 5000)) }, 1, `the value of label "a" has 5000 bytes`},
		{"bad UTF-8", func(o *otlpMetrics) { o.gauge("utf", 1).Attributes().PutStr("a", "\xff") }, 1, `label "a" is not valid UTF-8`},
		{"too old for the store", func(o *otlpMetrics) {
			m := o.metric("old").SetEmptyHistogram()
			m.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			dp := m.DataPoints().AppendEmpty()
			dp.SetTimestamp(o.t - pcommon.Timestamp(400*24*time.Hour))
			dp.SetCount(2)
			dp.ExplicitBounds().FromRaw([]float64{1})
			dp.BucketCounts().FromRaw([]uint64{1, 1})
		}, 1, "old"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStack(t)
			o := newOTLP(s)
			o.gauge("before", 1)
			tc.add(o)
			o.gauge("after", 2)
			points, message := s.sendOTLP(o)
			if points != tc.points || !strings.Contains(message, tc.want) {
				t.Errorf("rejected %d with %q, want %d and %q", points, message, tc.points, tc.want)
			}
			text := strings.Join(s.storedText(), "\n")
			for _, name := range []string{"before", "after"} {
				if !strings.Contains(text, `__name__="`+name+`"`) {
					t.Errorf("%s is not stored:\n%s", name, text)
				}
			}
		})
	}
}

// What the translator finds odd is counted; the client is not told that anything was
// rejected.
func TestOTLPWarningsAreCounted(t *testing.T) {
	s := newStack(t)
	o := newOTLP(s)
	dp := o.gauge("g", 1)
	dp.Attributes().PutStr("a.b", "1")
	dp.Attributes().PutStr("a/b", "2")
	if points, message := s.sendOTLP(o); points != 0 || message != "" {
		t.Errorf("rejected %d: %s", points, message)
	}
	if n := testutil.ToFloat64(s.api.metrics.otlpWarns.WithLabelValues("label_name_collision")); n != 1 {
		t.Errorf("%v warnings", n)
	}
	if text := strings.Join(s.storedText(), "\n"); !strings.Contains(text, `a_b="1;2"`) {
		t.Errorf("stored %s", text)
	}
}

// TestMetrics: what is received and refused is counted by protocol and reason.
func TestMetrics(t *testing.T) {
	s := newStack(t)
	s.writeV2(newV2().add(v2Sample(s.now, 1), "__name__", "up").add(v2Sample(s.now, 1), "a", "b").build())
	s.sendOTLP(newOTLP(s))
	m := s.api.metrics
	for what, got := range map[string]float64{
		"requests": testutil.ToFloat64(m.requests.WithLabelValues("rw2", "400")),
		"otlp":     testutil.ToFloat64(m.requests.WithLabelValues("otlp", "200")),
		"samples":  testutil.ToFloat64(m.samples.WithLabelValues("rw2", "sample")),
		"refused":  testutil.ToFloat64(m.refused.WithLabelValues("invalid_labels")),
	} {
		if got != 1 {
			t.Errorf("%s: %v", what, got)
		}
	}
	if testutil.ToFloat64(m.bodyBytes.WithLabelValues("rw2")) < 10 {
		t.Error("no body bytes")
	}
}
