package main

import (
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
	bodies  [][][]byte // [scrape][request]
	samples int
	bytes   int
}

// encodeScrapes encodes scrapes of g at start, start+interval, …
func encodeScrapes(g *storagetest.Generator, start, interval int64, scrapes int) (*requests, error) {
	r := &requests{}
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
			body, err := encodeRequest(&batch, labels[from:to])
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
