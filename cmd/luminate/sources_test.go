package main

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/luminate/luminate/storage/clickhouse/chtest"
)

// TestEightSourcesTwice is the promise to senders, on both backends: eight sources send
// 10,000 events each of one metric in ten seconds, every request twice, on ClickHouse
// through two processes; sum and count are exact, and still after a kill.
func TestEightSourcesTwice(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	bin, err := luminateBinary()
	if err != nil {
		t.Fatal(err)
	}
	run := func(backend string, processes int, flags ...string) {
		t.Run(backend, func(t *testing.T) {
			start := func() []*process {
				var procs []*process
				for range processes {
					addr := freeAddress(t)
					argv := append([]string{bin, "serve", "--server.listen", addr, "--storage.backend", backend, "--log.format", "text"}, flags...)
					procs = append(procs, startProcess(t, "http://"+addr, "/readyz", nil, argv...))
				}
				return procs
			}
			procs := start()
			begin := time.Now().UnixMilli() - 20_000
			sendTwice(t, procs, begin)
			for _, p := range procs {
				wantExact(t, p.url, begin)
				p.stop(syscall.SIGKILL)
			}
			for _, p := range start() {
				wantExact(t, p.url, begin)
			}
		})
	}
	run("badger", 1, "--storage.badger.dir", t.TempDir())
	run("clickhouse", 2, "--storage.clickhouse.dsn", chtest.DSN(t))
}

const (
	eventSources   = 8
	sourceEvents   = 10_000 // one a millisecond: ten seconds
	eventsARequest = 2_500
)

// sendTwice sends every request of every source to two of the processes.
func sendTwice(t *testing.T, procs []*process, begin int64) {
	t.Helper()
	var wg sync.WaitGroup
	for source := range eventSources {
		wg.Go(func() {
			for from := 0; from < sourceEvents; from += eventsARequest {
				var b strings.Builder
				fmt.Fprintf(&b, `{"source":"pod-%d","metrics":[`, source)
				for i := from; i < from+eventsARequest; i++ {
					if i > from {
						b.WriteByte(',')
					}
					fmt.Fprintf(&b, `{"name":"orders","timestamp":%d,"value":%d}`, begin+int64(i), source*sourceEvents+i)
				}
				b.WriteString("]}")
				for n := range 2 {
					resp, err := http.Post(procs[(source+n)%len(procs)].url+"/api/v1/write", "application/json", strings.NewReader(b.String()))
					if err != nil {
						t.Errorf("write: %v", err)
						continue
					}
					resp.Body.Close()
					if resp.StatusCode != http.StatusOK {
						t.Errorf("write: %s", resp.Status)
					}
				}
			}
		})
	}
	wg.Wait()
}

// wantExact asks a process for the sum and count of all events.
func wantExact(t *testing.T, base string, begin int64) {
	t.Helper()
	query := fmt.Sprintf(`{"queryType":"aggregate","metricName":"orders","timeRange":{"start":%d,"end":%d},"aggregation":"sum"}`, begin, begin+sourceEvents)
	status, body, _ := do(t, http.MethodPost, base+"/api/v1/query", "application/json", query)
	var answer struct {
		Results []struct {
			Value float64
			Count int64
		}
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK || len(answer.Results) != 1 {
		t.Fatalf("query: %d, %v: %s", status, err, body)
	}
	const n = eventSources * sourceEvents
	const sum = float64(n) * (n - 1) / 2
	if r := answer.Results[0]; math.Float64bits(r.Value) != math.Float64bits(sum) || r.Count != n {
		t.Errorf("sum %v and count %d, want %v and %d", r.Value, r.Count, sum, n)
	}
}
