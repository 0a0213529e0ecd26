package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// target is one fuzz function and the binary it is in.
type target struct {
	pkg, dir, name string
	binary         func() (string, error)
}

// runFuzz runs every fuzz target of the packages for a while, some side by side, each
// with one worker: so the time in all is targets × time / jobs. Each package is built
// once. A crasher stays in the package's testdata/fuzz, where the next test run finds it.
func runFuzz(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("fuzz", flag.ContinueOnError)
	each := fs.Duration("time", 30*time.Second, "how long each target runs")
	jobs := fs.Int("jobs", 2, "how many targets run at a time")
	only := fs.String("only", "", "a regular expression of the targets to run")
	if err := fs.Parse(args); err != nil {
		return err
	}
	want, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	packages := fs.Args()
	if len(packages) == 0 {
		packages = []string{"./..."}
	}
	tmp, err := os.MkdirTemp("", "luminate-fuzz-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	targets, err := findTargets(ctx, tmp, packages, want)
	if err != nil {
		return err
	}
	cache, err := exec.CommandContext(ctx, "go", "env", "GOCACHE").Output()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d fuzz targets, %s each, %d at a time\n", len(targets), *each, *jobs)
	f := fuzzing{out: out, each: *each, cache: filepath.Join(strings.TrimSpace(string(cache)), "fuzz")}
	queue := make(chan target)
	var wg sync.WaitGroup
	for range max(1, *jobs) {
		wg.Go(func() {
			for t := range queue {
				f.run(ctx, t)
			}
		})
	}
	for _, t := range targets {
		queue <- t
	}
	close(queue)
	wg.Wait()
	return errors.Join(f.failures...)
}

// findTargets lists the fuzz functions of packages; tmp takes their test binaries,
// which are built when first needed.
func findTargets(ctx context.Context, tmp string, packages []string, want *regexp.Regexp) ([]target, error) {
	list, err := exec.CommandContext(ctx, "go", append([]string{"list", "-f", "{{.ImportPath}} {{.Dir}} {{range .TestGoFiles}}{{.}} {{end}}{{range .XTestGoFiles}}{{.}} {{end}}"}, packages...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var targets []target
	for i, line := range strings.Split(strings.TrimSpace(string(list)), "\n") {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		pkg, dir := f[0], f[1]
		path := filepath.Join(tmp, fmt.Sprintf("%d.test", i))
		build := sync.OnceValues(func() (string, error) {
			// -fuzz makes go test instrument the packages for coverage guidance.
			if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-fuzz=.", "-o", path, pkg).CombinedOutput(); err != nil {
				return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
			}
			return path, nil
		})
		for _, file := range f[2:] {
			text, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				return nil, err
			}
			for _, m := range fuzzFunc.FindAllSubmatch(text, -1) {
				if want.Match(m[1]) {
					targets = append(targets, target{pkg, dir, string(m[1]), build})
				}
			}
		}
	}
	if len(targets) == 0 {
		return nil, errors.New("there is no fuzz target")
	}
	return targets, nil
}

var fuzzFunc = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)

type fuzzing struct {
	each  time.Duration
	cache string

	mu       sync.Mutex // of all that follows
	out      io.Writer
	failures []error
}

func (f *fuzzing) run(ctx context.Context, t target) {
	start := time.Now()
	out, err := f.exec(ctx, t)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.failures = append(f.failures, fmt.Errorf("%s %s: %w", t.pkg, t.name, err))
		fmt.Fprintf(f.out, "FAIL  %6.1fs  %s %s\n%s\n", time.Since(start).Seconds(), t.pkg, t.name, out)
		return
	}
	fmt.Fprintf(f.out, "ok    %6.1fs  %s %s: %s\n", time.Since(start).Seconds(), t.pkg, t.name, lastCount(out))
}

// exec runs one target; the answer is what it wrote.
func (f *fuzzing) exec(ctx context.Context, t target) ([]byte, error) {
	bin, err := t.binary()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, bin, "-test.run=^$", "-test.fuzz=^"+t.name+"$", "-test.fuzztime="+f.each.String(),
		"-test.parallel=1", "-test.fuzzminimizetime=1x", "-test.fuzzcachedir="+filepath.Join(f.cache, t.pkg))
	cmd.Dir = t.dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := cmd.CombinedOutput()
	if err != nil && deadlineRace(out) {
		err = nil
	}
	return out, err
}

// deadlineRace tells whether a fuzzer failed by nothing but the end of its time: before Go 1.27 its coordinator
// may report that as an error (go.dev/issue/75804). A find is written to a file, and says so.
func deadlineRace(out []byte) bool {
	return bareDeadline.Match(out) && !bytes.Contains(out, []byte("Failing input written"))
}

var bareDeadline = regexp.MustCompile(`(?m)^--- FAIL: Fuzz\w+ \([0-9.]+s\)\n    context deadline exceeded\nFAIL$`)

// lastCount is the last line of progress: how many inputs were tried.
func lastCount(out []byte) string {
	i := bytes.LastIndex(out, []byte("execs: "))
	if i < 0 {
		return "no progress was reported"
	}
	line, _, _ := bytes.Cut(out[i:], []byte("\n"))
	return string(line)
}
