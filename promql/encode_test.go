package promql

import (
	"bytes"
	"math"
	"testing"

	jsoniter "github.com/json-iterator/go"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/jsonutil"
)

// TestEncodeAsUpstream holds the bytes of points and labels against the encoders
// that Prometheus uses.
func TestEncodeAsUpstream(t *testing.T) {
	encoded := func(write func(e *encoder)) string {
		var out bytes.Buffer
		e := &encoder{jsoniter.NewStream(jsonAPI, &out, 16)}
		write(e)
		if err := e.Flush(); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	check := func(name string, got, want func(e *encoder)) {
		t.Helper()
		if g, w := encoded(got), encoded(want); g != w {
			t.Errorf("%s: got %s, want %s", name, g, w)
		}
	}
	values := []float64{
		0, math.Copysign(0, -1), 1, -1, 0.1, 1e15, 1e15 - 1, -1e15, 1e14 + 0.5, 1e20, 1e21, 1e22, 1e-6, 1e-7, 123456789,
		math.MaxInt64, math.MaxFloat64, math.SmallestNonzeroFloat64, math.NaN(), math.Inf(1), math.Inf(-1), 1 << 53,
	}
	for i, v := range values {
		for _, ts := range []int64{0, 1, 10, 100, 1000, 1_700_000_000_000, 1_700_000_000_007, -1, -1000, -1234, math.MaxInt64} {
			check("point", func(e *encoder) { encodeFloat(e, ts, v) }, func(e *encoder) {
				e.WriteArrayStart()
				jsonutil.MarshalTimestamp(ts, e.Stream)
				e.WriteMore()
				jsonutil.MarshalFloat(values[i], e.Stream)
				e.WriteArrayEnd()
			})
		}
	}
	ls := labels.FromStrings("a", "", "b", "plain ü 世界", "c", "quote\" back\\ slash", "d", "new\nline\tтab", "e", "\x00\x1f\x7f", "f", "<&>\u2028", "g", "\xff\xfe bad", "ü", "x")
	check("labels", func(e *encoder) { encodeLabels(e, ls) }, func(e *encoder) {
		e.WriteObjectStart()
		first := true
		ls.Range(func(l labels.Label) {
			if !first {
				e.WriteMore()
			}
			first = false
			e.WriteObjectField(l.Name)
			e.WriteString(l.Value)
		})
		e.WriteObjectEnd()
	})
	check("no labels", func(e *encoder) { encodeLabels(e, labels.EmptyLabels()) }, func(e *encoder) { e.WriteRaw("{}") })
}
