package promql

import (
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/jsonutil"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

func (a *API) serveExemplars(r *http.Request) (answer, *apiError) {
	start, apiErr := timeParam(r, "start", minTime)
	if apiErr != nil {
		return answer{}, apiErr
	}
	end, apiErr := timeParam(r, "end", maxTime)
	if apiErr != nil {
		return answer{}, apiErr
	}
	start, end = fromMilliseconds(start), fromMilliseconds(end)
	if end.Before(start) {
		return answer{}, badData(errors.New("end timestamp must not be before start timestamp"))
	}
	expr, err := a.parser.ParseExpr(r.FormValue("query"))
	if err != nil {
		return answer{}, badData(err)
	}
	selectors := parser.ExtractSelectors(expr)
	if len(selectors) == 0 {
		return answer{}, nil // 204, as Prometheus answers
	}
	ctx := r.Context()
	found, err := a.store.Exemplars(ctx, tenancy.TenantOf(ctx), storage.ExemplarQuery{
		Selectors: selectors, MinT: milliseconds(start), MaxT: milliseconds(end),
	})
	if err != nil {
		return answer{}, storeError(err)
	}
	return answer{encode: func(e *encoder) {
		var b labels.ScratchBuilder
		encodeList(e, len(found), func(i int) { encodeExemplars(e, &found[i], &b) })
	}}, nil
}

// fromMilliseconds reads a time that only milliseconds can mean as such.
func fromMilliseconds(t time.Time) time.Time {
	if sec := t.Unix(); sec >= millisecondsFrom && t.Before(maxTime) {
		return time.UnixMilli(sec).UTC()
	}
	return t
}

func encodeExemplars(e *encoder, s *storage.ExemplarSeries, b *labels.ScratchBuilder) {
	e.WriteObjectStart()
	e.WriteObjectField("seriesLabels")
	encodeLabels(e, s.Labels.PrometheusInto(b))
	e.WriteMore()
	e.WriteObjectField("exemplars")
	encodeList(e, len(s.Exemplars), func(i int) {
		x := &s.Exemplars[i]
		e.WriteObjectStart()
		e.WriteObjectField("labels")
		encodeLabels(e, x.Labels.PrometheusInto(b))
		e.WriteMore()
		e.WriteObjectField("value")
		jsonutil.MarshalFloat(x.V, e.Stream)
		e.WriteMore()
		e.WriteObjectField("timestamp")
		jsonutil.MarshalTimestamp(x.T, e.Stream)
		e.WriteObjectEnd()
	})
	e.WriteObjectEnd()
}
