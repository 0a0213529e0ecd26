package wal

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

func perSample(b *testing.B, samples, bytes int) {
	b.ReportMetric(float64(samples)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Msamples/s")
	b.ReportMetric(float64(bytes)/float64(samples), "B/sample")
}

func BenchmarkEncodeSamples(b *testing.B) {
	for _, n := range []int{100, 2000, 20_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := scrape(n, rand.New(rand.NewPCG(1, 2)))
			var enc SamplesEncoder
			var p []byte
			b.ReportAllocs()
			for b.Loop() {
				p, _ = enc.AppendTo(p[:0], s)
			}
			perSample(b, n, len(p))
		})
	}
}

// BenchmarkEncodeMixed has more integers, and some values without any pattern.
func BenchmarkEncodeMixed(b *testing.B) {
	const n = 2000
	rnd := rand.New(rand.NewPCG(3, 4))
	s := &Samples{}
	for i := range n {
		v := 42.0
		switch k := i % 100; {
		case k < 35:
			v = float64(100_000 + rnd.IntN(50_000))
		case k < 65:
			v = float64(rnd.IntN(1000))
		case k < 80:
			v = float64(rnd.IntN(10_000)) / 100
		case k < 85:
			v = rnd.NormFloat64()
		}
		s.Append(uint32(i), 1_760_000_000_000, v, 0)
	}
	var enc SamplesEncoder
	var p []byte
	b.ReportAllocs()
	for b.Loop() {
		p, _ = enc.AppendTo(p[:0], s)
	}
	perSample(b, n, len(p))
}

func BenchmarkDecodeSamples(b *testing.B) {
	for _, n := range []int{100, 2000, 20_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var enc SamplesEncoder
			p, _ := enc.AppendTo(nil, scrape(n, rand.New(rand.NewPCG(1, 2))))
			var dec SamplesDecoder
			var s Samples
			b.ReportAllocs()
			for b.Loop() {
				s.Reset(0, 0)
				if err := dec.Decode(p, &s); err != nil {
					b.Fatal(err)
				}
			}
			perSample(b, n, len(p))
		})
	}
}

func BenchmarkEncodeSeries(b *testing.B) {
	const n = 2000
	labels := make([][]byte, n)
	for i := range labels {
		labels[i] = fmt.Appendf(nil, "__name__\xffhttp_requests_total\xffcustomer_id\xffcust_%06d\xffendpoint\xff/api/v1/users\xff"+
			"instance\xff10.0.3.%d:9090\xffjob\xffapi-server-%d\xffregion\xffeu-west-1\xffserial\xff%09d\xffstatus\xff200", i*7, i%250, i%23, i*104729)
	}
	var enc SeriesEncoder
	var p []byte
	b.ReportAllocs()
	for b.Loop() {
		enc.Reset(1, 20_000)
		for i, l := range labels {
			enc.Add(uint32(i), l)
		}
		p, _ = enc.AppendTo(p[:0])
	}
	b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mseries/s")
	b.ReportMetric(float64(len(p))/n, "B/series")
}

func BenchmarkAppend(b *testing.B) {
	for _, mode := range []SyncMode{SyncOS, SyncAlways} {
		for _, n := range []int{2000, 20_000} {
			b.Run(fmt.Sprintf("%s/%d", mode, n), func(b *testing.B) {
				cfg := DefaultConfig()
				cfg.Sync = mode
				l, _, err := Open(b.TempDir(), cfg, 0, quiet(), func(Record) error { return nil })
				if err != nil {
					b.Fatal(err)
				}
				s := scrape(n, rand.New(rand.NewPCG(1, 2)))
				var enc SamplesEncoder
				var batch Batch
				b.ReportAllocs()
				for b.Loop() {
					batch.Reset()
					p, _ := enc.AppendTo(batch.Start(), s)
					batch.Finish(TypeSamples, p)
					if _, err := l.Append(&batch); err != nil {
						b.Fatal(err)
					}
					// The disk of a test machine is small.
					if err := l.TruncateBefore(l.LastLSN()); err != nil {
						b.Fatal(err)
					}
				}
				perSample(b, n, batch.Size())
				closeLog(b, l)
			})
		}
	}
}

func BenchmarkReplay(b *testing.B) {
	const n, groups = 2000, 1000
	dir := b.TempDir()
	l, _, err := Open(dir, DefaultConfig(), 0, quiet(), func(Record) error { return nil })
	if err != nil {
		b.Fatal(err)
	}
	var enc SamplesEncoder
	var batch Batch
	p, _ := enc.AppendTo(batch.Start(), scrape(n, rand.New(rand.NewPCG(1, 2))))
	batch.Finish(TypeSamples, p)
	for range groups {
		if _, err := l.Append(&batch); err != nil {
			b.Fatal(err)
		}
	}
	closeLog(b, l)
	var dec SamplesDecoder
	var s Samples
	b.ReportAllocs()
	for b.Loop() {
		l, _, err := Open(dir, DefaultConfig(), 0, quiet(), func(r Record) error {
			s.Reset(0, 0)
			return dec.Decode(r.Payload, &s)
		})
		if err != nil {
			b.Fatal(err)
		}
		closeLog(b, l)
	}
	perSample(b, n*groups, batch.Size()*groups)
}
