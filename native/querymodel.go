package native

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// QueryType says what a query asks for.
type QueryType string

// The query types.
const (
	QueryRange     QueryType = "range"
	QueryAggregate QueryType = "aggregate"
	QueryRate      QueryType = "rate"
)

// QueryRequest is the body of a native query.
type QueryRequest struct {
	QueryType QueryType `json:"queryType"`
	// MetricName or Selector (a PromQL vector selector) name the series, one of
	// them.
	MetricName string            `json:"metricName,omitempty"`
	Selector   string            `json:"selector,omitempty"`
	TimeRange  TimeRange         `json:"timeRange"`
	Filters    map[string]Filter `json:"filters,omitempty"`
	// Aggregation or Aggregations, one of them: avg, sum, count, min, max, stddev,
	// first, last, integral, p50, p99.9 and so on.
	Aggregation  string   `json:"aggregation,omitempty"`
	Aggregations []string `json:"aggregations,omitempty"`
	GroupBy      []string `json:"groupBy,omitempty"`
	Interval     string   `json:"interval,omitempty"` // a Prometheus duration, or calendar months as 1M
	Timezone     string   `json:"timezone,omitempty"` // IANA name; aligns days, weeks and months
	Fill         Fill     `json:"fill,omitzero"`
	// OrderBy is value (or an aggregation's name), count, key; timestamp for range.
	OrderBy string `json:"orderBy,omitempty"`
	Order   string `json:"order,omitempty"` // asc or desc
	Limit   int    `json:"limit,omitempty"` // groups, or points for range; 0 = the default
	Timeout string `json:"timeout,omitempty"`
	Explain bool   `json:"explain,omitempty"`
}

// TimeRange is a range of time: Relative up to now, now included, or Start to End
// with End left out; without End it ends now.
type TimeRange struct {
	Relative string `json:"relative,omitempty"` // a Prometheus duration
	Start    *Time  `json:"start,omitempty"`
	End      *Time  `json:"end,omitempty"`
}

// Time is Unix milliseconds; in JSON a number, or a string with RFC 3339 or
// milliseconds.
type Time int64

// MarshalJSON writes milliseconds.
func (t Time) MarshalJSON() ([]byte, error) { return strconv.AppendInt(nil, int64(t), 10), nil }

// UnmarshalJSON reads milliseconds or RFC 3339.
func (t *Time) UnmarshalJSON(b []byte) error {
	s := string(b)
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
	}
	v, err := parseTime(s)
	if err != nil {
		return err
	}
	*t = v
	return nil
}

// minTime and maxTime bound the times that queries may name: the years 1 and 9999.
const (
	minTime = -62135596800000
	maxTime = 253402300799999
)

// parseTime reads milliseconds or RFC 3339.
func parseTime(s string) (Time, error) {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return Time(t.UnixMilli()), nil
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("time %q is neither whole Unix milliseconds nor RFC 3339", clipText(s))
	}
	if v < minTime || v > maxTime {
		return 0, fmt.Errorf("time %d is not within the years 1 to 9999", v)
	}
	return Time(v), nil
}

// Filter is the condition on one dimension: a plain string in JSON for equality,
// else an object of operators, all of which must hold. A series without the
// dimension has the empty value.
type Filter struct {
	Eq       *string  `json:"eq,omitempty"`
	Not      *string  `json:"not,omitempty"`
	In       []string `json:"in,omitempty"`
	NotIn    []string `json:"notIn,omitempty"`
	Regex    *string  `json:"regex,omitempty"` // RE2, matches the whole value
	NotRegex *string  `json:"notRegex,omitempty"`
}

type filterObject Filter // Filter without its methods

// UnmarshalJSON reads a string or an object of operators.
func (f *Filter) UnmarshalJSON(b []byte) error {
	*f = Filter{}
	if len(b) > 0 && b[0] == '"' {
		f.Eq = new(string)
		return json.Unmarshal(b, f.Eq)
	}
	if len(b) == 0 || b[0] != '{' {
		return errors.New("a filter must be a string or an object of operators")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode((*filterObject)(f)); err != nil {
		if name, ok := unknownField(err); ok {
			return fmt.Errorf("unknown filter operator %s: eq, not, in, notIn, regex and notRegex are known", name)
		}
		return err
	}
	if f.Eq == nil && f.Not == nil && len(f.In) == 0 && len(f.NotIn) == 0 && f.Regex == nil && f.NotRegex == nil {
		return errors.New("a filter needs at least one operator with a value")
	}
	return nil
}

// MarshalJSON writes a plain string where equality is all there is.
func (f Filter) MarshalJSON() ([]byte, error) {
	if f.Eq != nil && f.Not == nil && f.In == nil && f.NotIn == nil && f.Regex == nil && f.NotRegex == nil {
		return json.Marshal(*f.Eq)
	}
	return json.Marshal(filterObject(f))
}

// Fill says what stands in buckets without samples: nothing, null or 0.
type Fill uint8

// The fills; in JSON "none", null and 0 (or "null" and "0").
const (
	FillNone Fill = iota
	FillNull
	FillZero
)

// MarshalJSON writes "none", "null" or 0.
func (f Fill) MarshalJSON() ([]byte, error) {
	return []byte([...]string{`"none"`, `"null"`, `0`}[f]), nil
}

// UnmarshalJSON reads what MarshalJSON writes, and null and "0".
func (f *Fill) UnmarshalJSON(b []byte) error {
	switch strings.Trim(string(b), `"`) {
	case "none":
		*f = FillNone
	case "null":
		*f = FillNull
	case "0":
		*f = FillZero
	default:
		return fmt.Errorf("fill %s is not known: none, null and 0 are", clipText(string(b)))
	}
	return nil
}

// decodeQuery reads the one JSON object of a query.
func decodeQuery(r io.Reader, q *QueryRequest) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(q); err != nil {
		return queryJSONError(err)
	}
	return endOfJSON(d)
}

// endOfJSON refuses what stands behind the value that d has read.
func endOfJSON(d *json.Decoder) error {
	switch _, err := d.Token(); {
	case errors.Is(err, io.EOF):
		return nil
	case errors.Is(err, errBodyTooLarge):
		return err
	default:
		return invalidJSON("unexpected data after the end of the object at byte %d", d.InputOffset())
	}
}

// queryJSONError says what is wrong with a body and where.
func queryJSONError(err error) error {
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.Is(err, errBodyTooLarge):
		return err
	case errors.As(err, &syntax):
		return invalidJSON("the body is not valid JSON: %s at byte %d", syntax.Error(), syntax.Offset)
	case errors.As(err, &typ):
		return invalidJSON("the field %q must be %s, it is a JSON %s", typ.Field, jsonKind(typ.Type.Kind().String()), typ.Value)
	case errors.Is(err, io.EOF):
		return invalidJSON("the body is empty")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return invalidJSON("the body is cut short")
	}
	if name, ok := unknownField(err); ok {
		return invalidJSON("unknown field %s", name)
	}
	return invalidJSON("%s", strings.TrimPrefix(err.Error(), "json: "))
}

func jsonKind(goKind string) string {
	switch goKind {
	case "slice":
		return "an array"
	case "struct", "map":
		return "an object"
	case "int", "int64":
		return "a whole number"
	case "bool":
		return "true or false"
	default:
		return "a " + goKind
	}
}

// unknownField finds the quoted name of the field that encoding/json did not know.
func unknownField(err error) (string, bool) {
	const mark = "json: unknown field "
	_, name, ok := strings.Cut(err.Error(), mark)
	return name, ok
}
