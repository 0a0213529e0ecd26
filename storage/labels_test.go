package storage

import (
	"bytes"
	"strings"
	"testing"

	promlabels "github.com/prometheus/prometheus/model/labels"
)

func TestLabelsRoundTripThroughPrometheus(t *testing.T) {
	for _, m := range []map[string]string{
		{},
		{"__name__": "up"},
		{"__name__": "up", "job": "a", "Upper": "B", "zz": strings.Repeat("x", 70_000)},
		{"a": "1", "ab": "2", "b": "", "ü": "日本"},
	} {
		ls := LabelsFromMap(m)
		if err := ls.Validate(); err != nil {
			t.Fatalf("%v: %v", m, err)
		}
		want := promlabels.FromMap(m).WithoutEmpty()
		if got := ls.Prometheus(); !promlabels.Equal(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
		if back := LabelsFromPrometheus(want); !bytes.Equal(back, ls) {
			t.Errorf("%v: bytes differ after the way through Prometheus", m)
		}
		if ls.Get("__name__") != m["__name__"] || ls.Metric() != m["__name__"] || ls.Len() != want.Len() {
			t.Errorf("%v: Get, Metric or Len is wrong", m)
		}
	}
}

func TestLabelsValidate(t *testing.T) {
	f := func(ls Labels, want string) {
		t.Helper()
		err := ls.Validate()
		if err == nil || !strings.Contains(err.Error(), want) || KindOf(err) != KindInvalid {
			t.Errorf("%q: got %v, want an invalid error that says %q", ls, err, want)
		}
	}
	pair := func(kv ...string) (ls Labels) {
		for i := 0; i < len(kv); i += 2 {
			ls = AppendLabel(ls, kv[i], kv[i+1])
		}
		return ls
	}
	f(Labels{5, 'a'}, "cut short")
	f(Labels{0xff}, "cut short")
	f(Labels{1, 'a'}, "cut short")
	f(pair("", "v"), "empty name")
	f(pair("a", ""), "empty value")
	f(pair("a", "1", "a", "2"), "duplicate")
	f(pair("b", "1", "a", "2"), "sorted")
	f(pair("\xff", "1"), "UTF-8")
	f(pair("a", "\xff"), "UTF-8")
}

func TestCompareLabelsIsPrometheusOrder(t *testing.T) {
	sets := []Labels{
		LabelsFromStrings(), LabelsFromStrings("a", "1"), LabelsFromStrings("a", "1", "b", "1"), LabelsFromStrings("a", "10"),
		LabelsFromStrings("a", "2"), LabelsFromStrings("ab", "1"), LabelsFromStrings("b", "1"), LabelsFromStrings("__name__", "x", "a", "1"),
		LabelsFromStrings("A", "1"), LabelsFromStrings("a", strings.Repeat("z", 200)),
	}
	for _, x := range sets {
		for _, y := range sets {
			got, want := CompareLabels(x, y), promlabels.Compare(x.Prometheus(), y.Prometheus())
			if sign(got) != sign(want) {
				t.Errorf("%s against %s: got %d, want %d", x, y, got, want)
			}
		}
	}
}

func sign(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	default:
		return 0
	}
}

func TestLabelsBuilderSortsAndRefusesDuplicates(t *testing.T) {
	var b LabelsBuilder
	for _, p := range [][2]string{{"z", "1"}, {"a", "2"}, {"empty", ""}, {"m", "3"}} {
		b.Add(p[0], p[1])
	}
	ls, err := b.AppendTo([]byte("kept"))
	if err != nil || !bytes.HasPrefix(ls, []byte("kept")) {
		t.Fatalf("got %q, %v", ls, err)
	}
	if got := Labels(ls[4:]).String(); got != `{a="2", m="3", z="1"}` {
		t.Errorf("got %s", got)
	}
	b.Add("m", "3")
	if _, err := b.AppendTo(nil); err == nil || !strings.Contains(err.Error(), `"m"`) {
		t.Errorf("duplicate: got %v", err)
	}
}

func FuzzLabels(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte(LabelsFromStrings("a", "b", "c", "d")))
	f.Add([]byte{1, 'a', 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		ls := Labels(b)
		n := ls.Len()
		if ls.Validate() != nil {
			return
		}
		// Valid bytes are canonical: built anew from the pairs they are the same.
		var builder LabelsBuilder
		for name, value := range ls.All() {
			builder.Add(name, value)
		}
		again, err := builder.AppendTo(nil)
		if err != nil || !bytes.Equal(again, b) && len(b) > 0 {
			// Only a length written with more bytes than it needs may differ.
			if err != nil || len(again) >= len(b) {
				t.Fatalf("%q built anew is %q (%v)", b, again, err)
			}
		}
		if n != ls.Len() {
			t.Fatal("length changed")
		}
	})
}

func FuzzCompareLabels(f *testing.F) {
	f.Add("a", "1", "b", "2", "a", "1", "c", "2")
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g, h, i string) {
		x, y := LabelsFromMap(map[string]string{a: b, c: d}), LabelsFromMap(map[string]string{e: g, h: i})
		if x.Validate() != nil || y.Validate() != nil {
			return
		}
		if got, want := sign(CompareLabels(x, y)), sign(promlabels.Compare(x.Prometheus(), y.Prometheus())); got != want {
			t.Fatalf("%s against %s: got %d, want %d", x, y, got, want)
		}
		if (CompareLabels(x, y) == 0) != bytes.Equal(x, y) {
			t.Fatalf("%s and %s: equal sets must have equal bytes", x, y)
		}
	})
}
