package native

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"github.com/luminate/luminate/storage"
)

// Value is a float in an answer. JSON has no NaN and no infinities: they are the
// strings "NaN", "+Inf" and "-Inf". storage.Absent is null.
type Value float64

// MarshalJSON implements json.Marshaler.
func (v Value) MarshalJSON() ([]byte, error) { return appendValue(nil, float64(v)), nil }

func appendValue(b []byte, f float64) []byte {
	switch {
	case storage.IsStale(f):
		return append(b, "null"...)
	case math.IsNaN(f):
		return append(b, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(b, `"+Inf"`...)
	case math.IsInf(f, -1):
		return append(b, `"-Inf"`...)
	}
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(b, f, format, -1, 64)
}

// UnmarshalJSON implements json.Unmarshaler.
func (v *Value) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "null":
		*v = Value(storage.Absent)
		return nil
	case `"NaN"`:
		*v = Value(math.NaN())
		return nil
	case `"+Inf"`:
		*v = Value(math.Inf(1))
		return nil
	case `"-Inf"`:
		*v = Value(math.Inf(-1))
		return nil
	}
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return fmt.Errorf("value %s is not a number", b)
	}
	*v = Value(f)
	return nil
}

// Point is one bucket of a group: its start and a value for each aggregation. In
// JSON it is an array, [ms, value, …].
type Point struct {
	T      int64
	Values []Value
}

// MarshalJSON implements json.Marshaler.
func (p Point) MarshalJSON() ([]byte, error) {
	b := append(make([]byte, 0, 40), '[')
	b = strconv.AppendInt(b, p.T, 10)
	for _, v := range p.Values {
		b = appendValue(append(b, ','), float64(v))
	}
	return append(b, ']'), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *Point) UnmarshalJSON(b []byte) error {
	var raw []json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	if len(raw) == 0 {
		return fmt.Errorf("a point needs a time")
	}
	t, err := strconv.ParseInt(string(raw[0]), 10, 64)
	if err != nil {
		return fmt.Errorf("time of a point: %w", err)
	}
	p.T, p.Values = t, make([]Value, len(raw)-1)
	for i := range p.Values {
		if err := p.Values[i].UnmarshalJSON(raw[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// Row is one result of an aggregate or rate query: a group. Without interval it
// has Value, with one it has Points; Values holds every aggregation by name where
// the query named them as `aggregations`.
type Row struct {
	GroupKey map[string]string `json:"groupKey"`
	Value    *Value            `json:"value,omitempty"`
	Values   map[string]Value  `json:"values,omitempty"`
	Points   []Point           `json:"points,omitempty"`
	Count    *uint64           `json:"count,omitempty"` // samples; not for rate
}

// RawPoint is one result of a range query.
type RawPoint struct {
	Timestamp  int64             `json:"timestamp"`
	Value      Value             `json:"value"`
	Metric     string            `json:"metric,omitempty"` // only where the query does not name one metric
	Dimensions map[string]string `json:"dimensions"`
}

// QueryResponse is the answer to a query; R is Row or RawPoint.
type QueryResponse[R any] struct {
	QueryType QueryType `json:"queryType"`
	Results   []R       `json:"results"`
	// Aggregations names the values of each point, where the query named them as
	// `aggregations`.
	Aggregations    []string `json:"aggregations,omitempty"`
	ExecutionTimeMs float64  `json:"executionTimeMs"`
	Truncated       bool     `json:"truncated"`
	Explain         *Explain `json:"explain,omitempty"`
}
