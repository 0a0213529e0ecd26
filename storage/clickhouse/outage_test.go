package clickhouse_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/clickhouse"
	"github.com/luminate/luminate/storage/clickhouse/chtest"
	"github.com/luminate/luminate/storage/storagetest"
)

// proxied puts toxiproxy before a server and returns the proxy and a DSN through it.
func proxied(t *testing.T, server *chtest.Server) (*toxiproxy.Proxy, string) {
	t.Helper()
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.New(io.Discard))
	p := toxiproxy.NewProxy(api, "clickhouse", "127.0.0.1:0", server.Addr())
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	direct := server.Database(t)
	return p, strings.Replace(direct, server.Addr(), p.Listen, 1)
}

func addToxic(t *testing.T, p *toxiproxy.Proxy, json string) {
	t.Helper()
	if _, err := p.Toxics.AddToxicJson(strings.NewReader(json)); err != nil {
		t.Fatal(err)
	}
}

func batchOf(now int64, series, samples int) *storage.Batch {
	var b storage.Batch
	for i := range series {
		var xs []storage.Sample
		for j := range samples {
			xs = append(xs, storage.Sample{T: now - int64(samples-j)*1000, V: float64((i*7919 + j*104729) * 2654435761 % (1 << 32))})
		}
		b.Add(storage.LabelsFromStrings(storage.MetricName, "m", "i", fmt.Sprint(i)), xs...)
	}
	return &b
}

// totals returns the sum and count of all samples of metric m near now.
func totals(t *testing.T, s storage.Store, now int64) (sum, count float64) {
	t.Helper()
	g := storage.Grid{
		Matchers: []*storage.Matcher{storagetest.Eq(storage.MetricName, "m")}, Edges: []int64{now - 3_600_000, now + 3_600_000},
		Aggregates: []storage.Aggregate{{Op: storage.AggSum}, {Op: storage.AggCount}},
	}
	r, err := s.Evaluate(t.Context(), storage.MustTenant("a"), g)
	if err != nil {
		t.Fatalf("totals: %v", err)
	}
	if len(r.Groups) == 0 {
		return 0, 0
	}
	return r.Groups[0].Values[0][0], r.Groups[0].Values[1][0]
}

func wantTotals(t *testing.T, s storage.Store, now int64, b *storage.Batch) {
	t.Helper()
	var sum float64
	for _, x := range b.Samples {
		sum += x.V
	}
	if gs, gc := totals(t, s, now); gs != sum || gc != float64(len(b.Samples)) {
		t.Fatalf("sum %v and count %v, want %v and %d", gs, gc, sum, len(b.Samples))
	}
}

func outageConfig(dsn string) clickhouse.Config {
	cfg := testConfig(dsn)
	cfg.InsertRetries, cfg.InsertTimeout, cfg.DialTimeout = 0, 2*time.Second, time.Second
	return cfg
}

func TestServerDownIsToldAndPasses(t *testing.T) {
	p, dsn := proxied(t, chtest.Start(t))
	s, now, tn := open(t, outageConfig(dsn)), time.Now().UnixMilli(), storage.MustTenant("a")
	b := batchOf(now, 10, 10)
	p.Stop()
	if _, err := s.Append(t.Context(), tn, b); storage.KindOf(err) != storage.KindUnavailable {
		t.Fatalf("append while down: %v", err)
	}
	if h := s.Health(t.Context()); h.Status != storage.HealthDown || h.Error == "" {
		t.Fatalf("health while down: %+v", h)
	}
	for _, err := range s.Select(t.Context(), tn, storage.Selection{MinT: now - 1e6, MaxT: now}) {
		if storage.KindOf(err) != storage.KindUnavailable {
			t.Fatalf("select while down: %v", err)
		}
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	storagetest.MustAppend(t, s, "a", b)
	if h := s.Health(t.Context()); h.Status != storage.HealthOK {
		t.Fatalf("health afterwards: %+v", h)
	}
	wantTotals(t, s, now, b)
}

func TestInsertCutOffInTheMiddle(t *testing.T) {
	p, dsn := proxied(t, chtest.Start(t))
	s, now, tn := open(t, outageConfig(dsn)), time.Now().UnixMilli(), storage.MustTenant("a")
	b := batchOf(now, 100, 200)
	for _, bytes := range []int{2_000, 20_000} {
		// New connections are cut off after so many bytes to the server.
		addToxic(t, p, fmt.Sprintf(`{"name":"cut","type":"limit_data","stream":"upstream","attributes":{"bytes":%d}}`, bytes))
		if _, err := s.Append(t.Context(), tn, b); storage.KindOf(err) != storage.KindUnavailable {
			t.Fatalf("append cut off after %d bytes: %v", bytes, err)
		}
		if err := p.Toxics.RemoveToxic(context.Background(), "cut"); err != nil {
			t.Fatal(err)
		}
	}
	storagetest.MustAppend(t, s, "a", b)
	wantTotals(t, s, now, b)
}

// TestAnswerLost loses the server's answer to a block that it stored: the same block
// sent again, with its token, is stored once.
func TestAnswerLost(t *testing.T) {
	p, dsn := proxied(t, chtest.Start(t))
	cfg := outageConfig(dsn)
	cfg.InsertRetries, cfg.InsertTimeout = 8, 500*time.Millisecond
	reg := prometheus.NewRegistry()
	s, err := clickhouse.Open(t.Context(), cfg, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	now := time.Now().UnixMilli()
	storagetest.MustAppend(t, s, "a", batchOf(now, 1, 1)) // connections exist
	b := batchOf(now, 50, 50)
	addToxic(t, p, `{"name":"lost","type":"timeout","stream":"downstream","attributes":{"timeout":0}}`)
	done := make(chan error, 1)
	go func() {
		_, err := s.Append(context.Background(), storage.MustTenant("a"), b)
		done <- err
	}()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for counterOf(t, reg, "luminate_clickhouse_block_retries_total") == 0 {
		<-tick.C
	}
	if err := p.Toxics.RemoveToxic(context.Background(), "lost"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatalf("append: %v", err)
	}
	wantTotals(t, s, now, b)
}

// TestSilentServerIsRefused lets the network swallow everything: the append is refused
// long before the insert's own time is over, health tells it, and what follows works.
func TestSilentServerIsRefused(t *testing.T) {
	p, dsn := proxied(t, chtest.Start(t))
	cfg := outageConfig(dsn)
	cfg.InsertTimeout = time.Hour // only the vigil can end the append
	cfg.QueryTimeout = time.Hour
	s, now, tn := open(t, cfg), time.Now().UnixMilli(), storage.MustTenant("a")
	storagetest.MustAppend(t, s, "a", batchOf(now, 1, 1)) // connections exist
	b := batchOf(now, 10, 10)
	addToxic(t, p, `{"name":"silent","type":"timeout","stream":"upstream","attributes":{"timeout":0}}`)
	if _, err := s.Append(t.Context(), tn, b); storage.KindOf(err) != storage.KindUnavailable {
		t.Fatalf("append to a silent server: %v", err)
	}
	if h := s.Health(t.Context()); h.Status != storage.HealthDown {
		t.Fatalf("health: %+v", h)
	}
	if err := p.Toxics.RemoveToxic(context.Background(), "silent"); err != nil {
		t.Fatal(err)
	}
	storagetest.MustAppend(t, s, "a", b)
	wantTotals(t, s, now, b)
}

func counterOf(t *testing.T, reg *prometheus.Registry, name string) (v float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			v += f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return v
}

func TestSlowServerIsNoError(t *testing.T) {
	p, dsn := proxied(t, chtest.Start(t))
	s, now := open(t, outageConfig(dsn)), time.Now().UnixMilli()
	addToxic(t, p, `{"name":"slow","type":"latency","stream":"downstream","attributes":{"latency":100}}`)
	b := batchOf(now, 5, 5)
	storagetest.MustAppend(t, s, "a", b)
	wantTotals(t, s, now, b)
}

func TestCancelledSelectLeavesTheStoreUsable(t *testing.T) {
	s, now := open(t, testConfig(chtest.DSN(t))), time.Now().UnixMilli()
	b := batchOf(now, 200, 300)
	storagetest.MustAppend(t, s, "a", b)
	for i := range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		for _, err := range s.Select(ctx, storage.MustTenant("a"), storage.Selection{MinT: now - 1e6, MaxT: now, Unsorted: true}) {
			if err != nil && storage.KindOf(err) != storage.KindCanceled {
				t.Fatalf("select: %v", err)
			}
			if n++; n == i {
				cancel()
			}
			if n > 2*i { // sometimes the consumer leaves first
				break
			}
		}
		cancel()
	}
	wantTotals(t, s, now, b)
}

// TestEightSourcesExactSums is the promise to senders: eight sources, every request
// twice, through two stores, and a server killed in between: sums and counts are exact.
func TestEightSourcesExactSums(t *testing.T) {
	const sources, events, perRequest = 8, 10_000, 2_500
	server := chtest.Own(t)
	dsn := server.Database(t)
	cfg := testConfig(dsn)
	cfg.FsyncInserts, cfg.FlushAge = true, 10*time.Millisecond
	stores := []*clickhouse.Store{open(t, cfg), open(t, cfg)}
	now := time.Now().UnixMilli()
	var all storage.Batch
	var wg sync.WaitGroup
	for src := range sources {
		ls := storage.LabelsFromStrings(storage.MetricName, "m", "instance", fmt.Sprint(src))
		var xs []storage.Sample
		for i := range events {
			xs = append(xs, storage.Sample{T: now - 10_000 + int64(i), V: float64(src*events + i)})
		}
		all.Add(ls, xs...)
		wg.Go(func() {
			for from := 0; from < events; from += perRequest {
				var b storage.Batch
				b.Add(ls, xs[from:from+perRequest]...)
				for _, s := range stores {
					if _, err := s.Append(context.Background(), storage.MustTenant("a"), &b); err != nil {
						t.Errorf("append: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
	wantTotals(t, stores[0], now, &all)
	server.Kill(t)
	if h := stores[0].Health(t.Context()); h.Status != storage.HealthDown {
		t.Fatalf("health of a killed server: %+v", h)
	}
	server.Restart(t)
	for _, s := range stores {
		wantTotals(t, s, now, &all)
	}
	server.Exec(t, "OPTIMIZE TABLE "+dsn[strings.LastIndexByte(dsn, '/')+1:]+".samples FINAL")
	wantTotals(t, stores[1], now, &all)
}
