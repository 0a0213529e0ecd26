//go:build e2e

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/luminate/luminate/storage/clickhouse/chtest"
)

// balancer is a load balancer as an ingress is one: it asks each server's /readyz,
// sends requests to the ready ones in turn, and repeats nothing.
type balancer struct {
	mu      sync.Mutex
	servers []*url.URL
	ready   map[string]bool
	next    int
}

func (b *balancer) pick() *url.URL {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range b.servers {
		b.next = (b.next + 1) % len(b.servers)
		if u := b.servers[b.next]; b.ready[u.Host] {
			return u
		}
	}
	return nil
}

func (b *balancer) setReady(host string, ready bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ready[host] = ready
}

// watch asks every server by itself: a slow one must not hide another's state.
func (b *balancer) watch(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, u := range b.servers {
		wg.Go(func() { b.watchOne(ctx, u) })
	}
}

func (b *balancer) watchOne(ctx context.Context, u *url.URL) {
	client := &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := client.Get(u.String() + "/readyz")
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		// A slow answer is no answer yet: like an ingress, only a refusal counts at once.
		var slow net.Error
		if !errors.As(err, &slow) || !slow.Timeout() {
			b.setReady(u.Host, err == nil && resp.StatusCode == http.StatusOK)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// ServeHTTP implements http.Handler.
func (b *balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u := b.pick()
	if u == nil {
		http.Error(w, "no server is ready", http.StatusBadGateway)
		return
	}
	httputil.NewSingleHostReverseProxy(u).ServeHTTP(w, r)
}

// TestRollingRestartLosesNothing restarts three processes over one ClickHouse one
// after the other, ten rounds, under writes and queries: no request fails and
// every acknowledged sample is there once.
func TestRollingRestartLosesNothing(t *testing.T) {
	const rounds, processes = 10, 3
	dsn := chtest.DSN(t)
	start := func(addr string) *process {
		bin, err := luminateBinary()
		if err != nil {
			t.Fatal(err)
		}
		return startProcess(t, "http://"+addr, "/readyz", nil, bin, "serve", "--server.listen", addr, "--storage.backend=clickhouse",
			"--storage.clickhouse.dsn="+dsn, "--server.drainDelay=1500ms", "--log.format=text")
	}
	b := &balancer{ready: map[string]bool{}}
	var procs []*process
	for range processes {
		addr := freeAddress(t)
		procs = append(procs, start(addr))
		b.servers = append(b.servers, &url.URL{Scheme: "http", Host: addr})
		b.setReady(addr, true)
	}
	ctx, cancel := context.WithCancel(t.Context())
	front := &http.Server{Addr: freeAddress(t), Handler: b, ReadHeaderTimeout: time.Minute}
	var wg sync.WaitGroup
	wg.Go(func() { b.watch(ctx) })
	wg.Go(func() {
		if err := front.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("balancer: %v", err)
		}
	})
	base := "http://" + front.Addr
	eventually(t, 10*time.Second, func() error {
		resp, err := http.Get(base + "/readyz")
		if err == nil {
			resp.Body.Close()
		}
		return err
	})

	var acked, failed, queries atomic.Int64
	fail := func(format string, args ...any) {
		if failed.Add(1) <= 5 {
			t.Errorf(format, args...)
		}
	}
	load, stopLoad := context.WithCancel(ctx)
	var loaders sync.WaitGroup
	begin := time.Now().UnixMilli()
	for w := range 2 {
		loaders.Go(func() {
			for i := 0; load.Err() == nil; i++ {
				body := fmt.Sprintf(`{"metrics":[{"name":"rollout","timestamp":%d,"value":1,"dimensions":{"w":"%d"}}]}`, begin+int64(i), w)
				resp, err := http.Post(base+"/api/v1/write", "application/json", strings.NewReader(body))
				if err != nil {
					fail("write: %v", err)
					continue
				}
				text, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					fail("write: %s %s", resp.Status, text)
					continue
				}
				acked.Add(1)
			}
		})
	}
	loaders.Go(func() {
		for load.Err() == nil {
			resp, err := http.Get(base + "/api/v1/query?query=" + url.QueryEscape("sum(count_over_time(rollout[1h]))"))
			if err != nil {
				fail("query: %v", err)
				continue
			}
			text, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				fail("query: %s %s", resp.Status, text)
			}
			queries.Add(1)
		}
	})
	for round := range rounds {
		for i, p := range procs {
			p.stop(syscall.SIGTERM)
			if code := p.cmd.ProcessState.ExitCode(); code != 0 {
				t.Errorf("round %d: process %d ended with %d:\n%s", round, i, code, p.log)
			}
			host := b.servers[i].Host
			procs[i] = start(host)
			eventually(t, 10*time.Second, func() error {
				b.mu.Lock()
				defer b.mu.Unlock()
				if !b.ready[host] {
					return errors.New("the balancer has not seen it ready")
				}
				return nil
			})
		}
	}
	stopLoad()
	loaders.Wait()
	if got := countOf(t, base); got != acked.Load() {
		t.Errorf("%d samples are stored, %d were acknowledged", got, acked.Load())
	}
	t.Logf("%d rounds of %d processes: %d writes and %d queries, %d failed", rounds, processes, acked.Load(), queries.Load(), failed.Load())
	cancel()
	_ = front.Shutdown(t.Context())
	wg.Wait()
	http.DefaultClient.CloseIdleConnections()
}

// countOf counts all samples of the metric rollout.
func countOf(t *testing.T, base string) int64 {
	t.Helper()
	_, body, _ := do(t, "GET", base+"/api/v1/query?query="+url.QueryEscape("sum(count_over_time(rollout[1h]))"), "", "")
	var answer struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || len(answer.Data.Result) != 1 {
		t.Fatalf("%v: %s", err, body)
	}
	var n int64
	_, _ = fmt.Sscan(fmt.Sprint(answer.Data.Result[0].Value[1]), &n)
	return n
}
