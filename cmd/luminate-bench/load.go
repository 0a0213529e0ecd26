package main

import (
	"fmt"
	"os"
	"time"

	"github.com/luminate/luminate/storage/storagetest"
	"github.com/spf13/cobra"
)

// loadCommand sends a generated workload to a server that runs already. Requests
// are bounded by --scrapes; the command stops by itself.
func loadCommand() *cobra.Command {
	var url string
	var w storagetest.Workload
	var scrapes, senders int
	var native bool
	cmd := &cobra.Command{
		Use: "load", Short: "Send a generated workload to a running server", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := loopbackOnly(url); err != nil {
				return err
			}
			end := time.Now().UnixMilli() / w.Interval * w.Interval
			r, err := encodeAs(storagetest.NewGenerator(w), end-int64(scrapes-1)*w.Interval, w.Interval, scrapes, native)
			if err != nil {
				return err
			}
			c := newClient()
			defer c.CloseIdleConnections()
			took, err := send(cmd.Context(), c, url, r, senders)
			if err != nil {
				return err
			}
			fmt.Fprintf(os.Stdout, "%d samples of %d series in %s: %.3f M samples/s, %.1f B a sample on the wire\n",
				r.samples, w.Series, took.Round(time.Millisecond), float64(r.samples)/1e6/took.Seconds(), float64(r.bytes)/float64(r.samples))
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&url, "url", "http://127.0.0.1:8080", "server, on a loopback address")
	f.IntVar(&w.Series, "series", 10_000, "series")
	f.IntVar(&w.Metrics, "metrics", 10, "metric names they spread over")
	f.IntVar(&w.Customers, "customers", 1000, "distinct customers")
	f.Float64Var(&w.Skew, "skew", 0.5, "0: customers evenly; 1: few customers have most series")
	f.Float64Var(&w.Churn, "churn", 0, "share of series replaced at each scrape")
	f.Int64Var(&w.Interval, "interval", 15_000, "milliseconds between scrapes")
	f.Uint64Var(&w.Seed, "seed", 1, "seed of the generator")
	f.IntVar(&scrapes, "scrapes", 20, "scrapes to send")
	f.IntVar(&senders, "senders", 4, "concurrent senders")
	f.BoolVar(&native, "native", false, "JSON of the native API instead of remote write")
	return cmd
}
