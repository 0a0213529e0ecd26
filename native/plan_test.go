package native

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

func jsonDecode(s string, v any) error { return json.Unmarshal([]byte(s), v) }

// query makes a good query but for the fields that are replaced or added, as JSON.
func queryWith(fields ...string) string {
	m := map[string]json.RawMessage{
		"queryType": json.RawMessage(`"aggregate"`), "metricName": json.RawMessage(`"m"`),
		"timeRange": json.RawMessage(`{"relative":"1h"}`), "aggregation": json.RawMessage(`"sum"`),
	}
	for i := 0; i < len(fields); i += 2 {
		if fields[i+1] == "" {
			delete(m, fields[i])
			continue
		}
		m[fields[i]] = json.RawMessage(fields[i+1])
	}
	return mustJSON(m)
}

func TestQueryRefusals(t *testing.T) {
	many := func(n int) string {
		var s []string
		for i := range n {
			s = append(s, fmt.Sprintf(`"p%d"`, i))
		}
		return "[" + strings.Join(s, ",") + "]"
	}
	for _, c := range []struct {
		body   string
		status int
		code   Code
		says   string
	}{
		{``, 400, CodeInvalidJSON, "empty"},
		{`{`, 400, CodeInvalidJSON, "cut short"},
		{`{]`, 400, CodeInvalidJSON, "at byte 2"},
		{`[]`, 400, CodeInvalidJSON, "array"},
		{queryWith() + `{}`, 400, CodeInvalidJSON, "after the end"},
		{queryWith() + `]`, 400, CodeInvalidJSON, "after the end"},
		{queryWith("metric", `"m"`), 400, CodeInvalidJSON, `unknown field "metric"`},
		{queryWith("timeRange", `{"from":1}`), 400, CodeInvalidJSON, `unknown field "from"`},
		{queryWith("limit", `"5"`), 400, CodeInvalidJSON, `"limit" must be a whole number, it is a JSON string`},
		{queryWith("limit", `1.5`), 400, CodeInvalidJSON, "whole number"},
		{queryWith("groupBy", `"k"`), 400, CodeInvalidJSON, "an array"},
		{queryWith("timeRange", `"1h"`), 400, CodeInvalidJSON, "an object"},
		{queryWith("timeRange", `{"start":"yesterday"}`), 400, CodeInvalidJSON, "neither whole Unix milliseconds nor RFC 3339"},
		{queryWith("timeRange", `{"start":1.5}`), 400, CodeInvalidJSON, "neither"},
		{queryWith("timeRange", `{"start":9e99}`), 400, CodeInvalidJSON, "neither"},
		{queryWith("timeRange", `{"start":253402300800000}`), 400, CodeInvalidJSON, "years 1 to 9999"},
		{queryWith("filters", `{"a":7}`), 400, CodeInvalidJSON, "string or an object"},
		{queryWith("filters", `{"a":{"like":"x"}}`), 400, CodeInvalidJSON, `unknown filter operator "like"`},
		{queryWith("filters", `{"a":{}}`), 400, CodeInvalidJSON, "at least one operator"},
		{queryWith("filters", `{"a":{"in":[]}}`), 400, CodeInvalidJSON, "at least one operator"},
		{queryWith("fill", `7`), 400, CodeInvalidJSON, "fill 7 is not known"},
		{queryWith("queryType", ``), 400, CodeInvalidQuery, "queryType is missing"},
		{queryWith("queryType", `"topk"`), 400, CodeInvalidQuery, `"topk" is not known`},
		{queryWith("metricName", ``), 400, CodeInvalidQuery, "metricName is missing"},
		{queryWith("selector", `"m"`), 400, CodeInvalidQuery, "exclude each other"},
		{queryWith("metricName", ``, "selector", `"m{"`), 400, CodeInvalidQuery, "selector"},
		{queryWith("metricName", ``, "selector", `"{a=\"\"}"`), 400, CodeInvalidQuery, "at least one matcher"},
		{queryWith("metricName", ``, "selector", `"rate(m[5m])"`), 400, CodeInvalidQuery, "selector"},
		{queryWith("filters", `{"a":{"regex":"("}}`), 400, CodeInvalidQuery, `filter on "a"`},
		{queryWith("filters", `{"a":{"regex":"`+strings.Repeat("x", 5000)+`"}}`), 400, CodeInvalidQuery, "5000 bytes"},
		{queryWith("filters", `{"":"x"}`), 400, CodeInvalidQuery, "empty name"},
		{queryWith("filters", `{"a":{"in":`+many(1001)+`}}`), 400, CodeInvalidQuery, "1001 values"},
		{queryWith("timeRange", ``), 400, CodeInvalidQuery, "timeRange is missing"},
		{queryWith("timeRange", `{"end":5}`), 400, CodeInvalidQuery, "timeRange is missing"},
		{queryWith("timeRange", `{"relative":"1h","start":5}`), 400, CodeInvalidQuery, "exclude each other"},
		{queryWith("timeRange", `{"relative":"-1h"}`), 400, CodeInvalidQuery, "not a duration"},
		{queryWith("timeRange", `{"relative":"0"}`), 400, CodeInvalidQuery, "not a duration"},
		{queryWith("timeRange", `{"relative":"last week"}`), 400, CodeInvalidQuery, "not a duration"},
		{queryWith("timeRange", `{"start":5,"end":5}`), 400, CodeInvalidQuery, "timeRange is empty"},
		{queryWith("timeRange", `{"relative":"91d"}`), 422, CodeQueryTooLarge, "spans 91d, at most 90d"},
		{queryWith("aggregation", ``), 400, CodeInvalidQuery, "aggregation is missing"},
		{queryWith("aggregation", `"median"`), 400, CodeInvalidQuery, `"median" is not known`},
		{queryWith("aggregation", `"p101"`), 400, CodeInvalidQuery, `"p101" is not known`},
		{queryWith("aggregation", `"p-1"`), 400, CodeInvalidQuery, `"p-1" is not known`},
		{queryWith("aggregation", `"p9e1"`), 400, CodeInvalidQuery, `"p9e1" is not known`},
		{queryWith("aggregation", `"p"`), 400, CodeInvalidQuery, `"p" is not known`},
		{queryWith("aggregation", `"p9."`), 400, CodeInvalidQuery, `"p9." is not known`},
		{queryWith("aggregations", `["avg"]`), 400, CodeInvalidQuery, "exclude each other"},
		{queryWith("aggregation", ``, "aggregations", `["avg","avg"]`), 400, CodeInvalidQuery, "stands twice"},
		{queryWith("aggregation", ``, "aggregations", many(17)), 422, CodeQueryTooLarge, "17 aggregations, at most 16"},
		{queryWith("queryType", `"rate"`, "aggregation", `"integral"`), 400, CodeInvalidQuery, "does not go with rate"},
		{queryWith("queryType", `"range"`), 400, CodeInvalidQuery, "not for range"},
		{queryWith("queryType", `"range"`, "aggregation", ``, "groupBy", `["a"]`), 400, CodeInvalidQuery, "not for range"},
		{queryWith("queryType", `"range"`, "aggregation", ``, "interval", `"5m"`), 400, CodeInvalidQuery, "not for range"},
		{queryWith("queryType", `"range"`, "aggregation", ``, "limit", `10001`), 422, CodeQueryTooLarge, "limit 10001"},
		{queryWith("queryType", `"range"`, "aggregation", ``, "orderBy", `"value"`), 400, CodeInvalidQuery, "does not go with"},
		{queryWith("groupBy", `[""]`), 400, CodeInvalidQuery, "empty name"},
		{queryWith("interval", `"5 minutes"`), 400, CodeInvalidQuery, "not a duration"},
		{queryWith("interval", `"0s"`), 400, CodeInvalidQuery, "not a duration"},
		{queryWith("interval", `"100ms"`), 422, CodeQueryTooLarge, "at most 10000"},
		{queryWith("interval", `"1d"`, "timezone", `"Mars/Olympus"`), 400, CodeInvalidQuery, "timezone"},
		{queryWith("timezone", `"Local"`), 400, CodeInvalidQuery, "timezone"},
		{queryWith("interval", `"1d"`, "timezone", `"../../etc/passwd"`), 400, CodeInvalidQuery, "timezone"},
		{queryWith("fill", `0`), 400, CodeInvalidQuery, "fill needs an interval"},
		{queryWith("orderBy", `"p95"`), 400, CodeInvalidQuery, `orderBy "p95" is not known`},
		{queryWith("orderBy", `"timestamp"`), 400, CodeInvalidQuery, "does not go with"},
		{queryWith("queryType", `"rate"`, "orderBy", `"count"`), 400, CodeInvalidQuery, "does not go with"},
		{queryWith("order", `"down"`), 400, CodeInvalidQuery, "asc and desc"},
		{queryWith("limit", `-1`), 400, CodeInvalidQuery, "negative"},
		{queryWith("timeout", `"soon"`), 400, CodeInvalidQuery, "not a duration"},
		{queryWith("timeout", `"31s"`), 422, CodeQueryTooLarge, "timeout 31s is more than the 30s"},
		{strings.Repeat(" ", 2<<20) + queryWith(), 413, CodeBatchTooLarge, "larger than"},
	} {
		w := newFixture(t).query(c.body)
		e := wantError(t, w, c.status, c.code)
		if !strings.Contains(e.Message, c.says) {
			t.Errorf("%.200s: %q does not say %q", c.body, e.Message, c.says)
		}
		if c.status == 422 && (e.Details["limit"] == nil || e.Details["max"] == nil || e.Details["asked"] == nil) {
			t.Errorf("%.200s: details %v", c.body, e.Details)
		}
	}
	wantError(t, newFixture(t).do("POST", "/api/v1/query", queryWith(), "Content-Type", "text/plain"), 415, CodeInvalidJSON)
	wantError(t, newFixture(t).do("POST", "/api/v1/query?explain=maybe", queryWith(), "Content-Type", "application/json"), 400, CodeInvalidQuery)
}

func TestGroupLimitCountsAfterLimit(t *testing.T) {
	f := newFixture(t)
	f.fill(func(b *storage.Batch) {
		for i := range 1500 {
			b.Add(storage.LabelsFromStrings("__name__", "m", "k", fmt.Sprintf("v%04d", i)), storage.Sample{T: day, V: float64(i)})
		}
	})
	body := func(more string) string {
		return `{"queryType":"aggregate","metricName":"m",` + span10m + `,"aggregation":"sum","groupBy":["k"]` + more + `}`
	}
	for _, more := range []string{``, `,"limit":1001`, `,"interval":"1m"`, `,"interval":"1m","limit":1400`} {
		e := wantError(t, f.query(body(more)), 422, CodeQueryTooLarge)
		if e.Details["limit"] != "maxGroups" || e.Details["max"] != 1000.0 {
			t.Errorf("%s: %v", more, e.Details)
		}
	}
	for _, more := range []string{`,"limit":1000`, `,"orderBy":"value","limit":100`, `,"orderBy":"value","limit":100,"interval":"1m"`} {
		got := want[QueryResponse[Row]](t, f.query(body(more)), 200)
		if !got.Truncated || len(got.Results) < 100 {
			t.Errorf("%s: %d groups, truncated %v", more, len(got.Results), got.Truncated)
		}
		if strings.Contains(more, "value") && got.Results[0].GroupKey["k"] != "v1499" {
			t.Errorf("%s: first is %v", more, got.Results[0].GroupKey)
		}
	}
	small := newFixtureOver(t, f.store, func(c *Config) { c.Query.MaxEvaluated = 1000 })
	e := wantError(t, small.query(body(`,"limit":5`)), 422, CodeQueryTooLarge)
	if e.Details["limit"] != "max-groups-per-query" {
		t.Errorf("%v", e.Details)
	}
}

func TestNarrowedGroups(t *testing.T) {
	// Values that need quoting, a missing dimension, and two grouping labels whose
	// combinations are fewer than their product.
	f := newFixture(t)
	f.fill(func(b *storage.Batch) {
		for i, ls := range [][]string{{"a", "x.*", "b", "1"}, {"a", "x|y", "b", "2"}, {"b", "2"}, {"a", "x.*", "b", "2"}, {"a", "x", "b", "1"}} {
			b.Add(storage.LabelsFromStrings(append([]string{"__name__", "m"}, ls...)...), storage.Sample{T: day, V: float64(10 - i)}, storage.Sample{T: day + 5*minute, V: 1})
		}
	})
	got := want[QueryResponse[Row]](t, f.query(`{"queryType":"aggregate","metricName":"m",`+span10m+`,"aggregation":"max","groupBy":["b","a","a"],"interval":"5m","orderBy":"value","limit":3}`), 200)
	if r := mustJSON(got.Results); r != `[{"groupKey":{"a":"x.*","b":"1"},"points":[[1735603200000,10],[1735603500000,1]],"count":2},`+
		`{"groupKey":{"a":"x|y","b":"2"},"points":[[1735603200000,9],[1735603500000,1]],"count":2},`+
		`{"groupKey":{"a":"","b":"2"},"points":[[1735603200000,8],[1735603500000,1]],"count":2}]` {
		t.Errorf("%s", r)
	}
}

func TestIntervals(t *testing.T) {
	at := func(s string) int64 {
		x, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return x.UnixMilli()
	}
	for _, c := range []struct{ interval, zone, t, floor, next string }{
		{"5m", "", "2024-12-31T12:34:56Z", "2024-12-31T12:30:00Z", "2024-12-31T12:35:00Z"},
		{"1h30m", "", "1970-01-01T02:00:00Z", "1970-01-01T01:30:00Z", "1970-01-01T03:00:00Z"},
		{"5m", "", "1969-12-31T23:59:59Z", "1969-12-31T23:55:00Z", "1970-01-01T00:00:00Z"},
		{"1d", "", "2024-12-31T12:34:56Z", "2024-12-31T00:00:00Z", "2025-01-01T00:00:00Z"},
		{"1d", "Europe/Berlin", "2024-12-31T23:34:56Z", "2024-12-31T23:00:00Z", "2025-01-01T23:00:00Z"},
		{"1d", "Europe/Berlin", "2024-03-31T12:00:00Z", "2024-03-30T23:00:00Z", "2024-03-31T22:00:00Z"},    // 23 hours
		{"1d", "America/New_York", "2024-11-03T12:00:00Z", "2024-11-03T04:00:00Z", "2024-11-04T05:00:00Z"}, // 25 hours
		{"1d", "", "1969-12-31T12:00:00Z", "1969-12-31T00:00:00Z", "1970-01-01T00:00:00Z"},
		{"2d", "", "1970-01-04T12:00:00Z", "1970-01-03T00:00:00Z", "1970-01-05T00:00:00Z"},
		{"1w", "", "2024-12-31T12:00:00Z", "2024-12-30T00:00:00Z", "2025-01-06T00:00:00Z"}, // Monday
		{"7d", "", "2024-12-31T12:00:00Z", "2024-12-30T00:00:00Z", "2025-01-06T00:00:00Z"},
		{"1w", "Asia/Tokyo", "2024-12-29T16:00:00Z", "2024-12-29T15:00:00Z", "2025-01-05T15:00:00Z"},
		{"1M", "", "2024-02-29T12:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"},
		{"1M", "Europe/Berlin", "2024-12-31T23:30:00Z", "2024-12-31T23:00:00Z", "2025-01-31T23:00:00Z"},
		{"3M", "", "2024-12-31T12:00:00Z", "2024-10-01T00:00:00Z", "2025-01-01T00:00:00Z"},
		{"5M", "", "1969-12-31T12:00:00Z", "1969-08-01T00:00:00Z", "1970-01-01T00:00:00Z"},
	} {
		iv, err := parseInterval(c.interval, c.zone)
		if err != nil {
			t.Fatal(err)
		}
		show := func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
		floor := iv.floor(at(c.t))
		if floor != at(c.floor) || iv.next(floor) != at(c.next) || iv.floor(floor) != floor {
			t.Errorf("%s %s at %s: [%s, %s), want [%s, %s)", c.interval, c.zone, c.t, show(floor), show(iv.next(floor)), c.floor, c.next)
		}
		if w := iv.next(floor) - floor; w < iv.shortest() {
			t.Errorf("%s: %d is shorter than the shortest, %d", c.interval, w, iv.shortest())
		}
	}
}

func TestMonthsInATimeZone(t *testing.T) {
	f := newFixture(t)
	f.fill(func(b *storage.Batch) {
		b.Add(storage.LabelsFromStrings("__name__", "m"),
			storage.Sample{T: time.Date(2024, 12, 9, 23, 30, 0, 0, time.UTC).UnixMilli(), V: 1}, // the 10th in Berlin
			storage.Sample{T: day, V: 2})
	})
	got := want[QueryResponse[Row]](t, f.query(`{"queryType":"aggregate","metricName":"m","timeRange":{"start":"2024-11-15T00:00:00Z","end":"2025-01-01T00:00:00Z"},"aggregation":"count","interval":"1M","timezone":"Europe/Berlin","fill":0}`), 200)
	if p := mustJSON(got.Results[0].Points); p != `[[1730415600000,0],[1733007600000,2],[1735686000000,0]]` {
		t.Errorf("months %s", p)
	}
	got = want[QueryResponse[Row]](t, f.query(`{"queryType":"aggregate","metricName":"m","timeRange":{"start":"2024-12-08T23:00:00Z","end":"2024-12-10T23:00:00Z"},"aggregation":"count","interval":"1d","timezone":"Europe/Berlin"}`), 200)
	if p := mustJSON(got.Results[0].Points); p != fmt.Sprintf(`[[%d,1]]`, time.Date(2024, 12, 9, 23, 0, 0, 0, time.UTC).UnixMilli()) {
		t.Errorf("days %s", p)
	}
}

func TestRelativeRangeSeesThePresent(t *testing.T) {
	f := newFixture(t)
	now := testNow.UnixMilli()
	f.fill(func(b *storage.Batch) {
		b.Add(storage.LabelsFromStrings("__name__", "m"), storage.Sample{T: now - 3600_000, V: 1}, storage.Sample{T: now - 3600_000 + 1, V: 2}, storage.Sample{T: now, V: 4})
	})
	for body, wanted := range map[string]float64{`{"relative":"1h"}`: 6, `{"start":` + fmt.Sprint(now-3600_000) + `}`: 7, `{"start":0,"end":1}`: 0} {
		got := want[QueryResponse[Row]](t, f.query(queryWith("timeRange", body)), 200)
		sum := 0.0
		if len(got.Results) > 0 {
			sum = float64(*got.Results[0].Value)
		}
		if sum != wanted {
			t.Errorf("%s: %v, want %v", body, sum, wanted)
		}
	}
}

// unsupported answers no grid.
func unsupported(next storage.Store) *storagetest.Faulty {
	return storagetest.NewFaulty(next, func(method string) storagetest.Fault {
		if method == "Evaluate" {
			return storagetest.Fault{Err: storage.Errorf(storage.KindUnsupported, "evaluate", "not exact here")}
		}
		return storagetest.Fault{}
	})
}

func TestFallbackGivesTheSameAnswers(t *testing.T) {
	f := newFixture(t)
	latencies(f)
	g := newFixtureOver(t, unsupported(f.store))
	for _, more := range []string{
		`"aggregations":["avg","sum","p95","integral","first","last","stddev"]`, `"aggregation":"max","groupBy":["endpoint"],"interval":"1m","fill":null`,
		`"aggregation":"min","groupBy":["customer_id"],"interval":"2m","orderBy":"value","limit":1`,
	} {
		a, b := aggregateOf(t, f, more), aggregateOf(t, g, more)
		if mustJSON(a.Results) != mustJSON(b.Results) {
			t.Errorf("%s: %s, by the store %s", more, mustJSON(b.Results), mustJSON(a.Results))
		}
	}
	got := aggregateOf(t, g, `"aggregation":"sum","explain":true`)
	if p := got.Explain.Parts[0]; p.Call != "select" || !strings.Contains(p.Fallback, "not exact here") || p.Series != 3 {
		t.Errorf("%+v", p)
	}
}

func TestNativeHistogramsAreNotSilentlyLeftOut(t *testing.T) {
	f := newFixture(t)
	f.fill(func(b *storage.Batch) {
		b.AddHistograms(storage.LabelsFromStrings("__name__", "m"), storage.HistogramSample{T: testNow.UnixMilli() - 1, H: &histogram.Histogram{Schema: 1, Count: 1, ZeroThreshold: 0.1, ZeroCount: 1}})
	})
	for _, body := range []string{queryWith(), queryWith("queryType", `"rate"`), queryWith("queryType", `"range"`, "aggregation", "")} {
		if e := wantError(t, f.query(body), 422, CodeInvalidQuery); !strings.Contains(e.Message, "native histograms") {
			t.Error(e.Message)
		}
	}
}

func TestExplain(t *testing.T) {
	f := newFixture(t)
	latencies(f)
	for body, wanted := range map[string]string{
		`"queryType":"aggregate","aggregation":"avg","groupBy":["customer_id","strange-key"]`: `sum by (customer_id, "strange-key") (sum_over_time({__name__="api_latency"}[10m])) / sum by (customer_id, "strange-key") (count_over_time({__name__="api_latency"}[10m]))`,
		`"queryType":"aggregate","aggregation":"max","interval":"5m"`:                         `max(max_over_time({__name__="api_latency"}[5m]))`,
		`"queryType":"aggregate","aggregation":"count","filters":{"endpoint":"/x"}`:           `sum(count_over_time({__name__="api_latency",endpoint="/x"}[10m]))`,
		`"queryType":"range"`:                                         `{__name__="api_latency"}[10m]`,
		`"queryType":"aggregate","aggregation":"p95"`:                 "",
		`"queryType":"aggregate","aggregation":"integral"`:            "",
		`"queryType":"aggregate","aggregations":["avg","max"]`:        "",
		`"queryType":"aggregate","aggregation":"sum","interval":"1M"`: "",
		`"queryType":"rate"`:                                          "",
	} {
		w := f.query(`{"metricName":"api_latency",` + span10m + `,"explain":true,` + body + `}`)
		var got struct{ Explain Explain }
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
			t.Fatalf("%s: %d %s", body, w.Code, w.Body)
		}
		e := got.Explain
		if len(e.Parts) == 0 || e.Parts[0].Samples == 0 || e.Buckets == 0 {
			t.Errorf("%s: %+v", body, e)
		}
		switch {
		case wanted == "" && (e.PromQL != nil || e.Note == ""):
			t.Errorf("%s: PromQL %+v, note %q", body, e.PromQL, e.Note)
		case wanted != "" && (e.PromQL == nil || strings.ReplaceAll(e.PromQL.Query, ", endpoint", ",endpoint") != wanted):
			t.Errorf("%s: %+v, want %s", body, e.PromQL, wanted)
		}
	}
	w := f.do("POST", "/api/v1/query?explain=1", queryWith("interval", `"5m"`), "Content-Type", "application/json")
	var got struct{ Explain Explain }
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Explain.PromQL == nil || !strings.Contains(got.Explain.Note, "does not begin and end with a bucket") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestModelsRoundTrip encodes and decodes every shape of the API.
func TestModelsRoundTrip(t *testing.T) {
	s, n, v := "x", uint64(3), Value(1.5)
	start := Time(5)
	for _, m := range []any{
		&WriteRequest{Source: "p", Metrics: []WriteMetric{{Name: "m", Timestamp: 5, Value: 1.5, Dimensions: map[string]string{"a": "b"}}}},
		&WriteResponse{Accepted: 1, Rejected: 1, Adjusted: 2, Errors: []RefusedMetric{{1, "m", CodeInvalidValue, "why"}}},
		&QueryRequest{QueryType: QueryAggregate, MetricName: "m", TimeRange: TimeRange{Start: &start}, Fill: FillZero, Aggregations: []string{"avg"}, Limit: 3,
			Filters: map[string]Filter{"a": {Eq: &s}, "b": {In: []string{"x"}, Not: &s}, "c": {Regex: &s, NotRegex: &s, NotIn: []string{"y"}}}},
		&QueryRequest{QueryType: QueryRange, Selector: "m", TimeRange: TimeRange{Relative: "1h"}, Fill: FillNull},
		&QueryResponse[Row]{QueryType: QueryAggregate, Results: []Row{{GroupKey: map[string]string{"a": "b"}, Value: &v, Count: &n, Values: map[string]Value{"avg": v}}, {GroupKey: map[string]string{}, Points: []Point{{5, []Value{1, 2}}}}}},
		&QueryResponse[RawPoint]{QueryType: QueryRange, Results: []RawPoint{{1, v, "m", map[string]string{}}}, Truncated: true},
		&ErrorResponse{Error: &Error{Code: CodeInternal, Message: "x", Details: map[string]any{"a": "b"}}},
		&Receipt{ID: "d", State: storage.DeleteHidden, CreatedAt: testNow},
		&RefusedResponse{Refused: []Refusal{{Time: testNow, Source: "native", Limit: "l", Setting: "s"}}},
		&TenantInfo{Tenant: "t", LastWrite: &testNow},
		&Whoami{Tenant: "t", Matchers: []string{"a"}},
	} {
		b := mustJSON(m)
		back := reflect.New(reflect.TypeOf(m).Elem()).Interface()
		if err := json.Unmarshal([]byte(b), back); err != nil {
			t.Errorf("%s: %v", b, err)
		}
		if !reflect.DeepEqual(m, back) {
			t.Errorf("%s comes back as %s", b, mustJSON(back))
		}
	}
	for _, f := range []float64{0, math.Copysign(0, -1), 1, -1.5, 1e-7, 1e21, math.MaxFloat64, math.SmallestNonzeroFloat64, math.Inf(1), math.Inf(-1), math.NaN(), storage.Absent} {
		var back Value
		if err := json.Unmarshal([]byte(mustJSON(Value(f))), &back); err != nil || math.Float64bits(float64(back)) != math.Float64bits(f) && !math.IsNaN(f) || storage.IsStale(f) != storage.IsStale(float64(back)) {
			t.Errorf("%v comes back as %v, %v", f, back, err)
		}
	}
	var p Point
	for _, bad := range []string{`[]`, `{}`, `["x"]`, `[1,true]`} {
		if json.Unmarshal([]byte(bad), &p) == nil {
			t.Errorf("%s is no point", bad)
		}
	}
	var ff Fill
	for _, text := range []string{`"0"`, `0`, `null`, `"null"`, `"none"`} {
		if err := ff.UnmarshalJSON([]byte(text)); err != nil {
			t.Error(err)
		}
	}
}
