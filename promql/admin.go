package promql

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

// receipt is a delete as the native API shows it too.
type receipt struct {
	ID            string              `json:"id"`
	State         storage.DeleteState `json:"state"`
	Selector      string              `json:"selector"`
	MinTime       int64               `json:"minTime"`
	MaxTime       int64               `json:"maxTime"`
	MatchedSeries uint64              `json:"matchedSeries"`
	CreatedAt     time.Time           `json:"createdAt"`
	ErasedAt      *time.Time          `json:"erasedAt,omitempty"`
}

func newReceipt(d storage.DeleteReceipt) receipt {
	r := receipt{d.ID, d.State, d.Selector, d.MinT, d.MaxT, d.MatchedSeries, d.CreatedAt, nil}
	if !d.ErasedAt.IsZero() {
		r.ErasedAt = &d.ErasedAt
	}
	return r
}

// serveDeleteSeries hides the series of every match[] at once and answers with a
// receipt for each. When a later selector fails, the earlier ones stay deleted;
// repeating the request is harmless.
func (a *API) serveDeleteSeries(r *http.Request) (answer, *apiError) {
	if f := a.cfg.Info.AdminEnabled; f == nil || !f() {
		return answer{}, &apiError{errUnavailable, http.StatusForbidden, errors.New("admin APIs disabled")}
	}
	if err := r.ParseForm(); err != nil {
		return answer{}, badData(fmt.Errorf("error parsing form values: %w", err))
	}
	if len(r.Form["match[]"]) == 0 {
		return answer{}, badData(errors.New("no match[] parameter provided"))
	}
	p, apiErr := openRange(r)
	if apiErr != nil {
		return answer{}, apiErr
	}
	if p.empty() {
		return answer{}, badData(errors.New("end timestamp must not be before start timestamp"))
	}
	sets, err := parseMatchers(a.parser, r.Form["match[]"])
	if err != nil {
		return answer{}, paramError("match[]", err)
	}
	ctx := r.Context()
	receipts := make([]receipt, 0, len(sets))
	for _, ms := range sets {
		d, err := a.store.Delete(ctx, tenancy.TenantOf(ctx), storage.Selection{Matchers: ms, MinT: p.mint, MaxT: p.maxt})
		if err != nil {
			return answer{}, storeError(err)
		}
		receipts = append(receipts, newReceipt(d))
	}
	ans := value(receipts)
	if len(receipts) == 1 {
		ans = value(receipts[0])
	}
	ans.code = http.StatusAccepted
	return ans, nil
}
