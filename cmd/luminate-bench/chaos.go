package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// Results of a scenario. What could not be run is never a PASS.
const (
	passed = "PASS"
	failed = "FAIL"
	notRun = "NOT RUN"
)

// chaosOptions are the flags of chaos.
type chaosOptions struct {
	rounds, cuts, flips     int
	chCuts, archives, jumps int
	only                    []string
	seed                    uint64
	dir, out, binary        string
	timeout                 time.Duration
}

// trouble is one kind of it, with the promise that it tries.
type trouble struct {
	name, promise string
	run           func(ctx context.Context, c *chaos, o *outcome) error
}

func troubles() []trouble {
	return []trouble{
		{"kill", "after each kill -9 every acknowledged sample is read back, and the server is ready within 10 s", killRounds},
		{"power", "walSync=always: a power cut loses no acknowledged sample; walSync=os may (the control)", powerCuts},
		{"disk", "a full disk: no exit, 503 to writes, reads answer, writes come back within 10 s of free space, nothing lost", fullDisk},
		{"flips", "a flipped bit in a stored file never makes an answer short or wrong without a word", bitFlips},
		{"backups", "a damaged archive is never restored", damagedArchives},
		{"overload", "at four times the load goodput stays at 80 % of the peak or more, memory within 1.1 × GOMEMLIMIT", overload},
		{"clickhouse", "ClickHouse down, slow, silent, cut in the middle of inserts: no false success, nothing missing or twice, refusals within 5 s, recovery without restart", clickhouseTrouble},
		{"clock", "the clock jumps by an hour and a day, to and fro: no stuck limiter, no expired token accepted, nothing lost or wrongly refused", clockJumps},
		{"bombs", "decompression bombs, slow-loris and 2,000 idle connections: at most 64 MiB more, others are served", hostileClients},
	}
}

// outcome is what a scenario found.
type outcome struct {
	Name     string             `json:"name"`
	Promise  string             `json:"promise"`
	Result   string             `json:"result"`
	Reasons  []string           `json:"reasons,omitempty"` // of FAIL and NOT RUN
	Numbers  map[string]float64 `json:"numbers"`
	Duration float64            `json:"seconds"`
}

// set keeps a figure.
func (o *outcome) set(name string, v float64) { o.Numbers[name] = v }

// max keeps the greatest figure of a name.
func (o *outcome) max(name string, v float64) { o.Numbers[name] = max(o.Numbers[name], v) }

// add sums a figure.
func (o *outcome) add(name string, v float64) { o.Numbers[name] += v }

// expect notes a broken promise; the first twenty are told.
func (o *outcome) expect(ok bool, format string, args ...any) {
	if ok {
		return
	}
	o.Result = failed
	if len(o.Reasons) < 20 {
		o.Reasons = append(o.Reasons, fmt.Sprintf(format, args...))
	}
}

// errNotRun marks trouble that this machine cannot make.
var errNotRun = errors.New("not run")

// chaosReport is the JSON report.
type chaosReport struct {
	Seed      uint64     `json:"seed"`
	Started   time.Time  `json:"started"`
	Seconds   float64    `json:"seconds"`
	CPUs      int        `json:"cpus"`
	Scenarios []*outcome `json:"scenarios"`
}

// chaos is one run: a folder, a binary and a source of randomness.
type chaos struct {
	o      chaosOptions
	dir    string
	binary string
	rng    *rand.Rand
	notes  io.Writer

	servers []*server // all that were made, so that none outlives its scenario
}

func chaosCommand() *cobra.Command {
	o := chaosOptions{rounds: 200, cuts: 100, flips: 1000, chCuts: 20, jumps: 200, archives: 100, seed: 1, timeout: 90 * time.Minute}
	cmd := &cobra.Command{
		Use: "chaos", Short: "Make trouble for the real binary and check every promise; report in JSON", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
			defer cancel()
			r, err := runChaos(ctx, o, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if err := writeReport(r, o.out, cmd.OutOrStdout()); err != nil {
				return err
			}
			return r.err()
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.rounds, "rounds", o.rounds, "rounds of kill -9")
	f.IntVar(&o.cuts, "cuts", o.cuts, "power cuts, and a fifth as many of the control")
	f.IntVar(&o.flips, "flips", o.flips, "flipped bits, each in a fresh copy of a store")
	f.IntVar(&o.chCuts, "clickhouse-cuts", o.chCuts, "connections to ClickHouse cut in the middle of an insert")
	f.IntVar(&o.archives, "archives", o.archives, "damaged archives of a backup")
	f.IntVar(&o.jumps, "jumps", o.jumps, "jumps of the clock")
	f.StringSliceVar(&o.only, "only", nil, "only these scenarios: kill, power, disk, flips, backups, overload, clickhouse, clock, bombs")
	f.Uint64Var(&o.seed, "seed", o.seed, "seed of everything random")
	f.StringVar(&o.dir, "dir", "", "folder for the data; empty: a temporary one, removed at the end")
	f.StringVar(&o.out, "out", "-", "file for the JSON report; -: standard output")
	f.StringVar(&o.binary, "luminate", "", "the luminate binary; empty: the one beside this one, or of PATH")
	f.DurationVar(&o.timeout, "timeout", o.timeout, "bound of the whole run")
	return cmd
}

func runChaos(ctx context.Context, o chaosOptions, notes io.Writer) (*chaosReport, error) {
	if o.binary == "" {
		path, err := findBinary("luminate")
		if err != nil {
			return nil, err
		}
		o.binary = path
	}
	dir := o.dir
	if dir == "" {
		tmp, err := os.MkdirTemp("", "luminate-chaos-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(tmp)
		dir = tmp
	}
	r := &chaosReport{Seed: o.seed, Started: time.Now().UTC(), CPUs: runtime.NumCPU()}
	for i, s := range troubles() {
		if len(o.only) > 0 && !slices.Contains(o.only, s.name) {
			continue
		}
		c := &chaos{o: o, dir: filepath.Join(dir, s.name), binary: o.binary, notes: notes, rng: rand.New(rand.NewPCG(o.seed, uint64(i)))}
		if err := os.MkdirAll(c.dir, 0o700); err != nil {
			return nil, err
		}
		out := c.play(ctx, s)
		fmt.Fprintf(notes, "%-8s %-9s %5.0f s  %s\n", out.Result, s.name, out.Duration, strings.Join(out.Reasons, "; "))
		r.Scenarios = append(r.Scenarios, out)
	}
	if len(r.Scenarios) == 0 {
		return nil, fmt.Errorf("no scenario is named %s", strings.Join(o.only, ", "))
	}
	r.Seconds = time.Since(r.Started).Seconds()
	return r, nil
}

// play runs one scenario; its error makes it fail, unless it could not be run.
func (c *chaos) play(ctx context.Context, s trouble) *outcome {
	out := &outcome{Name: s.name, Promise: s.promise, Result: passed, Numbers: map[string]float64{}}
	begin := time.Now()
	defer c.killAll()
	switch err := s.run(ctx, c, out); {
	case errors.Is(err, errNotRun):
		out.Result, out.Reasons = notRun, append(out.Reasons, err.Error())
	case err != nil:
		out.expect(false, "%v", err)
	}
	out.Duration = time.Since(begin).Seconds()
	return out
}

func writeReport(r *chaosReport, path string, stdout io.Writer) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if path == "-" {
		_, err = stdout.Write(b)
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

// err names the scenarios that failed.
func (r *chaosReport) err() error {
	var bad []string
	for _, s := range r.Scenarios {
		if s.Result == failed {
			bad = append(bad, s.Name)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("broken promises: %s", strings.Join(bad, ", "))
}

// server returns a luminate over dir; it is not started yet. Its log is beside
// the scenario's data, never on a disk that is filled or cut.
func (c *chaos) server(dir string, env []string, extra ...string) (*server, error) {
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	argv := append([]string{"env"}, env...)
	argv = append(argv, c.binary, "serve", "--server.listen", addr, "--storage.badger.dir", dir, "--log.format", "text")
	s := &server{name: "luminate", url: "http://" + addr, dir: c.dir, ready: "/readyz", argv: append(argv, extra...)}
	c.servers = append(c.servers, s)
	return s, nil
}

// killAll ends what a scenario left running.
func (c *chaos) killAll() {
	for _, s := range c.servers {
		if s.ended != nil && s.alive() {
			_ = s.stop(syscall.SIGKILL)
		}
	}
	c.servers = nil
}

// alive tells whether the process still runs.
func (s *server) alive() bool {
	select {
	case err := <-s.ended:
		s.ended <- err
		return false
	default:
		return true
	}
}
