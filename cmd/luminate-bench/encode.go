package main

import (
	"encoding/json"
	"fmt"

	"github.com/golang/snappy"
	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
	"github.com/prometheus/prometheus/prompb"
)

// samplesPerRequest is Prometheus's own default for a remote write request.
const samplesPerRequest = 2000

// requests are the encoded remote write 1.0 bodies of some scrapes, in order of
// time; a body holds series of one scrape only.
type requests struct {
	native  bool       // JSON of the native API instead
	bodies  [][][]byte // [scrape][request]
	samples int
	bytes   int
}

// encodeScrapes encodes scrapes of g at start, start+interval, …
func encodeScrapes(g *storagetest.Generator, start, interval int64, scrapes int) (*requests, error) {
	return encodeAs(g, start, interval, scrapes, false)
}

func encodeAs(g *storagetest.Generator, start, interval int64, scrapes int, native bool) (*requests, error) {
	r := &requests{native: native}
	labels := make([][]prompb.Label, g.Series())
	for i := range labels {
		for n, v := range g.Labels(i).All() {
			labels[i] = append(labels[i], prompb.Label{Name: n, Value: v})
		}
	}
	var batch storage.Batch
	for s := range scrapes {
		var bodies [][]byte
		for from := 0; from < g.Series(); from += samplesPerRequest {
			to := min(from+samplesPerRequest, g.Series())
			batch.Reset()
			g.Scrape(&batch, start+int64(s)*interval, from, to)
			encode := encodeRequest
			if native {
				encode = encodeNative
			}
			body, err := encode(&batch, labels[from:to])
			if err != nil {
				return nil, fmt.Errorf("encode scrape %d: %w", s, err)
			}
			bodies = append(bodies, body)
			r.samples += to - from
			r.bytes += len(body)
		}
		r.bodies = append(r.bodies, bodies)
	}
	return r, nil
}

// encodeRequest encodes a batch with one sample a series as a compressed remote
// write 1.0 request.
func encodeRequest(b *storage.Batch, labels [][]prompb.Label) ([]byte, error) {
	var req prompb.WriteRequest
	req.Timeseries = make([]prompb.TimeSeries, len(b.Series))
	samples := make([]prompb.Sample, len(b.Series))
	for i := range b.Series {
		x := b.At(i).Samples[0]
		samples[i] = prompb.Sample{Timestamp: x.T, Value: x.V}
		req.Timeseries[i] = prompb.TimeSeries{Labels: labels[i], Samples: samples[i : i+1]}
	}
	raw, err := req.Marshal()
	if err != nil {
		return nil, err
	}
	return snappy.Encode(nil, raw), nil
}

// encodeNative encodes a batch with one sample a series as the native API's JSON.
func encodeNative(b *storage.Batch, labels [][]prompb.Label) ([]byte, error) {
	type metric struct {
		Name       string            `json:"name"`
		Timestamp  int64             `json:"timestamp"`
		Value      float64           `json:"value"`
		Dimensions map[string]string `json:"dimensions"`
	}
	var req struct {
		Metrics []metric `json:"metrics"`
	}
	for i := range b.Series {
		x := b.At(i).Samples[0]
		m := metric{Timestamp: x.T, Value: x.V, Dimensions: map[string]string{}}
		for _, l := range labels[i] {
			if l.Name == storage.MetricName {
				m.Name = l.Value
			} else {
				m.Dimensions[l.Name] = l.Value
			}
		}
		req.Metrics = append(req.Metrics, m)
	}
	return json.Marshal(req)
}
