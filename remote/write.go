package remote

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

// The headers that tell a sender what was written, on success and on failure.
const (
	samplesWritten    = "X-Prometheus-Remote-Write-Samples-Written"
	histogramsWritten = "X-Prometheus-Remote-Write-Histograms-Written"
	exemplarsWritten  = "X-Prometheus-Remote-Write-Exemplars-Written"
)

// maxPooledBytes bounds the memory that one idle request may keep: an extraordinary
// request must not hold on to what an ordinary one never needs.
const maxPooledBytes = 8 << 20

// writeRequest is the memory of one write.
type writeRequest struct {
	body, decoded []byte
	decoder       decoder
}

var writeRequests = sync.Pool{New: func() any { return new(writeRequest) }}

func (q *writeRequest) release() {
	b := &q.decoder.batch
	kept := cap(q.body) + cap(q.decoded) + cap(b.Labels) + 16*cap(b.Series) + 24*cap(b.Samples) +
		40*cap(b.Histograms) + 40*cap(b.Exemplars) + 64*cap(b.Metadata) + 40*cap(q.decoder.symbols) + cap(q.decoder.other.buf) + 72*cap(q.decoder.items)
	if kept > maxPooledBytes {
		return
	}
	b.Reset() // lets go of histograms and of strings of the message
	writeRequests.Put(q)
}

// ServeWrite serves remote write 1.0 and 2.0; the Content-Type says which. GET
// answers 200 and nothing, which is what Vector asks to see whether the address is
// right.
func (a *API) ServeWrite(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		w.WriteHeader(http.StatusOK)
		return
	case http.MethodPost:
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	v, err := negotiate(r.Header)
	if err != nil {
		status := a.fail(w, r, "remote write", err)
		a.metrics.requests.WithLabelValues("rw", strconv.Itoa(status)).Inc()
		return
	}
	q := writeRequests.Get().(*writeRequest)
	defer q.release()
	status := a.write(w, r, v, q)
	a.metrics.requests.WithLabelValues(v.protocol(), strconv.Itoa(status)).Inc()
}

// write carries a negotiated request through and answers it.
func (a *API) write(w http.ResponseWriter, r *http.Request, v version, q *writeRequest) int {
	written := counts{}
	done := func(err error) int {
		setWritten(w.Header(), v, written)
		return a.fail(w, r, "remote write", err)
	}
	ctx := r.Context()
	tenant := tenancy.TenantOf(ctx)
	var err error
	if q.body, err = readBody(r, q.body, a.cfg.MaxBodyBytes); err != nil {
		return done(err)
	}
	a.metrics.bodyBytes.WithLabelValues(v.protocol()).Add(float64(len(q.body)))
	release, err := a.admit(ctx, claimedBytes(q.body))
	if err != nil {
		return done(err)
	}
	defer release()
	shape := a.cfg.shapeOf(tenant)
	if q.decoded, err = decodeSnappy(q.decoded, q.body, a.cfg.decodedOf(shape)); err != nil {
		a.tellLimited(tenant, err)
		return done(err)
	}
	d := &q.decoder
	d.reset(shape, a.cfg.MaxBatchBytes)
	if v == version2 {
		err = d.decodeV2(q.decoded)
	} else {
		err = d.decodeV1(q.decoded)
	}
	if err != nil {
		return done(err)
	}
	res, err := a.append(ctx, tenant, &d.batch, &d.refused, v.protocol())
	if err != nil {
		return done(err)
	}
	written = counts{res.Samples, res.Histograms, res.Exemplars}
	a.tellRefused(tenant, "remote_write", &d.refused)
	if d.refused.any() {
		return done(storage.Errorf(storage.KindInvalid, "", "%s", d.refused.text(d.sent)))
	}
	setWritten(w.Header(), v, written)
	w.WriteHeader(http.StatusNoContent)
	return http.StatusNoContent
}

// admit takes the request's share of the memory for writes under way: the bytes that
// its body will or may decompress to. A claim over the limit is refused elsewhere.
func (a *API) admit(ctx context.Context, n int64) (release func(), err error) {
	n = min(n, a.cfg.MaxDecodedBytes)
	if a.inFlight.TryAcquire(n) {
		return func() { a.inFlight.Release(n) }, nil
	}
	wait, cancel := context.WithTimeout(ctx, a.cfg.QueueTimeout)
	defer cancel()
	if err := a.inFlight.Acquire(wait, n); err != nil {
		if cerr := storage.ContextError(ctx, "queue"); cerr != nil {
			return nil, cerr
		}
		return nil, storage.LimitErrorf(storage.KindUnavailable, "queue", "max-in-flight-bytes", "remote.maxInFlightBytes",
			"%d bytes of writes are under way", a.cfg.MaxInFlightBytes)
	}
	return func() { a.inFlight.Release(n) }, nil
}

// append hands the batch to the store, unless it is empty, adds what the store
// refused to refused, and counts both.
func (a *API) append(ctx context.Context, t storage.Tenant, b *storage.Batch, refused *refusals, protocol string) (res storage.AppendResult, err error) {
	if len(b.Series)+len(b.Metadata) > 0 {
		if res, err = a.store.Append(ctx, t, b); err != nil {
			return storage.AppendResult{}, err
		}
	}
	refused.addStored(b, res.Refused)
	for _, r := range refused.reasons {
		a.metrics.refused.WithLabelValues(string(r.reason)).Add(float64(r.n))
	}
	for _, e := range []struct {
		kind string
		n    int
	}{{"sample", res.Samples}, {"histogram", res.Histograms}, {"exemplar", res.Exemplars}} {
		if e.n > 0 {
			a.metrics.samples.WithLabelValues(protocol, e.kind).Add(float64(e.n))
		}
	}
	return res, nil
}

// tellRefused hands the first refusals to the configured listener.
func (a *API) tellRefused(t storage.Tenant, source string, refused *refusals) {
	if a.cfg.OnRefused == nil {
		return
	}
	for _, n := range refused.named {
		n.Source = source
		a.cfg.OnRefused(t, n)
	}
}

// tellLimited hands an error that is a limit of the tenant's own to the configured
// listener.
func (a *API) tellLimited(t storage.Tenant, err error) {
	var e *storage.Error
	if a.cfg.OnLimited != nil && errors.As(err, &e) && strings.HasPrefix(e.Setting, "limits.") {
		a.cfg.OnLimited(t, e)
	}
}

// setWritten tells what was written, in 2.0: 1.0 knows no such headers, and its
// compliance suite wants none.
func setWritten(h http.Header, v version, n counts) {
	if v != version2 {
		return
	}
	h.Set(samplesWritten, strconv.Itoa(n.samples))
	h.Set(histogramsWritten, strconv.Itoa(n.histograms))
	h.Set(exemplarsWritten, strconv.Itoa(n.exemplars))
}
