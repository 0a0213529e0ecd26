package native

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/luminate/luminate/storage"
)

// FuzzDecodeBatch checks that the decoder never panics, accepts only JSON, builds
// only valid batches, and does not depend on how the body arrives.
func FuzzDecodeBatch(f *testing.F) {
	for _, s := range []string{
		`{"metrics":[` + metric() + `]}`, `{"source":"x","metrics":[` + metric("dimensions", `{"b":"1","a":"\u00e9"}`) + `,` + metric() + `,` + metric() + `]}`,
		`{"metrics":[{"name":"m","value":1e5,"timestamp":"2024-12-31T00:00:00Z","x":[{}]}]}`, `{"metrics":[`, `{}`, `[]`, "",
		`{"metrics":[{"name":"m","value":-0.0},7,null,"x",[[]]]}`, `{"metrics":[{"name":"\ud83d\ude00","value":12345678901234567890}]} `,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var x, slow writer
		err := decodeInto(&x, body, false)
		x.assemble(&x.decoder)
		checkBatch(t, &x, err, body)
		slow.decoder.reset(DefaultConfig().Write, testNow)
		slow.window.buf = make([]byte, 4*minWindow)
		slow.window.reset(iotest.OneByteReader(bytes.NewReader(body)))
		serr := slow.decodeBatch()
		slow.assemble(&slow.decoder)
		if (err == nil) != (serr == nil) || err != nil && err.Error() != serr.Error() {
			t.Fatalf("error depends on arrival: %v, %v", err, serr)
		}
		if !bytes.Equal(x.batch.Labels, slow.batch.Labels) || x.rejected != slow.rejected {
			t.Fatal("batch depends on arrival")
		}
	})
}

// FuzzDecodeLines does the same for NDJSON.
func FuzzDecodeLines(f *testing.F) {
	f.Add([]byte(metric() + "\n" + metric("value", "2") + "\r\n\n{\n"))
	f.Add([]byte("{}\n[]\n\"\n" + metric("dimensions", `{"a":"b"}`)))
	f.Fuzz(func(t *testing.T, body []byte) {
		var x writer
		if err := decodeInto(&x, body, true); err != nil {
			t.Fatalf("a line must be refused alone: %v", err)
		}
		x.assemble(&x.decoder)
		checkBatch(t, &x, nil, nil)
		lines := 0
		for _, l := range strings.Split(string(body), "\n") {
			if len(bytes.TrimSpace([]byte(l))) > 0 {
				lines++
			}
		}
		if len(x.batch.Samples)+x.rejected != lines {
			t.Fatalf("%d stored and %d refused of %d lines", len(x.batch.Samples), x.rejected, lines)
		}
	})
}

func decodeInto(x *writer, body []byte, lines bool) error {
	x.decoder.reset(DefaultConfig().Write, testNow)
	x.window.reset(bytes.NewReader(body))
	if lines {
		return x.decodeLines()
	}
	return x.decodeBatch()
}

func checkBatch(t *testing.T, x *writer, err error, body []byte) {
	t.Helper()
	if err == nil && body != nil && !json.Valid(body) && !bytes.ContainsFunc(body, func(r rune) bool { return r == '\ufffd' }) {
		t.Fatalf("accepted a body that is not JSON: %q", body)
	}
	seen := map[string]map[int64]bool{}
	for i := range x.batch.Series {
		v := x.batch.At(i)
		if err := v.Labels.Validate(); err != nil {
			t.Fatal(err)
		}
		if v.Labels.Metric() == "" || seen[string(v.Labels)] != nil {
			t.Fatalf("no name, or twice in the batch: %s", v.Labels)
		}
		at := map[int64]bool{}
		seen[string(v.Labels)] = at
		for _, s := range v.Samples {
			if at[s.T] || math.IsNaN(s.V) || math.IsInf(s.V, 0) {
				t.Fatalf("%s has a bad sample %v", v.Labels, s)
			}
			at[s.T] = true
		}
	}
	if err == nil && len(x.batch.Samples)+x.rejected != x.total {
		t.Fatalf("%d stored and %d refused of %d", len(x.batch.Samples), x.rejected, x.total)
	}
}

// FuzzNumber checks the scanner's numbers against strconv's.
func FuzzNumber(f *testing.F) {
	for _, s := range []string{"0", "-0", "1.5", "123456789012345", "0.000000000000001", "1e308", "1.7976931348623157e308", "4.9e-324", "9007199254740993"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var s scanner
		s.buf, s.end, s.eof = []byte(text), len(text), true
		n, err := s.num()
		var wanted json.Number
		valid := json.Unmarshal([]byte(text), &wanted) == nil && strings.TrimSpace(text) == text && len(text) > 0 && text[0] != '"' && text != "null"
		if (err == nil && s.pos == s.end) != valid {
			t.Fatalf("%q: error %v, valid %v", text, err, valid)
		}
		if !valid {
			return
		}
		w, werr := wanted.Float64()
		if werr == nil && math.Float64bits(n.float()) != math.Float64bits(w) {
			t.Fatalf("%q: %v, want %v", text, n.float(), w)
		}
	})
}

// FuzzQuery checks that no query panics and every error has a code.
func FuzzQuery(f *testing.F) {
	f.Add([]byte(`{"queryType":"aggregate","metricName":"m","timeRange":{"relative":"24h"},"aggregation":"p95","groupBy":["k"],"interval":"1M","timezone":"Europe/Berlin","fill":0,"limit":3}`))
	f.Add([]byte(`{"queryType":"range","selector":"m{a=~\"x.*\"}","timeRange":{"start":1,"end":"2024-12-31T00:00:00Z"},"filters":{"a":{"in":["b"]}}}`))
	f.Add([]byte(`{"queryType":"rate","metricName":"m","timeRange":{"start":1735603200000},"explain":true}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		fx := newFixture(t)
		fx.fill(func(b *storage.Batch) {
			b.Add(storage.LabelsFromStrings("__name__", "m", "k", "a"), storage.Sample{T: day, V: 1}, storage.Sample{T: day + 5, V: 2})
		})
		w := fx.query(string(body))
		if w.Code != 200 {
			var e ErrorResponse
			if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Error == nil || w.Code >= 500 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			return
		}
		if !json.Valid(w.Body.Bytes()) {
			t.Fatalf("answer is not JSON: %s", w.Body)
		}
	})
}
