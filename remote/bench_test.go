package remote

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/luminate/luminate/storage"
)

// benchLabels are eight labels of about 190 bytes, as a scraped series has them.
func benchLabels(i int) []prompb.Label {
	return []prompb.Label{
		{Name: "__name__", Value: fmt.Sprintf("http_server_requests_seconds_total_%02d", i%50)},
		{Name: "customer_id", Value: fmt.Sprintf("customer-%05d", i%20000)},
		{Name: "endpoint", Value: fmt.Sprintf("/api/v1/resources/%02d", i%17)},
		{Name: "instance", Value: fmt.Sprintf("10.20.%d.%d:9100", i/200%200, i%200)},
		{Name: "job", Value: fmt.Sprintf("production/api-%02d", i%23)},
		{Name: "region", Value: fmt.Sprintf("eu-central-%d", i%4)},
		{Name: "serial", Value: fmt.Sprintf("%08x", i*2654435761)},
		{Name: "status", Value: fmt.Sprintf("%d00", 2+i%3)},
	}
}

func benchV1(n int) []byte {
	var req prompb.WriteRequest
	for i := range n {
		req.Timeseries = append(req.Timeseries, prompb.TimeSeries{
			Labels:  benchLabels(i),
			Samples: []prompb.Sample{{Value: float64(i) * 1.25, Timestamp: 1_790_000_000_000}},
		})
	}
	b, err := req.Marshal()
	if err != nil {
		panic(err)
	}
	return b
}

func benchV2(n int) []byte {
	table := writev2.NewSymbolTable()
	req := writev2.Request{}
	for i := range n {
		var refs []uint32
		for _, l := range benchLabels(i) {
			refs = append(refs, table.Symbolize(l.Name), table.Symbolize(l.Value))
		}
		req.Timeseries = append(req.Timeseries, writev2.TimeSeries{
			LabelsRefs: refs,
			Samples:    []writev2.Sample{{Value: float64(i) * 1.25, Timestamp: 1_790_000_000_000, StartTimestamp: 1_780_000_000_000}},
			Metadata:   writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_COUNTER, HelpRef: table.Symbolize("Requests served.")},
		})
	}
	req.Symbols = table.Symbols()
	b, err := req.Marshal()
	if err != nil {
		panic(err)
	}
	return b
}

// BenchmarkDecode measures what stands between the socket and the store for a
// request of 2,000 samples: decompression and decoding into a batch.
func BenchmarkDecode(b *testing.B) {
	const samples = 2000
	cfg := DefaultConfig()
	for _, bm := range []struct {
		name   string
		raw    []byte
		decode func(*decoder, []byte) error
	}{
		{"v1", benchV1(samples), (*decoder).decodeV1},
		{"v2", benchV2(samples), (*decoder).decodeV2},
	} {
		body := snappy.Encode(nil, bm.raw)
		b.Run(bm.name+"/protobuf", func(b *testing.B) {
			var d decoder
			b.ReportAllocs()
			begin := cpuSeconds(b)
			for b.Loop() {
				d.reset(cfg.Shape, cfg.MaxBatchBytes)
				if err := bm.decode(&d, bm.raw); err != nil || len(d.batch.Samples) != samples {
					b.Fatal(err, len(d.batch.Samples))
				}
			}
			b.ReportMetric(samples*float64(b.N)/(cpuSeconds(b)-begin), "samples/cpu-s")
		})
		b.Run(bm.name+"/snappy+protobuf", func(b *testing.B) {
			var d decoder
			var buf []byte
			var err error
			b.ReportAllocs()
			begin := cpuSeconds(b)
			for b.Loop() {
				if buf, err = decodeSnappy(buf, body, decodedLimit{bytes: cfg.MaxDecodedBytes}); err != nil {
					b.Fatal(err)
				}
				d.reset(cfg.Shape, cfg.MaxBatchBytes)
				if err := bm.decode(&d, buf); err != nil || len(d.batch.Samples) != samples {
					b.Fatal(err, len(d.batch.Samples))
				}
			}
			b.ReportMetric(samples*float64(b.N)/(cpuSeconds(b)-begin), "samples/cpu-s")
		})
	}
}

// cpuSeconds is the CPU time of the process so far: wall time says little on a
// machine that is shared.
func cpuSeconds(tb testing.TB) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// BenchmarkRead measures the encoding of a streamed answer, without a socket.
func BenchmarkRead(b *testing.B) {
	const series, samples = 100, 240
	in := make([]storage.Series, series)
	for i := range in {
		var buf []byte
		for _, l := range benchLabels(i) {
			buf = storage.AppendLabel(buf, l.Name, l.Value)
		}
		in[i].Labels = buf
		for j := range samples {
			in[i].Samples = append(in[i].Samples, storage.Sample{T: 1_790_000_000_000 + int64(j)*15_000, V: float64(i*j) * 0.25})
		}
	}
	b.ReportAllocs()
	begin := cpuSeconds(b)
	for b.Loop() {
		f := newFrameWriter(io.Discard, DefaultConfig().Read.MaxFrameBytes, false)
		for i := range in {
			if err := f.series(0, in[i]); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(series*samples*float64(b.N)/(cpuSeconds(b)-begin), "samples/cpu-s")
}

// BenchmarkReadHistograms measures a streamed answer of native histograms out of
// Badger's blocks: the stored chunks as they are, and made anew of samples.
func BenchmarkReadHistograms(b *testing.B) {
	store, from, to := storedHistograms(b)
	samples := 0
	for _, chunks := range []bool{true, false} {
		b.Run(fmt.Sprintf("stored=%v", chunks), func(b *testing.B) {
			sel := storage.Selection{MinT: from, MaxT: to, Chunks: chunks}
			b.ReportAllocs()
			begin := cpuSeconds(b)
			for b.Loop() {
				samples = 0
				f := newFrameWriter(io.Discard, DefaultConfig().Read.MaxFrameBytes, true)
				for s, err := range store.Select(b.Context(), storage.MustTenant(testTenant), sel) {
					if err != nil {
						b.Fatal(err)
					}
					samples += s.Len()
					if err := f.series(0, s); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(samples)*float64(b.N)/(cpuSeconds(b)-begin), "histograms/cpu-s")
		})
	}
}

// BenchmarkOTLP measures decoding and translation of a request of 2,000 cumulative
// sums with five attributes, without the store.
func BenchmarkOTLP(b *testing.B) {
	const points = 2000
	s := newStack(b)
	o := newOTLP(s)
	sum := o.metric("http.requests").SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	for i := range points {
		dp := sum.DataPoints().AppendEmpty()
		dp.SetTimestamp(o.t)
		dp.SetIntValue(int64(i))
		for _, l := range benchLabels(i)[1:6] {
			dp.Attributes().PutStr(l.Name, l.Value)
		}
	}
	body := o.proto(b)
	cfg := DefaultConfig()
	b.ReportAllocs()
	begin := cpuSeconds(b)
	for b.Loop() {
		req := pmetricotlp.NewExportRequest()
		if err := req.UnmarshalProto(body); err != nil {
			b.Fatal(err)
		}
		var batch storage.Batch
		app := newBatchAppender(&batch, cfg.Shape, cfg.MaxBatchBytes)
		if err := s.api.translate(b.Context(), req.Metrics(), app, &rejections{}); err != nil || len(batch.Samples) < points {
			b.Fatal(err)
		}
	}
	b.ReportMetric(points*float64(b.N)/(cpuSeconds(b)-begin), "points/cpu-s")
}

// discard is a Store that takes everything and keeps nothing.
type discard struct{ storage.Store }

func (discard) Append(_ context.Context, _ storage.Tenant, b *storage.Batch) (storage.AppendResult, error) {
	return storage.AppendResult{Samples: len(b.Samples)}, nil
}

// BenchmarkServeWrite measures the whole handler before a store that costs nothing.
func BenchmarkServeWrite(b *testing.B) {
	const samples = 2000
	api, err := New(discard{}, DefaultConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	h := withTenant(http.HandlerFunc(api.ServeWrite))
	for name, bm := range map[string]struct {
		body        []byte
		contentType string
	}{
		"v1": {snappy.Encode(nil, benchV1(samples)), contentV1},
		"v2": {snappy.Encode(nil, benchV2(samples)), contentV2},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			begin := cpuSeconds(b)
			for b.Loop() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, newPost("/api/v1/write", bm.body, "Content-Type", bm.contentType))
				if w.Code != http.StatusNoContent {
					b.Fatal(w.Code, w.Body)
				}
			}
			b.ReportMetric(samples*float64(b.N)/(cpuSeconds(b)-begin), "samples/cpu-s")
		})
	}
}
