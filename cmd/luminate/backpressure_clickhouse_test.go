package main

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/luminate/luminate/storage/clickhouse/chtest"
)

// TestBackpressureClickHouse: senders that are faster than the way to ClickHouse are
// answered 503 with Retry-After and the setting's name, no more rows wait than may, and
// once the way is free each request that is sent again is stored, once.
func TestBackpressureClickHouse(t *testing.T) {
	const limit, senders, rows = 1500, 12, 500
	zerolog.SetGlobalLevel(zerolog.Disabled) // a toxic logs its own way
	server := chtest.Start(t)
	proxy := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.New(io.Discard)), "clickhouse", "127.0.0.1:0", server.Addr())
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Stop)
	p := startOnClickHouse(t, strings.Replace(server.Database(t), server.Addr(), proxy.Listen, 1), "--storage.clickhouse.maxBufferedRows", fmt.Sprint(limit))
	if _, err := proxy.Toxics.AddToxicJson(strings.NewReader(`{"type": "bandwidth", "stream": "upstream", "attributes": {"rate": 300}}`)); err != nil {
		t.Fatal(err)
	}
	now, refused, most := time.Now(), atomic.Int64{}, 0.0
	var wg sync.WaitGroup
	for n := range senders {
		body := writeBody(t, "pressed", n*rows, rows, now)
		wg.Go(func() {
			for {
				resp, err := http.DefaultClient.Do(remoteWrite(t, p.url, "", body))
				if err != nil {
					t.Error(err)
					return
				}
				text, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				switch {
				case resp.StatusCode/100 == 2:
					return
				case resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(string(text), "max-buffered-rows"):
					t.Errorf("%s, Retry-After %q: %s", resp.Status, resp.Header.Get("Retry-After"), text)
					return
				}
				if refused.Add(1) == 50 { // everybody has been refused: let them through
					if err := proxy.Toxics.RemoveToxic(t.Context(), "bandwidth_upstream"); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	buffered := regexp.MustCompile(`(?m)^luminate_clickhouse_buffered_rows (\S+)$`)
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
			_, text, _ := do(t, "GET", p.url+"/metrics", "", "")
			if found := buffered.FindStringSubmatch(text); found != nil {
				v, _ := strconv.ParseFloat(found[1], 64)
				most = max(most, v)
			}
		}
	}
	if refused.Load() == 0 || most == 0 || most > limit {
		t.Errorf("%d requests were refused, at most %v rows waited, want some and up to %d", refused.Load(), most, limit)
	}
	_, text, _ := do(t, "GET", fmt.Sprintf("%s/api/v1/query?query=count(pressed)&time=%d", p.url, now.Unix()+1), "", "")
	if want := fmt.Sprintf(`"%d"`, senders*rows); !strings.Contains(text, want) {
		t.Errorf("count: %s, want %s", text, want)
	}
	t.Logf("%d refusals, at most %v rows waited, %s, peak of memory %d MiB", refused.Load(), most, time.Since(now), peakMemory(t, p.cmd.Process.Pid)>>20)
}
