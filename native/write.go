package native

import (
	"cmp"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

// WriteMetric is one measurement of a native write, as clients send it. The
// server reads bodies without it; it is here for Go clients and tests.
type WriteMetric struct {
	Name       string            `json:"name"`
	Timestamp  int64             `json:"timestamp,omitempty"` // Unix milliseconds, absent = now
	Value      float64           `json:"value"`
	Dimensions map[string]string `json:"dimensions,omitempty"`
}

// WriteRequest is the body of a native write, as clients send it.
type WriteRequest struct {
	Source  string        `json:"source,omitempty"`
	Metrics []WriteMetric `json:"metrics"`
}

// WriteResponse is the answer to a native write of which anything was stored; an
// answer 400 to a batch that was refused as a whole holds the same fields beside
// its error.
type WriteResponse struct {
	Accepted int             `json:"accepted"`
	Rejected int             `json:"rejected"`
	Adjusted int             `json:"adjusted,omitempty"` // moved to a free millisecond
	Errors   []RefusedMetric `json:"errors"`             // the first of them; Rejected counts all
}

type refusedWrite struct {
	Error *Error `json:"error"`
	WriteResponse
}

// writeFormat says whether the body is NDJSON; ok is false for other types.
func writeFormat(contentType string) (lines, ok bool) {
	mt, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false, false
	}
	if cs := params["charset"]; cs != "" && !strings.EqualFold(cs, "utf-8") && !strings.EqualFold(cs, "us-ascii") {
		return false, false
	}
	switch mt {
	case "application/json":
		return false, true
	case "application/x-ndjson", "application/ndjson", "application/jsonl":
		return true, true
	}
	return false, false
}

// ServeWrite answers POST /api/v1/write with a JSON or NDJSON body.
func (a *API) ServeWrite(w http.ResponseWriter, r *http.Request) {
	if err := a.write(w, r); err != nil {
		a.fail(w, r, err, surfaceWrite)
	}
}

// writer is the reusable memory of one write.
type writer struct {
	decoder
	assembler
}

func (a *API) write(w http.ResponseWriter, r *http.Request) error {
	t := tenancy.TenantOf(r.Context())
	if err := t.Validate(); err != nil {
		return err
	}
	lines, ok := writeFormat(r.Header.Get("Content-Type"))
	if !ok {
		return errorf(http.StatusUnsupportedMediaType, CodeInvalidJSON,
			"Content-Type %q is not supported: application/json and application/x-ndjson, in UTF-8, are", clipText(r.Header.Get("Content-Type")))
	}
	lim := a.writeLimits(t)
	body, release, err := openBody(r, lim.MaxBodyBytes)
	if err != nil {
		return err
	}
	defer release()
	var overDecoded error
	if most := lim.MaxDecodedBytes; most > 0 && most < lim.MaxBodyBytes {
		overDecoded = decodedTooLarge(most)
		body = &cappedReader{r: body, left: most, over: overDecoded}
	}
	x := a.writers.Get().(*writer)
	defer a.writers.Put(x)
	x.decoder.reset(lim, a.now())
	x.window.reset(body)
	if lines {
		if err = a.querySource(r, &x.decoder); err == nil {
			err = x.decodeLines()
		}
	} else {
		err = x.decodeBatch()
	}
	x.r = nil
	if err != nil {
		if overDecoded != nil && errors.Is(err, overDecoded) {
			a.tellLimited(t, overDecoded)
		}
		return bodyError(err, lim.MaxBodyBytes)
	}
	x.assemble(&x.decoder)
	a.watchWrite(t, x)
	accepted := 0
	if len(x.batch.Series) > 0 {
		res, err := a.store.Append(r.Context(), t, &x.batch)
		if err != nil {
			return fmt.Errorf("append %d metrics: %w", len(x.batch.Samples), err)
		}
		x.refuseStored(res)
		accepted = res.Samples
	}
	a.answerWrite(w, t, x, accepted)
	return nil
}

// querySource takes the source of an NDJSON feed from the query: there is no
// place for it in the lines.
func (a *API) querySource(r *http.Request, d *decoder) error {
	s := r.URL.Query().Get("source")
	if s == "" {
		return nil
	}
	return d.setSource(s, true)
}

// refuseStored takes over what the store refused.
func (x *writer) refuseStored(res storage.AppendResult) {
	for _, f := range res.Refused {
		first := uint32(0)
		if f.Series > 0 {
			first = x.batch.Series[f.Series-1].SamplesEnd
		}
		view := x.batch.At(f.Series)
		from, to := f.Sample, f.Sample+1
		if f.Sample < 0 {
			from, to = 0, len(view.Samples)
		}
		message := cmp.Or(f.Message, "refused by the storage: "+string(f.Reason))
		for i := from; i < to; i++ {
			x.refuse(int(x.order[int(first)+i]), view.Labels.Metric(), codeOfRefusal(f.Reason), message)
		}
	}
}

// codeOfRefusal maps a store's reason to a code.
func codeOfRefusal(r storage.RefusalReason) Code {
	switch r {
	case storage.ReasonTooOld, storage.ReasonTooFarAhead:
		return CodeInvalidTimestamp
	case storage.ReasonInvalidValue:
		return CodeInvalidValue
	case storage.ReasonSeriesLimit:
		return CodeCardinality
	case storage.ReasonLabelLimit:
		return CodeDimensionLimit
	default:
		return CodeInvalidDimension
	}
}

// answerWrite tells what became of the metrics: 200, 207 if some were refused, 400
// if all were.
func (a *API) answerWrite(w http.ResponseWriter, t storage.Tenant, x *writer, accepted int) {
	x.sortRefused()
	res := WriteResponse{Accepted: accepted, Rejected: x.rejected, Adjusted: x.adjusted, Errors: x.refused}
	if res.Errors == nil {
		res.Errors = []RefusedMetric{}
	}
	a.metrics.accepted.Add(float64(accepted))
	a.metrics.adjusted.Add(float64(x.adjusted))
	for code, n := range x.codes {
		a.metrics.refused.WithLabelValues(string(code)).Add(float64(n))
	}
	a.recordRefused(t, res.Errors)
	switch {
	case x.rejected == 0:
		writeJSON(w, http.StatusOK, res)
	case accepted > 0:
		writeJSON(w, http.StatusMultiStatus, res)
	default:
		writeJSON(w, http.StatusBadRequest, refusedWrite{Error: allRefused(res), WriteResponse: res})
	}
}

func allRefused(res WriteResponse) *Error {
	e := errorf(http.StatusBadRequest, CodeInvalidJSON, "all %d metrics were refused", res.Rejected)
	if len(res.Errors) > 0 {
		first := res.Errors[0]
		e.Code = first.Code
		e.Message = fmt.Sprintf("all %d metrics were refused; metric %d: %s", res.Rejected, first.Index, first.Error)
		if res.Rejected == 1 {
			e.Message = "the metric was refused: " + first.Error
		}
		e.Details = map[string]any{"index": first.Index, "metric": first.Metric}
	}
	return e
}

func (a *API) recordRefused(t storage.Tenant, errs []RefusedMetric) {
	if len(errs) == 0 {
		return
	}
	now := a.now()
	out := make([]Refusal, len(errs))
	for i, e := range errs {
		limit, setting := limitOfCode(e.Code)
		out[i] = Refusal{
			Time: now, Source: "native", Series: e.Metric, Reason: string(e.Code), Message: e.Error,
			Limit: limit, Setting: setting,
		}
	}
	a.refusals.Record(t, out...)
}

// limitOfCode names the limit behind a code and its setting, where there is one.
func limitOfCode(c Code) (limit, setting string) {
	switch c {
	case CodeDimensionLimit:
		return "max-dimensions", "limits.maxDimensions"
	case CodeCardinality:
		return "max-active-series", "limits.maxActiveSeries"
	}
	return "", ""
}

func (a *API) now() time.Time { return a.clock() }
