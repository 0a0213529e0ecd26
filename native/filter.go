package native

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	promlabels "github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/luminate/luminate/storage"
)

// maxPattern bounds a regular expression that a client wrote; maxAlternatives
// bounds a list of values.
const (
	maxPattern      = 4 << 10
	maxAlternatives = 1_000
)

// matchersOf translates what names the series: metricName or selector, and the
// filters.
func matchersOf(q *QueryRequest) ([]*storage.Matcher, error) {
	var ms []*storage.Matcher
	switch {
	case q.MetricName != "" && q.Selector != "":
		return nil, badQuery("metricName and selector exclude each other")
	case q.MetricName != "":
		ms = append(ms, promlabels.MustNewMatcher(promlabels.MatchEqual, storage.MetricName, q.MetricName))
	case q.Selector != "":
		parsed, err := parseSelector(q.Selector)
		if err != nil {
			return nil, err
		}
		ms = parsed
	default:
		return nil, badQuery("metricName is missing (or selector)")
	}
	for _, name := range slices.Sorted(maps.Keys(q.Filters)) {
		if name == "" {
			return nil, badQuery("a filter has an empty name")
		}
		fs, err := q.Filters[name].matchers(name)
		if err != nil {
			return nil, err
		}
		ms = append(ms, fs...)
	}
	return ms, nil
}

// parseSelector reads a PromQL vector selector that is not empty.
func parseSelector(s string) ([]*storage.Matcher, error) {
	if len(s) > 4*maxPattern {
		return nil, badQuery("selector has %d bytes, at most %d are allowed", len(s), 4*maxPattern)
	}
	ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(s)
	if err != nil {
		return nil, badQuery("selector %q: %s", clipText(s), err.Error())
	}
	if !slices.ContainsFunc(ms, func(m *storage.Matcher) bool { return !m.Matches("") }) {
		return nil, badQuery("selector %q must have at least one matcher that does not match the empty value", clipText(s))
	}
	return ms, nil
}

func (f Filter) matchers(name string) ([]*storage.Matcher, error) {
	var ms []*storage.Matcher
	add := func(t promlabels.MatchType, value string, most int) error {
		if len(value) > most {
			return badQuery("filter on %q has %d bytes, at most %d are allowed", clipText(name), len(value), most)
		}
		m, err := promlabels.NewMatcher(t, name, value)
		if err != nil {
			return badQuery("filter on %q: %s", clipText(name), err.Error())
		}
		ms = append(ms, m)
		return nil
	}
	type condition struct {
		t     promlabels.MatchType
		value *string
	}
	for _, c := range []condition{
		{promlabels.MatchEqual, f.Eq}, {promlabels.MatchNotEqual, f.Not},
		{promlabels.MatchRegexp, f.Regex}, {promlabels.MatchNotRegexp, f.NotRegex},
	} {
		if c.value == nil {
			continue
		}
		if err := add(c.t, *c.value, maxPattern); err != nil {
			return nil, err
		}
	}
	for _, c := range []struct {
		t      promlabels.MatchType
		values []string
	}{{promlabels.MatchRegexp, f.In}, {promlabels.MatchNotRegexp, f.NotIn}} {
		if len(c.values) > maxAlternatives {
			return nil, badQuery("filter on %q lists %d values, at most %d are allowed", clipText(name), len(c.values), maxAlternatives)
		}
		if len(c.values) == 0 {
			continue
		}
		if err := add(c.t, alternatives(c.values), 1<<20); err != nil {
			return nil, err
		}
	}
	return ms, nil
}

// alternatives is the regular expression of exactly these values; Prometheus's
// matchers turn it back into a set.
func alternatives(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = regexp.QuoteMeta(v)
	}
	return strings.Join(quoted, "|")
}
