package native

import (
	"strings"
	"testing"

	"github.com/luminate/luminate/storage"
)

// The examples of the HTTP contract, as they are printed there; comments, which
// JSON has not, begin with //.
const (
	contractWrite = `
    {"metrics": [{"name": "api_latency", "timestamp": 1735603200000, "value": 145.5,
                  "dimensions": {"customer_id": "cust_123", "endpoint": "/api/users"}}]}`

	contractQuery = `
    {"queryType": "aggregate", "metricName": "api_latency",   // or "selector": "m{a=~\"x.*\"}",
     "timeRange": {"relative": "24h"},            // or "start" and "end", RFC 3339 or ms
     "filters": {"tier": "enterprise",            // equality, or an operator object:
                 "region": {"in": ["us-east-1", "eu-west-1"]},
                 "endpoint": {"regex": "/api/.*"}, "status": {"not": "200"}},
     "aggregation": "p95",                        // or "aggregations": ["avg", "p95"]
     "groupBy": ["customer_id"], "interval": "5m",
     "orderBy": "value", "order": "desc", "limit": 100, "timeout": "10s"}`

	contractRetention = `{"metric": "debug_*", "retentionDays": 7}`
)

// withoutComments cuts // and what follows on each line.
func withoutComments(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i], _, _ = strings.Cut(l, "   // ")
		lines[i], _, _ = strings.Cut(lines[i], " // ")
	}
	return strings.Join(lines, "\n")
}

func TestContractExamples(t *testing.T) {
	f := newFixture(t)
	if got := f.write(contractWrite); got.Code != 200 || got.Body.String() != `{"accepted":1,"rejected":0,"errors":[]}`+"\n" {
		t.Errorf("write: %d %s", got.Code, got.Body)
	}
	wantLines(t, f.stored(), `{__name__="api_latency", customer_id="cust_123", endpoint="/api/users"} 00:00:00.000 145.5`)
	f.fill(func(b *storage.Batch) {
		for i, customer := range []string{"a", "b", "c"} {
			b.Add(storage.LabelsFromStrings("__name__", "api_latency", "customer_id", customer, "tier", "enterprise",
				"region", "us-east-1", "endpoint", "/api/users", "status", "500"), storage.Sample{T: day, V: float64(i)}, storage.Sample{T: day + minute, V: float64(2 * i)})
		}
		b.Add(storage.LabelsFromStrings("__name__", "api_latency", "customer_id", "d", "tier", "free",
			"region", "us-east-1", "endpoint", "/api/users", "status", "500"), storage.Sample{T: day, V: 1})
	})
	got := want[QueryResponse[Row]](t, f.query(withoutComments(contractQuery)), 200)
	if r := mustJSON(got.Results); got.Truncated || got.QueryType != QueryAggregate ||
		r != `[{"groupKey":{"customer_id":"c"},"points":[[1735603200000,3.9]],"count":2},{"groupKey":{"customer_id":"b"},"points":[[1735603200000,1.95]],"count":2},{"groupKey":{"customer_id":"a"},"points":[[1735603200000,0]],"count":2}]` {
		t.Errorf("query: %s", r)
	}
	for _, relative := range []string{"1h", "24h", "7d", "30d", "1h30m", "90d", "2w", "3000ms"} {
		if w := f.query(queryWith("timeRange", `{"relative":"`+relative+`"}`)); w.Code != 200 {
			t.Errorf("relative %s: %d %s", relative, w.Code, w.Body)
		}
	}
	if w := f.do("POST", "/api/v1/admin/retention", contractRetention); w.Code != 200 {
		t.Errorf("retention: %d %s", w.Code, w.Body)
	}
}

// TestAggregatesFoldSourceAway: the instance that `source` adds is not seen in
// aggregates that do not ask for it.
func TestAggregatesFoldSourceAway(t *testing.T) {
	f := newFixture(t)
	for _, pod := range []string{"pod-1", "pod-2"} {
		f.write(`{"source":"` + pod + `","metrics":[` + metric("dimensions", `{"tier":"free"}`) + `]}`)
	}
	got := want[QueryResponse[Row]](t, f.query(queryWith("timeRange", `{"relative":"24h"}`, "groupBy", `["tier"]`)), 200)
	if r := mustJSON(got.Results); r != `[{"groupKey":{"tier":"free"},"value":2,"count":2}]` {
		t.Errorf("%s", r)
	}
}

// TestQueriesNameAnyStoredSeries: the rules of names bind native writes only.
func TestQueriesNameAnyStoredSeries(t *testing.T) {
	f := newFixture(t)
	f.fill(func(b *storage.Batch) {
		b.Add(storage.LabelsFromStrings("__name__", "http.requests:rate5m", "k8s.pod/name", "ä b", "_tenant_id", "x"), storage.Sample{T: testNow.UnixMilli() - 1, V: 1})
	})
	got := want[QueryResponse[Row]](t, f.query(queryWith("metricName", `"http.requests:rate5m"`, "filters", `{"k8s.pod/name":"ä b"}`, "groupBy", `["k8s.pod/name","_tenant_id","__name__"]`)), 200)
	if r := mustJSON(got.Results); r != `[{"groupKey":{"__name__":"http.requests:rate5m","_tenant_id":"x","k8s.pod/name":"ä b"},"value":1,"count":1}]` {
		t.Errorf("%s", r)
	}
}

// TestRepeatedBatchIsHarmless also where the batch was retried in part and its
// measurements share milliseconds.
func TestRepeatedBatchIsHarmless(t *testing.T) {
	f := newFixture(t)
	body := `{"metrics":[` + strings.Repeat(metric()+",", 20) + metric("value", "7") + `]}`
	f.write(body)
	before := f.stored()
	for range 3 {
		f.write(body)
	}
	wantLines(t, f.stored(), before...)
	if len(before) != 21 {
		t.Errorf("%d of 21 events count", len(before))
	}
}
