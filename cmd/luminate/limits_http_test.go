package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
	"github.com/luminate/luminate/tenancy"
	promwrite "github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

// wire is a request as a protocol sends it.
type wire struct {
	method, path string
	headers      []string
	body         []byte
	chunked      bool // without a Content-Length
}

// writesOf encodes n series, each with a label value of the length, at t, in every
// protocol of writing.
func writesOf(t testing.TB, n, length int, at time.Time) map[string]wire {
	t.Helper()
	value := func(i int) string { return fmt.Sprintf("%0*d", length, i) }
	var json bytes.Buffer
	var symbols = writev2.NewSymbolTable()
	var v2 writev2.Request
	otlp := pmetric.NewMetrics()
	points := otlp.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	points.SetName("wide")
	gauge := points.SetEmptyGauge()
	for i := range n {
		fmt.Fprintf(&json, `,{"name":"wide","timestamp":%d,"value":1,"dimensions":{"a":"%s"}}`, at.UnixMilli(), value(i))
		series := writev2.TimeSeries{Samples: []writev2.Sample{{Timestamp: at.UnixMilli(), Value: 1}}}
		for _, s := range []string{"__name__", "wide", "a", value(i)} {
			series.LabelsRefs = append(series.LabelsRefs, symbols.Symbolize(s))
		}
		v2.Timeseries = append(v2.Timeseries, series)
		p := gauge.DataPoints().AppendEmpty()
		p.SetDoubleValue(1)
		p.SetTimestamp(pcommon.NewTimestampFromTime(at))
		p.Attributes().PutStr("a", value(i))
	}
	v2.Symbols = symbols.Symbols()
	two, err := v2.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	export, err := pmetricotlp.NewExportRequestFromMetrics(otlp).MarshalProto()
	if err != nil {
		t.Fatal(err)
	}
	zipped := func(b []byte) []byte {
		var out bytes.Buffer
		z := gzip.NewWriter(&out)
		_, _ = z.Write(b)
		_ = z.Close()
		return out.Bytes()
	}
	text := []byte(`{"metrics":[` + json.String()[1:] + "]}")
	return map[string]wire{
		"remote write 1": {"POST", "/api/v1/write", []string{"Content-Type", "application/x-protobuf", "Content-Encoding", "snappy", "X-Prometheus-Remote-Write-Version", "0.1.0"},
			writeBodyOf(t, n, value, at), false},
		"remote write 2": {"POST", "/api/v1/write", []string{"Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request", "Content-Encoding", "snappy",
			"X-Prometheus-Remote-Write-Version", "2.0.0"}, snappy.Encode(nil, two), false},
		"OTLP":   {"POST", "/api/v1/otlp/v1/metrics", []string{"Content-Type", "application/x-protobuf", "Content-Encoding", "gzip"}, zipped(export), false},
		"native": {"POST", "/api/v1/write", []string{"Content-Type", "application/json", "Content-Encoding", "gzip"}, zipped(text), false},
	}
}

// reads asks for everything, on every API that reads.
func reads() map[string]wire {
	now := time.Now().UnixMilli()
	form := url.Values{"query": {`sum by (a) (wide)`}}.Encode()
	plain := url.Values{"query": {`wide`}, "start": {fmt.Sprint(now/1000 - 60)}, "end": {fmt.Sprint(now / 1000)}, "step": {"60"}}.Encode()
	return map[string]wire{
		"PromQL instant": {"POST", "/api/v1/query", []string{"Content-Type", "application/x-www-form-urlencoded"}, []byte(form), false},
		"PromQL range":   {"POST", "/api/v1/query_range", []string{"Content-Type", "application/x-www-form-urlencoded"}, []byte(plain), false},
		"native query": {"POST", "/api/v1/query", []string{"Content-Type", "application/json"},
			fmt.Appendf(nil, `{"queryType":"aggregate","metricName":"wide","timeRange":{"start":%d,"end":%d},"aggregation":"sum","groupBy":["a"],"timeout":"9s","interval":"1s"}`, now-60_000, now+1000), false},
		"remote read": {"POST", "/api/v1/read", []string{"Content-Type", "application/x-protobuf", "Content-Encoding", "snappy", "X-Prometheus-Remote-Read-Version", "0.1.0"},
			[]byte(remoteRead(now, 0)), false},
	}
}

type answered struct {
	status int
	header http.Header
	body   string
}

func (s *authServer) exchange(t testing.TB, token string, x wire) answered {
	t.Helper()
	var body io.Reader = bytes.NewReader(x.body)
	if x.chunked {
		body = io.MultiReader(body) // hides the length
	}
	req, err := http.NewRequestWithContext(t.Context(), x.method, s.URL+x.path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(x.headers); i += 2 {
		req.Header.Set(x.headers[i], x.headers[i+1])
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answered{resp.StatusCode, resp.Header, string(b)}
}

// limited reads the counter of a limit for tenant a.
func (s *authServer) limited(t testing.TB, id string) float64 {
	t.Helper()
	families, err := s.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "luminate_tenancy_limited_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == id && m.GetLabel()[1].GetValue() == "a" {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// limitCase is one limit and what the protocols answer to who meets it.
type limitCase struct {
	id, setting, yaml string
	before            int            // requests of the same kind that pass first
	status            map[string]int // by protocol; what is not in it is not asked
	rated             bool           // Retry-After and X-RateLimit-* are told
	uncounted         bool           // refused part by part, by the decoder
	series, length    int            // of writes; 0: 20 and 8
	chunked           bool
	observed          string                           // id that is counted in mode observe, where it differs
	settles           bool                             // the limit binds only once the store was asked
	wires             func(testing.TB) map[string]wire // nil: writesOf and reads
}

func writesAnswer(remote, otlp, native int) map[string]int {
	return map[string]int{"remote write 1": remote, "remote write 2": remote, "OTLP": otlp, "native": native}
}

func readsAnswer(prom, remoteRead, native int) map[string]int {
	m := map[string]int{"PromQL instant": prom, "PromQL range": prom, "remote read": remoteRead, "native query": native}
	for k, v := range m {
		if v == 0 {
			delete(m, k)
		}
	}
	return m
}

func limitCases() []limitCase {
	return []limitCase{
		{id: "write-requests-per-second", setting: "limits.writeRequestsPerSecond", yaml: "writeRequestsPerSecond: 0.01, writeRequestBurst: 1", before: 1, status: writesAnswer(429, 429, 429), rated: true},
		{id: "samples-per-second", setting: "limits.samplesPerSecond", yaml: "samplesPerSecond: 0.1, samplesBurst: 25", before: 1, status: writesAnswer(429, 429, 429), rated: true},
		{id: "samples-per-day", setting: "limits.samplesPerDay", yaml: "samplesPerDay: 30", before: 1, status: writesAnswer(429, 429, 429), rated: true},
		{id: "samples-per-second-burst", setting: "limits.samplesPerSecond", yaml: "samplesPerSecond: 5, samplesBurst: 10", status: writesAnswer(413, 413, 413)},
		{id: "max-request-bytes", setting: "limits.maxRequestBytes", yaml: "maxRequestBytes: 60", status: writesAnswer(413, 413, 413)},
		{id: "max-request-bytes", setting: "limits.maxRequestBytes", yaml: "maxRequestBytes: 60", status: writesAnswer(413, 413, 413), chunked: true},
		{id: "max-decoded-bytes", setting: "limits.maxDecodedBytes", yaml: "maxDecodedBytes: 1000", status: writesAnswer(413, 413, 413), series: 50},
		{id: "max-active-series", setting: "limits.maxActiveSeries", yaml: "maxActiveSeries: 5", status: writesAnswer(400, 200, 207)},
		{id: "max-active-series-per-metric", setting: "limits.maxActiveSeriesPerMetric", yaml: "maxActiveSeriesPerMetric: 5", status: writesAnswer(400, 200, 207)},
		{id: "ingestion-window", setting: "limits.maxPast", yaml: "maxPast: 1ms", status: map[string]int{"remote write 1": 400, "remote write 2": 400, "OTLP": 200}},
		{id: "max-label-value-bytes", setting: "limits.maxLabelValueBytes", yaml: "maxLabelValueBytes: 7", status: map[string]int{"remote write 1": 400, "remote write 2": 400, "OTLP": 200}, uncounted: true},
		{id: "max-label-name-bytes", setting: "limits.maxLabelNameBytes", yaml: "maxLabelNameBytes: 3", status: map[string]int{"remote write 1": 400, "remote write 2": 400, "OTLP": 200}, uncounted: true},
		{id: "max-labels-per-series", setting: "limits.maxLabelsPerSeries", yaml: "maxLabelsPerSeries: 1", status: map[string]int{"remote write 1": 400, "remote write 2": 400, "OTLP": 200}, uncounted: true},
		{id: "allowed", setting: "limits.maxDimensionValueBytes", yaml: "maxDimensionValueBytes: 7", status: map[string]int{"native": 400}, uncounted: true, observed: "max-dimension-value-bytes"},
		{id: "allowed", setting: "limits.maxDimensionKeyBytes", yaml: "maxDimensionKeyBytes: 1", status: map[string]int{"native": 207}, uncounted: true, observed: "max-dimension-key-bytes", wires: richWrites},
		{id: "max-dimensions", setting: "limits.maxDimensions", yaml: "maxDimensions: 1", status: map[string]int{"native": 207}, uncounted: true, wires: richWrites},
		{id: "max-metrics", setting: "limits.maxMetrics", yaml: "maxMetrics: 1", status: map[string]int{"remote write 1": 400, "native": 207}, wires: richWrites},
		{id: "max-exemplars-per-request", setting: "limits.maxExemplarsPerRequest", yaml: "maxExemplarsPerRequest: 1", status: map[string]int{"remote write 1": 400}, wires: richWrites},
		{id: "max-histogram-buckets", setting: "limits.maxHistogramBuckets", yaml: "maxHistogramBuckets: 3", status: map[string]int{"remote write 1": 400}, wires: richWrites},
		{id: "stored-bytes", setting: "limits.storedBytes", yaml: "storedBytes: 1", status: writesAnswer(429, 429, 429), settles: true},
		{id: "allowed", setting: "limits.maxMetricNameBytes", yaml: "maxMetricNameBytes: 3", status: map[string]int{"native": 400}, uncounted: true, observed: "max-metric-name-bytes"},
		{id: "query-requests-per-second", setting: "limits.queryRequestsPerSecond", yaml: "queryRequestsPerSecond: 0.01, queryRequestBurst: 1", before: 1, status: readsAnswer(429, 429, 429), rated: true},
		{id: "max-query-range", setting: "limits.maxQueryRange", yaml: "maxQueryRange: 10s", status: readsAnswer(422, 413, 422)},
		{id: "max-series-per-query", setting: "limits.maxSeriesPerQuery", yaml: "maxSeriesPerQuery: 3", status: readsAnswer(422, 413, 422)},
		{id: "max-samples-per-query", setting: "limits.maxSamplesPerQuery", yaml: "maxSamplesPerQuery: 3", status: readsAnswer(422, 413, 422)},
		{id: "max-groups-per-query", setting: "limits.maxGroupsPerQuery", yaml: "maxGroupsPerQuery: 3", status: map[string]int{"native query": 422}},
		{id: "max-points-per-query", setting: "limits.maxPointsPerQuery", yaml: "maxPointsPerQuery: 3", status: map[string]int{"native query": 422}},
		{id: "max-query-time", setting: "limits.maxQueryTime", yaml: "maxQueryTime: 1s", status: map[string]int{"native query": 422}},
	}
}

// wiresOf are the requests that meet the case.
func (c limitCase) wiresOf(t testing.TB) map[string]wire {
	if c.wires != nil {
		return c.wires(t)
	}
	n, length := c.series, c.length
	if n == 0 {
		n = 20
	}
	if length == 0 {
		length = 8
	}
	all := writesOf(t, n, length, time.Now().Add(-time.Second))
	for k, v := range reads() {
		all[k] = v
	}
	for k, x := range all {
		if _, asked := c.status[k]; !asked {
			delete(all, k)
			continue
		}
		x.chunked = c.chunked
		all[k] = x
	}
	return all
}

// TestEveryLimit meets each limit in each protocol: status, Retry-After, X-RateLimit-*,
// the id and the setting that the answer names, and the counter. In mode observe the
// same requests pass, and are counted.
func TestEveryLimit(t *testing.T) {
	for i, c := range limitCases() {
		for protocol := range c.status {
			for _, mode := range []string{"enforce", "observe"} {
				t.Run(fmt.Sprintf("%d %s/%s/%s", i, c.id, protocol, mode), func(t *testing.T) {
					c.meet(t, protocol, mode == "observe")
				})
			}
		}
	}
}

func (c limitCase) meet(t *testing.T, protocol string, observe bool) {
	model := storagetest.NewModel()
	storagetest.MustAppend(t, model, "a", wideBatch(20))
	s := newAuthServer(t, model, func(cfg *Config) {
		cfg.Limits.File = keep(t, "limits.yaml", "tenants: {a: {"+c.yaml+"}}\n")
		if observe {
			cfg.Limits.Mode = "observe"
		}
	})
	token := mintFor(t, tenancy.Grant{Tenant: "a", Scopes: everyScope})
	x := c.wiresOf(t)[protocol]
	for range c.before {
		if got := s.exchange(t, token, x); got.status/100 != 2 {
			t.Fatalf("before the limit: %d %s", got.status, got.body)
		}
	}
	id := c.id
	if observe {
		id = cmp.Or(c.observed, id)
	}
	counted := s.limited(t, id)
	got := s.exchange(t, token, x)
	for deadline := time.Now().Add(20 * time.Second); c.settles && s.limited(t, id) <= counted && time.Now().Before(deadline); {
		got = s.exchange(t, token, x)
	}
	if (observe || !c.uncounted) && s.limited(t, id) <= counted {
		t.Errorf("%s is not counted", id)
	}
	if observe {
		if got.status/100 != 2 || got.status == 207 || strings.Contains(got.body, c.setting) {
			t.Errorf("observed: %d %s", got.status, got.body)
		}
		return
	}
	if got.status != c.status[protocol] {
		t.Errorf("status %d %s, want %d", got.status, got.body, c.status[protocol])
	}
	if !strings.Contains(got.body, c.setting) || !strings.Contains(got.body, c.id) && protocol != "native query" {
		t.Errorf("the answer does not name %s and %s: %s", c.id, c.setting, got.body)
	}
	h := got.header
	if c.rated && (h.Get("Retry-After") == "" || h.Get("X-RateLimit-Limit") == "" || h.Get("X-RateLimit-Remaining") == "" || h.Get("X-RateLimit-Reset") == "") {
		t.Errorf("headers of a rate: %v", h)
	}
	if strings.HasPrefix(protocol, "PromQL") && !strings.Contains(got.body, `"errorType":"`) {
		t.Errorf("no error type: %s", got.body)
	}
}

// wideBatch is what the reads find.
func wideBatch(n int) *storage.Batch {
	var b storage.Batch
	for i := range n {
		b.Add(storage.LabelsFromStrings("__name__", "wide", "a", fmt.Sprintf("%08d", i)), storage.Sample{T: time.Now().Add(-5 * time.Second).UnixMilli(), V: 1})
	}
	return &b
}

// writeBodyOf encodes a remote write 1.0 of n series.
func writeBodyOf(t testing.TB, n int, value func(int) string, at time.Time) []byte {
	t.Helper()
	req := promwrite.WriteRequest{}
	for i := range n {
		req.Timeseries = append(req.Timeseries, promwrite.TimeSeries{
			Labels:  []promwrite.Label{{Name: "__name__", Value: "wide"}, {Name: "a", Value: value(i)}},
			Samples: []promwrite.Sample{{Timestamp: at.UnixMilli(), Value: 1}},
		})
	}
	b, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return snappy.Encode(nil, b)
}
