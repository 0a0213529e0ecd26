package native

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

// ServeQuery answers POST /api/v1/query with a JSON body.
func (a *API) ServeQuery(w http.ResponseWriter, r *http.Request) { a.compressed.ServeHTTP(w, r) }

// queryHandler is ServeQuery before compression.
func (a *API) queryHandler(w http.ResponseWriter, r *http.Request) {
	if err := a.query(w, r); err != nil {
		a.fail(w, r, err, surfaceQuery)
	}
}

func (a *API) query(w http.ResponseWriter, r *http.Request) error {
	begin := time.Now()
	t := tenancy.TenantOf(r.Context())
	if err := t.Validate(); err != nil {
		return err
	}
	if lines, ok := writeFormat(r.Header.Get("Content-Type")); !ok || lines {
		return errorf(http.StatusUnsupportedMediaType, CodeInvalidJSON, "Content-Type %q is not supported: a query is application/json", clipText(r.Header.Get("Content-Type")))
	}
	lim := a.queryLimits(t)
	body, closeBody, err := openBody(r, lim.MaxBodyBytes)
	if err != nil {
		return err
	}
	defer closeBody()
	var q QueryRequest
	if err := decodeQuery(body, &q); err != nil {
		return bodyError(err, lim.MaxBodyBytes)
	}
	if on, err := queryFlag(r, "explain"); err != nil {
		return err
	} else if on {
		q.Explain = true
	}
	now := a.now()
	p, err := newPlan(&q, lim, now)
	if err != nil {
		a.tellLimited(t, err)
		return err
	}
	if a.cfg.WatchedOf != nil {
		_, werr := newPlan(&q, a.cfg.WatchedOf(t), now)
		a.tellLimited(t, werr)
	}
	ctx, cancel := context.WithTimeout(r.Context(), p.timeout)
	defer cancel()
	p.reserved, err = a.admit(ctx, t, p)
	defer p.reserved.Release()
	if err != nil {
		return timeoutError(err, p.timeout)
	}
	ans := answer{w: w, p: p, begin: begin}
	if err := a.run(ctx, t, p, &ans); err != nil {
		return timeoutError(err, p.timeout)
	}
	a.metrics.queries.WithLabelValues(string(p.kind)).Observe(time.Since(begin).Seconds())
	return nil
}

// run evaluates the plan and answers.
func (a *API) run(ctx context.Context, t storage.Tenant, p *plan, ans *answer) error {
	if p.kind == QueryRange {
		points, truncated, err := a.rangePoints(ctx, t, p)
		if err != nil {
			return err
		}
		writeAnswer(ans, points, truncated)
		return nil
	}
	rows, truncated, err := a.rows(ctx, t, p)
	if err != nil {
		return err
	}
	writeAnswer(ans, rows, truncated)
	return nil
}

// timeoutError names the time that a query had.
func timeoutError(err error, d time.Duration) error {
	if storage.KindOf(err) != storage.KindTimeout {
		return err
	}
	e := errorf(http.StatusGatewayTimeout, CodeQueryTimeout, "the query did not end within %s", d)
	e.Details = map[string]any{"timeout": d.String()}
	return e
}

// queryFlag reads a URL parameter that is on or off.
func queryFlag(r *http.Request, name string) (bool, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return r.URL.Query().Has(name), nil
	}
	on, err := strconv.ParseBool(s)
	if err != nil {
		return false, badQuery("%s=%s is neither 1 nor 0", name, clipText(s))
	}
	return on, nil
}

// answer is an answer to be written.
type answer struct {
	w     http.ResponseWriter
	p     *plan
	begin time.Time
}

// writeAnswer writes row by row, so that a large answer is not held twice. A
// failed write means that the client has gone.
func writeAnswer[R any](a *answer, rows []R, truncated bool) {
	a.w.Header().Set("Content-Type", "application/json")
	b := bufio.NewWriterSize(a.w, 32<<10)
	defer func() { _ = b.Flush() }()
	put := func(v any) {
		raw, err := json.Marshal(v)
		if err != nil {
			panic("native: encode a row: " + err.Error())
		}
		_, _ = b.Write(raw)
	}
	_, _ = b.WriteString(`{"queryType":`)
	put(a.p.kind)
	_, _ = b.WriteString(`,"results":[`)
	for i := range rows {
		if i > 0 {
			_ = b.WriteByte(',')
		}
		put(rows[i])
	}
	_, _ = b.WriteString(`]`)
	if a.p.named {
		_, _ = b.WriteString(`,"aggregations":`)
		names := make([]string, len(a.p.aggs))
		for i, x := range a.p.aggs {
			names[i] = x.name
		}
		put(names)
	}
	_, _ = b.WriteString(`,"executionTimeMs":`)
	put(float64(time.Since(a.begin).Microseconds()) / 1000)
	_, _ = b.WriteString(`,"truncated":` + strconv.FormatBool(truncated))
	if a.p.explain != nil {
		_, _ = b.WriteString(`,"explain":`)
		put(a.p.explain)
	}
	_, _ = b.WriteString("}\n")
}
