package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// write puts a file where the test can name it.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCoverMergesBinariesAndHoldsTheFloor(t *testing.T) {
	one := write(t, t.TempDir(), "one", "mode: atomic\nx/a/f.go:1.1,2.2 6 0\nx/a/f.go:3.1,4.2 2 0\nx/b/g.go:1.1,2.2 2 7\nx/test/h.go:1.1,2.2 90 0\n")
	two := write(t, t.TempDir(), "two", "mode: set\nx/a/f.go:1.1,2.2 6 1\nx/b/g.go:1.1,2.2 2 0\n")
	for _, c := range []struct {
		floor, skip string
		ok          bool
	}{{"80", "test", true}, {"81", "test", false}, {"80", "", false}, {"8", "", true}} {
		var out bytes.Buffer
		err := run(t.Context(), []string{"cover", "-floor", c.floor, "-skip", c.skip, one, two}, &out)
		if (err == nil) != c.ok {
			t.Errorf("floor %s, skip %q: %v\n%s", c.floor, c.skip, err, &out)
		}
		if !strings.Contains(out.String(), "  75.0 %          8  x/a\n") || !strings.Contains(out.String(), " 100.0 %          2  x/b\n") {
			t.Errorf("the table is\n%s", &out)
		}
	}
}

func TestCoverRefusesWhatIsNoProfile(t *testing.T) {
	for _, text := range []string{"", "mode: set\n", "mode: set\nnonsense\n", "mode: set\na.go:1.1,2.2 x 1\n"} {
		if err := run(t.Context(), []string{"cover", write(t, t.TempDir(), "p", text)}, &bytes.Buffer{}); err == nil {
			t.Errorf("%q is taken for a profile", text)
		}
	}
}

func TestSummaryTellsFailuresSkipsAndSlowTests(t *testing.T) {
	events := `{"Action":"output","Package":"p","Test":"TestGood","Output":"good says\n"}
{"Action":"pass","Package":"p","Test":"TestGood","Elapsed":1.5}
{"Action":"output","Package":"p","Test":"TestBad","Output":"bad says\n"}
{"Action":"fail","Package":"p","Test":"TestBad","Elapsed":0.1}
{"Action":"skip","Package":"p","Test":"TestNot","Elapsed":0}
{"Action":"output","Package":"p","Test":"TestHung","Output":"panic: timed out\n"}
{"Action":"fail","Package":"p","Elapsed":3}
{"Action":"build-output","ImportPath":"q","Output":"does not compile\n"}
{"Action":"pass","Package":"r","Elapsed":2}
`
	var out bytes.Buffer
	s := &summary{out: &out, output: map[string][]string{}}
	if err := s.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	s.print(0)
	if s.failed != 2 {
		t.Errorf("%d failures, want the test and its package", s.failed)
	}
	for _, want := range []string{"bad says", "panic: timed out", "does not compile", "ok        2.0s  r", "     1.5s  p TestGood", "skipped  p TestNot"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "good says") {
		t.Error("a passed test's output is printed")
	}
	if err := s.read(strings.NewReader("not JSON")); err == nil {
		t.Error("output that is not JSON passes for events")
	}
}

// inModule runs the gates in a module of its own.
func inModule(t *testing.T, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "go.mod", "module example.com/x\n\ngo 1.26\n")
	for name, text := range files {
		write(t, dir, name, text)
	}
	t.Chdir(dir)
	t.Setenv("GOFLAGS", "-mod=mod")
}

func TestTestsFailAndPass(t *testing.T) {
	inModule(t, map[string]string{"x_test.go": "package x\n\nimport \"testing\"\n\nfunc TestA(t *testing.T) {}\n\nfunc TestB(t *testing.T) { t.Fatal(\"broken\") }\n"})
	var out bytes.Buffer
	if err := run(t.Context(), []string{"test", "-run", "TestA", "."}, &out); err != nil || !strings.Contains(out.String(), "example.com/x TestA") {
		t.Errorf("%v\n%s", err, &out)
	}
	out.Reset()
	if err := run(t.Context(), []string{"test", "."}, &out); err == nil || !strings.Contains(out.String(), "broken") {
		t.Errorf("a failing test passes: %v\n%s", err, &out)
	}
	write(t, ".", "y_test.go", "package x\n\nvar _ int = \"\"\n")
	out.Reset()
	if err := run(t.Context(), []string{"test", "."}, &out); err == nil || !strings.Contains(out.String(), "y_test.go") {
		t.Errorf("what does not compile passes: %v\n%s", err, &out)
	}
}

func TestFuzzFindsWhatBreaks(t *testing.T) {
	inModule(t, map[string]string{"x_test.go": `package x

import "testing"

func FuzzGood(f *testing.F) { f.Fuzz(func(t *testing.T, b []byte) {}) }

func FuzzBad(f *testing.F) {
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 0 {
			t.Fatal("breaks")
		}
	})
}
`})
	var out bytes.Buffer
	if err := run(t.Context(), []string{"fuzz", "-time", "100x", "-only", "Good"}, &out); err == nil {
		t.Error("a count passes for a duration")
	}
	if err := run(t.Context(), []string{"fuzz", "-time", "200ms", "-only", "Good"}, &out); err != nil || !strings.Contains(out.String(), "FuzzGood: execs: ") {
		t.Errorf("%v\n%s", err, &out)
	}
	if err := run(t.Context(), []string{"fuzz", "-time", "200ms"}, &out); err == nil || !strings.Contains(err.Error(), "FuzzBad") {
		t.Errorf("a target that breaks passes: %v\n%s", err, &out)
	}
	if err := run(t.Context(), []string{"fuzz", "-only", "None"}, &out); err == nil {
		t.Error("no target at all passes")
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"nonsense"}, {"cover"}, {"cover", "absent"}} {
		if err := run(context.Background(), args, &bytes.Buffer{}); err == nil {
			t.Errorf("%q passes", args)
		}
	}
}

// TestDeadlineRace: only the bare end of a fuzzer's time is no find.
func TestDeadlineRace(t *testing.T) {
	const race = "fuzz: elapsed: 31s, execs: 244522 (0/sec)\n--- FAIL: FuzzCreate (31.05s)\n    context deadline exceeded\nFAIL\n"
	for out, want := range map[string]bool{
		race: true,
		"fuzz: elapsed: 31s\n--- FAIL: FuzzCreate (31.05s)\n    Failing input written to testdata/fuzz/FuzzCreate/1\n" + race: false,
		"--- FAIL: FuzzCreate (31.05s)\n    context deadline exceeded\n    x_test.go:5: another\nFAIL\n":                      false,
		"--- FAIL: FuzzCreate (31.05s)\n    x_test.go:5: context deadline exceeded\nFAIL\n":                                   false,
		"panic: test timed out after 10m0s\nFAIL\n":                                                                           false,
	} {
		if got := deadlineRace([]byte(out)); got != want {
			t.Errorf("%q: %v, want %v", out, got, want)
		}
	}
}
