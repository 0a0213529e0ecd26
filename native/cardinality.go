package native

import (
	"net/http"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

// CardinalityItem counts the series of one metric, label or value.
type CardinalityItem struct {
	Name   string  `json:"name"`
	Series uint64  `json:"series"`
	Share  float64 `json:"share"` // of all selected series, 0 to 1
	// Values counts the distinct values, for label names only.
	Values uint64 `json:"values,omitempty"`
}

// CardinalityResponse is the answer of cardinality/metrics and
// cardinality/label_names; Total counts the items that there are, Items lists the
// greatest.
type CardinalityResponse struct {
	TotalSeries uint64            `json:"totalSeries"`
	Total       uint64            `json:"total"`
	Items       []CardinalityItem `json:"items"`
}

// LabelCardinality is one label of a LabelValuesResponse.
type LabelCardinality struct {
	Name  string            `json:"name"`
	Total uint64            `json:"total"` // distinct values
	Items []CardinalityItem `json:"items"`
}

// LabelValuesResponse is the answer of cardinality/label_values.
type LabelValuesResponse struct {
	TotalSeries uint64             `json:"totalSeries"`
	Labels      []LabelCardinality `json:"labels"`
}

// ActiveSeriesResponse is the answer of cardinality/active_series.
type ActiveSeriesResponse struct {
	TotalSeries uint64              `json:"totalSeries"`
	Series      []map[string]string `json:"series"`
	Truncated   bool                `json:"truncated"`
}

const (
	defaultTopN = 20
	// activeSpan is the time that series must have a sample in to count, where the
	// caller names none.
	activeSpan = time.Hour
	// maxCardinalityLabels bounds the labels of one label_values request.
	maxCardinalityLabels = 100
)

// cardinality runs the query that a request's selector, start, end and limit ask
// for; labels are those to count values of.
func (a *API) cardinality(r *http.Request, labels []string, top int) (storage.Cardinality, int, error) {
	sel, limit, err := a.cardinalitySelection(r)
	if err != nil {
		return storage.Cardinality{}, 0, err
	}
	c, err := a.store.Cardinality(r.Context(), tenancy.TenantOf(r.Context()), storage.CardinalityQuery{
		Selection: sel, LabelNames: labels, TopN: max(limit, top),
	})
	return c, limit, err
}

func (a *API) cardinalitySelection(r *http.Request) (sel storage.Selection, limit int, err error) {
	q := r.URL.Query()
	now := a.now()
	if sel.MinT, sel.MaxT, err = spanParams(q, now.Add(-activeSpan).UnixMilli(), now.UnixMilli()); err != nil {
		return sel, 0, err
	}
	if s := q.Get("selector"); s != "" {
		if sel.Matchers, err = parseSelector(s); err != nil {
			return sel, 0, err
		}
	}
	limit, err = a.limitParam(q, defaultTopN)
	return sel, limit, err
}

func items(counts []storage.Count, total uint64) []CardinalityItem {
	return mapSlice(counts, func(c storage.Count) CardinalityItem {
		return CardinalityItem{Name: c.Name, Series: c.Count, Share: share(c.Count, total)}
	})
}

func share(n, total uint64) float64 {
	if total == 0 {
		return 0
	}
	return float64(n) / float64(total)
}

func (a *API) serveCardinalityMetrics(w http.ResponseWriter, r *http.Request) error {
	c, _, err := a.cardinality(r, nil, 0)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, CardinalityResponse{TotalSeries: c.Series, Total: c.TotalMetrics, Items: items(c.Metrics, c.Series)})
	return nil
}

// serveCardinalityNames lists the labels with most distinct values.
func (a *API) serveCardinalityNames(w http.ResponseWriter, r *http.Request) error {
	c, limit, err := a.cardinality(r, nil, a.cfg.MaxListed) // all names, to join the two lists
	if err != nil {
		return err
	}
	details := labelNameDetails(c)
	out := mapSlice(details[:min(limit, len(details))], func(d DimensionDetail) CardinalityItem {
		return CardinalityItem{Name: d.Key, Series: d.Series, Share: share(d.Series, c.Series), Values: d.Values}
	})
	writeJSON(w, http.StatusOK, CardinalityResponse{TotalSeries: c.Series, Total: c.TotalLabelNames, Items: out})
	return nil
}

func (a *API) serveCardinalityValues(w http.ResponseWriter, r *http.Request) error {
	labels := r.URL.Query()["label_names[]"]
	if len(labels) == 0 || len(labels) > maxCardinalityLabels {
		return badQuery("label_names[] must name 1 to %d labels, it names %d", maxCardinalityLabels, len(labels))
	}
	c, _, err := a.cardinality(r, labels, 0)
	if err != nil {
		return err
	}
	res := LabelValuesResponse{TotalSeries: c.Series, Labels: []LabelCardinality{}}
	for _, name := range labels {
		res.Labels = append(res.Labels, LabelCardinality{Name: name, Total: c.LabelValuesTotals[name], Items: items(c.LabelValues[name], c.Series)})
	}
	writeJSON(w, http.StatusOK, res)
	return nil
}

// serveActiveSeries lists series in order of their labels, and counts all.
func (a *API) serveActiveSeries(w http.ResponseWriter, r *http.Request) error {
	sel, limit, err := a.cardinalitySelection(r)
	if err != nil {
		return err
	}
	res := ActiveSeriesResponse{Series: []map[string]string{}}
	listed := sel
	listed.Limit = limit + 1
	for ls, err := range a.store.SelectLabels(r.Context(), tenancy.TenantOf(r.Context()), listed) {
		if err != nil {
			return err
		}
		if len(res.Series) == limit {
			res.Truncated = true
			break
		}
		m := map[string]string{}
		for n, v := range ls.Clone().All() {
			m[n] = v
		}
		res.Series = append(res.Series, m)
	}
	res.TotalSeries = uint64(len(res.Series))
	if res.Truncated {
		c, err := a.store.Cardinality(r.Context(), tenancy.TenantOf(r.Context()), storage.CardinalityQuery{Selection: sel, TopN: 1})
		if err != nil {
			return err
		}
		res.TotalSeries = c.Series
	}
	writeJSON(w, http.StatusOK, res)
	return nil
}
