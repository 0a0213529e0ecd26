package remote

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	promremote "github.com/prometheus/prometheus/storage/remote"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

// Content types of the answers, as Prometheus writes them.
const (
	samplesType = "application/x-protobuf"
	chunksType  = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"
)

// ServeRead serves remote read. The first response type that the client accepts and
// we know is used; none asked for means SAMPLES. A streamed answer that breaks off
// aborts the connection (panic with http.ErrAbortHandler), for nothing else tells
// the client that it is incomplete.
func (a *API) ServeRead(w http.ResponseWriter, r *http.Request) {
	a.metrics.reads.Inc()
	defer a.metrics.reads.Dec()
	status := http.StatusOK
	// Also counts the answer that is aborted by a panic.
	defer func() { a.metrics.requests.WithLabelValues("read", strconv.Itoa(status)).Inc() }()
	ctx := r.Context()
	select {
	case a.readGate <- struct{}{}:
		defer func() { <-a.readGate }()
	case <-ctx.Done():
		status = a.fail(w, r, "remote read", storage.ContextError(ctx, "wait for other reads"))
		return
	}
	queries, chunked, err := a.decodeRead(r)
	if err != nil {
		status = a.fail(w, r, "remote read", err)
		return
	}
	held, err := a.admitRead(ctx, queries, chunked)
	defer held.Release()
	if err != nil {
		status = a.fail(w, r, "remote read", err)
		return
	}
	if !chunked {
		if err := a.answerSamples(ctx, w, held, queries); err != nil {
			status = a.fail(w, r, "remote read", err)
		}
		return
	}
	out := &startedWriter{w: w}
	if err := a.answerChunks(ctx, w, out, queries); err != nil {
		if out.started {
			status = statusOf(err)
			a.logFailure(r, "remote read", http.StatusInternalServerError, err)
			panic(http.ErrAbortHandler)
		}
		status = a.fail(w, r, "remote read", err)
	}
}

// answerCopies is how many times a SAMPLES answer holds what was read: as messages,
// marshalled, and compressed.
const answerCopies = 3

// admitRead reserves the memory that a request is estimated to need, and waits for
// it: a selection in order of labels is held by the store until it is sent.
func (a *API) admitRead(ctx context.Context, queries []readQuery, chunked bool) (*tenancy.MemoryReservation, error) {
	tenant := tenancy.TenantOf(ctx)
	held := a.cfg.Memory.Begin(tenant)
	if !held.Counts() {
		return held, nil
	}
	need := int64(0)
	for i := range queries {
		q := &queries[i]
		q.selection.Hold = held.Use
		if q.empty() {
			continue
		}
		est, err := a.store.Estimate(ctx, tenant, q.selection)
		if err != nil && storage.KindOf(err) != storage.KindUnsupported {
			return held, err
		}
		bytes := int64(min(est.Bytes, math.MaxInt64/answerCopies))
		if chunked { // one query after the other
			need = max(need, bytes)
		} else {
			need += min(answerCopies*bytes, math.MaxInt64-need)
		}
	}
	return held, held.Await(ctx, need)
}

// readQuery is one query of a request.
type readQuery struct {
	selection  storage.Selection
	labelsOnly bool // the client wants the series, not their samples
}

// decodeRead reads the request; every error is the client's.
func (a *API) decodeRead(r *http.Request) (queries []readQuery, chunked bool, err error) {
	body, err := readBody(r, nil, a.cfg.Read.MaxBodyBytes)
	if err != nil {
		return nil, false, err
	}
	data, err := decodeSnappy(nil, body, decodedLimit{a.cfg.Read.MaxDecodedBytes, "remote.read.maxDecodedBytes"})
	if err != nil {
		return nil, false, err
	}
	if n, err := countFields(data, 1); err != nil {
		return nil, false, err
	} else if n > a.cfg.Read.MaxQueries {
		return nil, false, storage.LimitErrorf(storage.KindTooLarge, "remote read", "max-read-queries", "remote.read.maxQueries",
			"the request has %d queries, at most %d are allowed", n, a.cfg.Read.MaxQueries)
	}
	var req prompb.ReadRequest
	if err := req.Unmarshal(data); err != nil {
		return nil, false, storage.Errorf(storage.KindInvalid, "decode", "read request: %w", err)
	}
	responseType, err := promremote.NegotiateResponseType(req.AcceptedResponseTypes)
	if err != nil {
		return nil, false, storage.Errorf(storage.KindInvalid, "", "%w", err)
	}
	for i, q := range req.Queries {
		rq, err := toReadQuery(q)
		if err == nil {
			err = a.checkRegexes(rq.selection.Matchers)
		}
		if err != nil {
			return nil, false, storage.Errorf(storage.KindInvalid, "", "query %d: %w", i, err)
		}
		queries = append(queries, rq)
	}
	return queries, responseType == prompb.ReadRequest_STREAMED_XOR_CHUNKS, nil
}

// checkRegexes refuses regexes that are too long.
func (a *API) checkRegexes(ms []*storage.Matcher) error {
	most := a.cfg.Read.MaxRegexBytes
	for _, m := range ms {
		if regex := m.Type == labels.MatchRegexp || m.Type == labels.MatchNotRegexp; regex && most > 0 && len(m.Value) > most {
			return fmt.Errorf("regex of label %q has %d bytes, at most %d are allowed (query.maxRegexBytes)", m.Name, len(m.Value), most)
		}
	}
	return nil
}

// toReadQuery builds the selection of a query. Of the hints the time range is used,
// where it is narrower, and "series" as function, which wants no samples; the
// others tell of work that the client does again anyway.
func toReadQuery(q *prompb.Query) (readQuery, error) {
	matchers, err := promremote.FromLabelMatchers(q.Matchers)
	if err != nil {
		return readQuery{}, err
	}
	rq := readQuery{selection: storage.Selection{Matchers: matchers, MinT: q.StartTimestampMs, MaxT: q.EndTimestampMs}}
	if h := q.Hints; h != nil {
		rq.labelsOnly = h.Func == "series"
		if h.StartMs < h.EndMs {
			rq.selection.MinT = max(rq.selection.MinT, h.StartMs)
			rq.selection.MaxT = min(rq.selection.MaxT, h.EndMs)
		}
	}
	return rq, nil
}

// empty tells whether the range holds no time at all, which is an empty answer and
// not a mistake.
func (q *readQuery) empty() bool { return q.selection.MinT > q.selection.MaxT }

// answerSamples answers with one snappy block of samples. Nothing is written before
// all is at hand, so an error still has its status.
func (a *API) answerSamples(ctx context.Context, w http.ResponseWriter, held *tenancy.MemoryReservation, queries []readQuery) error {
	resp := prompb.ReadResponse{Results: make([]*prompb.QueryResult, len(queries))}
	total := 0
	for i := range queries {
		res, n, err := a.readSamples(ctx, held, &queries[i])
		if err != nil {
			return err
		}
		resp.Results[i] = res
		total += n
	}
	data, err := resp.Marshal()
	if err != nil {
		return fmt.Errorf("marshal read response: %w", err)
	}
	if snappy.MaxEncodedLen(len(data)) < 0 {
		return storage.Errorf(storage.KindTooLarge, "remote read", "the answer of %d bytes is too large for one block, ask for STREAMED_XOR_CHUNKS", len(data))
	}
	compressed := snappy.Encode(nil, data)
	w.Header().Set("Content-Type", samplesType)
	w.Header().Set("Content-Encoding", "snappy")
	w.Header().Set("Content-Length", strconv.Itoa(len(compressed)))
	if _, err := w.Write(compressed); err != nil {
		return nil // the client is gone, and nobody is left to tell
	}
	a.metrics.readSamples.Add(float64(total))
	return nil
}

// readSamples runs one query and returns its result with the number of samples.
func (a *API) readSamples(ctx context.Context, held *tenancy.MemoryReservation, q *readQuery) (*prompb.QueryResult, int, error) {
	res := &prompb.QueryResult{}
	if q.empty() {
		return res, 0, nil
	}
	n := 0
	err := a.eachSeries(ctx, q, func(s storage.Series) error {
		if n += len(s.Samples) + len(s.Histograms); n > a.cfg.Read.MaxSamples {
			return storage.Errorf(storage.KindInvalid, "", "exceeded sample limit (%d)", a.cfg.Read.MaxSamples)
		}
		if err := held.Use(answerCopies * s.Bytes()); err != nil {
			return err
		}
		ts := &prompb.TimeSeries{Labels: appendLabelPairs(nil, s.Labels)}
		if len(s.Samples) > 0 {
			ts.Samples = make([]prompb.Sample, len(s.Samples))
		}
		for i, x := range s.Samples {
			ts.Samples[i] = prompb.Sample{Timestamp: x.T, Value: x.V}
		}
		for _, h := range s.Histograms {
			ts.Histograms = append(ts.Histograms, histogramMessage(h))
		}
		res.Timeseries = append(res.Timeseries, ts)
		return nil
	})
	return res, n, err
}

// histogramMessage encodes a histogram of a SAMPLES answer. That there was no counter
// reset is not told: it was true of the sample before in a block, which may not be
// the one before in the answer. Readers compare the counts themselves.
func histogramMessage(h storage.HistogramSample) (p prompb.Histogram) {
	if h.FH != nil {
		p = prompb.FromFloatHistogram(h.T, h.FH)
	} else {
		p = prompb.FromIntHistogram(h.T, h.H)
	}
	if p.ResetHint == prompb.Histogram_NO {
		p.ResetHint = prompb.Histogram_UNKNOWN
	}
	return p
}

// eachSeries calls fn for each series of a query, in order of labels.
func (a *API) eachSeries(ctx context.Context, q *readQuery, fn func(storage.Series) error) error {
	tenant := tenancy.TenantOf(ctx)
	if q.labelsOnly {
		for ls, err := range a.store.SelectLabels(ctx, tenant, q.selection) {
			if err != nil {
				return err
			}
			if err := fn(storage.Series{Labels: ls}); err != nil {
				return err
			}
		}
		return nil
	}
	for s, err := range a.store.Select(ctx, tenant, q.selection) {
		if err != nil {
			return err
		}
		if err := fn(s); err != nil {
			return err
		}
	}
	return nil
}

// appendLabelPairs appends labels as message pairs, which share the labels' memory.
func appendLabelPairs(dst []prompb.Label, ls storage.Labels) []prompb.Label {
	for name, value := range ls.All() {
		dst = append(dst, prompb.Label{Name: name, Value: value})
	}
	return dst
}

// startedWriter notes that the answer has begun: from then on no status can be set.
type startedWriter struct {
	w       io.Writer
	started bool
}

func (s *startedWriter) Write(p []byte) (int, error) {
	s.started = true
	return s.w.Write(p)
}

// answerChunks streams chunks, frame by frame. There is no limit of samples, as in
// Prometheus: no more than a series is held at a time.
func (a *API) answerChunks(ctx context.Context, w http.ResponseWriter, out *startedWriter, queries []readQuery) error {
	w.Header().Set("Content-Type", chunksType)
	buffered := bufio.NewWriterSize(out, 64<<10)
	frames := newFrameWriter(promremote.NewChunkedWriter(buffered, nil), a.cfg.Read.MaxFrameBytes, a.cfg.Read.StartTimestamps)
	for i := range queries {
		q := &queries[i]
		if q.empty() {
			continue
		}
		q.selection.Chunks = true
		err := a.eachSeries(ctx, q, func(s storage.Series) error {
			a.metrics.readSamples.Add(float64(s.Len()))
			return frames.series(int64(i), s)
		})
		if err != nil {
			// What waits in the buffer is not sent: the stream is broken either way.
			return err
		}
	}
	out.started = true
	if err := buffered.Flush(); err != nil {
		return storage.Errorf(storage.KindCanceled, "remote read", "send: %w", err)
	}
	if err := http.NewResponseController(w).Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return storage.Errorf(storage.KindCanceled, "remote read", "send: %w", err)
	}
	return nil
}
