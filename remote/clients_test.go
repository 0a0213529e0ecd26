package remote

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	promlabels "github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	promstorage "github.com/prometheus/prometheus/storage"
	promremote "github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/fmtutil"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/luminate/luminate/storage"
)

// TestClientOTelSDK sends with the OpenTelemetry Go SDK, with gzip, as an application
// does.
func TestClientOTelSDK(t *testing.T) {
	s := newStack(t)
	addr := strings.TrimPrefix(s.serve(), "http://")
	for _, path := range []string{"/api/v1/otlp/v1/metrics", "/otlp/v1/metrics"} {
		exporter, err := otlpmetrichttp.New(t.Context(), otlpmetrichttp.WithEndpoint(addr), otlpmetrichttp.WithURLPath(path),
			otlpmetrichttp.WithInsecure(), otlpmetrichttp.WithCompression(otlpmetrichttp.GzipCompression))
		if err != nil {
			t.Fatal(err)
		}
		reader := sdkmetric.NewPeriodicReader(exporter, sdkmetric.WithInterval(time.Hour))
		provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader),
			sdkmetric.WithResource(resource.NewSchemaless(attribute.String("service.name", "shop"), attribute.String("path", path))),
			sdkmetric.WithView(sdkmetric.NewView(sdkmetric.Instrument{Name: "size"}, sdkmetric.Stream{
				Aggregation: sdkmetric.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}})))
		meter := provider.Meter("test")
		counter, err := meter.Int64Counter("orders", metric.WithDescription("Orders taken."), metric.WithUnit("1"))
		if err != nil {
			t.Fatal(err)
		}
		latency, err := meter.Float64Histogram("latency", metric.WithUnit("s"))
		if err != nil {
			t.Fatal(err)
		}
		size, err := meter.Float64Histogram("size", metric.WithUnit("By"))
		if err != nil {
			t.Fatal(err)
		}
		counter.Add(t.Context(), 5, metric.WithAttributes(attribute.String("region", "eu")))
		latency.Record(t.Context(), 0.3)
		size.Record(t.Context(), 1234)
		if err := provider.ForceFlush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := provider.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	text := strings.Join(s.storedText(), "\n")
	for _, want := range []string{
		`{__name__="orders_total", job="shop", region="eu"} 5`,
		`{__name__="latency_seconds_bucket", job="shop", le="+Inf"} 1`,
		`{__name__="size_bytes", job="shop"} histogram`,
		`{__name__="target_info", job="shop", path="/otlp/v1/metrics"} 1`,
		`{__name__="target_info", job="shop", path="/api/v1/otlp/v1/metrics"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in\n%s", want, text)
		}
	}
}

// TestClientOTelSDKDelta: an SDK that sends delta is told so.
func TestClientOTelSDKDelta(t *testing.T) {
	s := newStack(t)
	exporter, err := otlpmetrichttp.New(t.Context(), otlpmetrichttp.WithEndpointURL(s.serve()+"/otlp/v1/metrics"),
		otlpmetrichttp.WithTemporalitySelector(func(sdkmetric.InstrumentKind) metricdata.Temporality { return metricdata.DeltaTemporality }))
	if err != nil {
		t.Fatal(err)
	}
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter, sdkmetric.WithInterval(time.Hour))))
	counter, err := provider.Meter("test").Int64Counter("orders")
	if err != nil {
		t.Fatal(err)
	}
	counter.Add(t.Context(), 5)
	if err := provider.ForceFlush(t.Context()); err == nil || !strings.Contains(err.Error(), "delta temporality") {
		t.Errorf("the SDK was told %v", err)
	}
	_ = provider.Shutdown(context.WithoutCancel(t.Context())) // sends the same again, and fails the same way
}

// TestClientPromtool pushes what `promtool push metrics` does, with its own code.
func TestClientPromtool(t *testing.T) {
	s := newStack(t)
	api, err := remoteapi.NewAPI(s.serve(), remoteapi.WithAPIPath("api/v1/write"))
	if err != nil {
		t.Fatal(err)
	}
	req, err := fmtutil.MetricTextToWriteRequest(strings.NewReader(`# HELP jobs_total Jobs done.
# TYPE jobs_total counter
jobs_total{queue="mail"} 7
# TYPE took_seconds histogram
took_seconds_bucket{le="1"} 2
took_seconds_bucket{le="+Inf"} 3
took_seconds_sum 4.5
took_seconds_count 3
`), map[string]string{"job": "promtool"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.Write(t.Context(), remoteapi.WriteV1MessageType, req); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`{__name__="jobs_total", job="promtool", queue="mail"} 7`,
		`{__name__="took_seconds_bucket", job="promtool", le="+Inf"} 3`,
		`{__name__="took_seconds_bucket", job="promtool", le="1"} 2`,
		`{__name__="took_seconds_count", job="promtool"} 3`,
		`{__name__="took_seconds_sum", job="promtool"} 4.5`,
	}
	if got := s.storedText(); !slices.Equal(got, want) {
		t.Errorf("stored %q", got)
	}
}

// sender is Prometheus's own remote-write sender over a database of its own: WAL,
// watcher, queue and client are the real ones.
type sender struct {
	db     *tsdb.DB
	remote *promremote.Storage
}

func newSender(t testing.TB, addr string, message remoteapi.WriteMessageType) *sender {
	t.Helper()
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	opts := tsdb.DefaultOptions()
	opts.EnableExemplarStorage, opts.MaxExemplars = true, 100
	opts.EnableMetadataWALRecords = true
	opts.EnableSTStorage, opts.FloatChunkEncoding = true, chunkenc.EncXOR2
	db, err := tsdb.Open(dir, log, prometheus.NewRegistry(), opts, nil)
	if err != nil {
		t.Fatal(err)
	}
	st := promremote.NewStorage(log, prometheus.NewRegistry(), func() (int64, error) { return 0, nil }, dir, time.Second, nil, false)
	db.SetWriteNotified(st)
	u, err := url.Parse(addr + "/api/v1/write")
	if err != nil {
		t.Fatal(err)
	}
	rw := config.DefaultRemoteWriteConfig
	rw.URL = &config_util.URL{URL: u}
	rw.ProtobufMessage = message
	rw.SendExemplars, rw.SendNativeHistograms = true, true
	rw.QueueConfig.BatchSendDeadline = model.Duration(20 * time.Millisecond)
	rw.MetadataConfig.Send = false // needs a scrape manager
	rw.HTTPClientConfig = config_util.DefaultHTTPClientConfig
	if err := st.ApplyConfig(&config.Config{RemoteWriteConfigs: []*config.RemoteWriteConfig{&rw}}); err != nil {
		t.Fatal(err)
	}
	return &sender{db: db, remote: st}
}

func (x *sender) close(t testing.TB) {
	t.Helper()
	if err := x.remote.Close(); err != nil {
		t.Error(err)
	}
	if err := x.db.Close(); err != nil {
		t.Error(err)
	}
}

// TestClientPrometheusSender: what Prometheus has in its database arrives as it is.
func TestClientPrometheusSender(t *testing.T) {
	for _, message := range []remoteapi.WriteMessageType{remoteapi.WriteV1MessageType, remoteapi.WriteV2MessageType} {
		t.Run(string(message), func(t *testing.T) {
			s := newStack(t)
			arrived := newCondition()
			inner := s.h
			s.h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				inner.ServeHTTP(w, r)
				arrived.signal()
			})
			x := newSender(t, s.serve(), message)
			defer x.close(t)
			// The watcher begins with the segment that is current when it starts; samples
			// must be newer than its start.
			now := time.Now().Add(time.Minute).UnixMilli()
			want := appendToSender(t, x.db, now, message == remoteapi.WriteV2MessageType)
			arrived.wait(t, x.remote.Notify, func() bool {
				n := 0
				for _, series := range s.stored() {
					n += len(series.Samples) + len(series.Histograms)
				}
				return n == 20+11*(len(want)-1)
			})
			s.wantStored(want...)
			arrived.wait(t, x.remote.Notify, func() bool { return len(s.exemplars()) == 1 })
			if e := s.exemplars()[0].Exemplars[0]; e.Labels.Get("trace_id") != "abc" || e.V != 0.5 || e.T != now {
				t.Errorf("exemplar %+v", e)
			}
			if message == remoteapi.WriteV2MessageType {
				if m := s.metadata(); len(m) != 1 || m[0] != (storage.Metadata{Metric: "requests_total", Type: "counter", Unit: "", Help: "Requests."}) {
					t.Errorf("metadata %+v", m)
				}
			}
		})
	}
}

// appendToSender fills the database and returns what should arrive.
func appendToSender(t testing.TB, db *tsdb.DB, now int64, withST bool) []storage.Series {
	t.Helper()
	app := db.AppenderV2(t.Context())
	add := func(ls promlabels.Labels, st, ts int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, opts promstorage.AOptions) {
		t.Helper()
		if _, err := app.Append(0, ls, st, ts, v, h, fh, opts); err != nil {
			t.Fatal(err)
		}
	}
	counter := promlabels.FromStrings("__name__", "requests_total", "job", "größe", "path", "/")
	want := storage.Series{Labels: storage.LabelsFromPrometheus(counter)}
	for i := range int64(20) {
		v := float64(i)
		if i == 19 {
			v = storage.StaleNaN
		}
		opts := promstorage.AOptions{Metadata: metadata.Metadata{Type: model.MetricTypeCounter, Help: "Requests."}, MetricFamilyName: "requests_total"}
		if i == 0 {
			opts.Exemplars = []exemplar.Exemplar{{Labels: promlabels.FromStrings("trace_id", "abc"), Value: 0.5, Ts: now, HasTs: true}}
		}
		add(counter, now-1000, now+i, v, nil, nil, opts)
		want.Samples = append(want.Samples, storage.Sample{T: now + i, V: v})
		if withST {
			want.STs = append(want.STs, now-1000)
		}
	}
	hist := storage.Series{Labels: storage.LabelsFromStrings("__name__", "sizes")}
	nhcb := storage.Series{Labels: storage.LabelsFromStrings("__name__", "sizes_nhcb")}
	for i := range int64(11) {
		h := &histogram.Histogram{Schema: 2, Count: uint64(2 + i), Sum: float64(i), ZeroThreshold: 1e-9,
			PositiveSpans: []histogram.Span{{Offset: 1, Length: 2}}, PositiveBuckets: []int64{1, i}}
		add(hist.Labels.Prometheus(), 0, now+i, 0, h.Copy(), nil, promstorage.AOptions{})
		hist.Histograms = append(hist.Histograms, storage.HistogramSample{T: now + i, H: h})
		c := &histogram.FloatHistogram{Schema: -53, Count: float64(2 + i), Sum: 1, CustomValues: []float64{1, 5},
			PositiveSpans: []histogram.Span{{Length: 2}}, PositiveBuckets: []float64{1, float64(1 + i)}}
		add(nhcb.Labels.Prometheus(), 0, now+i, 0, nil, c.Copy(), promstorage.AOptions{})
		nhcb.Histograms = append(nhcb.Histograms, storage.HistogramSample{T: now + i, FH: c})
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	if !withST { // the sender leaves custom buckets out of version 1
		return []storage.Series{want, hist}
	}
	return []storage.Series{want, hist, nhcb}
}

// condition waits for what a handler brings about.
type condition struct {
	mu   sync.Mutex
	wake chan struct{}
}

func newCondition() *condition { return &condition{wake: make(chan struct{})} }

func (c *condition) signal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.wake)
	c.wake = make(chan struct{})
}

// wait returns once done; meanwhile it nudges, for a nudge that comes before the
// watcher listens is lost.
func (c *condition) wait(t testing.TB, nudge func(), done func() bool) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		c.mu.Lock()
		wake := c.wake
		c.mu.Unlock()
		if done() {
			return
		}
		select {
		case <-wake:
		case <-again.C:
			nudge()
		case <-deadline.C:
			t.Fatal(fmt.Errorf("it did not arrive"))
		}
	}
}
