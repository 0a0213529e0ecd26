package native

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"

	"github.com/gorilla/mux"
	promlabels "github.com/prometheus/prometheus/model/labels"

	"github.com/luminate/luminate/storage"
)

// pathVar returns a variable of the route. The program matches routes on the
// escaped path, so that a name may hold an escaped slash.
func pathVar(r *http.Request, name string) string {
	v := mux.Vars(r)[name]
	if s, err := url.PathUnescape(v); err == nil {
		return s
	}
	return v
}

// timeParam reads a time of the query string.
func timeParam(q url.Values, name string, def int64) (int64, error) {
	s := q.Get(name)
	if s == "" {
		return def, nil
	}
	t, err := parseTime(s)
	if err != nil {
		return 0, badQuery("%s: %s", name, err.Error())
	}
	return int64(t), nil
}

// spanParams reads start (included) and end (excluded) as the inclusive bounds of
// a Selection.
func spanParams(q url.Values, mint, maxt int64) (int64, int64, error) {
	start, err := timeParam(q, "start", mint)
	if err != nil {
		return 0, 0, err
	}
	end, err := timeParam(q, "end", maxt+1)
	if err != nil {
		return 0, 0, err
	}
	if start >= end {
		return 0, 0, badQuery("the range is empty: start %d, end %d", start, end)
	}
	return start, end - 1, nil
}

// limitParam reads limit, from 1 to the most that an answer lists.
func (a *API) limitParam(q url.Values, def int) (int, error) {
	s := q.Get("limit")
	if s == "" {
		return def, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, badQuery("limit %q is not a positive whole number", clipText(s))
	}
	if n > a.cfg.MaxListed {
		return 0, overLimit("maxListed", a.cfg.MaxListed, n, "limit %d is more than the %d that an answer may list", n, a.cfg.MaxListed)
	}
	return n, nil
}

// prefixMatcher matches the values that begin with prefix and are not empty.
func prefixMatcher(name, prefix string) *storage.Matcher {
	if prefix == "" {
		return promlabels.MustNewMatcher(promlabels.MatchNotEqual, name, "")
	}
	return promlabels.MustNewMatcher(promlabels.MatchRegexp, name, regexp.QuoteMeta(prefix)+".*")
}

func nameMatcher(metric string) *storage.Matcher {
	return promlabels.MustNewMatcher(promlabels.MatchEqual, storage.MetricName, metric)
}

// maxAdminBody bounds the JSON documents of administration.
const maxAdminBody = 1 << 20

// decodeBody reads one JSON object into v and refuses unknown fields.
func decodeBody(r *http.Request, v any) error {
	d := json.NewDecoder(&cappedReader{r: r.Body, left: maxAdminBody})
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return bodyError(queryJSONError(err), maxAdminBody)
	}
	if err := endOfJSON(d); err != nil {
		return bodyError(err, maxAdminBody)
	}
	return nil
}

// rawBody reads a JSON document as it is.
func rawBody(r *http.Request) (json.RawMessage, error) {
	b, err := io.ReadAll(&cappedReader{r: r.Body, left: maxAdminBody})
	if err != nil {
		return nil, bodyError(err, maxAdminBody)
	}
	if !json.Valid(b) {
		return nil, invalidJSON("the body is not valid JSON")
	}
	return b, nil
}
