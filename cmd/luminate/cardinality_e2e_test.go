//go:build e2e

package main

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/luminate/luminate/storage/clickhouse/chtest"
	"github.com/luminate/luminate/tenancy"
)

// oneValue finds the value in the answer to an instant query.
var oneValue = regexp.MustCompile(`"value":\[[0-9.]+,"([0-9]+)"\]`)

// TestSeriesLimitOverThreeProcesses sends 300,000 series to three processes over one
// ClickHouse, with a limit of 150,000: what is stored stays within 3 % of it, every
// process takes the series that any of them has let in, and each knows how many are alive.
func TestSeriesLimitOverThreeProcesses(t *testing.T) {
	const series, limit, batch = 300_000, 150_000, 1_000
	limits := keep(t, "limits.yaml", fmt.Sprintf("defaults: {maxActiveSeries: %d}\n", limit))
	args := []string{
		"--auth.jwtSecretFile", keep(t, "secret", authSecret), "--limits.file", limits,
		"--storage.backend", "clickhouse", "--storage.clickhouse.dsn", chtest.DSN(t),
	}
	var processes []*process
	for range 3 {
		processes = append(processes, startLuminate(t, t.TempDir(), args...))
	}
	token := mintFor(t, tenancy.Grant{Tenant: "a", Scopes: everyScope})
	alive := func(want string) func() error {
		return func() error {
			for i, p := range processes {
				_, body, _ := do(t, "GET", p.url+"/metrics", "", "", "Authorization", "Bearer "+token)
				if !strings.Contains(body, "\nluminate_tenancy_processes "+want+"\n") {
					return fmt.Errorf("process %d does not count %s processes", i, want)
				}
			}
			return nil
		}
	}
	eventually(t, time.Minute, alive("3"))
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	now := time.Now()
	var next, whole, partly atomic.Int64
	start := time.Now()
	var wg sync.WaitGroup
	for sender := range 4 {
		wg.Go(func() {
			for {
				n := int(next.Add(1) - 1)
				if n*batch >= series {
					return
				}
				p := processes[(n*7+sender)%3]
				switch status := postWrite(t, client, p.url, token, writeBody(t, "wide", n*batch, batch, now)); status {
				case 204:
					whole.Add(1)
				case 400:
					partly.Add(1)
				default:
					t.Errorf("request %d: status %d", n, status)
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	stored := 0
	eventually(t, time.Minute, func() error {
		_, body, _ := do(t, "GET", processes[0].url+"/api/v1/query?query=count(wide)", "", "", "Authorization", "Bearer "+token)
		if m := oneValue.FindStringSubmatch(body); m != nil {
			stored, _ = strconv.Atoi(m[1])
			return nil
		}
		return fmt.Errorf("count: %s", body)
	})
	t.Logf("%d series sent, limit %d: %d stored, %+.2f %%; %d requests whole, %d not, in %s", series, limit, stored,
		100*(float64(stored)/limit-1), whole.Load(), partly.Load(), took.Round(time.Millisecond))
	if stored < limit*97/100 || stored > limit*103/100 {
		t.Errorf("%d series are stored, not within 3 %% of %d", stored, limit)
	}
	for i, p := range processes {
		eventually(t, time.Minute, func() error { // the last announcements take up to two exchanges
			for n := range 10 {
				if status := postWrite(t, client, p.url, token, writeBody(t, "wide", n*batch, batch, now.Add(time.Millisecond))); status != 204 {
					return fmt.Errorf("process %d, known series of request %d: %d", i, n, status)
				}
			}
			return nil
		})
	}
	processes[2].stop(15)
	processes = processes[:2]
	eventually(t, time.Minute, alive("2"))
}
