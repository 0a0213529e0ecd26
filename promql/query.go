package promql

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	promengine "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/httputil"
	"github.com/prometheus/prometheus/util/stats"
)

// plannerHeader set to "off" makes a query run without the planner.
const plannerHeader = "X-Luminate-Planner"

// queryParams are the parameters that both kinds of query have.
type queryParams struct {
	text       string
	start, end time.Time
	step       time.Duration // 0 for an instant query
	limit      int
	opts       promengine.QueryOpts
	stats      string
	explain    bool
	plan       bool
}

func (a *API) serveQuery(r *http.Request) (answer, *apiError) {
	limit, apiErr := limitParam(r)
	if apiErr != nil {
		return answer{}, apiErr
	}
	ts, apiErr := timeParam(r, "time", a.now())
	if apiErr != nil {
		return answer{}, apiErr
	}
	return a.runQuery(r, "query", queryParams{start: ts, end: ts, limit: limit})
}

func (a *API) serveQueryRange(r *http.Request) (answer, *apiError) {
	limit, apiErr := limitParam(r)
	if apiErr != nil {
		return answer{}, apiErr
	}
	start, err := parseTime(r.FormValue("start"))
	if err != nil {
		return answer{}, paramError("start", err)
	}
	end, err := parseTime(r.FormValue("end"))
	if err != nil {
		return answer{}, paramError("end", err)
	}
	if end.Before(start) {
		return answer{}, paramError("end", errors.New("end timestamp must not be before start time"))
	}
	step, err := parseDuration(r.FormValue("step"))
	if err != nil {
		return answer{}, paramError("step", err)
	}
	if step <= 0 {
		return answer{}, paramError("step", errors.New("zero or negative query resolution step widths are not accepted. Try a positive integer"))
	}
	if end.Sub(start)/step > time.Duration(a.cfg.MaxPoints) {
		return answer{}, badData(fmt.Errorf("exceeded maximum resolution of %s points per timeseries. Try decreasing the query resolution (?step=XX)", thousands(a.cfg.MaxPoints)))
	}
	return a.runQuery(r, "query_range", queryParams{start: start, end: end, step: step, limit: limit})
}

// thousands writes n with commas, as Prometheus's message has it.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// runQuery reads the remaining parameters and runs the query.
func (a *API) runQuery(r *http.Request, endpoint string, p queryParams) (ans answer, apiErr *apiError) {
	defer func(begin time.Time) {
		outcome := "none"
		if apiErr != nil {
			outcome = string(apiErr.typ)
		}
		a.metrics.queries.WithLabelValues(endpoint, outcome).Inc()
		a.metrics.duration.WithLabelValues(endpoint).Observe(time.Since(begin).Seconds())
	}(time.Now())

	ctx := r.Context()
	timeout, apiErr := timeoutParam(r)
	if apiErr != nil {
		return answer{}, apiErr
	}
	cancel := func() {}
	if timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()
	opts, err := queryOpts(r)
	if err != nil {
		return answer{}, badData(err)
	}
	p.opts, p.text, p.stats = opts, r.FormValue("query"), r.FormValue("stats")
	p.plan = a.cfg.Planner && r.Header.Get(plannerHeader) != "off"
	if p.explain, err = explainParam(r); err != nil {
		return answer{}, paramError("explain", err)
	}
	return a.execute(httputil.ContextFromRequest(ctx, r), p)
}

func timeoutParam(r *http.Request) (time.Duration, *apiError) {
	s := r.FormValue("timeout")
	if s == "" {
		return 0, nil
	}
	d, err := parseDuration(s)
	if err != nil {
		return 0, paramError("timeout", err)
	}
	if d <= 0 {
		return 0, paramError("timeout", fmt.Errorf("timeout must be positive, got %s", d))
	}
	return d, nil
}

func explainParam(r *http.Request) (bool, error) {
	s := r.FormValue("explain")
	if s == "" {
		return false, nil
	}
	return strconv.ParseBool(s)
}

func queryOpts(r *http.Request) (promengine.QueryOpts, error) {
	var lookback time.Duration
	if s := r.FormValue("lookback_delta"); s != "" {
		d, err := parseDuration(s)
		if err != nil {
			return nil, fmt.Errorf("error parsing lookback delta duration: %w", err)
		}
		lookback = d
	}
	var useST *bool
	if s := r.Header.Get("X-Prometheus-Use-Start-Timestamps"); s != "" {
		b, err := strconv.ParseBool(s)
		if err != nil {
			return nil, fmt.Errorf("error parsing X-Prometheus-Use-Start-Timestamps header: %w", err)
		}
		useST = &b
	}
	return promengine.NewPrometheusQueryOpts(r.FormValue("stats") == "all", lookback, useST), nil
}

// constructionError is the error of a query that could not be built: all but a full
// queue and a passed deadline is the query's own fault.
func constructionError(err error) *apiError {
	switch e := engineError(err); e.typ {
	case errTimeout, errCanceled, errUnavailable:
		return e
	default:
		return paramError("query", err)
	}
}

// execute runs a query, planned where it can be, and builds its answer.
func (a *API) execute(ctx context.Context, p queryParams) (answer, *apiError) {
	if !p.plan {
		ctx = withoutPlanner(ctx)
	}
	q, err := a.newQuery(ctx, p)
	if err != nil {
		return answer{}, constructionError(err)
	}
	begin := time.Now()
	res := q.Exec(ctx)
	if res.Err != nil {
		q.Close()
		return answer{}, engineError(res.Err)
	}
	warnings := res.Warnings
	if p.limit > 0 && truncate(res, p.limit) {
		warnings = warnings.Add(errTruncated)
	}
	if w := statsWarning(p.stats); w != nil {
		warnings = warnings.Add(w)
	}
	st, took := q.Stats(), time.Since(begin)
	a.metrics.samples.Add(float64(st.Samples.SamplesRead))
	return answer{
		warnings: warnings, query: p.text, done: q.Close,
		encode: func(e *encoder) {
			e.WriteObjectStart()
			encodeResult(e, res.Value)
			if p.stats != "" {
				encodeField(e, "stats", stats.NewQueryStats(st))
			}
			if pq, ok := q.(*plannedQuery); ok && p.explain {
				encodeField(e, "explain", pq.run.explain(took))
			}
			e.WriteObjectEnd()
		},
	}, nil
}

func (a *API) newQuery(ctx context.Context, p queryParams) (promengine.Query, error) {
	if p.step == 0 {
		return a.engine.NewInstantQuery(ctx, a.queryable, p.opts, p.text, p.start)
	}
	return a.engine.NewRangeQuery(ctx, a.queryable, p.opts, p.text, p.start, p.end, p.step)
}

// encodeResult writes the fields of a result, its type first: clients stream what
// follows.
func encodeResult(e *encoder, v parser.Value) {
	e.WriteObjectField("resultType")
	e.WriteString(string(v.Type()))
	e.WriteMore()
	e.WriteObjectField("result")
	encodeValue(e, v)
}

// encodeField writes a field after others.
func encodeField(e *encoder, name string, v any) {
	e.WriteMore()
	e.WriteObjectField(name)
	e.WriteVal(v)
}

func statsWarning(s string) error {
	switch s {
	case "", "true", "all":
		return nil
	default:
		return fmt.Errorf("value %q for parameter \"stats\" is deprecated and will be rejected in the next major release, use \"true\" or \"all\"", s)
	}
}

// truncate cuts a list of series to limit and tells whether it did.
func truncate(res *promengine.Result, limit int) bool {
	switch v := res.Value.(type) {
	case promengine.Matrix:
		if len(v) > limit {
			res.Value = v[:limit]
			return true
		}
	case promengine.Vector:
		if len(v) > limit {
			res.Value = v[:limit]
			return true
		}
	}
	return false
}
