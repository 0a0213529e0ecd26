package promql

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

type metadataEntry struct {
	Type storage.MetricType `json:"type"`
	Unit string             `json:"unit"`
	Help string             `json:"help"`
}

func (a *API) serveMetadata(r *http.Request) (answer, *apiError) {
	limit, apiErr := numberParam(r, "limit")
	if apiErr != nil {
		return answer{}, apiErr
	}
	perMetric, apiErr := numberParam(r, "limit_per_metric")
	if apiErr != nil {
		return answer{}, apiErr
	}
	res := map[string][]metadataEntry{}
	if limit == 0 { // Prometheus: none at all
		return value(res), nil
	}
	ctx := r.Context()
	found, err := a.store.Metadata(ctx, tenancy.TenantOf(ctx), storage.MetadataQuery{
		Metric: r.FormValue("metric"), Limit: max(limit, 0), LimitPerMetric: max(perMetric, 0),
	})
	if err != nil {
		return answer{}, storeError(err)
	}
	for _, m := range found {
		res[m.Metric] = append(res[m.Metric], metadataEntry{m.Type, m.Unit, m.Help})
	}
	return value(res), nil
}

// numberParam reads an integer, -1 if it is absent.
func numberParam(r *http.Request, name string) (int, *apiError) {
	s := r.FormValue(name)
	if s == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, badData(errors.New(name + " must be a number"))
	}
	return n, nil
}
