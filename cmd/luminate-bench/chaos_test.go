package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/luminate/luminate/internal/proctest"
)

func TestMain(m *testing.M) { os.Exit(proctest.Main(m)) }

// TestChaosResults: what could not be run is NOT RUN, a broken promise and an error
// are FAIL, and only FAIL makes the command fail.
func TestChaosResults(t *testing.T) {
	for _, tc := range []struct {
		name string
		run  func(context.Context, *chaos, *outcome) error
		want string
	}{
		{"kept", func(context.Context, *chaos, *outcome) error { return nil }, passed},
		{"impossible", func(context.Context, *chaos, *outcome) error { return fmt.Errorf("cut 0: %w: no root", errNotRun) }, notRun},
		{"error", func(context.Context, *chaos, *outcome) error { return errors.New("gone") }, failed},
		{"broken", func(_ context.Context, _ *chaos, o *outcome) error {
			o.expect(false, "%d lost", 3)
			return nil
		}, failed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out := (&chaos{}).play(t.Context(), trouble{name: tc.name, run: tc.run})
			if out.Result != tc.want || (tc.want == passed) != (len(out.Reasons) == 0) {
				t.Errorf("got %s for %q, want %s", out.Result, out.Reasons, tc.want)
			}
			r := &chaosReport{Scenarios: []*outcome{out}}
			if (r.err() != nil) != (tc.want == failed) {
				t.Errorf("the run's error is %v", r.err())
			}
			var b bytes.Buffer
			if err := writeReport(r, "-", &b); err != nil || !bytes.Contains(b.Bytes(), []byte(`"result": "`+tc.want+`"`)) {
				t.Errorf("report %s, %v", &b, err)
			}
		})
	}
}

// TestFlipVerdicts: missing samples pass only if the log or a query tells of them.
func TestFlipVerdicts(t *testing.T) {
	quiet := "time=x level=INFO msg=recovered tornBytes=0\n"
	for _, tc := range []struct {
		name, log, count string
		v                verdict
		startErr         error
		want             string
	}{
		{"whole", quiet, "nothingLost", verdict{read: 9}, nil, passed},
		{"silent", quiet, "silent", verdict{missing: 1}, nil, failed},
		{"torn", "level=INFO msg=recovered tornBytes=17\n", "toldByLog", verdict{missing: 1}, nil, passed},
		{"logged", "level=ERROR msg=\"recovered with losses: see\"\n", "toldByLog", verdict{missing: 1}, nil, passed},
		{"unrelated warning", "level=WARN msg=\"no limits\"\n", "silent", verdict{missing: 1}, nil, failed},
		{"query", quiet, "toldByQuery", verdict{err: errors.New("500")}, nil, passed},
		{"wrong", quiet, "nothingLost", verdict{wrong: 1}, nil, failed},
		{"refused", "luminate: manifest: checksum\n", "refusedToStart", verdict{}, errors.New("ended"), passed},
		{"mute", "", "refusedToStart", verdict{}, errors.New("ended"), failed},
		{"panic", "panic: runtime error\n", "refusedToStart", verdict{}, errors.New("ended"), failed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(path, []byte(tc.log), 0o600); err != nil {
				t.Fatal(err)
			}
			o := &outcome{Result: passed, Numbers: map[string]float64{}}
			if err := judgeFlip(o, path, "f", tc.v, tc.startErr); err != nil {
				t.Fatal(err)
			}
			if o.Result != tc.want || o.Numbers[tc.count] != 1 {
				t.Errorf("%s %v %q, want %s and 1 %s", o.Result, o.Numbers, o.Reasons, tc.want, tc.count)
			}
		})
	}
}
