package promql

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/prompb"

	"github.com/luminate/luminate/internal/proctest"
	"github.com/luminate/luminate/storage"
)

// startPrometheus runs a Prometheus that scrapes nothing and takes remote writes.
// It returns its base URL and stops it at the end of the test.
func startPrometheus(t *testing.T) string {
	t.Helper()
	return startPrometheusWith(t, "global: {}\n")
}

// startPrometheusWith is startPrometheus with a configuration.
func startPrometheusWith(t *testing.T, yaml string) string {
	t.Helper()
	bin, err := proctest.Prometheus("prometheus")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := proctest.FreeAddress(t)
	return proctest.Start(t, "http://"+addr, "/-/ready", nil, bin,
		"--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+addr, "--web.enable-remote-write-receiver", "--enable-feature=exemplar-storage").URL
}

// remoteWrite sends b to a Prometheus by remote write 1.0.
func remoteWrite(t *testing.T, base string, b *storage.Batch) {
	t.Helper()
	var req prompb.WriteRequest
	for i := range b.Series {
		v := b.At(i)
		var ts prompb.TimeSeries
		for name, value := range v.Labels.All() {
			ts.Labels = append(ts.Labels, prompb.Label{Name: name, Value: value})
		}
		for _, s := range v.Samples {
			ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: s.T, Value: s.V})
		}
		for _, h := range v.Histograms {
			if h.FH != nil {
				ts.Histograms = append(ts.Histograms, prompb.FromFloatHistogram(h.T, h.FH))
			} else {
				ts.Histograms = append(ts.Histograms, prompb.FromIntHistogram(h.T, h.H))
			}
		}
		for _, x := range v.Exemplars {
			e := prompb.Exemplar{Timestamp: x.T, Value: x.V}
			for name, value := range x.Labels.All() {
				e.Labels = append(e.Labels, prompb.Label{Name: name, Value: value})
			}
			ts.Exemplars = append(ts.Exemplars, e)
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	body, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(base+"/api/v1/write", "application/x-protobuf", bytes.NewReader(snappy.Encode(nil, body)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if msg, _ := io.ReadAll(resp.Body); resp.StatusCode/100 != 2 {
		t.Fatalf("remote write: %d %s", resp.StatusCode, msg)
	}
}

// sampleData is an hour of every kind of series, a sample each 15 s, up to end.
func sampleData(end int64) *storage.Batch {
	const step, n = 15_000, 240
	b := new(storage.Batch)
	start := end - (n-1)*step
	each := func(f func(i int) float64) []storage.Sample {
		out := make([]storage.Sample, n)
		for i := range out {
			out[i] = storage.Sample{T: start + int64(i)*step, V: f(i)}
		}
		return out
	}
	ls := storage.LabelsFromStrings
	k := 0
	for _, job := range []string{"api", "web"} {
		for _, instance := range []string{"a", "b"} {
			for _, code := range []string{"200", "500"} {
				k++
				slope, resetAt := float64(k)*1.25, 60+k*9
				b.Labels = append(b.Labels, ls("__name__", "http_requests_total", "job", job, "instance", instance, "code", code)...)
				b.Samples = append(b.Samples, each(func(i int) float64 { return slope * float64(i%resetAt) })...)
				for x := range 3 {
					b.Exemplars = append(b.Exemplars, storage.Exemplar{
						Labels: ls("trace_id", fmt.Sprintf("%s-%s-%s-%d<&>", job, instance, code, x)),
						T:      start + int64(x)*600_000 + int64(k), V: float64(x) / 3,
					})
				}
				b.EndSeries()
			}
		}
	}
	b.Add(ls("__name__", "temperature", "room", "kitchen"), each(func(i int) float64 { return math.Round(2000+300*math.Sin(float64(i)/9)) / 100 })...)
	b.Add(ls("__name__", "temperature", "room", "attic"), each(func(i int) float64 { return -3.5 + float64(i%7)/8 })...)
	b.Add(ls("__name__", "temperature", "room", "oven"), each(func(i int) float64 { return []float64{math.Inf(1), 1e21, 1e-9, 250}[i%4] })...)
	b.Add(ls("__name__", "temperature", "room", "cellar"), each(func(i int) float64 { return []float64{math.NaN(), 0.1, 12345678.9}[i%3] })...)
	stale := each(func(i int) float64 { return float64(i) })[:181]
	stale[180].V = storage.StaleNaN
	b.Add(ls("__name__", "stale_metric"), stale...)
	for i, le := range []string{"0.1", "0.5", "1", "5", "+Inf"} {
		b.Add(ls("__name__", "latency_bucket", "le", le), each(func(j int) float64 { return float64((i + 1) * j * 3) })...)
	}
	for _, service := range []string{"checkout", "cart"} {
		b.Add(ls("__name__", "http.server.duration", "service.name", service), each(func(i int) float64 { return float64(len(service)*i) / 7 })...)
	}
	b.Add(ls("__name__", "odd_labels", "text", `<a href="x">&\ "quoted" \n`+"\n\tline, é 世界 \u2028"), each(func(int) float64 { return 1 })...)
	addHistograms(b, start, step, n)
	return b
}

// addHistograms adds integer histograms with a reset, and float ones with custom
// buckets.
func addHistograms(b *storage.Batch, start, step int64, n int) {
	for k, instance := range []string{"a", "b"} {
		var hs []storage.HistogramSample
		for i := range n {
			c := uint64(1 + (i+k*50)%150)
			hs = append(hs, storage.HistogramSample{T: start + int64(i)*step, H: &histogram.Histogram{
				Schema: 1, ZeroThreshold: 1e-128, ZeroCount: c, Count: c * 7, Sum: float64(c) * 12.5,
				PositiveSpans:   []histogram.Span{{Offset: -2, Length: 2}, {Offset: 1, Length: 1}},
				PositiveBuckets: []int64{int64(c), int64(c), -int64(c)},
				NegativeSpans:   []histogram.Span{{Offset: 0, Length: 1}}, NegativeBuckets: []int64{int64(2 * c)},
			}})
		}
		b.AddHistograms(storage.LabelsFromStrings("__name__", "native", "instance", instance), hs...)
	}
	var hs []storage.HistogramSample
	for i := range n {
		c := float64(i + 1)
		hs = append(hs, storage.HistogramSample{T: start + int64(i)*step, FH: &histogram.FloatHistogram{
			Schema: histogram.CustomBucketsSchema, Count: 3 * c, Sum: 4.5 * c, CustomValues: []float64{1, 2.5},
			PositiveSpans: []histogram.Span{{Offset: 0, Length: 3}}, PositiveBuckets: []float64{c, c, c},
		}})
	}
	b.AddHistograms(storage.LabelsFromStrings("__name__", "custom", "instance", "a"), hs...)
}
