package native

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/luminate/luminate/storage"
)

func discoveryFixture(t *testing.T) *fixture {
	f := newFixture(t)
	latencies(f)
	f.fill(func(b *storage.Batch) {
		b.Add(storage.LabelsFromStrings("__name__", "api_errors", "customer_id", "z"), storage.Sample{T: day + 10*minute, V: 1})
		b.Add(storage.LabelsFromStrings("__name__", "odd/name ü", "k", "v"), storage.Sample{T: day - dayMillis, V: 1})
	})
	return f
}

func TestDiscovery(t *testing.T) {
	f := discoveryFixture(t)
	for path, wanted := range map[string]string{
		"/api/v1/metrics":                                                    `["api_errors","api_latency","odd/name ü"]`,
		"/api/v1/metrics?prefix=api_":                                        `["api_errors","api_latency"]`,
		"/api/v1/metrics?prefix=a.i":                                         `[]`,
		"/api/v1/metrics?limit=1":                                            `["api_errors"]`,
		"/api/v1/metrics?start=2024-12-31T00:05:00Z":                         `["api_errors"]`,
		"/api/v1/metrics?end=1735603200000":                                  `["odd/name ü"]`,
		"/api/v1/metrics?detail=1&prefix=api":                                `[{"name":"api_latency","series":3},{"name":"api_errors","series":1}]`,
		"/api/v1/metrics/api_latency/dimensions":                             `["customer_id","endpoint"]`,
		"/api/v1/metrics/api_latency/dimensions?prefix=e":                    `["endpoint"]`,
		"/api/v1/metrics/api_latency/dimensions?detail=true":                 `[{"key":"customer_id","series":3,"values":2},{"key":"endpoint","series":3,"values":2}]`,
		"/api/v1/metrics/nothing/dimensions":                                 `[]`,
		"/api/v1/metrics/" + url.PathEscape("odd/name ü") + "/dimensions":    `["k"]`,
		"/api/v1/metrics/api_latency/dimensions/customer_id/values":          `["a","b"]`,
		"/api/v1/metrics/api_latency/dimensions/customer_id/values?limit=1":  `["a"]`,
		"/api/v1/metrics/api_latency/dimensions/endpoint/values?prefix=%2Fy": `["/y"]`,
		"/api/v1/metrics/api_latency/dimensions/customer_id/values?detail=1": `[{"value":"a","series":2},{"value":"b","series":1}]`,
		"/api/v1/metrics/api_latency/dimensions/nothing/values":              `[]`,
		"/api/v1/metrics/api_latency/dimensions/customer_id/values?end=soon": `error`,
		"/api/v1/metrics?start=2&end=2":                                      `error`,
		"/api/v1/metrics?limit=0":                                            `error`,
		"/api/v1/metrics?limit=x":                                            `error`,
		"/api/v1/metrics?detail=maybe":                                       `error`,
	} {
		w := f.do("GET", path, "")
		if wanted == "error" {
			wantError(t, w, 400, CodeInvalidQuery)
			continue
		}
		if got := strings.TrimSpace(w.Body.String()); w.Code != 200 || got != wanted {
			t.Errorf("%s: %d %s, want %s", path, w.Code, got, wanted)
		}
	}
	if e := wantError(t, f.do("GET", "/api/v1/metrics?limit=99999", ""), 422, CodeQueryTooLarge); e.Details["limit"] != "maxListed" || e.Details["asked"] != 99999.0 {
		t.Errorf("%+v", e)
	}
	wantError(t, f.do("GET", "/api/v1/metrics/api_latency/dimensions/__name__/values", ""), 400, CodeInvalidDimension)
	if h := f.do("GET", "/api/v1/metrics?limit=1", "").Header().Get(truncatedHeader); h != "true" {
		t.Error("nothing says that there are more metrics")
	}
	if h := f.do("GET", "/api/v1/metrics?limit=3", "").Header().Get(truncatedHeader); h != "" {
		t.Error("truncated though complete")
	}
}

func TestValuesDefaultToAHundred(t *testing.T) {
	f := newFixture(t)
	f.fill(func(b *storage.Batch) {
		for i := range 150 {
			b.Add(storage.LabelsFromStrings("__name__", "m", "k", fmt.Sprintf("v%03d", i)), storage.Sample{T: day, V: 1})
		}
	})
	w := f.do("GET", "/api/v1/metrics/m/dimensions/k/values", "")
	if got := want[[]string](t, w, 200); len(got) != 100 || w.Header().Get(truncatedHeader) != "true" {
		t.Errorf("%d values", len(got))
	}
}

func TestCardinality(t *testing.T) {
	f := discoveryFixture(t)
	const span = "start=2024-12-31T00:00:00Z&"
	for path, wanted := range map[string]string{
		"metrics?" + span:             `{"totalSeries":4,"total":2,"items":[{"name":"api_latency","series":3,"share":0.75},{"name":"api_errors","series":1,"share":0.25}]}`,
		"metrics?limit=1&" + span:     `{"totalSeries":4,"total":2,"items":[{"name":"api_latency","series":3,"share":0.75}]}`,
		"metrics":                     `{"totalSeries":0,"total":0,"items":[]}`,
		"label_names?limit=2&" + span: `{"totalSeries":4,"total":3,"items":[{"name":"customer_id","series":4,"share":1,"values":3},{"name":"__name__","series":4,"share":1,"values":2}]}`,
		"label_values?label_names[]=endpoint&label_names[]=none&" + span:                       `{"totalSeries":4,"labels":[{"name":"endpoint","total":2,"items":[{"name":"/x","series":2,"share":0.5},{"name":"/y","series":1,"share":0.25}]},{"name":"none","total":0,"items":[]}]}`,
		"active_series?limit=1&" + span:                                                        `{"totalSeries":4,"series":[{"__name__":"api_errors","customer_id":"z"}],"truncated":true}`,
		"active_series?selector=" + url.QueryEscape(`api_latency{endpoint="/y"}`) + "&" + span: `{"totalSeries":1,"series":[{"__name__":"api_latency","customer_id":"a","endpoint":"/y"}],"truncated":false}`,
	} {
		w := f.do("GET", "/api/v1/cardinality/"+path, "")
		if got := strings.TrimSpace(w.Body.String()); w.Code != 200 || got != wanted {
			t.Errorf("%s: %d %s, want %s", path, w.Code, got, wanted)
		}
	}
	for _, path := range []string{"label_values", "metrics?selector=%7B%7D", "metrics?selector=a(", "active_series?start=x"} {
		wantError(t, f.do("GET", "/api/v1/cardinality/"+path, ""), 400, CodeInvalidQuery)
	}
}
