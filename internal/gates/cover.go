package main

import (
	"bufio"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// coverage counts statements by package.
type coverage map[string]*statements

type statements struct{ covered, all int }

func (s statements) percent() float64 {
	if s.all == 0 {
		return 100
	}
	return 100 * float64(s.covered) / float64(s.all)
}

func runCover(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("cover", flag.ContinueOnError)
	floor := fs.Float64("floor", 0, "least percentage of all statements; below it the status is 1")
	skip := fs.String("skip", "", "comma-separated packages, by the end of their path, that are programs for tests and do not count")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() == 0 {
		return errUsage
	}
	blocks := map[string]block{}
	for _, name := range fs.Args() {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = readProfile(f, blocks)
		f.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if len(blocks) == 0 {
		return errors.New("the profile covers nothing")
	}
	total := printCoverage(out, count(blocks), strings.Split(*skip, ","))
	if total.percent() < *floor {
		return fmt.Errorf("%.1f %% of statements are covered, at least %.0f %% must be", total.percent(), *floor)
	}
	return nil
}

// block is one run of statements; several test binaries report the same one.
type block struct {
	statements int
	covered    bool
}

// readProfile adds the blocks of a profile of go test or covdata to blocks, which
// merges what several binaries ran.
func readProfile(r io.Reader, blocks map[string]block) error {
	scan := bufio.NewScanner(r)
	for scan.Scan() {
		line := scan.Text()
		if strings.HasPrefix(line, "mode:") || line == "" {
			continue
		}
		f := strings.Fields(line)
		if len(f) != 3 || !strings.Contains(f[0], ":") {
			return fmt.Errorf("not a line of a coverage profile: %q", line)
		}
		n, err := strconv.Atoi(f[1])
		if err != nil {
			return err
		}
		blocks[f[0]] = block{n, blocks[f[0]].covered || f[2] != "0"}
	}
	return scan.Err()
}

// count sums blocks, whose names are file:range, by package.
func count(blocks map[string]block) coverage {
	c := coverage{}
	for name, b := range blocks {
		file, _, _ := strings.Cut(name, ":")
		pkg := path.Dir(file)
		if c[pkg] == nil {
			c[pkg] = &statements{}
		}
		c[pkg].all += b.statements
		if b.covered {
			c[pkg].covered += b.statements
		}
	}
	return c
}

// printCoverage prints the least covered packages first and returns the total
// without those that skip ends the path of.
func printCoverage(out io.Writer, c coverage, skip []string) statements {
	var total statements
	packages := slices.SortedFunc(maps.Keys(c), func(a, b string) int {
		return cmp.Or(cmp.Compare(c[a].percent(), c[b].percent()), cmp.Compare(a, b))
	})
	fmt.Fprintf(out, "%8s %10s  %s\n", "covered", "statements", "package")
	for _, p := range packages {
		note := ""
		if slices.ContainsFunc(skip, func(s string) bool { return s != "" && strings.HasSuffix(p, "/"+s) }) {
			note = "  (not counted)"
		} else {
			total.covered += c[p].covered
			total.all += c[p].all
		}
		fmt.Fprintf(out, "%6.1f %% %10d  %s%s\n", c[p].percent(), c[p].all, p, note)
	}
	fmt.Fprintf(out, "%6.1f %% %10d  in all\n", total.percent(), total.all)
	return total
}
