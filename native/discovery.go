package native

import (
	"cmp"
	"net/http"
	"slices"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

// MetricDetail is a metric with its series, for detail=1.
type MetricDetail struct {
	Name   string `json:"name"`
	Series uint64 `json:"series"`
}

// DimensionDetail is a dimension with its series and distinct values, for detail=1.
type DimensionDetail struct {
	Key    string `json:"key"`
	Series uint64 `json:"series"`
	Values uint64 `json:"values"`
}

// ValueDetail is a dimension's value with its series, for detail=1.
type ValueDetail struct {
	Value  string `json:"value"`
	Series uint64 `json:"series"`
}

// defaultValues is how many values of a dimension are listed without limit.
const defaultValues = 100

// truncatedHeader says that a plain array does not list all there is.
const truncatedHeader = "X-Luminate-Truncated"

// discovery is what the three routes have in common.
type discovery struct {
	tenant storage.Tenant
	sel    storage.Selection
	limit  int
	prefix string
	detail bool
}

func (a *API) newDiscovery(r *http.Request, limit int) (d discovery, err error) {
	q := r.URL.Query()
	d.tenant, d.prefix = tenancy.TenantOf(r.Context()), q.Get("prefix")
	if d.sel.MinT, d.sel.MaxT, err = spanParams(q, minTime, maxTime); err != nil {
		return d, err
	}
	if d.limit, err = a.limitParam(q, limit); err != nil {
		return d, err
	}
	d.detail, err = queryFlag(r, "detail")
	return d, err
}

// answerList answers at most limit of items as a plain array.
func answerList[T any](w http.ResponseWriter, items []T, limit int) {
	if len(items) > limit {
		items = items[:limit]
		w.Header().Set(truncatedHeader, "true")
	}
	if items == nil {
		items = []T{}
	}
	writeJSON(w, http.StatusOK, items)
}

// serveMetrics lists metric names, ascending; with detail those with most series
// first.
func (a *API) serveMetrics(w http.ResponseWriter, r *http.Request) error {
	d, err := a.newDiscovery(r, a.cfg.MaxListed)
	if err != nil {
		return err
	}
	d.sel.Matchers = []*storage.Matcher{prefixMatcher(storage.MetricName, d.prefix)}
	if d.detail {
		c, err := a.store.Cardinality(r.Context(), d.tenant, storage.CardinalityQuery{Selection: d.sel, TopN: d.limit + 1})
		if err != nil {
			return err
		}
		answerList(w, mapSlice(c.Metrics, func(x storage.Count) MetricDetail { return MetricDetail{x.Name, x.Count} }), d.limit)
		return nil
	}
	d.sel.Limit = d.limit + 1
	names, err := a.store.LabelValues(r.Context(), d.tenant, storage.MetricName, d.sel)
	if err != nil {
		return err
	}
	answerList(w, names, d.limit)
	return nil
}

// serveDimensions lists the dimension keys of a metric, ascending.
func (a *API) serveDimensions(w http.ResponseWriter, r *http.Request) error {
	d, err := a.newDiscovery(r, a.cfg.MaxListed)
	if err != nil {
		return err
	}
	d.sel.Matchers = []*storage.Matcher{nameMatcher(pathVar(r, "name"))}
	hidden := func(name string) bool {
		return name == storage.MetricName || len(name) < len(d.prefix) || name[:len(d.prefix)] != d.prefix
	}
	if d.detail {
		c, err := a.store.Cardinality(r.Context(), d.tenant, storage.CardinalityQuery{Selection: d.sel, TopN: a.cfg.MaxListed})
		if err != nil {
			return err
		}
		details := slices.DeleteFunc(labelNameDetails(c), func(x DimensionDetail) bool { return hidden(x.Key) })
		answerList(w, details, d.limit)
		return nil
	}
	names, err := a.store.LabelNames(r.Context(), d.tenant, d.sel)
	if err != nil {
		return err
	}
	answerList(w, slices.DeleteFunc(names, hidden), d.limit)
	return nil
}

// labelNameDetails joins what a cardinality tells of label names, those with most
// values first.
func labelNameDetails(c storage.Cardinality) []DimensionDetail {
	values := map[string]uint64{}
	for _, x := range c.LabelValueCounts {
		values[x.Name] = x.Count
	}
	out := mapSlice(c.LabelNames, func(x storage.Count) DimensionDetail { return DimensionDetail{x.Name, x.Count, values[x.Name]} })
	slices.SortFunc(out, func(x, y DimensionDetail) int {
		return cmp.Or(cmp.Compare(y.Values, x.Values), cmp.Compare(x.Key, y.Key))
	})
	return out
}

// serveValues lists the values of a dimension, those with most series first.
func (a *API) serveValues(w http.ResponseWriter, r *http.Request) error {
	d, err := a.newDiscovery(r, min(defaultValues, a.cfg.MaxListed))
	if err != nil {
		return err
	}
	key := pathVar(r, "key")
	if key == storage.MetricName {
		return errorf(http.StatusBadRequest, CodeInvalidDimension, "%q is the metric's name, not a dimension", key)
	}
	d.sel.Matchers = []*storage.Matcher{nameMatcher(pathVar(r, "name")), prefixMatcher(key, d.prefix)}
	c, err := a.store.Cardinality(r.Context(), d.tenant, storage.CardinalityQuery{
		Selection: d.sel, LabelNames: []string{key}, TopN: d.limit + 1,
	})
	if err != nil {
		return err
	}
	if d.detail {
		answerList(w, mapSlice(c.LabelValues[key], func(x storage.Count) ValueDetail { return ValueDetail{x.Name, x.Count} }), d.limit)
		return nil
	}
	answerList(w, mapSlice(c.LabelValues[key], func(x storage.Count) string { return x.Name }), d.limit)
	return nil
}

func mapSlice[A, B any](in []A, f func(A) B) []B {
	out := make([]B, len(in))
	for i, x := range in {
		out[i] = f(x)
	}
	return out
}
