package remote

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/VictoriaMetrics/easyproto"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	zw := gzip.NewWriter(&out)
	_, _ = zw.Write(b)
	_ = zw.Close()
	return out.Bytes()
}

func TestOTLPEncodings(t *testing.T) {
	for _, tc := range []struct {
		name string
		body func(*otlpMetrics, testing.TB) []byte
		head []string
		json bool
	}{
		{"protobuf", (*otlpMetrics).proto, []string{"Content-Type", "application/x-protobuf"}, false},
		{"protobuf identity", (*otlpMetrics).proto, []string{"Content-Type", "application/x-protobuf", "Content-Encoding", "identity"}, false},
		{"protobuf gzip", func(o *otlpMetrics, t testing.TB) []byte { return gzipped(o.proto(t)) }, []string{"Content-Type", "application/x-protobuf", "Content-Encoding", "gzip"}, false},
		{"json", (*otlpMetrics).json, []string{"Content-Type", "application/json; charset=utf-8"}, true},
		{"json gzip", func(o *otlpMetrics, t testing.TB) []byte { return gzipped(o.json(t)) }, []string{"Content-Type", "application/json", "Content-Encoding", "GZIP"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStack(t)
			o := newOTLP(s)
			o.gauge("up", 1)
			w := s.do(newPost("/otlp/v1/metrics", tc.body(o, t), tc.head...))
			wantStatus(t, w, http.StatusOK)
			want := "application/x-protobuf"
			if tc.json {
				want = "application/json"
				if strings.TrimSpace(w.Body.String()) != "{}" && strings.TrimSpace(w.Body.String()) != `{"partialSuccess":{}}` {
					t.Errorf("answer %s", w.Body)
				}
			}
			if ct := w.Header().Get("Content-Type"); ct != want {
				t.Errorf("answer is %s", ct)
			}
			if n := len(s.stored()); n != 2 {
				t.Errorf("%d series stored", n)
			}
		})
	}
}

func TestOTLPBadRequests(t *testing.T) {
	s := newStack(t, func(c *Config) {
		c.MaxBodyBytes, c.MaxDecodedBytes, c.MaxBatchBytes, c.OTLP.MaxElements = 10_000, 20_000, 30_000, 400
	})
	many := newOTLP(s)
	for i := range 300 {
		many.gauge(fmt.Sprint("m", i), 1)
	}
	fat := newOTLP(s)
	h := fat.metric("h").SetEmptyHistogram()
	h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	dp := h.DataPoints().AppendEmpty()
	dp.Attributes().PutStr("a", strings.Repeat("x", 3000))
	for i := range 100 {
		dp.ExplicitBounds().Append(float64(i))
		dp.BucketCounts().Append(1)
	}
	bomb := gzipped(make([]byte, 1<<20))
	good := newOTLP(s)
	good.gauge("up", 1)
	for _, tc := range []struct {
		name   string
		body   []byte
		head   []string
		status int
		want   string
	}{
		{"type", nil, []string{"Content-Type", "text/plain"}, 415, "not supported"},
		{"no type", nil, nil, 415, "not supported"},
		{"encoding", nil, []string{"Content-Type", protobufType, "Content-Encoding", "br"}, 415, `content encoding "br" is not supported, send gzip or none`},
		{"broken protobuf", []byte{0x0a, 0x05, 0x01}, []string{"Content-Type", protobufType}, 400, "decode: OTLP request"},
		{"broken json", []byte(`{"resourceMetrics":[`), []string{"Content-Type", jsonType}, 400, "decode: OTLP request"},
		{"json of the wrong shape", []byte(`{"resourceMetrics":7}`), []string{"Content-Type", jsonType}, 400, "decode: OTLP request"},
		{"not gzip", []byte("hello"), []string{"Content-Type", protobufType, "Content-Encoding", "gzip"}, 400, "gzip"},
		{"truncated gzip", gzipped(good.proto(t))[:30], []string{"Content-Type", protobufType, "Content-Encoding", "gzip"}, 400, "gzip: unexpected EOF"},
		{"gzip bomb", bomb, []string{"Content-Type", protobufType, "Content-Encoding", "gzip"}, 413, "max-decoded-bytes"},
		{"body", make([]byte, 11_000), []string{"Content-Type", protobufType}, 413, "max-body-bytes"},
		{"elements", gzipped(many.proto(t)), []string{"Content-Type", protobufType, "Content-Encoding", "gzip"}, 413, "max-otlp-elements"},
		{"json elements", []byte(`{"resourceMetrics":[` + strings.Repeat("{},", 500) + `{}]}`), []string{"Content-Type", jsonType}, 413, "max-otlp-elements"},
		{"expansion", fat.proto(t), []string{"Content-Type", protobufType}, 413, "max-batch-bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := s.postOTLP(tc.body, tc.head...)
			wantStatus(t, w, tc.status)
			if tc.status != 415 || tc.name == "encoding" {
				if message, _ := statusMessage(t, w); !strings.Contains(message, tc.want) {
					t.Errorf("message %q does not tell %q", message, tc.want)
				}
			} else if !strings.Contains(w.Body.String(), tc.want) {
				t.Errorf("body %q does not tell %q", w.Body, tc.want)
			}
			s.wantStored()
		})
	}
}

// statusMessage reads a google.rpc.Status.
func statusMessage(t testing.TB, w *httptest.ResponseRecorder) (message string, code int32) {
	t.Helper()
	if w.Header().Get("Content-Type") == jsonType {
		var st rpcStatus
		if err := json.Unmarshal(w.Body.Bytes(), &st); err != nil {
			t.Fatal(err)
		}
		return st.Message, st.Code
	}
	var fc easyproto.FieldContext
	for src := w.Body.Bytes(); len(src) > 0; {
		var err error
		if src, err = fc.NextField(src); err != nil {
			t.Fatal(err)
		}
		switch fc.FieldNum {
		case 1:
			code, _ = fc.Int32()
		case 2:
			message, _ = fc.String()
		}
	}
	return message, code
}

func TestOTLPAnswersByKind(t *testing.T) {
	want := map[storage.Kind]struct {
		status int
		code   int32
	}{
		// OTLP clients do not repeat after a 500: our own fault is 503.
		storage.KindInternal: {503, 14}, storage.KindNotFound: {503, 14},
		storage.KindInvalid: {400, 3}, storage.KindUnsupported: {400, 3},
		storage.KindLimited: {429, 8}, storage.KindTooLarge: {413, 8},
		storage.KindUnavailable: {503, 14}, storage.KindTimeout: {503, 14}, storage.KindCanceled: {503, 14},
	}
	for _, k := range storage.Kinds() {
		for _, mediaType := range []string{protobufType, jsonType} {
			t.Run(k.String()+"/"+mediaType, func(t *testing.T) {
				s := newStack(t)
				s.faulty.SetScript(storagetest.FailWith(k))
				o := newOTLP(s)
				o.gauge("up", math.Pi)
				body := o.proto(t)
				if mediaType == jsonType {
					body = o.json(t)
				}
				w := s.postOTLP(body, "Content-Type", mediaType)
				wantStatus(t, w, want[k].status)
				if _, code := statusMessage(t, w); code != want[k].code {
					t.Errorf("code %d, want %d", code, want[k].code)
				}
				retry := want[k].status == 429 || want[k].status == 503
				if got := w.Header().Get("Retry-After"); (got != "") != retry {
					t.Errorf("Retry-After %q", got)
				}
			})
		}
	}
}

func TestOTLPNoRecordedValueIsStale(t *testing.T) {
	s := newStack(t)
	o := newOTLP(s)
	o.gauge("up", 1).SetFlags(pmetric.DefaultDataPointFlags.WithNoRecordedValue(true))
	s.sendOTLP(o)
	for _, x := range s.stored() {
		if x.Labels.Metric() == "up" && !storage.IsStale(x.Samples[0].V) {
			t.Errorf("stored %v", x.Samples)
		}
	}
	if len(s.stored()) != 2 {
		t.Errorf("%d series stored", len(s.stored()))
	}
}

// Two timestamps at the ends of time must not make the translator write target_info
// for all the time between them.
func TestOTLPSpanOfTimeIsBounded(t *testing.T) {
	s := newStack(t)
	o := newOTLP(s)
	o.gauge("now", 1)
	o.gauge("first", 1).SetTimestamp(1)
	o.gauge("last", 1).SetTimestamp(math.MaxUint64)
	points, message := s.sendOTLP(o)
	if points != 2 || !strings.Contains(message, "no target_info is stored") {
		t.Errorf("rejected %d: %s", points, message)
	}
	if got := s.storedText(); len(got) != 1 || !strings.Contains(got[0], `__name__="now"`) {
		t.Errorf("stored %v", got)
	}
}
