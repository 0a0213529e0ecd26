package native

import (
	"net/http"
	"strconv"

	"github.com/luminate/luminate/storage"
)

// RetentionPolicy is a policy as the API shows and takes it.
type RetentionPolicy struct {
	Metric        string `json:"metric"`        // a name, or a pattern in which * stands for any bytes
	RetentionDays int    `json:"retentionDays"` // 0 keeps for ever
}

// serveRetention lists the tenant's policies, the most specific first: of several
// that match a metric the first decides.
func (a *API) serveRetention(w http.ResponseWriter, r *http.Request) error {
	ctx, t, err := a.adminTenant(r, r.URL.Query().Get("tenant"), rightRead)
	if err != nil {
		return err
	}
	ps, err := a.store.Retention(ctx, t)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, mapSlice(ps, func(p storage.RetentionPolicy) RetentionPolicy { return RetentionPolicy{p.Metric, p.Days} }))
	return nil
}

// serveSetRetention adds or replaces a policy. A shorter one hides older data at
// once.
func (a *API) serveSetRetention(w http.ResponseWriter, r *http.Request) error {
	ctx, t, err := a.adminTenant(r, r.URL.Query().Get("tenant"), rightDestructive)
	if err != nil {
		return err
	}
	var body struct {
		Metric        string `json:"metric"`
		RetentionDays *int   `json:"retentionDays"`
	}
	if err := decodeBody(r, &body); err != nil {
		return err
	}
	if body.RetentionDays == nil {
		return badQuery("retentionDays is missing (0 keeps for ever)")
	}
	p := storage.RetentionPolicy{Metric: body.Metric, Days: *body.RetentionDays}
	if err := p.Validate(); err != nil {
		return err
	}
	if err := a.store.SetRetention(ctx, t, p); err != nil {
		return err
	}
	a.audit(ctx, "set retention", "metric", p.Metric, "days", p.Days)
	writeJSON(w, http.StatusOK, RetentionPolicy{p.Metric, p.Days})
	return nil
}

// serveRemoveRetention removes the policy of a pattern, which stands in the query
// (metric=) or in a body like that of POST.
func (a *API) serveRemoveRetention(w http.ResponseWriter, r *http.Request) error {
	ctx, t, err := a.adminTenant(r, r.URL.Query().Get("tenant"), rightDestructive)
	if err != nil {
		return err
	}
	metric := r.URL.Query().Get("metric")
	if metric == "" {
		var body struct {
			Metric        string `json:"metric"`
			RetentionDays *int   `json:"retentionDays"` // ignored: what POST took may be sent back
		}
		if err := decodeBody(r, &body); err != nil {
			return err
		}
		if metric = body.Metric; metric == "" {
			return badQuery("metric is missing")
		}
	}
	if err := a.store.RemoveRetention(ctx, t, metric); err != nil {
		return err
	}
	a.audit(ctx, "remove retention", "metric", metric)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func formatUint(n uint64) string { return strconv.FormatUint(n, 10) }
