//go:build unix

package native

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
	"github.com/luminate/luminate/tenancy"
)

// batchBody is a batch as applications send it: n metrics of 2,000 series with
// five dimensions.
func batchBody(n int) []byte { return batchBodyAt(n, 0) }

// batchBodyAt is a batch whose times begin offset milliseconds later.
func batchBodyAt(n int, offset int64) []byte {
	var q WriteRequest
	for i := range n {
		q.Metrics = append(q.Metrics, WriteMetric{
			Name: "api_latency", Timestamp: ms + offset + int64(i), Value: float64(i%1000) + 0.25,
			Dimensions: map[string]string{
				"customer_id": fmt.Sprintf("cust_%06d", i%2000), "endpoint": "/api/v1/users", "region": "us-east-1",
				"status": "200", "tier": "enterprise",
			},
		})
	}
	b, err := json.Marshal(q)
	if err != nil {
		panic(err)
	}
	return b
}

// BenchmarkDecode is the way from the body's bytes to a batch for the storage.
func BenchmarkDecode(b *testing.B) {
	const n = 10_000
	body := batchBody(n)
	var x writer
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	cpu := startCPU()
	for b.Loop() {
		x.decoder.reset(DefaultConfig().Write, testNow)
		x.window.reset(bytes.NewReader(body))
		if err := x.decodeBatch(); err != nil {
			b.Fatal(err)
		}
		x.assemble(&x.decoder)
		if len(x.batch.Samples) != n {
			b.Fatal(len(x.batch.Samples))
		}
	}
	cpu.report(b, n*b.N)
}

// BenchmarkDecodeTree is what the streaming decoder stands beside: the same body
// through encoding/json into structs and maps, without any check.
func BenchmarkDecodeTree(b *testing.B) {
	const n = 10_000
	body := batchBody(n)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	cpu := startCPU()
	for b.Loop() {
		var q WriteRequest
		if err := json.Unmarshal(body, &q); err != nil {
			b.Fatal(err)
		}
	}
	cpu.report(b, n*b.N)
}

// BenchmarkWriteBadger is the whole way: HTTP, decoding, and the embedded storage
// with its log.
func BenchmarkWriteBadger(b *testing.B) {
	const n = 10_000
	f := newFixtureOver(&testing.T{}, openBadger(b))
	bodies := make([][]byte, 64)
	for i := range bodies {
		bodies[i] = batchBodyAt(n, int64(i)*n)
	}
	sent := 0
	cpu := startCPU()
	for b.Loop() {
		r := httptest.NewRequest("POST", "/api/v1/write", bytes.NewReader(bodies[sent/n%len(bodies)]))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		f.api.ServeWrite(w, r.WithContext(tenancy.NewContext(r.Context(), f.id)))
		if w.Code != 200 {
			b.Fatal(w.Code, w.Body)
		}
		sent += n
	}
	cpu.report(b, sent)
}

// BenchmarkServeWrite adds HTTP and a store that keeps nothing.
func BenchmarkServeWrite(b *testing.B) {
	const n = 10_000
	body := batchBody(n)
	var sent int
	sink := storagetest.NewFaulty(storagetest.NewModel(), func(string) storagetest.Fault {
		return storagetest.Fault{Err: storage.Errorf(storage.KindUnavailable, "append", "nothing is kept")}
	})
	f := newFixtureOver(&testing.T{}, sink)
	cpu := startCPU()
	for b.Loop() {
		r := httptest.NewRequest("POST", "/api/v1/write", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		f.api.ServeWrite(w, r.WithContext(tenancy.NewContext(r.Context(), f.id)))
		if w.Code != 503 {
			b.Fatal(w.Code, w.Body)
		}
		sent += n
	}
	cpu.report(b, sent)
}

// cpuClock measures the process's own CPU time: on a busy machine the wall says
// little.
type cpuClock time.Duration

func startCPU() cpuClock { return cpuClock(cpuTime()) }

func (c cpuClock) report(b *testing.B, metrics int) {
	b.ReportMetric(float64(metrics)/(cpuTime()-time.Duration(c)).Seconds(), "metrics/CPU-s")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
