package promql

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

// listParams are the parameters of the endpoints that list names, values, series.
type listParams struct {
	rangeParams
	limit    int
	matchers [][]*labels.Matcher // one empty set if none was given
}

func (a *API) listParams(r *http.Request) (listParams, *apiError) {
	var p listParams
	var apiErr *apiError
	if p.limit, apiErr = limitParam(r); apiErr != nil {
		return p, apiErr
	}
	if p.rangeParams, apiErr = openRange(r); apiErr != nil {
		return p, apiErr
	}
	sets, err := parseMatchers(a.parser, r.Form["match[]"])
	if err != nil {
		return p, badData(err)
	}
	if p.matchers = sets; len(sets) == 0 {
		p.matchers = [][]*labels.Matcher{nil}
	}
	return p, nil
}

func (p listParams) selection(i int) storage.Selection {
	return storage.Selection{Matchers: p.matchers[i], MinT: p.mint, MaxT: p.maxt, Limit: oneMore(p.limit)}
}

func (a *API) serveLabelNames(r *http.Request) (answer, *apiError) {
	p, apiErr := a.listParams(r)
	if apiErr != nil {
		return answer{}, apiErr
	}
	return a.listStrings(p, func(s storage.Selection) ([]string, error) {
		return a.store.LabelNames(r.Context(), tenancy.TenantOf(r.Context()), s)
	})
}

func (a *API) serveLabelValues(r *http.Request) (answer, *apiError) {
	name, apiErr := labelName(labelInPath(r.URL))
	if apiErr != nil {
		return answer{}, apiErr
	}
	p, apiErr := a.listParams(r)
	if apiErr != nil {
		return answer{}, apiErr
	}
	return a.listStrings(p, func(s storage.Selection) ([]string, error) {
		return a.store.LabelValues(r.Context(), tenancy.TenantOf(r.Context()), name, s)
	})
}

// labelInPath returns the name in …/label/{name}/values. It is cut out of the path
// as it was sent, for whether a router unescapes its variables depends on how it
// is set up, and a name may hold an escaped slash.
func labelInPath(u *url.URL) string {
	path := strings.TrimSuffix(u.EscapedPath(), "/values")
	_, name, _ := strings.Cut(path, "/label/")
	if s, err := url.PathUnescape(name); err == nil {
		return s
	}
	return name
}

// listStrings merges what list answers for each matcher set. Each answer is
// ascending and one longer than the limit, so the merged head is exact.
func (a *API) listStrings(p listParams, list func(storage.Selection) ([]string, error)) (answer, *apiError) {
	all := []string{}
	for i := range p.matchers {
		if p.empty() {
			break
		}
		got, err := list(p.selection(i))
		if err != nil {
			return answer{}, storeError(err)
		}
		all = append(all, got...)
		if apiErr := a.checkResultSize(len(all)); apiErr != nil {
			return answer{}, apiErr
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	var ans answer
	if p.limit > 0 && len(all) > p.limit {
		all = all[:p.limit]
		ans.warnings = ans.warnings.Add(errTruncated)
	}
	ans.encode = func(e *encoder) { encodeList(e, len(all), func(i int) { e.WriteStringWithHTMLEscaped(all[i]) }) }
	return ans, nil
}

func (a *API) checkResultSize(n int) *apiError {
	if limit := a.cfg.MaxResultSeries; limit > 0 && n > limit {
		return storeError(storage.LimitErrorf(storage.KindTooLarge, "list", "max-result-series", "query.maxResultSeries",
			"the answer has more than %d elements; narrow it with match[], start, end or limit", limit))
	}
	return nil
}

func (a *API) serveSeries(r *http.Request) (answer, *apiError) {
	if err := r.ParseForm(); err != nil {
		return answer{}, badData(fmt.Errorf("error parsing form values: %w", err))
	}
	if len(r.Form["match[]"]) == 0 {
		return answer{}, badData(errors.New("no match[] parameter provided"))
	}
	p := listParams{}
	var apiErr *apiError
	if p.limit, apiErr = limitParam(r); apiErr != nil {
		return answer{}, apiErr
	}
	if p.rangeParams, apiErr = openRange(r); apiErr != nil {
		return answer{}, apiErr
	}
	var err error
	if p.matchers, err = parseMatchers(a.parser, r.Form["match[]"]); err != nil {
		return answer{}, paramError("match[]", err)
	}
	held := a.cfg.Memory.Begin(tenancy.TenantOf(r.Context()))
	ans := answer{done: held.Release}
	found, apiErr := a.selectLabels(r, held, p)
	if apiErr != nil {
		return ans, apiErr
	}
	if p.limit > 0 && len(found) > p.limit {
		found = found[:p.limit]
		ans.warnings = ans.warnings.Add(errTruncated)
	}
	var b labels.ScratchBuilder
	ans.encode = func(e *encoder) {
		encodeList(e, len(found), func(i int) { encodeLabels(e, found[i].PrometheusInto(&b)) })
	}
	return ans, nil
}

// selectLabels returns the series of all matcher sets, each once, in order.
func (a *API) selectLabels(r *http.Request, held *tenancy.MemoryReservation, p listParams) ([]storage.Labels, *apiError) {
	ctx := r.Context()
	var found []storage.Labels
	for i := range p.matchers {
		if p.empty() {
			break
		}
		for ls, err := range a.store.SelectLabels(ctx, tenancy.TenantOf(ctx), p.selection(i)) {
			if err != nil {
				return nil, storeError(err)
			}
			if err := held.Use((&storage.Series{Labels: ls}).Bytes()); err != nil {
				return nil, storeError(err)
			}
			found = append(found, ls)
			if apiErr := a.checkResultSize(len(found)); apiErr != nil {
				return nil, apiErr
			}
		}
	}
	if len(p.matchers) > 1 {
		slices.SortFunc(found, storage.CompareLabels)
		found = slices.CompactFunc(found, func(x, y storage.Labels) bool { return string(x) == string(y) })
	}
	return found, nil
}
