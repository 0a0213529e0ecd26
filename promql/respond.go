package promql

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	jsoniter "github.com/json-iterator/go"
	"github.com/prometheus/prometheus/model/histogram"
	promengine "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/jsonutil"
)

// flushBytes is how much of an answer is held before it is sent on.
const flushBytes = 64 << 10

// maxAnnotations bounds the warnings, and the infos, that one answer lists.
const maxAnnotations = 10

var jsonAPI = jsoniter.ConfigCompatibleWithStandardLibrary

// errTruncated is the warning of every answer that limit cut.
var errTruncated = errors.New("results truncated due to limit")

// answer is what a handler returns on success. Encode writes data; a nil Encode
// is an answer without content. Done, if set, is called when the answer is out.
type answer struct {
	code     int // 0 = 200
	encode   func(*encoder)
	warnings annotations.Annotations
	query    string // for the positions in annotations
	done     func()
}

// value answers with v as encoding/json would write it.
func value(v any) answer {
	return answer{encode: func(e *encoder) { e.WriteVal(v) }}
}

// encoder streams JSON: what it holds goes out whenever it is more than
// flushBytes.
type encoder struct{ *jsoniter.Stream }

// flushFull sends what is held if it is much. A failed write is the client's
// leaving: what is left is dropped, so that it does not pile up.
func (e *encoder) flushFull() {
	if e.Buffered() >= flushBytes && e.Flush() != nil {
		e.SetBuffer(e.Buffer()[:0])
	}
}

func (a *API) writeAnswer(w http.ResponseWriter, ans answer) {
	if ans.encode == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if ans.code != 0 {
		w.WriteHeader(ans.code)
	}
	e := &encoder{jsoniter.NewStream(jsonAPI, w, 4096)}
	e.WriteRaw(`{"status":"success","data":`)
	ans.encode(e)
	warnings, infos := ans.warnings.AsStrings(ans.query, 0, 0)
	writeAnnotations(e, "warnings", "warning", warnings)
	writeAnnotations(e, "infos", "info", infos)
	e.WriteObjectEnd()
	if err := e.Flush(); err != nil {
		a.log.Debug("write answer", "err", err)
	}
}

// writeAnnotations writes a field with the messages in order, the first
// maxAnnotations of them and a count of the rest.
func writeAnnotations(e *encoder, field, kind string, msgs []string) {
	if len(msgs) == 0 {
		return
	}
	slices.Sort(msgs)
	if n := len(msgs) - maxAnnotations; n > 0 {
		msgs = append(msgs[:maxAnnotations:maxAnnotations], fmt.Sprintf("%d more %s annotations omitted", n, kind))
	}
	e.WriteMore()
	e.WriteObjectField(field)
	e.WriteVal(msgs)
}

type errorEnvelope struct {
	Status    string    `json:"status"`
	ErrorType errorType `json:"errorType,omitempty"`
	Error     string    `json:"error,omitempty"`
}

func (a *API) writeError(w http.ResponseWriter, e *apiError) {
	b, err := jsonAPI.Marshal(errorEnvelope{"error", e.typ, e.err.Error()})
	if err != nil { // three strings cannot fail to encode
		panic("promql: encode an error: " + err.Error())
	}
	if e.code == http.StatusTooManyRequests || e.typ == errUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.code)
	if _, err := w.Write(b); err != nil {
		a.log.Debug("write error", "err", err)
	}
}

// encodePoint writes [seconds, "value"] or [seconds, {histogram}].
func encodePoint(e *encoder, t int64, v float64, h *histogram.FloatHistogram) {
	if h == nil {
		encodeFloat(e, t, v)
		return
	}
	e.WriteArrayStart()
	jsonutil.MarshalTimestamp(t, e.Stream)
	e.WriteMore()
	jsonutil.MarshalHistogram(h, e.Stream)
	e.WriteArrayEnd()
	e.flushFull()
}

// encodeValue writes a result of the engine. Scalars and strings have their own
// form of numbers there, unlike samples.
func encodeValue(e *encoder, v parser.Value) {
	switch v := v.(type) {
	case promengine.Matrix:
		encodeList(e, len(v), func(i int) { encodeSeries(e, &v[i]) })
	case promengine.Vector:
		encodeList(e, len(v), func(i int) { encodeSample(e, &v[i]) })
	default:
		e.WriteVal(v)
	}
}

func encodeList(e *encoder, n int, element func(i int)) {
	e.WriteArrayStart()
	for i := range n {
		if i > 0 {
			e.WriteMore()
		}
		element(i)
		e.flushFull()
	}
	e.WriteArrayEnd()
}

func encodeSample(e *encoder, s *promengine.Sample) {
	e.WriteObjectStart()
	e.WriteObjectField("metric")
	encodeLabels(e, s.Metric)
	e.WriteMore()
	if s.H == nil {
		e.WriteObjectField("value")
	} else {
		e.WriteObjectField("histogram")
	}
	encodePoint(e, s.T, s.F, s.H)
	e.WriteObjectEnd()
}

func encodeSeries(e *encoder, s *promengine.Series) {
	e.WriteObjectStart()
	e.WriteObjectField("metric")
	encodeLabels(e, s.Metric)
	if len(s.Floats) > 0 {
		e.WriteMore()
		e.WriteObjectField("values")
		encodeList(e, len(s.Floats), func(i int) { encodeFloat(e, s.Floats[i].T, s.Floats[i].F) })
	}
	if len(s.Histograms) > 0 {
		e.WriteMore()
		e.WriteObjectField("histograms")
		encodeList(e, len(s.Histograms), func(i int) { encodePoint(e, s.Histograms[i].T, 0, s.Histograms[i].H) })
	}
	e.WriteObjectEnd()
}
