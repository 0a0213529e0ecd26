package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/luminate/luminate/storage/storagetest"
)

const (
	overloadLimit    = 512 << 20 // GOMEMLIMIT of the server
	overloadSeries   = 100_000   // many, so that what is in flight holds each series about once
	overloadPeak     = 500       // requests of a peak; the overload gets four times as many
	overloadInFlight = 128       // requests of the open loop that wait for an answer
)

// overload measures the peak with senders that wait for answers, then offers four
// times that rate with senders that do not.
func overload(ctx context.Context, c *chaos, o *outcome) error {
	// The tenant's rate limit would shed the load before the server has to.
	s, err := c.server(filepath.Join(c.dir, "data"), []string{fmt.Sprintf("GOMEMLIMIT=%d", overloadLimit)}, "--limits.mode", "observe")
	if err != nil {
		return err
	}
	if err := c.startReady(ctx, s, o); err != nil {
		return err
	}
	client := newClient()
	// A connection for each request in flight, as its own sender would have.
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = overloadInFlight
	defer client.CloseIdleConnections()
	bodies, err := overloadBodies(c.o.seed)
	if err != nil {
		return err
	}
	if _, err := closedLoop(ctx, client, s.url, bodies[:100], 4); err != nil {
		return err
	}
	// The peak is measured on both sides of the overload: a neighbour's noise or a
	// store that grows must not look like the fault of the load.
	const n = overloadPeak
	cpu := s.cpuMeter()
	before, err := closedLoop(ctx, client, s.url, bodies[100:100+n], 4)
	if err != nil {
		return err
	}
	cpuPeak := cpu()
	anon := watchAnon(ctx, s)
	got := openLoop(ctx, client, s.url, bodies[100+n:100+5*n], 4*n/before.Seconds())
	peakAnon, cpuOver := anon(), cpu()
	after, err := closedLoop(ctx, client, s.url, bodies[100+5*n:], 4)
	if err != nil {
		return err
	}
	samples := func(n int) float64 { return float64(n) * samplesPerRequest }
	peak := samples(2*n) / (before + after).Seconds()
	o.set("peakSamplesPerSecond", peak)
	o.set("peakBefore", samples(n)/before.Seconds())
	o.set("peakAfter", samples(n)/after.Seconds())
	o.set("peakCPUSecondsPerMillion", cpuPeak/samples(n)*1e6)
	o.set("overloadCPUSecondsPerMillion", cpuOver/samples(got.taken)*1e6)
	goodput := samples(got.taken) / got.took.Seconds()
	o.set("offeredSamplesPerSecond", samples(got.sent+got.held)/got.offering.Seconds())
	o.set("goodputSamplesPerSecond", goodput)
	o.set("refused", float64(got.refused))
	o.set("heldByClient", float64(got.held))
	o.set("failed", float64(got.failed))
	o.set("anonymousMiBMax", float64(peakAnon)/(1<<20))
	o.expect(goodput >= 0.8*peak, "goodput %.0f is below 80 %% of the peak %.0f", goodput, peak)
	o.expect(float64(peakAnon) <= 1.1*overloadLimit, "anonymous memory %d MiB of %d MiB", peakAnon>>20, overloadLimit>>20)
	o.expect(got.failed == 0, "%d requests got neither an acknowledgement nor 429 or 503", got.failed)
	o.expect(s.alive(), "the server ended under load")
	return ctx.Err()
}

// cpuMeter returns a function that tells the CPU seconds since its last call.
func (s *server) cpuMeter() func() float64 {
	read := func() float64 {
		u, err := s.usage()
		if err != nil {
			return 0 // the process is gone, which is judged elsewhere
		}
		return u.cpu.Seconds()
	}
	last := read()
	return func() float64 {
		now := read()
		used := now - last
		last = now
		return used
	}
}

// overloadBodies returns a warm-up of 100 requests, twice a peak and four times a
// peak between, in order of time.
func overloadBodies(seed uint64) ([][]byte, error) {
	const scrapes = (100 + 6*overloadPeak) * samplesPerRequest / overloadSeries
	g := storagetest.NewGenerator(storagetest.Workload{Series: overloadSeries, Metrics: 10, Customers: 500, Interval: 1000, Seed: seed})
	r, err := encodeScrapes(g, time.Now().UnixMilli()-scrapes*1000, 1000, scrapes)
	if err != nil {
		return nil, err
	}
	return slices.Concat(r.bodies...), nil
}

// closedLoop sends the bodies in order with senders that wait for each answer.
func closedLoop(ctx context.Context, client *http.Client, base string, bodies [][]byte, senders int) (time.Duration, error) {
	return send(ctx, client, base, &requests{bodies: [][][]byte{bodies}}, senders)
}

// loopResult is what came of an open loop.
type loopResult struct {
	sent, taken, refused, failed int
	held                         int // not sent: too many waited for an answer
	offering, took               time.Duration
}

// openLoop offers a request every 1/rate s whether or not the last was answered, as
// many senders do that know nothing of each other, until every body was sent. Offers
// for which no slot is free are dropped and counted; their body goes with the next.
func openLoop(ctx context.Context, client *http.Client, base string, bodies [][]byte, rate float64) loopResult {
	var r loopResult
	var taken, refused, failed atomic.Int64
	slots := make(chan struct{}, overloadInFlight)
	var wg sync.WaitGroup
	begin := time.Now()
	for offer := 0; r.sent < len(bodies) && ctx.Err() == nil; offer++ {
		wait(ctx, time.Until(begin.Add(time.Duration(float64(offer)/rate*float64(time.Second)))))
		select {
		case slots <- struct{}{}:
		default:
			r.held++
			continue
		}
		body := bodies[r.sent]
		r.sent++
		wg.Go(func() {
			defer func() { <-slots }()
			status, err := postOnce(ctx, client, base+"/api/v1/write", body, "application/x-protobuf", "snappy")
			switch {
			case err == nil && status/100 == 2:
				taken.Add(1)
			case err == nil && (status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable):
				refused.Add(1)
			default:
				failed.Add(1)
			}
		})
	}
	r.offering = time.Since(begin)
	wg.Wait()
	r.took = time.Since(begin)
	r.taken, r.refused, r.failed = int(taken.Load()), int(refused.Load()), int(failed.Load())
	return r
}

// watchAnon samples the server's anonymous memory until the returned function is
// called, which gives the greatest. Mapped files do not count: the kernel takes
// their pages back when it needs them.
func watchAnon(ctx context.Context, s *server) func() int64 {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan int64)
	go func() {
		most := int64(0)
		for ctx.Err() == nil {
			most = max(most, statusBytes(s.cmd.Process.Pid, "RssAnon:"))
			wait(ctx, 20*time.Millisecond)
		}
		done <- most
	}()
	return func() int64 { cancel(); return <-done }
}
