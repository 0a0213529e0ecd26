package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/prompb"
	"github.com/spf13/cobra"
)

// soakOptions are the flags of soak.
type soakOptions struct {
	url      string
	series   int
	interval time.Duration
	duration time.Duration
	tenant   string
	listen   string
	tally    *tally
}

// soakCommand writes a sine wave and checks what it reads against the formula:
// the continuous test. It ends with an error at the first wrong or missing value, or,
// with --listen, counts it and goes on.
func soakCommand() *cobra.Command {
	var o soakOptions
	cmd := &cobra.Command{
		Use: "soak", Short: "Write a known function of time and check every read against it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := loopbackOnly(o.url); err != nil {
				return err
			}
			ctx := cmd.Context()
			if o.duration > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, o.duration)
				defer cancel()
			}
			reg := prometheus.NewRegistry()
			o.tally = newTally(reg)
			if o.listen != "" {
				stop, err := serveMetrics(o.listen, reg)
				if err != nil {
					return err
				}
				defer stop()
			}
			return soak(ctx, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.url, "url", "http://127.0.0.1:8080", "server, on a loopback address")
	f.IntVar(&o.series, "series", 1000, "series")
	f.DurationVar(&o.interval, "interval", time.Second, "time between writes")
	f.DurationVar(&o.duration, "duration", time.Minute, "how long to go on; 0: until it is stopped")
	f.StringVar(&o.listen, "listen", "", "address for the metrics of a test without end; failures are counted there and do not end it")
	f.StringVar(&o.tenant, "tenant", "soak", "tenant to write to")
	return cmd
}

// waveAt is the known function: series i at time t (ms).
func waveAt(i int, t int64) float64 {
	return math.Round(1000*math.Sin(float64(t)/60_000+float64(i)))/10 + float64(i)
}

func soak(ctx context.Context, o soakOptions) error {
	c := newClient()
	defer c.CloseIdleConnections()
	var written []int64 // times of the newest writes
	writes, checks := 0, 0
	step := o.interval.Milliseconds()
	tick := time.NewTicker(o.interval)
	defer tick.Stop()
	for {
		t := time.Now().UnixMilli() / step * step
		if len(written) == 0 || t > written[len(written)-1] {
			switch err := writeWave(ctx, c, o, t); {
			case err == nil:
				writes++
				o.tally.writes.Inc()
				if written = append(written, t); len(written) > soakRemembers {
					written = written[1:]
				}
			case !o.goesOn(ctx, err):
				return endOf(ctx, writes, checks, err)
			}
		}
		n, err := checkWave(ctx, c, o, written)
		if err != nil && !o.goesOn(ctx, err) {
			return endOf(ctx, writes, checks, err)
		}
		checks += n
		o.tally.checks.Add(float64(n))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return endOf(ctx, writes, checks, nil)
		}
	}
}

// endOf prints the sum of the run; an error caused by the end of the run is none.
func endOf(ctx context.Context, writes, checks int, err error) error {
	if err != nil && ctx.Err() == nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "PASS: %d writes, %d values checked, 0 wrong\n", writes, checks)
	return nil
}

func writeWave(ctx context.Context, c *http.Client, o soakOptions, t int64) error {
	var req prompb.WriteRequest
	for i := range o.series {
		req.Timeseries = append(req.Timeseries, prompb.TimeSeries{
			Labels:  []prompb.Label{{Name: "__name__", Value: "soak_wave"}, {Name: "series", Value: strconv.Itoa(i)}},
			Samples: []prompb.Sample{{Timestamp: t, Value: waveAt(i, t)}},
		})
	}
	raw, err := req.Marshal()
	if err != nil {
		return err
	}
	return post(ctx, tenantClient(c, o.tenant), o.url+"/api/v1/write", snappy.Encode(nil, raw), false)
}

// checkWave reads one random series over a random stretch of what was written and
// compares every value; each written time must be there.
func checkWave(ctx context.Context, c *http.Client, o soakOptions, written []int64) (int, error) {
	if len(written) == 0 {
		return 0, nil
	}
	i := rand.IntN(o.series)
	from := rand.IntN(len(written))
	to := min(len(written), from+500)
	span := written[to-1] - written[from] + 1
	params := url.Values{
		"query": {fmt.Sprintf(`soak_wave{series="%d"}[%dms]`, i, span)},
		"time":  {seconds(written[to-1])},
	}
	_, body, err := query(ctx, tenantClient(c, o.tenant), o.url, "/api/v1/query", params)
	if err != nil {
		return 0, err
	}
	var answer struct {
		Data struct {
			Result []struct {
				Values [][2]any `json:"values"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return 0, fmt.Errorf("decode answer: %w", err)
	}
	got := map[int64]float64{}
	for _, r := range answer.Data.Result {
		for _, v := range r.Values {
			ts, _ := v[0].(float64)
			text, _ := v[1].(string)
			x, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return 0, fmt.Errorf("value %q: %w", text, err)
			}
			got[int64(math.Round(ts*1000))] = x
		}
	}
	for _, t := range written[from:to] {
		x, ok := got[t]
		if !ok {
			return 0, &falseRead{"missing", fmt.Sprintf("series %d: the sample at %d, acknowledged, is missing", i, t)}
		}
		if x != waveAt(i, t) {
			return 0, &falseRead{"wrong", fmt.Sprintf("series %d at %d: read %v, wrote %v", i, t, x, waveAt(i, t))}
		}
	}
	return to - from, nil
}

// tenantClient returns a client that names the tenant in every request.
func tenantClient(c *http.Client, tenant string) *http.Client {
	return &http.Client{Timeout: c.Timeout, Transport: tenantTransport{c.Transport, tenant}}
}

type tenantTransport struct {
	next   http.RoundTripper
	tenant string
}

// RoundTrip implements http.RoundTripper.
func (t tenantTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Scope-OrgID", t.tenant)
	return t.next.RoundTrip(r)
}

// loopbackOnly refuses to load anything but this machine.
func loopbackOnly(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return errors.New("load goes to loopback addresses only")
	}
	return nil
}
