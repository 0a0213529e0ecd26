package remote

import (
	"encoding/base64"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/easyproto"
	"github.com/golang/snappy"

	"github.com/luminate/luminate/storage"
)

// GET on a write path is a health check (Vector), not a write.
func TestGetOnWritePaths(t *testing.T) {
	s := newStack(t)
	for _, path := range []string{"/api/v1/write", "/api/v1/push", "/api/prom/push"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		w := s.do(req)
		wantStatus(t, w, http.StatusOK)
		if w.Body.Len() != 0 {
			t.Errorf("%s: body %q", path, w.Body)
		}
		post := newPost(path, snappy.Encode(nil, mustMarshal(t, up(s))), "Content-Type", contentV2)
		wantStatus(t, s.do(post), http.StatusNoContent)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, "/api/v1/write", http.NoBody)
	wantStatus(t, s.do(req), http.StatusMethodNotAllowed)
}

func TestIsRemoteWrite(t *testing.T) {
	for _, tc := range []struct {
		header []string
		want   bool
	}{
		{nil, false},
		{[]string{"Content-Type", "application/json"}, false},
		{[]string{"Content-Type", "application/json", "Content-Encoding", "gzip"}, false},
		{[]string{"Content-Type", "application/x-ndjson"}, false},
		{[]string{"Content-Type", "application/x-protobuf"}, true},
		{[]string{"Content-Type", "application/x-protobuf;proto=nonsense"}, true},
		{[]string{"Content-Type", "application/json", "Content-Encoding", "snappy"}, true},
		{[]string{"Content-Type", "application/json", "X-Prometheus-Remote-Write-Version", "2.0.0"}, true},
		{[]string{"Content-Encoding", "snappy"}, true},
	} {
		if got := IsRemoteWrite(newPost("/api/v1/write", nil, tc.header...)); got != tc.want {
			t.Errorf("%v: %v", tc.header, got)
		}
	}
}

// A request of few bytes must not become a batch of gigabytes through its symbols.
func TestSymbolsCannotMultiplyWithoutBound(t *testing.T) {
	s := newStack(t, func(c *Config) { c.MaxBatchBytes = 1 << 20 })
	b := newV2()
	for range 2000 {
		b.add(v2Sample(s.now, 1), "__name__", "up", "a", strings.Repeat("x", 4000))
	}
	w := s.writeV2(b.build())
	wantStatus(t, w, http.StatusRequestEntityTooLarge)
	if !strings.Contains(w.Body.String(), "max-batch-bytes") {
		t.Errorf("body %q", w.Body)
	}
	s.wantStored()
}

// Nor one series, where a tenant's labels are not limited.
func TestLabelsOfOneSeriesAreBounded(t *testing.T) {
	s := newStack(t, func(c *Config) {
		c.Shape = ShapeLimits{Labels: math.MaxInt32, NameBytes: math.MaxInt32, ValueBytes: math.MaxInt32}
	})
	b := newV2()
	pairs := []string{"__name__", "up"}
	for i := range 600 {
		pairs = append(pairs, fmt.Sprintf("l%04d", i), strings.Repeat("x", 4000))
	}
	b.add(v2Sample(s.now, 1), pairs...)
	b.add(v2Sample(s.now, 1), pairs[:200]...)
	w := s.writeV2(b.build())
	wantStatus(t, w, http.StatusBadRequest)
	wantWritten(t, w, "1", "0", "0")
	if !strings.Contains(w.Body.String(), "the labels have more than 1048576 bytes together") {
		t.Errorf("body %q", w.Body)
	}
}

// Writes under way are bounded: one more waits, and is told to come again.
func TestInFlightLimit(t *testing.T) {
	s := newStack(t, func(c *Config) { c.QueueTimeout = time.Millisecond; c.MaxInFlightBytes = c.MaxDecodedBytes })
	if !s.api.inFlight.TryAcquire(s.api.cfg.MaxInFlightBytes) {
		t.Fatal("not free")
	}
	w := s.writeV2(up(s))
	wantStatus(t, w, http.StatusServiceUnavailable)
	if w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "max-in-flight-bytes") {
		t.Errorf("%v %q", w.Header(), w.Body)
	}
	s.api.inFlight.Release(s.api.cfg.MaxInFlightBytes)
	wantStatus(t, s.writeV2(up(s)), http.StatusNoContent)
}

// What was refused, here or by the store, is handed to whoever keeps the tenant's list.
func TestOnRefused(t *testing.T) {
	var got []Refused
	s := newStack(t, func(c *Config) {
		c.OnRefused = func(tenant storage.Tenant, r Refused) { got = append(got, r) }
	})
	b := newV2().add(v2Sample(s.now, 1), "a", "b").add(v2Sample(s.now-400*24*3600*1000, 1), "__name__", "old")
	s.writeV2(b.build())
	o := newOTLP(s)
	o.gauge("long", 1).Attributes().PutStr("a", strings.Repeat("x", 5000))
	s.sendOTLP(o)
	for i, want := range []Refused{
		{Source: "remote_write", Series: `{a="b"}`, Reason: storage.ReasonInvalidLabels, Count: 1},
		{Source: "remote_write", Series: `{__name__="old"}`, Reason: storage.ReasonTooOld, Count: 1},
		{Source: "otlp", Series: "{…}", Reason: storage.ReasonLabelLimit, Count: 1},
	} {
		if i >= len(got) || got[i].Message == "" {
			t.Fatalf("told of %+v", got)
		}
		if got[i].Message = ""; i == 2 {
			got[i].Series = "{…}"
		}
		if got[i] != want {
			t.Errorf("told of %+v, want %+v", got[i], want)
		}
	}
}

// Both ways of reading a sample agree, in any order of the fields.
func TestSampleFields(t *testing.T) {
	var m easyproto.MarshalerPool
	for _, order := range []string{"vt", "tv", "vts", "stv", "v", "t", "s", "", "vvtt"} {
		mm := m.Get()
		out := mm.MessageMarshaler()
		var wantV float64
		var wantT, wantST int64
		for i, f := range order {
			switch f {
			case 'v':
				wantV = math.Copysign(0, -1) * float64(i+1)
				out.AppendDouble(1, wantV)
			case 't':
				wantT = -1_700_000_000_000 + int64(i)
				out.AppendInt64(2, wantT)
			case 's':
				wantST = 1_600_000_000_000
				out.AppendInt64(3, wantST)
			}
		}
		v, ts, st, err := sampleFields(mm.Marshal(nil))
		if err != nil || math.Float64bits(v) != math.Float64bits(wantV) || ts != wantT || st != wantST {
			t.Errorf("%q: %v %d %d %v", order, v, ts, st, err)
		}
	}
}

func TestEmptyMessages(t *testing.T) {
	s := newStack(t)
	for _, ct := range []string{contentV1, contentV2} {
		w := s.post(snappy.Encode(nil, nil), "Content-Type", ct)
		wantStatus(t, w, http.StatusNoContent)
		if ct == contentV2 {
			wantWritten(t, w, "0", "0", "0")
		} else {
			wantWritten(t, w, "", "", "")
		}
	}
	raw, err := base64.StdEncoding.DecodeString("KgA=") // one empty series
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(t, s.post(snappy.Encode(nil, raw), "Content-Type", contentV2), http.StatusBadRequest)
}
