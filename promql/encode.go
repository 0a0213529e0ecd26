package promql

import (
	"math"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/jsonutil"
)

// What stands here writes the bytes that jsoniter and jsonutil would: labels and
// points are most of every answer, and those write byte by byte.

func encodeLabels(e *encoder, ls labels.Labels) {
	buf := append(e.Buffer(), '{')
	first := true
	ls.Range(func(l labels.Label) {
		if !first {
			buf = append(buf, ',')
		}
		first = false
		buf = appendString(e, buf, l.Name)
		buf = append(buf, ':')
		buf = appendString(e, buf, l.Value)
	})
	e.SetBuffer(append(buf, '}'))
}

// appendString appends a JSON string to buf, which continues e's buffer.
func appendString(e *encoder, buf []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' {
			e.SetBuffer(buf)
			e.WriteString(s)
			return e.Buffer()
		}
	}
	buf = append(buf, '"')
	buf = append(buf, s...)
	return append(buf, '"')
}

// encodeFloat writes [seconds, "value"].
func encodeFloat(e *encoder, t int64, v float64) {
	e.SetBuffer(append(e.Buffer(), '['))
	if t >= 0 && t%1000 == 0 {
		e.SetBuffer(strconv.AppendInt(e.Buffer(), t/1000, 10))
	} else {
		jsonutil.MarshalTimestamp(t, e.Stream)
	}
	if v == math.Trunc(v) && math.Abs(v) < 1e15 && v != 0 { // a zero may have a sign
		buf := append(e.Buffer(), `,"`...)
		e.SetBuffer(append(strconv.AppendInt(buf, int64(v), 10), `"]`...))
	} else {
		e.SetBuffer(append(e.Buffer(), ','))
		jsonutil.MarshalFloat(v, e.Stream)
		e.SetBuffer(append(e.Buffer(), ']'))
	}
	e.flushFull()
}
