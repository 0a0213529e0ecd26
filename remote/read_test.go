package remote

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/histogram"
	promlabels "github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	promstorage "github.com/prometheus/prometheus/storage"
	promremote "github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

// fillForRead stores series of every kind of sample, some in one series.
func fillForRead(s *stack) (from, to int64) {
	from = s.now - 3_600_000
	rng := rand.New(rand.NewPCG(1, 2))
	var b storage.Batch
	for i := range 5 {
		var samples []storage.Sample
		for j := range 300 {
			v := math.Floor(rng.Float64()*1000) / 10
			if j%97 == 0 {
				v = storage.StaleNaN
			}
			samples = append(samples, storage.Sample{T: from + int64(j)*10_000, V: v})
		}
		b.Add(storage.LabelsFromStrings("__name__", "m", "i", fmt.Sprint(i)), samples...)
	}
	var hs, fhs, mixed []storage.HistogramSample
	for j := range 250 {
		h := &histogram.Histogram{Schema: 2, Count: uint64(6 + 2*(j%100)), Sum: float64(j), ZeroCount: 2, ZeroThreshold: 1e-3,
			PositiveSpans: []histogram.Span{{Offset: int32(j / 60), Length: 2}}, PositiveBuckets: []int64{int64(2 + j%100), 0}}
		hs = append(hs, storage.HistogramSample{T: from + int64(j)*10_000, H: h})
		fhs = append(fhs, storage.HistogramSample{T: from + int64(j)*10_000, FH: h.ToFloat(nil)})
		if j%50 == 3 {
			mixed = append(mixed, storage.HistogramSample{T: from + int64(j)*10_000 + 5, H: h})
		}
		if j%50 == 4 {
			mixed = append(mixed, storage.HistogramSample{T: from + int64(j)*10_000 + 5, FH: h.ToFloat(nil)})
		}
	}
	b.AddHistograms(storage.LabelsFromStrings("__name__", "h"), hs...)
	b.AddHistograms(storage.LabelsFromStrings("__name__", "fh"), fhs...)
	b.Add(storage.LabelsFromStrings("__name__", "mixed"), storage.Sample{T: from, V: 1}, storage.Sample{T: from + 30_000, V: 2},
		storage.Sample{T: from + 1_000_000, V: 3}, storage.Sample{T: from + 2_499_000, V: 4})
	b.AddHistograms(storage.LabelsFromStrings("__name__", "mixed"), mixed...)
	storagetest.MustAppend(s.tb, s.model, testTenant, &b)
	return from, s.now
}

// client is Prometheus's own remote read client.
func (s *stack) client(url_ string, types ...prompb.ReadRequest_ResponseType) promremote.ReadClient {
	s.tb.Helper()
	u, err := url.Parse(url_ + "/api/v1/read")
	if err != nil {
		s.tb.Fatal(err)
	}
	accepted := promremote.AcceptedResponseTypes
	if types != nil {
		accepted = types
	}
	c, err := promremote.NewReadClient("test", &promremote.ClientConfig{
		URL: &config_util.URL{URL: u}, Timeout: model.Duration(time.Minute), HTTPClientConfig: config_util.HTTPClientConfig{},
		ChunkedReadLimit: config.DefaultChunkedReadLimit, AcceptedResponseTypes: accepted,
	})
	if err != nil {
		s.tb.Fatal(err)
	}
	return c
}

// serve runs the API on a real connection.
func (s *stack) serve() string {
	srv := httptest.NewServer(s.h)
	s.tb.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		srv.CloseClientConnections()
		srv.Close()
	})
	return srv.URL
}

// drain turns Prometheus's series back into ours; a series that was split over
// frames is joined.
func drain(t testing.TB, set promstorage.SeriesSet) (out []storage.Series) {
	t.Helper()
	for set.Next() {
		ls := storage.LabelsFromPrometheus(set.At().Labels())
		if len(out) == 0 || string(out[len(out)-1].Labels) != string(ls) {
			out = append(out, storage.Series{Labels: ls})
		}
		s := &out[len(out)-1]
		it := set.At().Iterator(nil)
		for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
			switch typ {
			case chunkenc.ValFloat:
				ts, v := it.At()
				s.Samples = append(s.Samples, storage.Sample{T: ts, V: v})
				s.STs = append(s.STs, it.AtST())
			case chunkenc.ValHistogram:
				ts, h := it.AtHistogram(nil)
				h.CounterResetHint = histogram.UnknownCounterReset
				s.Histograms = append(s.Histograms, storage.HistogramSample{T: ts, ST: it.AtST(), H: h})
			case chunkenc.ValFloatHistogram:
				ts, fh := it.AtFloatHistogram(nil)
				fh.CounterResetHint = histogram.UnknownCounterReset
				s.Histograms = append(s.Histograms, storage.HistogramSample{T: ts, ST: it.AtST(), FH: fh})
			}
		}
		if err := it.Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := set.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestReadWithPrometheusClient: what Prometheus reads is what is stored, bit by bit,
// with both response types.
func TestReadWithPrometheusClient(t *testing.T) {
	s := newStack(t)
	from, to := fillForRead(s)
	addr := s.serve()
	for _, typ := range []prompb.ReadRequest_ResponseType{prompb.ReadRequest_SAMPLES, prompb.ReadRequest_STREAMED_XOR_CHUNKS} {
		for _, tc := range []struct {
			name     string
			from, to int64
			matchers []*storage.Matcher
		}{
			{"all", from, to, []*storage.Matcher{storagetest.Re("__name__", ".+")}},
			{"one", from, to, []*storage.Matcher{storagetest.Eq("__name__", "m"), storagetest.Eq("i", "3")}},
			{"not", from, to, []*storage.Matcher{storagetest.Eq("__name__", "m"), storagetest.Ne("i", "3"), storagetest.NotRe("i", "[12]")}},
			{"part", from + 600_000, from + 900_000, []*storage.Matcher{storagetest.Re("__name__", "m|h|mixed")}},
			{"nothing", from, to, []*storage.Matcher{storagetest.Eq("__name__", "absent")}},
		} {
			t.Run(typ.String()+"/"+tc.name, func(t *testing.T) {
				q, err := promremote.NewSampleAndChunkQueryableClient(s.client(addr, typ), promlabels.EmptyLabels(), nil, true, nil).Querier(tc.from, tc.to)
				if err != nil {
					t.Fatal(err)
				}
				got := drain(t, q.Select(t.Context(), true, nil, tc.matchers...))
				want := storagetest.Collect(t, s.model, testTenant, storage.Selection{Matchers: tc.matchers, MinT: tc.from, MaxT: tc.to})
				if d := storagetest.DiffSeries(got, want); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

func readBodyOf(t testing.TB, req *prompb.ReadRequest) []byte {
	t.Helper()
	b, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return snappy.Encode(nil, b)
}

func query(from, to int64, matchers ...*storage.Matcher) *prompb.Query {
	ms, err := promremote.ToLabelMatchers(matchers)
	if err != nil {
		panic(err)
	}
	return &prompb.Query{StartTimestampMs: from, EndTimestampMs: to, Matchers: ms}
}

func (s *stack) read(req *prompb.ReadRequest) *httptest.ResponseRecorder {
	s.tb.Helper()
	return s.do(newPost("/api/v1/read", readBodyOf(s.tb, req)))
}

var chunked = []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS}

// frames splits a streamed answer: a length, a checksum, a message.
func frames(t testing.TB, body []byte) (out []*prompb.ChunkedReadResponse, sizes []int) {
	t.Helper()
	for len(body) > 0 {
		n, w := uvarint(body)
		if w <= 0 || len(body) < w+4+int(n) {
			t.Fatalf("frame %d is cut short", len(out))
		}
		sum := uint32(body[w])<<24 | uint32(body[w+1])<<16 | uint32(body[w+2])<<8 | uint32(body[w+3])
		data := body[w+4 : w+4+int(n)]
		if got := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)); got != sum {
			t.Fatalf("frame %d: checksum %x, want %x", len(out), sum, got)
		}
		var resp prompb.ChunkedReadResponse
		if err := resp.Unmarshal(data); err != nil {
			t.Fatal(err)
		}
		out, sizes = append(out, &resp), append(sizes, len(data))
		body = body[w+4+int(n):]
	}
	return out, sizes
}

func uvarint(b []byte) (uint64, int) {
	var v uint64
	for i, c := range b {
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}

// TestReadFrames checks the form of a streamed answer: chunks of at most 120
// samples, in order, frames within their size, queries numbered.
func TestReadFrames(t *testing.T) {
	const frame = 2000
	s := newStack(t, func(c *Config) { c.Read.MaxFrameBytes = frame })
	from, to := fillForRead(s)
	w := s.read(&prompb.ReadRequest{
		Queries:               []*prompb.Query{query(from, to, storagetest.Eq("__name__", "m")), query(from, to, storagetest.Re("__name__", "f?h"))},
		AcceptedResponseTypes: chunked,
	})
	wantStatus(t, w, http.StatusOK)
	if ct := w.Header().Get("Content-Type"); ct != chunksType {
		t.Errorf("content type %q", ct)
	}
	if enc := w.Header().Get("Content-Encoding"); enc != "" {
		t.Errorf("content encoding %q", enc)
	}
	responses, sizes := frames(t, w.Body.Bytes())
	seen := map[int64]int{}
	for i, r := range responses {
		if len(r.ChunkedSeries) != 1 {
			t.Fatalf("frame %d has %d series", i, len(r.ChunkedSeries))
		}
		if sizes[i] > frame && len(r.ChunkedSeries[0].Chunks) > 1 {
			t.Errorf("frame %d has %d bytes in %d chunks", i, sizes[i], len(r.ChunkedSeries[0].Chunks))
		}
		for _, c := range r.ChunkedSeries[0].Chunks {
			chunk, err := chunkenc.FromData(chunkenc.Encoding(c.Type), c.Data)
			if err != nil {
				t.Fatal(err)
			}
			if n := chunk.NumSamples(); n == 0 || n > samplesPerChunk {
				t.Errorf("chunk of %d samples", n)
			}
			it := chunk.Iterator(nil)
			it.Next()
			if it.AtT() != c.MinTimeMs {
				t.Errorf("chunk begins at %d, said %d", it.AtT(), c.MinTimeMs)
			}
			last := it.AtT()
			for it.Next() != chunkenc.ValNone {
				last = it.AtT()
			}
			if last != c.MaxTimeMs {
				t.Errorf("chunk ends at %d, said %d", last, c.MaxTimeMs)
			}
			seen[r.QueryIndex] += chunk.NumSamples()
		}
	}
	if seen[0] != 5*300 || seen[1] != 2*250 {
		t.Errorf("samples by query: %v", seen)
	}
}

func TestReadHints(t *testing.T) {
	s := newStack(t)
	from, to := fillForRead(s)
	for _, tc := range []struct {
		name  string
		hints *prompb.ReadHints
		want  int
	}{
		{"none", nil, 300},
		{"narrower", &prompb.ReadHints{StartMs: from + 10_000, EndMs: from + 30_000, Func: "rate", RangeMs: 60_000}, 3},
		{"wider", &prompb.ReadHints{StartMs: 0, EndMs: to * 2}, 300},
		{"unset", &prompb.ReadHints{Func: "rate"}, 300},
		{"outside", &prompb.ReadHints{StartMs: 1, EndMs: 2}, -1},
		{"series", &prompb.ReadHints{StartMs: from, EndMs: to, Func: "series"}, 0},
	} {
		for _, types := range [][]prompb.ReadRequest_ResponseType{nil, chunked} {
			t.Run(fmt.Sprint(tc.name, types), func(t *testing.T) {
				q := query(from, to, storagetest.Eq("__name__", "m"), storagetest.Eq("i", "1"))
				q.Hints = tc.hints
				w := s.read(&prompb.ReadRequest{Queries: []*prompb.Query{q}, AcceptedResponseTypes: types})
				wantStatus(t, w, http.StatusOK)
				if got := answered(t, w, types != nil); got != tc.want {
					t.Errorf("%d samples, want %d", got, tc.want)
				}
			})
		}
	}
}

// answered counts the samples of an answer to one query for one series, -1 if the
// series is not in it.
func answered(t testing.TB, w *httptest.ResponseRecorder, streamed bool) int {
	t.Helper()
	n := -1
	if streamed {
		responses, _ := frames(t, w.Body.Bytes())
		for _, r := range responses {
			n = max(n, 0)
			for _, c := range r.ChunkedSeries[0].Chunks {
				chunk, err := chunkenc.FromData(chunkenc.Encoding(c.Type), c.Data)
				if err != nil {
					t.Fatal(err)
				}
				n += chunk.NumSamples()
			}
		}
		return n
	}
	data, err := snappy.Decode(nil, w.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	var resp prompb.ReadResponse
	if err := resp.Unmarshal(data); err != nil {
		t.Fatal(err)
	}
	for _, ts := range resp.Results[0].Timeseries {
		n = max(n, 0) + len(ts.Samples)
	}
	return n
}

func TestReadRefusals(t *testing.T) {
	s := newStack(t, func(c *Config) { c.Read.MaxSamples = 299; c.Read.MaxQueries = 2; c.Read.MaxBodyBytes = 5000 })
	from, to := fillForRead(s)
	one := query(from, to, storagetest.Eq("__name__", "m"), storagetest.Eq("i", "1"))
	badRegex := query(from, to)
	badRegex.Matchers = []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_RE, Name: "a", Value: "("}}
	longRegex := query(from, to)
	longRegex.Matchers = []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_NRE, Name: "a", Value: strings.Repeat("x", 4095) + ".*"}}
	badType := query(from, to)
	badType.Matchers = []*prompb.LabelMatcher{{Type: 9, Name: "a", Value: "b"}}
	for _, tc := range []struct {
		name   string
		body   []byte
		status int
		want   string
	}{
		{"sample limit", readBodyOf(t, &prompb.ReadRequest{Queries: []*prompb.Query{one}}), 400, "exceeded sample limit (299)"},
		{"queries", readBodyOf(t, &prompb.ReadRequest{Queries: []*prompb.Query{one, one, one}}), 413, "3 queries, at most 2"},
		{"response type", readBodyOf(t, &prompb.ReadRequest{AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{7}}), 400, "does not support any of the requested response types"},
		{"regex", readBodyOf(t, &prompb.ReadRequest{Queries: []*prompb.Query{one, badRegex}}), 400, "query 1: error parsing regexp"},
		{"long regex", readBodyOf(t, &prompb.ReadRequest{Queries: []*prompb.Query{longRegex}}), 400, "query 0: regex of label \"a\" has 4097 bytes, at most 4096 are allowed (query.maxRegexBytes)"},
		{"matcher type", readBodyOf(t, &prompb.ReadRequest{Queries: []*prompb.Query{badType}}), 400, "invalid matcher type"},
		{"not snappy", []byte("hello"), 400, "snappy"},
		{"broken protobuf", snappy.Encode(nil, []byte{0x0a, 0x05, 0x01}), 400, "decode"},
		{"broken query", snappy.Encode(nil, []byte{0x0a, 0x02, 0x1a, 0x05}), 400, "decode"},
		{"body", make([]byte, 6000), 413, "max-body-bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := s.do(newPost("/api/v1/read", tc.body))
			wantStatus(t, w, tc.status)
			if !strings.Contains(w.Body.String(), tc.want) {
				t.Errorf("body %q does not tell %q", w.Body, tc.want)
			}
			if ct := w.Header().Get("Content-Type"); !strings.HasPrefix(ct, "text/plain") {
				t.Errorf("an error as %q", ct)
			}
		})
	}
}

// A streamed answer has no limit of samples, as in Prometheus.
func TestStreamedReadHasNoSampleLimit(t *testing.T) {
	s := newStack(t, func(c *Config) { c.Read.MaxSamples = 10 })
	from, to := fillForRead(s)
	w := s.read(&prompb.ReadRequest{Queries: []*prompb.Query{query(from, to, storagetest.Eq("__name__", "m"), storagetest.Eq("i", "1"))}, AcceptedResponseTypes: chunked})
	wantStatus(t, w, http.StatusOK)
	if n := answered(t, w, true); n != 300 {
		t.Errorf("%d samples", n)
	}
}

func TestReadAnswersByKind(t *testing.T) {
	want := map[storage.Kind]int{
		storage.KindInternal: 500, storage.KindInvalid: 400, storage.KindUnsupported: 400, storage.KindNotFound: 500,
		storage.KindLimited: 429, storage.KindTooLarge: 413, storage.KindUnavailable: 503, storage.KindTimeout: 503,
		storage.KindCanceled: 503,
	}
	for _, k := range storage.Kinds() {
		for _, types := range [][]prompb.ReadRequest_ResponseType{nil, chunked} {
			t.Run(fmt.Sprint(k, types), func(t *testing.T) {
				s := newStack(t)
				from, to := fillForRead(s)
				s.faulty.SetScript(func(string) storagetest.Fault {
					return storagetest.Fault{Err: storage.Errorf(k, "select", "scripted"), After: 2}
				})
				w := s.read(&prompb.ReadRequest{Queries: []*prompb.Query{query(from, to, storagetest.Eq("__name__", "m"))}, AcceptedResponseTypes: types})
				wantStatus(t, w, want[k])
			})
		}
	}
}

// TestBrokenStreamIsAborted: a client must never take a part for the whole.
func TestBrokenStreamIsAborted(t *testing.T) {
	s := newStack(t)
	var b storage.Batch
	for i := range 40 {
		samples := make([]storage.Sample, 2000)
		for j := range samples {
			samples[j] = storage.Sample{T: s.now - int64(2000-j), V: rand.Float64()}
		}
		b.Add(storage.LabelsFromStrings("__name__", "m", "i", fmt.Sprint(i)), samples...)
	}
	storagetest.MustAppend(t, s.model, testTenant, &b)
	s.faulty.SetScript(func(string) storagetest.Fault {
		return storagetest.Fault{Err: errors.New("the disk is gone"), After: 30}
	})
	addr := s.serve()
	req := &prompb.ReadRequest{Queries: []*prompb.Query{query(s.now-10_000, s.now, storagetest.Eq("__name__", "m"))}, AcceptedResponseTypes: chunked}
	resp, err := http.Post(addr+"/api/v1/read", "application/x-protobuf", strings.NewReader(string(readBodyOf(t, req))))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK || err == nil {
		t.Fatalf("status %d, %d bytes and no error", resp.StatusCode, len(body))
	}
	if strings.Contains(string(body), "disk") {
		t.Error("the stream ends in text")
	}
	client := s.client(addr, chunked...)
	set, err := client.Read(t.Context(), req.Queries[0], false)
	if err != nil {
		t.Fatal(err)
	}
	for set.Next() {
	}
	if set.Err() == nil {
		t.Error("Prometheus's client took the broken stream for the whole")
	}
}

// TestReadGate: above the limit a read waits, and goes away with its client.
func TestReadGate(t *testing.T) {
	s := newStack(t, func(c *Config) { c.Read.Concurrency = 1 })
	s.api.readGate <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := s.do(newPost("/api/v1/read", nil).WithContext(ctx))
	wantStatus(t, w, http.StatusServiceUnavailable)
	<-s.api.readGate
	wantStatus(t, s.read(&prompb.ReadRequest{}), http.StatusOK)
	if len(s.api.readGate) != 0 {
		t.Error("a read kept its place")
	}
}
