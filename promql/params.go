package promql

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// minTime and maxTime are the ends of an open range, the same as Prometheus's:
// far enough from the ends of int64 that no offset overflows.
var (
	minTime = time.Unix(math.MinInt64/1000+62135596801, 0).UTC()
	maxTime = time.Unix(math.MaxInt64/1000-62135596801, 999999999).UTC()

	minTimeFormatted = minTime.Format(time.RFC3339Nano)
	maxTimeFormatted = maxTime.Format(time.RFC3339Nano)
)

// millisecondsFrom is the number of seconds (in the year 5138) from which a time
// of an exemplar query is read as milliseconds.
const millisecondsFrom = 1e11

func paramError(name string, err error) *apiError {
	return badData(fmt.Errorf("invalid parameter %q: %w", name, err))
}

// parseTime reads Unix seconds with a fraction, or RFC 3339. Times beyond the
// representable range become its ends.
func parseTime(s string) (time.Time, error) {
	if t, err := strconv.ParseFloat(s, 64); err == nil && !math.IsNaN(t) && !math.IsInf(t, 0) {
		switch {
		case t <= float64(minTime.Unix()):
			return minTime, nil
		case t >= float64(maxTime.Unix()):
			return maxTime, nil
		}
		sec, frac := math.Modf(t)
		frac = math.Round(frac*1000) / 1000 // a float's error must not move a millisecond
		return time.Unix(int64(sec), int64(frac*float64(time.Second))).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	switch s { // time.Parse takes four digits of a year only
	case minTimeFormatted:
		return minTime, nil
	case maxTimeFormatted:
		return maxTime, nil
	}
	return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", s)
}

// parseDuration reads seconds with a fraction or a Prometheus duration.
func parseDuration(s string) (time.Duration, error) {
	if d, err := strconv.ParseFloat(s, 64); err == nil {
		ns := d * float64(time.Second)
		// float64(math.MaxInt64) is 2^63, which int64 cannot hold; NaN is in no range.
		if ns >= math.MinInt64 && ns < math.MaxInt64 {
			return time.Duration(ns), nil
		}
		return 0, fmt.Errorf("cannot parse %q to a valid duration. It overflows int64", s)
	}
	if d, err := model.ParseDuration(s); err == nil {
		return time.Duration(d), nil
	}
	return 0, fmt.Errorf("cannot parse %q to a valid duration", s)
}

// parseLimit reads a limit; 0 is none.
func parseLimit(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, err
	}
	if n < 0 {
		return 0, errors.New("limit must be non-negative")
	}
	return n, nil
}

// oneMore is the limit to ask the store for, so that a cut can be told.
func oneMore(limit int) int {
	if limit > 0 && limit < math.MaxInt {
		return limit + 1
	}
	return limit
}

func timeParam(r *http.Request, name string, def time.Time) (time.Time, *apiError) {
	s := r.FormValue(name)
	if s == "" {
		return def, nil
	}
	t, err := parseTime(s)
	if err != nil {
		return time.Time{}, paramError(name, fmt.Errorf("invalid time value for '%s': %w", name, err))
	}
	return t, nil
}

func limitParam(r *http.Request) (int, *apiError) {
	n, err := parseLimit(r.FormValue("limit"))
	if err != nil {
		return 0, paramError("limit", err)
	}
	return n, nil
}

// milliseconds converts t to Unix milliseconds.
func milliseconds(t time.Time) int64 {
	return t.Unix()*1000 + int64(t.Nanosecond())/int64(time.Millisecond)
}

// parseMatchers parses match[] parameters; each must have a matcher that does not
// match the empty string.
func parseMatchers(p parser.Parser, selectors []string) ([][]*labels.Matcher, error) {
	sets, err := p.ParseMetricSelectors(selectors)
	if err != nil {
		return nil, err
	}
	for _, ms := range sets {
		if !selective(ms) {
			return nil, errors.New("match[] must contain at least one non-empty matcher")
		}
	}
	return sets, nil
}

func selective(ms []*labels.Matcher) bool {
	for _, m := range ms {
		if m != nil && !m.Matches("") {
			return true
		}
	}
	return false
}

// labelName undoes the U__ escaping that carries any UTF-8 name in a path.
func labelName(s string) (string, *apiError) {
	if strings.HasPrefix(s, "U__") {
		s = model.UnescapeName(s, model.ValueEncodingEscaping)
	}
	if !model.UTF8Validation.IsValidLabelName(s) {
		return "", badData(fmt.Errorf("invalid label name: %q", s))
	}
	return s, nil
}

// rangeParams are start and end of the endpoints whose range is open by default.
// An end before the start selects nothing, as in Prometheus.
type rangeParams struct{ mint, maxt int64 }

func (p rangeParams) empty() bool { return p.mint > p.maxt }

func openRange(r *http.Request) (rangeParams, *apiError) {
	start, apiErr := timeParam(r, "start", minTime)
	if apiErr != nil {
		return rangeParams{}, apiErr
	}
	end, apiErr := timeParam(r, "end", maxTime)
	if apiErr != nil {
		return rangeParams{}, apiErr
	}
	return rangeParams{milliseconds(start), milliseconds(end)}, nil
}
