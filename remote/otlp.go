package remote

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/VictoriaMetrics/easyproto"
	"github.com/klauspost/compress/gzip"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

const jsonType = "application/json"

// otlpRequest is the memory of one OTLP request.
type otlpRequest struct {
	body, decoded []byte
	batch         storage.Batch
}

var otlpRequests = sync.Pool{New: func() any { return new(otlpRequest) }}

func (q *otlpRequest) release() {
	b := &q.batch
	kept := cap(q.body) + cap(q.decoded) + cap(b.Labels) + 16*cap(b.Series) + 24*cap(b.Samples) +
		40*cap(b.Histograms) + 40*cap(b.Exemplars) + 64*cap(b.Metadata)
	if kept > maxPooledBytes {
		return
	}
	b.Reset()
	otlpRequests.Put(q)
}

// ServeOTLP serves OTLP metrics over HTTP: protobuf or JSON, with gzip or without.
// It answers 200 only after the store has acknowledged; what was rejected is told in
// the partial success of the answer, and the rest is stored.
func (a *API) ServeOTLP(w http.ResponseWriter, r *http.Request) {
	status := http.StatusOK
	defer func() { a.metrics.requests.WithLabelValues("otlp", strconv.Itoa(status)).Inc() }()
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != protobufType && mediaType != jsonType {
		status = a.fail(w, r, "otlp", mediaErrorf("content type %q is not supported, OTLP takes %s and %s",
			r.Header.Get("Content-Type"), protobufType, jsonType))
		return
	}
	q := otlpRequests.Get().(*otlpRequest)
	defer q.release()
	resp, err := a.receiveOTLP(r, q, mediaType)
	if err != nil {
		status = a.failOTLP(w, r, mediaType, err)
		return
	}
	marshal := resp.MarshalProto
	if mediaType == jsonType {
		marshal = resp.MarshalJSON
	}
	data, err := marshal()
	if err != nil { // stored all the same: an error would make the client send it again
		a.log.ErrorContext(r.Context(), "encoding an OTLP answer failed", "err", err)
		data = nil
	}
	w.Header().Set("Content-Type", mediaType)
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(data) // the client is gone if this fails, and nobody is left to tell
}

// receiveOTLP decodes, translates and stores a request.
func (a *API) receiveOTLP(r *http.Request, q *otlpRequest, mediaType string) (resp pmetricotlp.ExportResponse, err error) {
	ctx := r.Context()
	if q.body, err = readBody(r, q.body, a.cfg.MaxBodyBytes); err != nil {
		return resp, err
	}
	a.metrics.bodyBytes.WithLabelValues("otlp").Add(float64(len(q.body)))
	// What gzip will decompress to is not known before; the limit is reserved.
	tenant := tenancy.TenantOf(ctx)
	limit := a.cfg.decodedOf(a.cfg.shapeOf(tenant))
	reserve := int64(len(q.body))
	if encodingOf(r) != "" {
		reserve = limit.bytes
	}
	release, err := a.admit(ctx, reserve)
	if err != nil {
		return resp, err
	}
	defer release()
	data, err := a.decodeEncoding(encodingOf(r), q, limit)
	if err != nil {
		a.tellLimited(tenant, err)
		return resp, err
	}
	if n := countElements(data, mediaType); n > a.cfg.OTLP.MaxElements {
		return resp, storage.LimitErrorf(storage.KindTooLarge, "otlp", "max-otlp-elements", "remote.otlp.maxElements",
			"the request has more than %d data points, attributes and exemplars", a.cfg.OTLP.MaxElements)
	}
	req := pmetricotlp.NewExportRequest()
	if mediaType == jsonType {
		err = req.UnmarshalJSON(data)
	} else {
		err = req.UnmarshalProto(data)
	}
	if err != nil {
		return resp, storage.Errorf(storage.KindInvalid, "decode", "OTLP request: %w", err)
	}
	return a.storeOTLP(ctx, tenant, req.Metrics(), &q.batch)
}

// encodingOf returns the content encoding, "" for none.
func encodingOf(r *http.Request) string {
	enc := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding")))
	if enc == "identity" {
		return ""
	}
	return enc
}

var gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}

// trustedInflation is how many times its size a body may decompress to before more
// memory is taken: past it, the size is counted first. OTLP reaches 10 to 40.
const trustedInflation = 16

// inflate decompresses the body from zr, at most limit bytes. What a small body
// claims costs time, not memory, until it is known to fit.
func (q *otlpRequest) inflate(zr *gzip.Reader, limit int64) error {
	trusted := min(limit, trustedInflation*int64(len(q.body))+bytes.MinRead)
	var err error
	if q.decoded, err = readLimited(zr, q.decoded, trusted); !errors.Is(err, errOverLimit) || trusted == limit {
		return err
	}
	size := int64(len(q.decoded))
	rest, err := io.Copy(io.Discard, io.LimitReader(zr, limit+1-size))
	if err != nil {
		return err
	}
	if size += rest; size > limit {
		return errOverLimit
	}
	if err := zr.Reset(bytes.NewReader(q.body)); err != nil {
		return err
	}
	if need := int(size) + bytes.MinRead; cap(q.decoded) < need {
		q.decoded = make([]byte, 0, need)
	}
	q.decoded, err = readLimited(zr, q.decoded, limit)
	return err
}

// decodeEncoding decompresses the body, at most to the limit.
func (a *API) decodeEncoding(encoding string, q *otlpRequest, limit decodedLimit) ([]byte, error) {
	switch encoding {
	case "":
		if int64(len(q.body)) > limit.bytes {
			return nil, limit.over("the body has %d bytes, at most %d are allowed", len(q.body), limit.bytes)
		}
		return q.body, nil
	case "gzip":
	default:
		return nil, mediaErrorf("content encoding %q is not supported, send gzip or none", encoding)
	}
	zr := gzipReaders.Get().(*gzip.Reader)
	defer gzipReaders.Put(zr)
	if err := zr.Reset(bytes.NewReader(q.body)); err != nil {
		return nil, gzipError(err)
	}
	err := q.inflate(zr, limit.bytes)
	if errors.Is(err, errOverLimit) {
		return nil, limit.over("the body decompresses to more than %d bytes", limit.bytes)
	}
	if err != nil {
		return nil, gzipError(err)
	}
	return q.decoded, nil
}

func gzipError(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return storage.Errorf(storage.KindInvalid, "decompress", "gzip: %w", err)
}

// otlpStatusOf is statusOf, but for OTLP: its clients do not repeat what got a 500,
// and what they do not repeat is lost. So an internal error is 503 there.
func otlpStatusOf(err error) int {
	if status := statusOf(err); status != http.StatusInternalServerError {
		return status
	}
	return http.StatusServiceUnavailable
}

// failOTLP answers with a google.rpc.Status in the request's own format, as the OTLP
// specification demands.
func (a *API) failOTLP(w http.ResponseWriter, r *http.Request, mediaType string, err error) int {
	status := otlpStatusOf(err)
	a.logFailure(r, "otlp", status, err)
	a.setRetryAfter(w.Header(), status, err)
	body := rpcStatus{Code: rpcCode(status), Message: messageOf(err)}.marshal(mediaType)
	w.Header().Set("Content-Type", mediaType)
	w.WriteHeader(status)
	_, _ = w.Write(body) // nobody is left to tell if this fails
	return status
}

// rpcStatus is a google.rpc.Status.
type rpcStatus struct {
	Code    int32  `json:"code"`
	Message string `json:"message"`
}

func (s rpcStatus) marshal(mediaType string) []byte {
	if mediaType == jsonType {
		b, _ := json.Marshal(s) // two plain fields cannot fail
		return b
	}
	var m easyproto.Marshaler
	mm := m.MessageMarshaler()
	mm.AppendInt32(1, s.Code)
	mm.AppendString(2, s.Message)
	return m.Marshal(nil)
}

// rpcCode is the gRPC code that stands for an HTTP status.
func rpcCode(status int) int32 {
	switch status {
	case http.StatusTooManyRequests, http.StatusRequestEntityTooLarge:
		return 8 // RESOURCE_EXHAUSTED
	case http.StatusServiceUnavailable:
		return 14 // UNAVAILABLE
	case http.StatusUnsupportedMediaType:
		return 12 // UNIMPLEMENTED
	default:
		return 3 // INVALID_ARGUMENT
	}
}
