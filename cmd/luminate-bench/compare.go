package main

import (
	"context"
	"encoding/json"
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

// compareOptions are the flags of compare.
type compareOptions struct {
	peers     string
	scenarios string
	senders   int
	scale     float64
	dir       string
	jsonPath  string
	luminate  []string
	repeat    int
	rounds    int
}

// row is one line of the table: a figure for each peer.
type row struct {
	Scenario string             `json:"scenario"`
	Figure   string             `json:"figure"`
	Unit     string             `json:"unit"`
	Target   string             `json:"target,omitempty"`
	Values   map[string]float64 `json:"values"` // the median of the rounds

	rounds map[string][]float64
}

// add takes a round's figure in.
func (r *row) add(peer string, v float64) {
	all := append(r.rounds[peer], v)
	r.rounds[peer] = all
	sorted := slices.Sorted(slices.Values(all))
	r.Values[peer] = (sorted[(len(all)-1)/2] + sorted[len(all)/2]) / 2
}

func compareCommand() *cobra.Command {
	var o compareOptions
	cmd := &cobra.Command{
		Use: "compare", Short: "Drive Luminate and Prometheus with the same bytes and print one table", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return compare(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.peers, "peers", "luminate,prometheus", "servers to measure: luminate, luminate-auth (with a token, and a tenant's default limits but for its rates), luminate-clickhouse (an engine is started for it), prometheus, victoriametrics (if its binary is at hand)")
	f.StringVar(&o.scenarios, "scenarios", "ingest,million,day", "ingest: 100k series x 40 scrapes; million: 1M new series of one metric x 4 scrapes, then queries and a kill -9; day: 2,000 series for a day at 15 s")
	f.IntVar(&o.senders, "senders", 4, "concurrent senders")
	f.Float64Var(&o.scale, "scale", 1, "share of the series, for quick looks")
	f.StringVar(&o.dir, "dir", "", "folder for the servers' data; empty: a temporary one")
	f.StringVar(&o.jsonPath, "json", "", "file for the figures as JSON")
	f.StringSliceVar(&o.luminate, "luminate-flags", nil, "further flags for luminate, such as --storage.badger.walSync=always")
	f.IntVar(&o.rounds, "rounds", 1, "runs of each server, in turn; the median of each figure counts, and each run's ingest is told")
	f.IntVar(&o.repeat, "repeat", 5, "runs of each query; the median counts; range queries run eight times as often")
	return cmd
}

func compare(ctx context.Context, o compareOptions) error {
	peers, err := peersOf(o)
	if err != nil {
		return err
	}
	if o.dir == "" {
		dir, err := os.MkdirTemp("", "luminate-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		o.dir = dir
	}
	var rows []row
	for name := range strings.SplitSeq(o.scenarios, ",") {
		s, err := newScenario(name, o)
		if err != nil {
			return err
		}
		for range max(1, o.rounds) { // in turn, so that what else the machine does meets all
			for _, p := range peers {
				fmt.Fprintf(os.Stderr, "%s: %s\n", name, p.name)
				if err := s.measure(ctx, p); err != nil {
					return fmt.Errorf("%s: %s: %w", name, p.name, err)
				}
			}
		}
		rows = append(rows, s.rows...)
	}
	printTable(os.Stdout, peers, rows)
	if o.jsonPath != "" {
		b, err := json.MarshalIndent(rows, "", "  ")
		if err != nil {
			return err
		}
		return os.WriteFile(o.jsonPath, append(b, '\n'), 0o644)
	}
	return nil
}

// scenario is one workload with what is measured over it.
type scenario struct {
	name string
	o    compareOptions
	data *requests
	end  int64 // time of the last scrape
	rows []row

	queries []benchQuery
	crash   bool
}

type benchQuery struct {
	name   string
	target target
	expr   string
	points int // 0: instant
	step   int64
}

func newScenario(name string, o compareOptions) (*scenario, error) {
	s := &scenario{name: name, o: o, end: time.Now().Add(-time.Minute).UnixMilli() / 15_000 * 15_000}
	scaled := func(n int) int { return max(1, int(float64(n)*o.scale)) }
	var w storagetest.Workload
	var scrapes int
	switch name {
	case "ingest":
		w, scrapes = storagetest.PerformanceWorkload(scaled(100_000), 50), 40
		s.queries = ingestQueries
	case "million":
		w, scrapes = storagetest.PerformanceWorkload(scaled(1_000_000), 1), 4
		s.queries, s.crash = millionQueries, true
	case "day":
		w, scrapes = storagetest.PerformanceWorkload(scaled(2_000), 1), 5760
	default:
		return nil, fmt.Errorf("unknown scenario %q", name)
	}
	fmt.Fprintf(os.Stderr, "%s: encoding %d series x %d scrapes\n", name, w.Series, scrapes)
	var err error
	s.data, err = encodeScrapes(storagetest.NewGenerator(w), s.end-int64(scrapes-1)*15_000, 15_000, scrapes)
	return s, err
}

// put files a figure.
func (s *scenario) put(p peer, figure, unit, target string, v float64) {
	i := slices.IndexFunc(s.rows, func(r row) bool { return r.Figure == figure })
	if i >= 0 && p.clickhouse && target != "" && target != s.rows[i].Target {
		s.rows[i].Target = strings.TrimPrefix(s.rows[i].Target+", ClickHouse "+target, ", ")
	}
	if i < 0 {
		s.rows = append(s.rows, row{Scenario: s.name, Figure: figure, Unit: unit, Target: target, Values: map[string]float64{}, rounds: map[string][]float64{}})
		i = len(s.rows) - 1
	}
	s.rows[i].add(p.name, v)
}

func (s *scenario) measure(ctx context.Context, p peer) error {
	dir := filepath.Join(s.o.dir, s.name+"-"+p.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	addr, err := freePort()
	if err != nil {
		return err
	}
	srv, err := p.make(dir, addr)
	if err != nil {
		return err
	}
	if srv.engine != nil {
		defer srv.engine.Stop()
	}
	if _, err := srv.start(ctx); err != nil {
		return err
	}
	running := true
	defer func() {
		if running {
			_ = srv.stop(syscall.SIGKILL)
		}
	}()
	client := srv.client()
	defer client.CloseIdleConnections()
	if err := s.ingest(ctx, p, srv, client); err != nil {
		return err
	}
	if srv.settle != "" {
		if _, _, err := query(ctx, client, srv.url, srv.settle, nil); err != nil {
			return err
		}
	}
	for _, q := range s.queries {
		if err := s.query(ctx, p, srv, client, q); err != nil {
			return err
		}
	}
	if s.crash {
		if err := srv.stop(syscall.SIGKILL); err != nil {
			return err
		}
		running = false
		took, err := srv.start(ctx)
		if err != nil {
			return err
		}
		running = true
		s.put(p, "restart to ready after kill -9", "s", target{"<= 10", "<= 2"}.of(p), took.Seconds())
	}
	running = false
	if err := srv.stop(syscall.SIGTERM); err != nil {
		return err
	}
	if srv.engine != nil {
		return s.putDisk(ctx, p, srv.engine)
	}
	data, wal, err := diskBytes(filepath.Join(dir, "data"))
	if err != nil {
		return err
	}
	s.put(p, "bytes a sample on disk after close", "B", targets[s.name].bytes.of(p), float64(data)/float64(s.data.samples))
	s.put(p, "of its log and snapshots, apart", "B", "", float64(wal)/float64(s.data.samples))
	return nil
}

func (s *scenario) ingest(ctx context.Context, p peer, srv *server, client *http.Client) error {
	before, engineBefore, err := srv.usages()
	if err != nil {
		return err
	}
	took, err := send(ctx, client, srv.url, s.data, s.o.senders)
	if err != nil {
		return err
	}
	after, err := srv.usage()
	if err != nil {
		return err
	}
	millions, t := float64(s.data.samples)/1e6, targets[s.name]
	cpu := (after.cpu - before.cpu).Seconds() / millions
	fmt.Fprintf(os.Stderr, "%s: %s: %.3f CPU-s per M samples, %.2f M samples/s\n", s.name, p.name, cpu, millions/took.Seconds())
	s.put(p, "ingest", "CPU-s per M samples", t.cpu.of(p), cpu)
	s.put(p, "ingest, wall", "M samples/s", t.wall.of(p), millions/took.Seconds())
	s.put(p, "peak RSS (VmHWM)", "MiB", t.memory.of(p), float64(after.peakRSS)/(1<<20))
	s.put(p, "RssAnon after ingest", "MiB", "", float64(after.anon)/(1<<20))
	if srv.engine != nil {
		return s.putEngine(ctx, p, srv.engine, engineBefore)
	}
	return nil
}

func (s *scenario) query(ctx context.Context, p peer, srv *server, client *http.Client, q benchQuery) error {
	path, params := "/api/v1/query", url.Values{"query": {q.expr}}
	if q.points > 0 {
		path = "/api/v1/query_range"
		params.Set("start", seconds(s.end-int64(q.points-1)*q.step))
		params.Set("end", seconds(s.end))
		params.Set("step", strconv.FormatInt(q.step/1000, 10))
	} else {
		params.Set("time", seconds(s.end))
	}
	times := make([]time.Duration, s.o.repeat)
	if q.points > 0 { // cheap enough for a 95th percentile
		times = make([]time.Duration, 8*s.o.repeat)
	}
	cpu0, engine0, err := srv.usages()
	if err != nil {
		return err
	}
	for i := range times {
		var body []byte
		if times[i], body, err = query(ctx, client, srv.url, path, params); err != nil {
			return err
		}
		if !strings.Contains(string(body), `"value`) {
			return fmt.Errorf("query %s found nothing: %.300s", q.expr, body)
		}
	}
	cpu1, engine1, err := srv.usages()
	if err != nil {
		return err
	}
	slices.Sort(times)
	median, p95 := times[len(times)/2], times[min(len(times)*95/100, len(times)-1)]
	s.put(p, q.name, "ms, median", q.target.of(p), float64(median.Microseconds())/1000)
	s.put(p, q.name+", p95", "ms", "", float64(p95.Microseconds())/1000)
	s.put(p, q.name+", CPU", "CPU-ms a query", "", float64((cpu1.cpu-cpu0.cpu).Milliseconds())/float64(len(times)))
	if srv.engine != nil {
		s.put(p, q.name+", CPU of ClickHouse", "CPU-ms a query", "", float64((engine1.cpu-engine0.cpu).Milliseconds())/float64(len(times)))
	}
	return nil
}

func seconds(ms int64) string { return strconv.FormatFloat(float64(ms)/1000, 'f', 3, 64) }
