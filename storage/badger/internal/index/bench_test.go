package index

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/luminate/luminate/storage"
)

const million = 1_000_000

// benchLabels appends the labels of series i: eight labels, about 190 bytes, one with a value of its own.
func benchLabels(dst []byte, i int) []byte {
	dst = storage.AppendLabel(dst, metricName, "http_request_duration_seconds_total")
	dst = storage.AppendLabel(dst, "customer_id", fmt.Sprintf("customer-%06d", i*7919%20000))
	dst = storage.AppendLabel(dst, "endpoint", fmt.Sprintf("/api/v1/resource/%02d", i%17))
	dst = storage.AppendLabel(dst, "instance", fmt.Sprintf("10.%d.%d.7:9090", i/64000%250, i/256%250))
	dst = storage.AppendLabel(dst, "job", fmt.Sprintf("job-%02d", i%23))
	dst = storage.AppendLabel(dst, "region", []string{"eu-west-1", "eu-central-1", "us-east-1", "ap-south-1"}[i/3%4])
	dst = storage.AppendLabel(dst, "serial", fmt.Sprintf("SN%010d", i*2654435761%10000000000))
	return storage.AppendLabel(dst, "status", []string{"200", "404", "500"}[i%3])
}

// benchInput makes the labels of n series back to back, outside the measured time.
func benchInput(n int) (all []byte, ends []int, hashes []Hash128) {
	ends, hashes = make([]int, n+1), make([]Hash128, n)
	for i := range n {
		all = benchLabels(all, i)
		ends[i+1] = len(all)
		hashes[i] = hashOf(all[ends[i]:])
	}
	return all, ends, hashes
}

var benchMem = sync.OnceValue(func() *Mem {
	m := NewMem()
	var buf []byte
	for i := range million {
		buf = benchLabels(buf[:0], i)
		if _, err := m.Create(hashOf(buf), buf); err != nil {
			panic(err)
		}
	}
	return m
})

func heapBytes() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// BenchmarkCreate creates one series an operation; bytes/series is meaningful from a million operations on.
func BenchmarkCreate(b *testing.B) {
	all, ends, hashes := benchInput(b.N)
	before := heapBytes()
	m := NewMem()
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if _, err := m.Create(hashes[i], all[ends[i]:ends[i+1]]); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(heapBytes()-before)/float64(b.N), "bytes/series")
	runtime.KeepAlive(m)
	runtime.KeepAlive(all)
	runtime.KeepAlive(hashes)
}

func BenchmarkLookup(b *testing.B) {
	m := benchMem()
	b.ResetTimer()
	for i := range b.N {
		h := *m.hashes.at(uint32(i*7919) % million)
		if _, ok := m.Lookup(h); !ok {
			b.Fatal("series not found")
		}
	}
}

type selectCase struct {
	name     string
	matchers []*labels.Matcher
}

func selectCases() []selectCase {
	eq := func(n, v string) *labels.Matcher { return labels.MustNewMatcher(labels.MatchEqual, n, v) }
	re := func(n, v string) *labels.Matcher { return labels.MustNewMatcher(labels.MatchRegexp, n, v) }
	metric := eq(metricName, "http_request_duration_seconds_total")
	return []selectCase{
		{"metric", []*labels.Matcher{metric}},
		{"three", []*labels.Matcher{metric, eq("region", "us-east-1"), labels.MustNewMatcher(labels.MatchNotEqual, "status", "200")}},
		{"customer", []*labels.Matcher{metric, eq("customer_id", "customer-000042")}},
		{"serial", []*labels.Matcher{metric, eq("serial", "SN0000000000")}},
		{"regex_million", []*labels.Matcher{metric, re("serial", "SN.*77.*")}},
		{"regex_prefix", []*labels.Matcher{metric, re("serial", "SN00012.*")}},
		{"regex_selected", []*labels.Matcher{metric, eq("customer_id", "customer-000042"), re("serial", ".*7.*")}},
		{"missing", []*labels.Matcher{metric, eq("region", "")}},
	}
}

func benchSelect(b *testing.B, x Reader) {
	for _, c := range selectCases() {
		b.Run(c.name, func(b *testing.B) {
			var n uint64
			for range b.N {
				ids, err := x.Select(context.Background(), c.matchers...)
				if err != nil {
					b.Fatal(err)
				}
				n = ids.GetCardinality()
			}
			b.ReportMetric(float64(n), "series")
		})
	}
}

func BenchmarkSelect(b *testing.B) { benchSelect(b, benchMem()) }

func benchRead(b *testing.B, x Reader) {
	ctx := context.Background()
	run := func(name string, fn func() error) {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				if err := fn(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("group_region", func() error { _, err := x.GroupBy(ctx, nil, []string{"region"}, false); return err })
	run("group_customer", func() error { _, err := x.GroupBy(ctx, nil, []string{"customer_id"}, false); return err })
	run("labels_all", func() error {
		return x.ForEach(ctx, nil, func(uint32, Hash128, []byte) error { return nil })
	})
	run("values_serial_10", func() error { _, err := x.LabelValues(ctx, "serial", nil, 10); return err })
	run("label_counts", func() error { _, err := x.LabelCounts(ctx, nil); return err })
	run("top_customers", func() error { _, _, err := x.ValueCounts(ctx, "customer_id", nil, 10); return err })
}

func BenchmarkRead(b *testing.B) { benchRead(b, benchMem()) }

// benchStore is the million series in packed form; the store is a sorted map, so its cost is none of Badger's.
var benchStore = sync.OnceValue(func() *kv {
	s := newKV()
	if _, err := benchMem().WritePacked(context.Background(), s, s); err != nil {
		panic(err)
	}
	return s
})

func benchPacked(b *testing.B) *Packed {
	p, err := OpenPacked(context.Background(), benchStore())
	if err != nil {
		b.Fatal(err)
	}
	return p
}

func BenchmarkPackedSelect(b *testing.B) { benchSelect(b, benchPacked(b)) }

func BenchmarkPackedRead(b *testing.B) { benchRead(b, benchPacked(b)) }

// BenchmarkPackedCold is a question to a packed index that was just opened: one customer's 50 series with their labels.
func BenchmarkPackedCold(b *testing.B) {
	benchStore()
	b.ResetTimer()
	for range b.N {
		p := benchPacked(b)
		ids, err := p.Select(context.Background(), selectCases()[2].matchers...)
		if err != nil || ids.GetCardinality() != 50 {
			b.Fatal(ids, err)
		}
		if err := p.ForEach(context.Background(), ids, func(uint32, Hash128, []byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpenPacked opens the million series, or takes a view of the opened index.
func BenchmarkOpenPacked(b *testing.B) {
	b.Run("open", func(b *testing.B) {
		benchStore()
		b.ResetTimer()
		for range b.N {
			benchPacked(b)
		}
	})
	b.Run("view", func(b *testing.B) {
		p := benchPacked(b)
		for range b.N {
			if _, ok, err := p.View(benchStore()); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
}

// BenchmarkWritePacked packs a million series an operation.
func BenchmarkWritePacked(b *testing.B) {
	m := benchMem()
	var stats PackStats
	for range b.N {
		s := newKV()
		var err error
		if stats, err = m.WritePacked(context.Background(), s, s); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(stats.SeriesBytes)/million, "record-bytes/series")
	b.ReportMetric(float64(stats.PostingBytes)/million, "posting-bytes/series")
	b.ReportMetric(float64(stats.HashBytes)/million, "hash-bytes/series")
	b.ReportMetric(float64(stats.AllKeys), "keys")
}

// BenchmarkLoadMem loads a million series an operation.
func BenchmarkLoadMem(b *testing.B) {
	s := benchStore()
	b.ResetTimer()
	for range b.N {
		if _, err := LoadMem(context.Background(), s, LoadConfig{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkShapes tells the cost of other partitions than one huge metric: memory and packed bytes of each series.
func BenchmarkShapes(b *testing.B) {
	for _, c := range []struct {
		name            string
		metrics, series int
	}{{"10000x3", 10000, 3}, {"50x2000_interleaved", 50, 2000}, {"1000x100_interleaved", 1000, 100}} {
		b.Run(c.name, func(b *testing.B) {
			for range b.N {
				before := heapBytes()
				m := NewMem()
				var buf []byte
				for i := range c.series {
					for k := range c.metrics {
						buf = benchLabels(buf[:0], i*c.metrics+k)
						_, rest, _ := cutBytes(buf)
						_, rest, _ = cutBytes(rest)
						ls := storage.AppendLabel(nil, metricName, fmt.Sprintf("metric_%05d_total", k))
						ls = append(ls, rest...)
						if _, err := m.Create(hashOf(ls), ls); err != nil {
							b.Fatal(err)
						}
					}
				}
				n := float64(m.SeriesCount())
				b.ReportMetric(float64(heapBytes()-before)/n, "bytes/series")
				s := newKV()
				stats, err := m.WritePacked(context.Background(), s, s)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(stats.SeriesBytes)/n, "record-bytes/series")
				b.ReportMetric(float64(stats.PostingBytes)/n, "posting-bytes/series")
				b.ReportMetric(float64(stats.AllKeys), "keys")
				b.ReportMetric(float64(m.IDBound())/n, "ids/series")
				b.ReportMetric(float64(m.Bytes())/n, "told-bytes/series")
			}
		})
	}
}
