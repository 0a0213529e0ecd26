package native

import (
	"compress/gzip"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/luminate/luminate/storage"
)

// day is 2024-12-31T00:00:00Z.
const day = ms

const minute = 60_000

// latencies fills api_latency: customer a at /x and /y, b at /x, a minute apart.
func latencies(f *fixture) {
	f.fill(func(b *storage.Batch) {
		add := func(customer, endpoint string, vs ...float64) {
			var samples []storage.Sample
			for i, v := range vs {
				samples = append(samples, storage.Sample{T: day + int64(i)*minute, V: v})
			}
			b.Add(storage.LabelsFromStrings("__name__", "api_latency", "customer_id", customer, "endpoint", endpoint), samples...)
		}
		add("a", "/x", 1, 2, 3, 4)
		add("a", "/y", 10, 20)
		add("b", "/x", 100, 300, storage.StaleNaN)
	})
}

const span10m = `"timeRange":{"start":1735603200000,"end":1735603800000}`

func aggregateOf(t *testing.T, f *fixture, body string) QueryResponse[Row] {
	t.Helper()
	return want[QueryResponse[Row]](t, f.query(`{"queryType":"aggregate","metricName":"api_latency",`+span10m+`,`+body+`}`), 200)
}

func TestAggregateFunctions(t *testing.T) {
	f := newFixture(t)
	latencies(f)
	for name, wanted := range map[string]float64{
		"avg": 55, "sum": 440, "count": 8, "min": 1, "max": 300, "first": 100, "last": 4,
		"p0": 1, "p50": 7, "p90": 160, "p95": 230, "p99": 286, "p99.9": 298.6, "p100": 300,
		"stddev": math.Sqrt((54*54 + 53*53 + 52*52 + 51*51 + 45*45 + 35*35 + 45*45 + 245*245) / 8.0),
		// value × seconds: a/x 7.5×60, a/y 15×60, b/x 200×60.
		"integral": 450 + 900 + 12_000,
	} {
		got := aggregateOf(t, f, `"aggregation":"`+name+`"`)
		if len(got.Results) != 1 {
			t.Fatalf("%s: %+v", name, got)
		}
		r := got.Results[0]
		if math.Abs(float64(*r.Value)-wanted) > 1e-9 || *r.Count != 8 || len(r.GroupKey) != 0 {
			t.Errorf("%s: value %v, want %v; count %d", name, *r.Value, wanted, *r.Count)
		}
	}
}

func TestAggregateSeveralInOnePass(t *testing.T) {
	f := newFixture(t)
	latencies(f)
	got := aggregateOf(t, f, `"aggregations":["avg","p50","integral","count"],"groupBy":["customer_id"]`)
	if mustJSON(got.Results) != `[{"groupKey":{"customer_id":"a"},"value":6.666666666666667,"values":{"avg":6.666666666666667,"count":6,"integral":1350,"p50":3.5},"count":6},`+
		`{"groupKey":{"customer_id":"b"},"value":200,"values":{"avg":200,"count":2,"integral":12000,"p50":200},"count":2}]` {
		t.Errorf("%s", mustJSON(got.Results))
	}
	got = aggregateOf(t, f, `"aggregations":["min","max"],"interval":"2m"`)
	if mustJSON(got.Results[0].Points) != `[[1735603200000,1,300],[1735603320000,3,4]]` {
		t.Errorf("%s", mustJSON(got.Results[0].Points))
	}
	if mustJSON(got.Aggregations) != `["min","max"]` {
		t.Errorf("aggregations %v", got.Aggregations)
	}
}

func TestBucketsAreHalfOpen(t *testing.T) {
	f := newFixture(t)
	f.fill(func(b *storage.Batch) {
		b.Add(storage.LabelsFromStrings("__name__", "m"),
			storage.Sample{T: day - 1, V: 1}, storage.Sample{T: day, V: 2}, storage.Sample{T: day + minute - 1, V: 4},
			storage.Sample{T: day + minute, V: 8}, storage.Sample{T: day + 2*minute, V: 16})
	})
	for body, wanted := range map[string]string{
		`"timeRange":{"start":1735603200000,"end":1735603320000},"interval":"1m"`:               `[[1735603200000,6],[1735603260000,8]]`,
		`"timeRange":{"start":1735603199999,"end":1735603320001},"interval":"1m"`:               `[[1735603140000,1],[1735603200000,6],[1735603260000,8],[1735603320000,16]]`,
		`"timeRange":{"start":"2024-12-31T00:00:30Z","end":1735603320000},"interval":"1m"`:      `[[1735603200000,4],[1735603260000,8]]`,
		`"timeRange":{"start":1735603080000,"end":1735603320000},"interval":"1m","fill":null`:   `[[1735603080000,null],[1735603140000,1],[1735603200000,6],[1735603260000,8]]`,
		`"timeRange":{"start":1735603080000,"end":1735603320000},"interval":"1m","fill":0`:      `[[1735603080000,0],[1735603140000,1],[1735603200000,6],[1735603260000,8]]`,
		`"timeRange":{"start":1735603080000,"end":1735603320000},"interval":"1m","fill":"none"`: `[[1735603140000,1],[1735603200000,6],[1735603260000,8]]`,
	} {
		got := want[QueryResponse[Row]](t, f.query(`{"queryType":"aggregate","metricName":"m","aggregation":"sum",`+body+`}`), 200)
		if p := mustJSON(got.Results[0].Points); p != wanted {
			t.Errorf("%s: %s, want %s", body, p, wanted)
		}
	}
}

func TestRateCountsResetsAndPredecessors(t *testing.T) {
	f := newFixture(t)
	f.fill(func(b *storage.Batch) {
		b.Add(storage.LabelsFromStrings("__name__", "c", "pod", "1"),
			storage.Sample{T: day - minute, V: 100}, storage.Sample{T: day, V: 160}, storage.Sample{T: day + minute, V: 30})
		b.Add(storage.LabelsFromStrings("__name__", "c", "pod", "2"),
			storage.Sample{T: day, V: 0}, storage.Sample{T: day + minute, V: 6}, storage.Sample{T: day + 2*minute, V: 12})
	})
	for body, wanted := range map[string]string{
		`"interval":"2m"`:                     `[{"groupKey":{},"points":[[1735603200000,0.8],[1735603320000,0.05]]}]`,
		``:                                    `[{"groupKey":{},"value":0.16999999999999998}]`,
		`"groupBy":["pod"],"orderBy":"value"`: `[{"groupKey":{"pod":"1"},"value":0.15},{"groupKey":{"pod":"2"},"value":0.02}]`,
		`"aggregations":["sum","max"]`:        `[{"groupKey":{},"value":0.16999999999999998,"values":{"max":0.15,"sum":0.16999999999999998}}]`,
		`"interval":"10m","groupBy":["pod"],"fill":"null"`: `[{"groupKey":{"pod":"1"},"points":[[1735603200000,0.15]]},{"groupKey":{"pod":"2"},"points":[[1735603200000,0.02]]}]`,
	} {
		if body != "" {
			body = "," + body
		}
		got := want[QueryResponse[Row]](t, f.query(`{"queryType":"rate","metricName":"c",`+span10m+body+`}`), 200)
		if r := mustJSON(got.Results); r != wanted {
			t.Errorf("%s: %s, want %s", body, r, wanted)
		}
	}
}

func TestRangeReturnsTheNewest(t *testing.T) {
	f := newFixture(t)
	latencies(f)
	ask := func(body string) QueryResponse[RawPoint] {
		return want[QueryResponse[RawPoint]](t, f.query(`{"queryType":"range",`+span10m+`,`+body+`}`), 200)
	}
	got := ask(`"metricName":"api_latency","filters":{"customer_id":"a"},"limit":3`)
	if r := mustJSON(got.Results); !got.Truncated || r != `[{"timestamp":1735603380000,"value":4,"dimensions":{"customer_id":"a","endpoint":"/x"}},`+
		`{"timestamp":1735603320000,"value":3,"dimensions":{"customer_id":"a","endpoint":"/x"}},`+
		`{"timestamp":1735603260000,"value":2,"dimensions":{"customer_id":"a","endpoint":"/x"}}]` {
		t.Errorf("%v %s", got.Truncated, r)
	}
	got = ask(`"metricName":"api_latency","limit":3,"order":"asc"`)
	if len(got.Results) != 3 || got.Results[0].Timestamp != day+minute || got.Results[2].Value != 4 {
		t.Errorf("%+v", got)
	}
	got = ask(`"selector":"{customer_id=\"b\"}"`)
	if got.Truncated || len(got.Results) != 2 || got.Results[0].Metric != "api_latency" || got.Results[0].Value != 300 {
		t.Errorf("%+v", got)
	}
	if got = ask(`"metricName":"nothing"`); got.Results == nil || len(got.Results) != 0 || got.Truncated {
		t.Errorf("%+v", got)
	}
}

func TestOrderAndLimit(t *testing.T) {
	f := newFixture(t)
	f.fill(func(b *storage.Batch) {
		for i, v := range []float64{5, math.NaN(), 7, 7, math.Inf(1), -1} {
			b.Add(storage.LabelsFromStrings("__name__", "m", "k", string(rune('a'+i))), storage.Sample{T: day, V: v}, storage.Sample{T: day + minute, V: v})
		}
	})
	keys := func(body string) (string, bool) {
		got := want[QueryResponse[Row]](t, f.query(`{"queryType":"aggregate","metricName":"m",`+span10m+`,"aggregation":"max","groupBy":["k"]`+body+`}`), 200)
		var s []string
		for _, r := range got.Results {
			s = append(s, r.GroupKey["k"])
		}
		return strings.Join(s, ""), got.Truncated
	}
	for body, wanted := range map[string]string{
		``: "abcdef", `,"order":"desc"`: "fedcba", `,"limit":2`: "ab+", `,"orderBy":"key","order":"desc","limit":2`: "fe+",
		`,"orderBy":"value"`: "ecdafb", `,"orderBy":"value","order":"asc"`: "facdeb",
		`,"orderBy":"value","limit":3`: "ecd+", `,"orderBy":"max","order":"asc","limit":3`: "fac+", `,"orderBy":"value","limit":6`: "ecdafb",
		`,"orderBy":"value","limit":99`: "ecdafb", `,"orderBy":"count","limit":2`: "ab+",
		`,"orderBy":"value","limit":3,"interval":"1m"`: "ecd+", `,"orderBy":"value","order":"asc","limit":2,"interval":"5m"`: "fa+",
		`,"limit":1,"interval":"1m","order":"desc"`: "f+",
	} {
		got, truncated := keys(body)
		if truncated {
			got += "+"
		}
		if got != wanted {
			t.Errorf("%s: %s, want %s", body, got, wanted)
		}
	}
}

func TestFilters(t *testing.T) {
	f := newFixture(t)
	latencies(f)
	f.fill(func(b *storage.Batch) {
		b.Add(storage.LabelsFromStrings("__name__", "api_latency", "strange-key.ü", "a.b|c"), storage.Sample{T: day, V: 1})
	})
	for filter, count := range map[string]float64{
		`{"customer_id":"a"}`:                                  6,
		`{"customer_id":{"eq":"b"}}`:                           2,
		`{"customer_id":{"not":"a"}}`:                          3,
		`{"customer_id":{"in":["a","b"]}}`:                     8,
		`{"customer_id":{"notIn":["a"]}}`:                      3,
		`{"customer_id":{"notIn":["a",""]}}`:                   2,
		`{"endpoint":{"regex":"/[xz]"}}`:                       6,
		`{"endpoint":{"notRegex":"/.*"}}`:                      1,
		`{"endpoint":{"regex":"/.*","not":"/x"}}`:              2,
		`{"customer_id":"a","endpoint":"/x"}`:                  4,
		`{"customer_id":""}`:                                   1,
		`{"strange-key.ü":{"in":["a.b|c"]}}`:                   1,
		`{"strange-key.ü":{"in":["aXb|c","c","a.b"]}}`:         0,
		`{"customer_id":{"in":["a"]},"endpoint":{"regex":""}}`: 0,
	} {
		got := aggregateOf(t, f, `"aggregation":"count","filters":`+filter)
		var n float64
		if len(got.Results) > 0 {
			n = float64(*got.Results[0].Value)
		}
		if n != count {
			t.Errorf("%s: %v samples, want %v", filter, n, count)
		}
	}
}

func TestLargeAnswersAreCompressed(t *testing.T) {
	f := newFixture(t)
	f.fill(func(b *storage.Batch) {
		var ss []storage.Sample
		for i := range 500 {
			ss = append(ss, storage.Sample{T: day + int64(i), V: 1})
		}
		b.Add(storage.LabelsFromStrings("__name__", "m"), ss...)
	})
	body := `{"queryType":"range","metricName":"m",` + span10m + `}`
	w := f.do("POST", "/api/v1/query", body, "Content-Type", "application/json", "Accept-Encoding", "gzip")
	if w.Code != 200 || w.Header().Get("Content-Encoding") != "gzip" {
		t.Fatalf("%d, headers %v", w.Code, w.Header())
	}
	z, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	var got QueryResponse[RawPoint]
	if err := json.NewDecoder(z).Decode(&got); err != nil || len(got.Results) != 500 {
		t.Errorf("%v, %d points", err, len(got.Results))
	}
}

func TestValuesThatJSONLacks(t *testing.T) {
	f := newFixture(t)
	f.fill(func(b *storage.Batch) {
		b.Add(storage.LabelsFromStrings("__name__", "m"), storage.Sample{T: day, V: math.NaN()},
			storage.Sample{T: day + 1, V: math.Inf(1)}, storage.Sample{T: day + 2, V: math.Inf(-1)}, storage.Sample{T: day + 3, V: 1e300})
	})
	w := f.query(`{"queryType":"range","metricName":"m",` + span10m + `,"order":"asc"}`)
	for _, s := range []string{`"value":"NaN"`, `"value":"+Inf"`, `"value":"-Inf"`, `"value":1e+300`} {
		if !strings.Contains(w.Body.String(), s) {
			t.Errorf("no %s in %s", s, w.Body)
		}
	}
}
