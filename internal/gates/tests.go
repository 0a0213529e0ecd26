package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"time"
)

// slowest is how many tests the summary names.
const slowest = 20

// testEvent is a line of `go test -json` (see `go doc test2json`).
type testEvent struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64 // seconds
}

type testTime struct {
	name    string
	elapsed time.Duration
}

// summary gathers the events of a run. Output of a test is kept until it is known
// whether it passed, so that only failures are printed.
type summary struct {
	out      io.Writer
	output   map[string][]string // by package and test
	times    []testTime
	packages []testTime
	skipped  []string
	failed   int
}

// runTests runs `go test -json` with args and prints packages as they end, the output
// of what failed, then the slowest tests and every test that was skipped.
func runTests(ctx context.Context, args []string, out io.Writer) error {
	start := time.Now()
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s := &summary{out: out, output: map[string][]string{}}
	readErr := s.read(pipe)
	err = errors.Join(readErr, cmd.Wait())
	s.print(time.Since(start))
	if err != nil {
		return fmt.Errorf("go test: %w", err)
	}
	if s.failed > 0 {
		return fmt.Errorf("%d tests or packages failed", s.failed)
	}
	return nil
}

func (s *summary) read(r io.Reader) error {
	dec := json.NewDecoder(r)
	for {
		var e testEvent
		if err := dec.Decode(&e); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			_, _ = io.Copy(io.Discard, r) // so that go test can end
			return fmt.Errorf("read the events: %w", err)
		}
		s.add(e)
	}
}

func (s *summary) add(e testEvent) {
	key := e.Package + " " + e.Test
	took := time.Duration(e.Elapsed * float64(time.Second))
	switch e.Action {
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "output":
		s.output[key] = append(s.output[key], e.Output)
	case "fail":
		s.failed++
		s.flush(key)
		if e.Test == "" {
			fmt.Fprintf(s.out, "FAIL  %7.1fs  %s\n", e.Elapsed, e.Package)
			s.packages = append(s.packages, testTime{e.Package, took})
			s.unfinished(e.Package)
		}
	case "pass", "skip":
		delete(s.output, key)
		switch {
		case e.Test == "" && e.Action == "pass":
			fmt.Fprintf(s.out, "ok    %7.1fs  %s\n", e.Elapsed, e.Package)
			s.packages = append(s.packages, testTime{e.Package, took})
		case e.Test != "" && e.Action == "pass":
			s.times = append(s.times, testTime{key, took})
		case e.Test != "":
			s.skipped = append(s.skipped, key)
		}
	}
}

// flush prints and forgets what a test wrote.
func (s *summary) flush(key string) {
	for _, line := range s.output[key] {
		fmt.Fprint(s.out, line)
	}
	delete(s.output, key)
}

// unfinished prints what tests of a failed package wrote that never ended: the
// reason of a panic or a timeout stands there.
func (s *summary) unfinished(pkg string) {
	var keys []string
	for key := range s.output {
		if len(key) > len(pkg) && key[:len(pkg)+1] == pkg+" " {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		s.flush(key)
	}
}

func (s *summary) print(took time.Duration) {
	longest := func(a, b testTime) int { return cmp.Compare(b.elapsed, a.elapsed) }
	slices.SortFunc(s.times, longest)
	fmt.Fprintf(s.out, "\nslowest of %d tests:\n", len(s.times))
	for _, t := range s.times[:min(slowest, len(s.times))] {
		fmt.Fprintf(s.out, "%8.1fs  %s\n", t.elapsed.Seconds(), t.name)
	}
	slices.Sort(s.skipped)
	for _, name := range s.skipped {
		fmt.Fprintf(s.out, "skipped  %s\n", name)
	}
	var sum time.Duration
	for _, p := range s.packages {
		sum += p.elapsed
	}
	fmt.Fprintf(s.out, "%d packages, %.0f s of tests in %.0f s\n", len(s.packages), sum.Seconds(), took.Seconds())
}
