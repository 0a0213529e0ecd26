package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// example describes the customers that exampleCommand writes: a few large ones and
// many small ones, of which most sign up within the span.
type example struct {
	URL, Tenant    string
	Customers      int
	Span, Interval time.Duration
	Seed           uint64
}

// exampleBatch is how many metrics one native write carries: half of what it may.
const exampleBatch = 5000

// exampleCommand writes what the Customers dashboard shows.
func exampleCommand() *cobra.Command {
	var e example
	cmd := &cobra.Command{
		Use: "example", Short: "Write example customers into a running server, for the Customers dashboard", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := loopbackOnly(e.URL); err != nil {
				return err
			}
			if e.Customers < 1 || e.Interval < time.Second || e.Span < e.Interval {
				return fmt.Errorf("example: at least 1 customer, an interval of 1s, and a span of one interval are needed")
			}
			began := time.Now()
			n, err := e.write(cmd.Context(), newClient(), began)
			if err != nil {
				return err
			}
			fmt.Fprintf(os.Stdout, "%d metrics of %d customers over %s in %s\n", n, e.Customers, e.Span, time.Since(began).Round(time.Millisecond))
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&e.URL, "url", "http://127.0.0.1:8080", "server, on a loopback address")
	f.StringVar(&e.Tenant, "tenant", "default", "tenant that the customers belong to")
	f.IntVar(&e.Customers, "customers", 200, "customers at the end of the span")
	f.DurationVar(&e.Span, "span", 6*time.Hour, "time that the data covers, up to now; at most 7 days")
	f.DurationVar(&e.Interval, "interval", 15*time.Second, "time between two samples")
	f.Uint64Var(&e.Seed, "seed", 1, "seed of the generator")
	return cmd
}

// exampleMetric is a metric of a native write.
type exampleMetric struct {
	Name       string            `json:"name"`
	Value      float64           `json:"value"`
	Timestamp  int64             `json:"timestamp"`
	Dimensions map[string]string `json:"dimensions"`
}

// exampleCustomer is one customer and how far its counters are.
type exampleCustomer struct {
	own            map[string]string // dimensions
	okay, failed   map[string]string // the same with an outcome
	signup         int64             // Unix milliseconds
	rate, errors   float64           // requests/s, share that fails
	latency, bytes float64
	served, faults float64
}

func (e *example) customers(start int64) []*exampleCustomer {
	rng := rand.New(rand.NewPCG(e.Seed, 0))
	plans, regions := []string{"enterprise", "business", "free"}, []string{"eu-west-1", "us-east-1", "ap-south-1"}
	out := make([]*exampleCustomer, e.Customers)
	for i := range out {
		c := &exampleCustomer{
			signup: start, rate: 200 / math.Pow(float64(i+1), 0.9), errors: 0.002 + 0.03*rng.Float64()*rng.Float64(),
			latency: 20 + 180*rng.Float64(), bytes: 1e9 * (1 + rng.Float64()),
		}
		if i >= max(3, e.Customers/3) { // the others sign up later
			c.signup += int64(rng.Float64() * float64(e.Span.Milliseconds()) * 0.95)
		}
		dims := func(extra ...string) map[string]string {
			m := map[string]string{
				"customer_id": fmt.Sprintf("cust_%04d", i+1), "plan": plans[min(i*6/e.Customers, len(plans)-1)], "region": regions[i%len(regions)],
			}
			if len(extra) > 0 {
				m["outcome"] = extra[0]
			}
			return m
		}
		c.own, c.okay, c.failed = dims(), dims("ok"), dims("error")
		out[i] = c
	}
	return out
}

// metrics appends the customer's metrics at a time, seconds after those before.
func (c *exampleCustomer) metrics(out []exampleMetric, at int64, seconds float64, rng *rand.Rand) []exampleMetric {
	daily := 1 + 0.4*math.Sin(2*math.Pi*float64(at%86_400_000)/86_400_000)
	requests := math.Round(c.rate * daily * seconds * (0.8 + 0.4*rng.Float64()))
	failed := math.Round(requests * c.errors * 2 * rng.Float64())
	c.served += requests - failed
	c.faults += failed
	c.bytes += requests * 2000
	return append(out,
		exampleMetric{"example_requests_total", c.served, at, c.okay},
		exampleMetric{"example_requests_total", c.faults, at, c.failed},
		exampleMetric{"example_latency_ms", math.Round(c.latency*daily*(0.9+0.2*rng.Float64())*10) / 10, at, c.own},
		exampleMetric{"example_active_users", math.Ceil(c.rate * daily * 3), at, c.own},
		exampleMetric{"example_stored_bytes", c.bytes, at, c.own},
	)
}

// write sends everything up to now and returns the number of metrics.
func (e *example) write(ctx context.Context, client *http.Client, now time.Time) (int, error) {
	step := e.Interval.Milliseconds()
	end := now.UnixMilli() / step * step
	start := end - e.Span.Milliseconds()
	customers := e.customers(start)
	rng := rand.New(rand.NewPCG(e.Seed, 1))
	total := 0
	var batch []exampleMetric
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := e.post(ctx, client, batch)
		total += len(batch)
		batch = batch[:0]
		return err
	}
	for at := start; at <= end; at += step {
		for _, c := range customers {
			if at < c.signup {
				continue
			}
			batch = c.metrics(batch, at, e.Interval.Seconds(), rng)
			if len(batch) > exampleBatch-5 {
				if err := flush(); err != nil {
					return total, err
				}
			}
		}
	}
	return total, flush()
}

// post sends one native write; what is refused is an error.
func (e *example) post(ctx context.Context, client *http.Client, batch []exampleMetric) error {
	body, err := json.Marshal(map[string]any{"metrics": batch})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL+"/api/v1/write", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Scope-OrgID", e.Tenant)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("write: %s: %s", resp.Status, text)
	}
	return nil
}
