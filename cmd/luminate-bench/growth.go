package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/luminate/luminate/storage/storagetest"
	"github.com/spf13/cobra"
)

// growthOptions are the flags of growth.
type growthOptions struct {
	only     string
	peer     string
	largest  int
	repeat   int
	senders  int
	scale    float64
	luminate []string
}

// growthStore is one size of a store, and what is asked of it.
type growthStore struct {
	name            string
	series, scrapes int
	questions       []growthQuestion
}

// growthQuestion is a query whose cost should follow what it selects.
type growthQuestion struct {
	name  string
	expr  string
	hours float64 // of the range that is asked for, 0 for an instant query
}

func growthCommand() *cobra.Command {
	var o growthOptions
	cmd := &cobra.Command{
		Use: "growth", Short: "Show how the cost of queries and of ingest grows with the store", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return growth(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.only, "only", "series,hours", "series: 10 k, 100 k, 1 M and 2 M series of one metric; hours: 2,000 series over 1, 6 and 24 hours")
	f.StringVar(&o.peer, "peer", "luminate", "luminate or "+clickhouseName)
	f.IntVar(&o.largest, "largest", 2_000_000, "leave out stores of more series")
	f.IntVar(&o.repeat, "repeat", 9, "runs of each query; the median counts")
	f.IntVar(&o.senders, "senders", 4, "concurrent senders")
	f.Float64Var(&o.scale, "scale", 1, "share of the series, for quick looks")
	f.StringSliceVar(&o.luminate, "luminate-flags", nil, "further flags for luminate")
	return cmd
}

// growthStores lists the stores of a part, smallest first.
func growthStores(part string, scale float64) ([]growthStore, error) {
	const metric = "http_requests_000_total"
	scaled := func(n int) int { return max(1, int(float64(n)*scale)) }
	switch part {
	case "series":
		questions := []growthQuestion{
			{name: "sum by (region)(rate(m[5m]))", expr: `sum by (region) (rate(` + metric + `[5m]))`},
			{name: "quantile by (region)(0.95, m)", expr: `quantile by (region) (0.95, ` + metric + `)`},
			{name: "count(m)", expr: `count(` + metric + `)`},
			{name: "one series, an hour", expr: metric + `{serial="serial-0000000007"}`, hours: 1},
			{name: "100 series, an hour", expr: metric + `{serial=~"serial-00000000.."}`, hours: 1},
		}
		return []growthStore{
			{"10 k series", scaled(10_000), 4, questions}, {"100 k series", scaled(100_000), 4, questions},
			{"1 M series", scaled(1_000_000), 4, questions}, {"2 M series", scaled(2_000_000), 4, nil},
		}, nil
	case "hours":
		questions := []growthQuestion{
			{name: "sum by (region)(rate(m[5m])), the last hour, 60 points", expr: `sum by (region) (rate(` + metric + `[5m]))`, hours: 1},
			{name: "one series, the last hour", expr: metric + `{serial="serial-0000000007"}`, hours: 1},
			{name: "sum by (region)(sum_over_time(m[all stored])), instant", expr: `sum by (region) (sum_over_time(` + metric + `[%s]))`},
		}
		return []growthStore{
			{"1 h", scaled(2000), 240, questions}, {"6 h", scaled(2000), 6 * 240, questions}, {"24 h", scaled(2000), 24 * 240, questions},
		}, nil
	default:
		return nil, fmt.Errorf("unknown part %q: series and hours are", part)
	}
}

// growth fills one server after the other and prints a table for each part.
func growth(ctx context.Context, o growthOptions) error {
	makePeer := luminatePeer
	if o.peer == clickhouseName {
		makePeer = clickhousePeer
	} else if o.peer != "luminate" {
		return fmt.Errorf("unknown peer %q: luminate and %s are", o.peer, clickhouseName)
	}
	p, err := makePeer(o.luminate)
	if err != nil {
		return err
	}
	for part := range strings.SplitSeq(o.only, ",") {
		stores, err := growthStores(part, o.scale)
		if err != nil {
			return err
		}
		stores = slices.DeleteFunc(stores, func(s growthStore) bool { return s.series > o.largest })
		var figures []string
		values := map[string][]string{}
		for i, s := range stores {
			fmt.Fprintf(os.Stderr, "growth: %s\n", s.name)
			put := func(figure, v string) {
				if values[figure] == nil {
					figures, values[figure] = append(figures, figure), make([]string, len(stores))
				}
				values[figure][i] = v
			}
			if err := s.measure(ctx, p, o, put); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
		head := "| figure |"
		for _, s := range stores {
			head += " " + s.name + " |"
		}
		fmt.Println(head + "\n|" + strings.Repeat("---|", len(stores)+1))
		for _, f := range figures {
			fmt.Println("| " + f + " | " + strings.Join(values[f], " | ") + " |")
		}
	}
	return nil
}

// measure fills a server of its own and asks it.
func (s *growthStore) measure(ctx context.Context, p peer, o growthOptions, put func(figure, v string)) error {
	dir, err := os.MkdirTemp("", "luminate-growth-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	end := time.Now().Add(-time.Minute).UnixMilli() / 15_000 * 15_000
	data, err := encodeScrapes(storagetest.NewGenerator(storagetest.PerformanceWorkload(s.series, 1)), end-int64(s.scrapes-1)*15_000, 15_000, s.scrapes)
	if err != nil {
		return err
	}
	addr, err := freePort()
	if err != nil {
		return err
	}
	srv, err := p.make(filepath.Clean(dir), addr)
	if err != nil {
		return err
	}
	if srv.engine != nil {
		defer srv.engine.Stop()
	}
	if _, err := srv.start(ctx); err != nil {
		return err
	}
	defer func() { _ = srv.stop(syscall.SIGKILL) }()
	client := newClient()
	defer client.CloseIdleConnections()
	before, engineBefore, err := srv.usages()
	if err != nil {
		return err
	}
	if _, err := send(ctx, client, srv.url, data, o.senders); err != nil {
		return err
	}
	after, engineAfter, err := srv.usages()
	if err != nil {
		return err
	}
	if srv.engine != nil {
		put("ingest, CPU-s of ClickHouse", fmt.Sprintf("%.2f", (engineAfter.cpu-engineBefore.cpu).Seconds()/(float64(data.samples)/1e6)))
	}
	put("ingest, CPU-s per M samples", fmt.Sprintf("%.2f", (after.cpu-before.cpu).Seconds()/(float64(data.samples)/1e6)))
	put("peak RSS, MiB", strconv.FormatInt(after.peakRSS>>20, 10))
	for _, q := range s.questions {
		before, engineBefore, err := srv.usages()
		if err != nil {
			return err
		}
		took, err := s.ask(ctx, client, srv.url, q, end, o.repeat)
		if err != nil {
			return err
		}
		after, engineAfter, err := srv.usages()
		if err != nil {
			return err
		}
		put(q.name+", ms", fmt.Sprintf("%.3g", float64(took.Microseconds())/1000))
		perQuery := func(d time.Duration) string { return fmt.Sprintf("%.3g", d.Seconds()*1000/float64(o.repeat)) }
		put(q.name+", CPU-ms", perQuery(after.cpu-before.cpu))
		if srv.engine != nil {
			put(q.name+", CPU-ms of ClickHouse", perQuery(engineAfter.cpu-engineBefore.cpu))
		}
	}
	return nil
}

// ask returns the median time of a question.
func (s *growthStore) ask(ctx context.Context, client *http.Client, baseURL string, q growthQuestion, end int64, repeat int) (time.Duration, error) {
	expr := q.expr
	if strings.Contains(expr, "%s") {
		expr = fmt.Sprintf(expr, strconv.Itoa(s.scrapes*15)+"s")
	}
	path, params := "/api/v1/query", url.Values{"query": {expr}, "time": {seconds(end)}}
	if q.hours > 0 {
		path = "/api/v1/query_range"
		step := int64(q.hours * 60) // 60 points
		params = url.Values{"query": {expr}, "start": {seconds(end - int64(q.hours*3_600_000) + step*1000)}, "end": {seconds(end)}, "step": {strconv.FormatInt(step, 10)}}
	}
	times := make([]time.Duration, repeat)
	for i := range times {
		var body []byte
		var err error
		if times[i], body, err = query(ctx, client, baseURL, path, params); err != nil {
			return 0, err
		}
		if !strings.Contains(string(body), `"value`) {
			return 0, fmt.Errorf("query %s found nothing: %.300s", expr, body)
		}
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}
