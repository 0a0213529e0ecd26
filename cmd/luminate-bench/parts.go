package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/luminate/luminate/storage/storagetest"
)

// partsOptions are the flags of parts.
type partsOptions struct {
	processes int
	duration  time.Duration
	interval  time.Duration
	samples   int
	look      time.Duration
	limit     int
	dir       string
	luminate  []string
	binary    string // of luminate; empty: the one at hand
}

// partsCommand checks that any number of processes together leave ClickHouse's merges
// time: small blocks from each of them, for long, and parts counted all along.
func partsCommand() *cobra.Command {
	var o partsOptions
	cmd := &cobra.Command{
		Use: "parts", Short: "Write through several Luminates into one ClickHouse and watch its active parts", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runParts(cmd.Context(), o, os.Stdout) },
	}
	f := cmd.Flags()
	f.IntVar(&o.processes, "processes", 10, "Luminate processes before the one ClickHouse")
	f.DurationVar(&o.duration, "duration", time.Hour, "how long to write")
	f.DurationVar(&o.interval, "interval", 500*time.Millisecond, "time between the requests of a process; 0: one after the other")
	f.IntVar(&o.samples, "samples", 200, "series of a process, one sample of each in a request")
	f.DurationVar(&o.look, "look", 5*time.Second, "time between looks at the parts")
	f.IntVar(&o.limit, "limit", 300, "active parts in a partition that are too many")
	f.StringVar(&o.dir, "dir", "", "folder for the data; empty: a temporary one")
	f.StringSliceVar(&o.luminate, "luminate-flags", nil, "further flags for luminate")
	return cmd
}

// partsRun is what happened so far.
type partsRun struct {
	o       partsOptions
	engine  *engine
	servers []*server
	out     io.Writer

	stored, requests, refused atomic.Int64 // samples and requests that were acknowledged; 503 and 429
	looks                     []float64    // parts of the fullest partition
}

func runParts(ctx context.Context, o partsOptions, out io.Writer) error {
	if o.dir == "" {
		dir, err := os.MkdirTemp("", "luminate-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		o.dir = dir
	}
	e, err := newEngine(ctx, filepath.Join(o.dir, "engine"))
	if err != nil {
		return err
	}
	defer e.Stop()
	r := &partsRun{o: o, engine: e, out: out}
	defer r.stopAll()
	if err := r.startAll(ctx); err != nil {
		return err
	}
	before, err := r.cpu()
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := r.write(ctx); err != nil {
		return err
	}
	return r.report(ctx, before, time.Since(begin))
}

func (r *partsRun) startAll(ctx context.Context) error {
	path := r.o.binary
	if path == "" {
		var err error
		if path, err = findBinary("luminate"); err != nil {
			return err
		}
	}
	for i := range r.o.processes {
		dir := filepath.Join(r.o.dir, fmt.Sprintf("luminate-%d", i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		addr, err := freePort()
		if err != nil {
			return err
		}
		argv := append([]string{path, "serve", "--server.listen", addr, "--storage.backend", "clickhouse",
			"--storage.clickhouse.dsn", r.engine.dsn, "--log.format", "text"}, r.o.luminate...)
		srv := &server{name: "luminate", url: "http://" + addr, dir: dir, ready: "/readyz", argv: argv}
		if _, err := srv.start(ctx); err != nil {
			return err
		}
		r.servers = append(r.servers, srv)
	}
	return nil
}

func (r *partsRun) stopAll() {
	for _, s := range r.servers {
		_ = s.stop(syscall.SIGTERM) // its end changes nothing in what was measured
	}
}

// write sends to every process until the time is over, and looks at the parts.
func (r *partsRun) write(parent context.Context) error {
	ctx, cancel := context.WithTimeout(parent, r.o.duration)
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, r.o.processes+1)
	for i, srv := range r.servers {
		wg.Go(func() {
			if errs[i] = r.feed(ctx, i, srv); errs[i] != nil {
				cancel()
			}
		})
	}
	if errs[r.o.processes] = r.watch(ctx); errs[r.o.processes] != nil {
		cancel()
	}
	wg.Wait()
	return errors.Join(append(errs, parent.Err())...)
}

// feed writes one sample of each of a process' own series at every turn.
func (r *partsRun) feed(ctx context.Context, i int, srv *server) error {
	w := storagetest.PerformanceWorkload(r.o.samples, 5)
	w.Seed = uint64(i) + 1
	g := storagetest.NewGenerator(w)
	client := newClient()
	defer client.CloseIdleConnections()
	// Processes do not tick together.
	wait(ctx, r.o.interval*time.Duration(i)/time.Duration(r.o.processes))
	last := int64(0)
	for ctx.Err() == nil {
		begin := time.Now()
		now := max(begin.UnixMilli(), last+1)
		last = now
		body, err := encodeScrapes(g, now, 1, 1)
		if err != nil {
			return err
		}
		for _, b := range body.bodies[0] {
			// A request that was begun is ended, so that what is stored can be counted.
			if err := r.post(context.WithoutCancel(ctx), client, srv.url, b); err != nil {
				return fmt.Errorf("process %d: %w", i, err)
			}
		}
		r.stored.Add(int64(body.samples))
		wait(ctx, r.o.interval-time.Since(begin))
	}
	return nil
}

// post counts refusals and goes on; any answer that speaks of code 252 is an error.
func (r *partsRun) post(ctx context.Context, c *http.Client, url string, body []byte) error {
	refused, err := postCounting(ctx, c, url+"/api/v1/write", body, false)
	r.refused.Add(int64(refused))
	r.requests.Add(1)
	return err
}

// watch looks at the parts until ctx ends; too many of them are an error.
func (r *partsRun) watch(ctx context.Context) error {
	last := time.Now()
	for {
		if wait(ctx, r.o.look); ctx.Err() != nil {
			return nil
		}
		n, err := r.engine.parts(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		r.looks = append(r.looks, n)
		if n > float64(r.o.limit) {
			return fmt.Errorf("%.0f active parts in a partition, at most %d may be", n, r.o.limit)
		}
		if time.Since(last) > time.Minute {
			last = time.Now()
			fmt.Fprintf(r.out, "%s parts %.0f, samples %d, refused %d\n", last.Format(time.TimeOnly), n, r.stored.Load(), r.refused.Load())
		}
	}
}

// cpu is what ClickHouse and all processes have used.
func (r *partsRun) cpu() ([2]time.Duration, error) {
	u, err := r.engine.usage()
	sum := [2]time.Duration{u.cpu}
	for _, s := range r.servers {
		own, e := s.usage()
		sum[1] += own.cpu
		err = errors.Join(err, e)
	}
	return sum, err
}

// report prints the figures and fails on code 252 or a wrong count.
func (r *partsRun) report(ctx context.Context, before [2]time.Duration, took time.Duration) error {
	after, err := r.cpu()
	if err != nil {
		return err
	}
	rejected, err := r.engine.Number(ctx, engineDatabase, "SELECT toFloat64(sum(value)) FROM system.errors WHERE code = 252")
	if err != nil {
		return err
	}
	found, err := r.engine.Number(ctx, engineDatabase, "SELECT toFloat64(count()) FROM samples FINAL")
	if err != nil {
		return err
	}
	made, err := r.engine.Number(ctx, engineDatabase, "SELECT toFloat64(sum(value)) FROM system.events WHERE event = 'MergeTreeDataWriterBlocks'")
	if err != nil {
		return err
	}
	slices.Sort(r.looks)
	at := func(share float64) float64 { return r.looks[min(int(share*float64(len(r.looks))), len(r.looks)-1)] }
	if len(r.looks) == 0 {
		return errors.New("the time was too short to look at the parts")
	}
	fmt.Fprintf(r.out, "%d processes, %s, a request of %d samples each %s: %d requests, %d samples, %d refused with 503 or 429\n",
		r.o.processes, took.Round(time.Second), r.o.samples, r.o.interval, r.requests.Load(), r.stored.Load(), r.refused.Load())
	fmt.Fprintf(r.out, "active parts in the fullest partition, %d looks: median %.0f, 95 %% %.0f, most %.0f; blocks written %.0f (series included); code 252: %.0f\n",
		len(r.looks), at(0.5), at(0.95), at(1), made, rejected)
	fmt.Fprintf(r.out, "cores used: ClickHouse %.2f, the processes together %.2f\n",
		(after[0]-before[0]).Seconds()/took.Seconds(), (after[1]-before[1]).Seconds()/took.Seconds())
	if rejected > 0 {
		return fmt.Errorf("ClickHouse refused %.0f inserts with code 252", rejected)
	}
	if int64(found) != r.stored.Load() {
		return fmt.Errorf("%.0f samples are stored, %d were acknowledged", found, r.stored.Load())
	}
	return nil
}
