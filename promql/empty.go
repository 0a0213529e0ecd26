package promql

import (
	"errors"
	"net/http"
	"strconv"
)

// These endpoints tell of scraping, alerting and a Prometheus's own log. They answer
// what a Prometheus answers that has none of it.

func (a *API) serveAlertmanagers(*http.Request) (answer, *apiError) {
	return value(struct {
		Active  []struct{} `json:"activeAlertmanagers"`
		Dropped []struct{} `json:"droppedAlertmanagers"`
	}{[]struct{}{}, []struct{}{}}), nil
}

func (a *API) serveScrapePools(*http.Request) (answer, *apiError) {
	return value(struct {
		Pools []string `json:"scrapePools"`
	}{[]string{}}), nil
}

// serveTargetMetadata validates what Prometheus validates.
func (a *API) serveTargetMetadata(r *http.Request) (answer, *apiError) {
	if s := r.FormValue("limit"); s != "" {
		if _, err := strconv.Atoi(s); err != nil {
			return answer{}, badData(errors.New("limit must be a number"))
		}
	}
	if s := r.FormValue("match_target"); s != "" {
		if _, err := a.parser.ParseMetricSelector(s); err != nil {
			return answer{}, paramError("match_target", err)
		}
	}
	return value([]struct{}{}), nil
}

func (a *API) serveNotifications(*http.Request) (answer, *apiError) {
	return value([]struct{}{}), nil
}

// serveWALReplay says that nothing is being replayed: requests come in after that.
func (a *API) serveWALReplay(*http.Request) (answer, *apiError) {
	return value(struct {
		Min     int `json:"min"`
		Max     int `json:"max"`
		Current int `json:"current"`
	}{}), nil
}
