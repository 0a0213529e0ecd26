package main

// target is what a figure should reach, on Badger and before ClickHouse; "" is none.
type target struct{ badger, clickhouse string }

func (t target) of(p peer) string {
	if p.clickhouse {
		return t.clickhouse
	}
	return t.badger
}

// targets of the scenarios' own figures.
var targets = map[string]struct{ cpu, wall, memory, bytes target }{
	"ingest":  {cpu: target{"<= 1.5", "<= 1.5"}, wall: target{">= 0.9", ">= 0.4"}, bytes: target{"<= 4", "<= 4"}},
	"million": {cpu: target{"<= 3.5", "<= 5"}, memory: target{"<= 1024", "<= 614"}},
	"day":     {bytes: target{"<= 1.2", "<= 2.5"}},
}

var ingestQueries = []benchQuery{
	{name: "sum by(rate) of 2,000 series, 40 points", target: target{"<= 7 ms", "p95 <= 100 ms"}, expr: `sum by (region) (rate(http_requests_001_total[5m]))`, points: 40, step: 15_000},
}

var millionQueries = []benchQuery{
	{name: "sum by (region)(rate(m[5m]))", target: target{"<= 400 ms", "<= 1 s"}, expr: `sum by (region) (rate(http_requests_000_total[5m]))`},
	{name: "topk(10, sum by (customer_id)(rate(m[5m])))", target: target{"<= 600 ms", "<= 1.5 s"}, expr: `topk(10, sum by (customer_id) (rate(http_requests_000_total[5m])))`},
	{name: "quantile by (region)(0.95, m)", target: target{"<= 500 ms", "<= 1 s"}, expr: `quantile by (region) (0.95, http_requests_000_total)`},
	{name: "count(m)", target: target{"<= 50 ms", "<= 300 ms"}, expr: `count(http_requests_000_total)`},
	{name: "one series, an hour", target: target{"<= 1 ms", "p95 <= 100 ms"}, expr: `http_requests_000_total{serial="serial-0000000007"}`, points: 240, step: 15_000},
	{name: "one customer's 50, an hour", target: target{"<= 1 ms", "p95 <= 100 ms"}, expr: `http_requests_000_total{customer_id="customer-00000042"}`, points: 240, step: 15_000},
}
