package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/luminate/luminate/storage/storagetest"
	"github.com/luminate/luminate/tenancy"
	promwrite "github.com/prometheus/prometheus/prompb"
)

// richWrites have two metrics, of which the second has two dimensions, exemplars, and a
// native histogram of four buckets.
func richWrites(t testing.TB) map[string]wire {
	t.Helper()
	now := time.Now().UnixMilli()
	second := []promwrite.Label{{Name: "__name__", Value: "rich"}, {Name: "a", Value: "1"}, {Name: "bb", Value: "2"}}
	req := promwrite.WriteRequest{Timeseries: []promwrite.TimeSeries{
		{Labels: []promwrite.Label{{Name: "__name__", Value: "plain"}}, Samples: []promwrite.Sample{{Timestamp: now, Value: 1}}},
		{Labels: second, Samples: []promwrite.Sample{{Timestamp: now, Value: 1}}, Exemplars: []promwrite.Exemplar{
			{Labels: []promwrite.Label{{Name: "trace_id", Value: "1"}}, Value: 1, Timestamp: now - 1},
			{Labels: []promwrite.Label{{Name: "trace_id", Value: "2"}}, Value: 2, Timestamp: now},
		}},
		{Labels: []promwrite.Label{{Name: "__name__", Value: "plain"}, {Name: "kind", Value: "histogram"}}, Histograms: []promwrite.Histogram{{
			Count: &promwrite.Histogram_CountInt{CountInt: 4}, ZeroCount: &promwrite.Histogram_ZeroCountInt{}, Sum: 4, Schema: 1, ZeroThreshold: 0.001,
			PositiveSpans: []promwrite.BucketSpan{{Length: 4}}, PositiveDeltas: []int64{1, 0, 0, 0}, Timestamp: now,
		}}},
	}}
	b, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return map[string]wire{
		"remote write 1": {"POST", "/api/v1/write", []string{"Content-Type", "application/x-protobuf", "Content-Encoding", "snappy", "X-Prometheus-Remote-Write-Version", "0.1.0"}, snappy.Encode(nil, b), false},
		"native": {"POST", "/api/v1/write", []string{"Content-Type", "application/json"}, fmt.Appendf(nil,
			`{"metrics":[{"name":"plain","timestamp":%d,"value":1},{"name":"rich","timestamp":%d,"value":1,"dimensions":{"a":"1","bb":"2"}}]}`, now, now), false},
	}
}

// TestQueuedQueries lets one query run and one wait: the next one is refused with 429. In
// mode observe all run, and the one too many is counted.
func TestQueuedQueries(t *testing.T) {
	for _, mode := range []string{"enforce", "observe"} {
		t.Run(mode, func(t *testing.T) {
			slow := storagetest.NewFaulty(storagetest.NewModel(), func(method string) storagetest.Fault {
				if method == "LabelNames" {
					return storagetest.Fault{Delay: time.Hour}
				}
				return storagetest.Fault{}
			})
			s := newAuthServer(t, slow, func(cfg *Config) {
				cfg.Limits.File = keep(t, "limits.yaml", "tenants: {a: {maxConcurrentQueries: 1, maxQueuedQueries: 1}}\n")
				cfg.Limits.Mode = mode
			})
			q := &queries{t: t, s: s, token: mintFor(t, tenancy.Grant{Tenant: "a", Scopes: everyScope})}
			first, stop := q.start()
			calls(t, slow, 1)
			second, stopSecond := q.start()
			defer stopSecond()
			if mode == "observe" {
				calls(t, slow, 2)
				slow.SetScript(nil)
				third, _ := q.start()
				if got := <-third; got.status != http.StatusOK || s.limited(t, "max-queued-queries") != 1 {
					t.Errorf("observed: %d %s, counted %v", got.status, got.body, s.limited(t, "max-queued-queries"))
				}
				return
			}
			third, stopThird := q.start()
			defer stopThird()
			var refused answered
			waiting := second
			select { // which of the two came first is free
			case refused = <-second:
				waiting = third
			case refused = <-third:
			}
			h := refused.header
			if refused.status != http.StatusTooManyRequests || h.Get("Retry-After") == "" || !strings.Contains(refused.body, "limits.maxQueuedQueries") ||
				!strings.Contains(refused.body, `"errorType":"`) || s.limited(t, "max-queued-queries") != 1 {
				t.Errorf("one too many: %d %v %s", refused.status, h, refused.body)
			}
			slow.SetScript(nil)
			stop()
			<-first
			if got := <-waiting; got.status != http.StatusOK {
				t.Errorf("the one that waited: %d %s", got.status, got.body)
			}
		})
	}
}

// queries sends queries that can be given up.
type queries struct {
	t     *testing.T
	s     *authServer
	token string
}

// start sends one; its answer is empty if it was given up.
func (q *queries) start() (<-chan answered, context.CancelFunc) {
	ctx, cancel := context.WithCancel(q.t.Context())
	out := make(chan answered, 1)
	go func() {
		var got answered
		defer func() { out <- got }()
		req, err := http.NewRequestWithContext(ctx, "GET", q.s.URL+"/api/v1/labels", nil)
		if err != nil {
			q.t.Error(err)
			return
		}
		req.Header.Set("Authorization", "Bearer "+q.token)
		resp, err := q.s.Client().Do(req)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		got = answered{resp.StatusCode, resp.Header, string(b)}
	}()
	return out, cancel
}

// calls waits until the store was asked n times.
func calls(t *testing.T, f *storagetest.Faulty, n int) {
	t.Helper()
	eventually(t, 20*time.Second, func() error {
		if got := f.Calls("LabelNames"); got != n {
			return fmt.Errorf("%d calls of LabelNames, want %d", got, n)
		}
		return nil
	})
}
