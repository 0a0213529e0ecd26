package native

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

// plan is a query that was checked: what the translations to the storage's
// vocabulary work on.
type plan struct {
	kind     QueryType
	matchers []*storage.Matcher
	// start and end are the half-open range in milliseconds.
	start, end int64
	interval   *interval // nil: one value for each group
	labels     []int64   // starts of the buckets, with an interval
	edges      []int64   // edges of the Grid's windows
	aggs       []aggregation
	named      bool // the query has `aggregations`
	groupBy    []string
	fill       Fill
	order      ordering
	limit      int // 0 = none asked
	timeout    time.Duration
	lim        QueryLimits
	explain    *Explain // nil unless asked for
	reserved   *tenancy.MemoryReservation
}

// aggregation is one of a query's aggregations.
type aggregation struct {
	name     string
	agg      storage.Aggregate
	integral bool // agg over FuncIntegral instead of over the samples
}

type orderField uint8

const (
	orderKey orderField = iota
	orderValue
	orderCount
	orderTimestamp
)

type ordering struct {
	by   orderField
	agg  int // which aggregation, for orderValue
	desc bool
}

const (
	// maxAggregations bounds the aggregations of one query.
	maxAggregations = 16
	// defaultRangePoints is how many raw points a query without limit returns.
	defaultRangePoints = 10_000
	// maxBuckets bounds the buckets of a query whatever the tenant's limits are: the
	// list of their edges is made before memory can be reserved.
	maxBuckets = 1_000_000
)

// newPlan checks q and resolves its times against now.
func newPlan(q *QueryRequest, lim QueryLimits, now time.Time) (*plan, error) {
	p := &plan{kind: q.QueryType, groupBy: slices.Compact(slices.Sorted(slices.Values(q.GroupBy))), fill: q.Fill, lim: lim}
	steps := []func(*QueryRequest) error{
		p.setKind,
		func(q *QueryRequest) (err error) { p.matchers, err = matchersOf(q); return err },
		func(q *QueryRequest) error { return p.setRange(q.TimeRange, now) },
		p.setAggregations, p.setInterval, p.setOrder, p.setLimit, p.setTimeout,
	}
	for _, step := range steps {
		if err := step(q); err != nil {
			return nil, err
		}
	}
	if q.Explain {
		p.explain = newExplain(p)
	}
	return p, nil
}

func (p *plan) setKind(q *QueryRequest) error {
	switch q.QueryType {
	case QueryAggregate, QueryRate:
		if slices.Contains(p.groupBy, "") {
			return badQuery("groupBy has an empty name")
		}
		return nil
	case QueryRange:
		switch {
		case len(q.GroupBy) > 0:
			return badQuery("groupBy is for aggregate and rate, not for range")
		case q.Aggregation != "" || len(q.Aggregations) > 0:
			return badQuery("an aggregation is for aggregate and rate, not for range")
		case q.Interval != "":
			return badQuery("interval is for aggregate and rate, not for range")
		}
		return nil
	case "":
		return badQuery("queryType is missing: range, aggregate or rate")
	default:
		return badQuery("queryType %q is not known: range, aggregate and rate are", clipText(string(q.QueryType)))
	}
}

func (p *plan) setRange(r TimeRange, now time.Time) error {
	// A relative range ends with the present millisecond included: what was just
	// written is seen.
	p.end = now.UnixMilli() + 1
	switch {
	case r.Relative != "" && (r.Start != nil || r.End != nil):
		return badQuery("timeRange has relative beside start or end: they exclude each other")
	case r.Relative != "":
		d, err := parseSpan("timeRange.relative", r.Relative)
		if err != nil {
			return err
		}
		p.start = p.end - d.Milliseconds()
	case r.Start != nil:
		p.start = int64(*r.Start)
		if r.End != nil {
			p.end = int64(*r.End)
		}
	default:
		return badQuery("timeRange is missing: {\"relative\": \"1h\"}, or \"start\" and \"end\"")
	}
	if p.start >= p.end {
		return badQuery("timeRange is empty: it starts at %d and ends before %d", p.start, p.end)
	}
	if most := p.lim.MaxRange; p.end-p.start > most.Milliseconds() {
		asked := formatDays(time.Duration(p.end-p.start) * time.Millisecond)
		return overLimit("maxRange", formatDays(most), asked, "the time range spans %s, at most %s are allowed", asked, formatDays(most))
	}
	return nil
}

func (p *plan) setAggregations(q *QueryRequest) error {
	if p.kind == QueryRange {
		return nil
	}
	names := q.Aggregations
	switch {
	case q.Aggregation != "" && len(names) > 0:
		return badQuery("aggregation and aggregations exclude each other")
	case len(names) > maxAggregations:
		return overLimit("maxAggregations", maxAggregations, len(names), "the query has %d aggregations, at most %d are allowed", len(names), maxAggregations)
	case q.Aggregation != "":
		names = []string{q.Aggregation}
	case len(names) == 0 && p.kind == QueryRate:
		names = []string{"sum"}
	case len(names) == 0:
		return badQuery("aggregation is missing: avg, sum, count, min, max, stddev, first, last, integral, or a percentile as p95")
	}
	p.named = len(q.Aggregations) > 0
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return badQuery("aggregation %q stands twice", clipText(name))
		}
		a, err := parseAggregation(name)
		if err != nil {
			return err
		}
		if p.kind == QueryRate && (a.integral || a.agg.Op == storage.AggFirst || a.agg.Op == storage.AggLast || a.agg.Op == storage.AggCount) {
			return badQuery("aggregation %q does not go with rate: sum, avg, min, max, stddev and percentiles of the series' rates do", name)
		}
		p.aggs = append(p.aggs, a)
	}
	return nil
}

var aggregationOps = map[string]storage.AggOp{
	"avg": storage.AggAvg, "sum": storage.AggSum, "count": storage.AggCount, "min": storage.AggMin, "max": storage.AggMax,
	"stddev": storage.AggStddev, "first": storage.AggFirst, "last": storage.AggLast,
}

func parseAggregation(name string) (aggregation, error) {
	if op, ok := aggregationOps[name]; ok {
		return aggregation{name: name, agg: storage.Aggregate{Op: op}}, nil
	}
	if name == "integral" {
		return aggregation{name: name, agg: storage.Aggregate{Op: storage.AggSum}, integral: true}, nil
	}
	if digits, ok := strings.CutPrefix(name, "p"); ok && plainNumber(digits) {
		// The decimal point is moved in the text: 99.9 / 100 is not the float 0.999.
		if q, err := strconv.ParseFloat(digits+"e-2", 64); err == nil && q <= 1 {
			return aggregation{name: name, agg: storage.Aggregate{Op: storage.AggQuantile, Arg: q}}, nil
		}
	}
	return aggregation{}, badQuery("aggregation %q is not known: avg, sum, count, min, max, stddev, first, last, integral and percentiles from p0 to p100 (as p95 or p99.9) are", clipText(name))
}

// plainNumber tells whether s is digits with at most one point inside.
func plainNumber(s string) bool {
	whole, fraction, point := strings.Cut(s, ".")
	if len(s) > 20 || whole == "" || point && fraction == "" {
		return false
	}
	for _, c := range whole + fraction {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

func (p *plan) setInterval(q *QueryRequest) error {
	if q.Interval == "" {
		if q.Fill != FillNone {
			return badQuery("fill needs an interval")
		}
		if _, err := parseInterval("1d", q.Timezone); err != nil {
			return err
		}
		p.edges = []int64{p.start - 1, p.end - 1}
		return nil
	}
	iv, err := parseInterval(q.Interval, q.Timezone)
	if err != nil {
		return err
	}
	p.interval = &iv
	p.labels, p.edges, err = iv.buckets(p.start, p.end, min(p.lim.MaxPoints, maxBuckets))
	return err
}

func (p *plan) setOrder(q *QueryRequest) error {
	switch q.OrderBy {
	case "":
		if p.kind == QueryRange {
			p.order = ordering{by: orderTimestamp, desc: true}
		}
	case "value":
		p.order = ordering{by: orderValue, desc: true}
	case "count":
		p.order = ordering{by: orderCount, desc: true}
	case "timestamp":
		p.order = ordering{by: orderTimestamp, desc: true}
	case "key", "groupKey":
		p.order = ordering{by: orderKey}
	default:
		i := slices.IndexFunc(p.aggs, func(a aggregation) bool { return a.name == q.OrderBy })
		if i < 0 {
			return badQuery("orderBy %q is not known: value, count, key, an aggregation of the query, and for range timestamp are", clipText(q.OrderBy))
		}
		p.order = ordering{by: orderValue, agg: i, desc: true}
	}
	if (p.kind == QueryRange) != (p.order.by == orderTimestamp) {
		return badQuery("orderBy %q does not go with queryType %s", q.OrderBy, p.kind)
	}
	if p.kind == QueryRate && p.order.by == orderCount {
		return badQuery("orderBy count does not go with queryType rate")
	}
	switch q.Order {
	case "":
	case "asc":
		p.order.desc = false
	case "desc":
		p.order.desc = true
	default:
		return badQuery("order %q is not known: asc and desc are", clipText(q.Order))
	}
	return nil
}

func (p *plan) setLimit(q *QueryRequest) error {
	p.limit = q.Limit
	switch {
	case q.Limit < 0:
		return badQuery("limit %d is negative", q.Limit)
	case p.kind == QueryRange && q.Limit > p.lim.MaxPoints:
		return overLimit("maxPoints", p.lim.MaxPoints, q.Limit, "limit %d is more than the %d points that a query may return", q.Limit, p.lim.MaxPoints)
	case p.kind == QueryRange && q.Limit == 0:
		p.limit = min(defaultRangePoints, p.lim.MaxPoints)
	}
	return nil
}

func (p *plan) setTimeout(q *QueryRequest) error {
	p.timeout = p.lim.DefaultTimeout
	if q.Timeout == "" {
		return nil
	}
	d, err := parseSpan("timeout", q.Timeout)
	if err != nil {
		return err
	}
	if d > p.lim.MaxTimeout {
		return overLimit("maxTimeout", p.lim.MaxTimeout.String(), d.String(), "timeout %s is more than the %s that are allowed", d, p.lim.MaxTimeout)
	}
	p.timeout = d
	return nil
}

// singleMetric tells whether the query names one metric.
func (p *plan) singleMetric() bool {
	_, ok := storage.MetricOf(p.matchers)
	return ok
}

// steps counts the buckets.
func (p *plan) steps() int { return len(p.edges) - 1 }

// wholeRange returns the plan of the same question without an interval.
func (p *plan) wholeRange() *plan {
	q := *p
	q.interval, q.labels, q.edges = nil, nil, []int64{p.start - 1, p.end - 1}
	return &q
}
