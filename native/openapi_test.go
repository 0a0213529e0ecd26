package native

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

func loadOpenAPI(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(openAPI)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestOpenAPIIsValid(t *testing.T) {
	doc := loadOpenAPI(t)
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	enum := doc.Components.Schemas["Code"].Value.Enum
	if got, want := fmt.Sprint(enum...), fmt.Sprint(mapSlice(Codes(), func(c Code) any { return string(c) })...); got != want {
		t.Errorf("codes %s, want %s", got, want)
	}
}

func TestOpenAPIHasEveryNativeRoute(t *testing.T) {
	documented, err := OpenAPIPaths()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range newFixture(t).api.routes() {
		if !slices.Contains(documented, OpenAPIRoute{r.method, r.path}) {
			t.Errorf("%s %s is not in openapi.yaml", r.method, r.path)
		}
	}
}

// example is one documented request.
type example struct {
	name, method, path, target, contentType string
	body                                    []byte
}

// examples lists a documented request for every native operation and for each of
// its examples of a body, with the examples of its parameters.
func examples(t *testing.T, f *fixture, doc *openapi3.T) []example {
	t.Helper()
	routes := append(f.api.routes(), route{method: "POST", path: "/api/v1/write"}, route{method: "POST", path: "/api/v1/query"})
	var out []example
	for _, r := range routes {
		item := doc.Paths.Value(r.path)
		op := item.GetOperation(r.method)
		target, query := r.path, url.Values{}
		for _, p := range append(slices.Clone(item.Parameters), op.Parameters...) {
			switch v := p.Value.Example.(type) {
			case nil:
			case []any:
				for _, x := range v {
					query.Add(p.Value.Name, fmt.Sprint(x))
				}
			default:
				text := fmt.Sprint(v)
				if n, ok := v.(float64); ok {
					text = fmt.Sprintf("%.0f", n)
				}
				if p.Value.In == "path" {
					target = strings.ReplaceAll(target, "{"+p.Value.Name+"}", url.PathEscape(text))
				} else {
					query.Set(p.Value.Name, text)
				}
			}
		}
		if len(query) > 0 {
			target += "?" + query.Encode()
		}
		base := example{name: r.method + " " + r.path, method: r.method, path: r.path, target: target}
		if op.RequestBody == nil {
			out = append(out, base)
			continue
		}
		for typ, media := range op.RequestBody.Value.Content {
			for name, ex := range media.Examples {
				x := base
				x.name, x.contentType = base.name+" "+name, typ
				if text, ok := ex.Value.Value.(string); ok {
					x.body = []byte(text)
				} else {
					x.body, _ = json.Marshal(ex.Value.Value)
				}
				out = append(out, x)
			}
		}
	}
	return out
}

// TestOpenAPIExamplesRun sends every documented example and checks request and
// answer against the document.
func TestOpenAPIExamplesRun(t *testing.T) {
	doc := loadOpenAPI(t)
	for _, x := range examples(t, newFixture(t), doc) {
		t.Run(x.name, func(t *testing.T) {
			f := newFixture(t, func(c *Config) { c.Limits = &fakeLimits{} })
			f.id.Scopes = append(f.id.Scopes, tenancy.ScopeOperator)
			latencies(f)
			f.fill(func(b *storage.Batch) {
				b.Add(storage.LabelsFromStrings("__name__", "requests_total", "region", "eu"), storage.Sample{T: day, V: 1}, storage.Sample{T: day + minute, V: 61})
				b.Add(storage.LabelsFromStrings("__name__", "api_latency", "customer_id", "c", "endpoint", "/api/x", "tier", "enterprise", "region", "us-east-1", "status", "500"),
					storage.Sample{T: day, V: 7})
			})
			f.do("POST", "/api/v1/admin/retention", `{"metric":"debug_*","retentionDays":3}`)
			if strings.Contains(x.path, "deletes") {
				f.do("DELETE", "/api/v1/admin/metrics/gone", "")
			}
			var headers []string
			if x.contentType != "" {
				headers = []string{"Content-Type", x.contentType}
			}
			w := f.do(x.method, x.target, string(x.body), headers...)
			if w.Code >= 300 {
				t.Fatalf("%s: %d %s", x.target, w.Code, w.Body)
			}
			checkAgainst(t, doc, x, w)
		})
	}
}

// checkAgainst validates a request and its answer.
func checkAgainst(t *testing.T, doc *openapi3.T, x example, w *httptest.ResponseRecorder) {
	t.Helper()
	r := httptest.NewRequest(x.method, x.target, bytes.NewReader(x.body))
	if x.contentType != "" {
		r.Header.Set("Content-Type", x.contentType)
	}
	vars := map[string]string{}
	for i, part := range strings.Split(x.path, "/") {
		if strings.HasPrefix(part, "{") {
			v, _ := url.PathUnescape(strings.Split(r.URL.EscapedPath(), "/")[i])
			vars[part[1:len(part)-1]] = v
		}
	}
	item := doc.Paths.Value(x.path)
	in := &openapi3filter.RequestValidationInput{
		Request: r, PathParams: vars, QueryParams: r.URL.Query(),
		Route:   &routers.Route{Spec: doc, Path: x.path, PathItem: item, Method: x.method, Operation: item.GetOperation(x.method)},
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true},
	}
	if strings.HasPrefix(x.contentType, "application/json") || x.contentType == "" {
		if err := openapi3filter.ValidateRequest(t.Context(), in); err != nil {
			t.Errorf("request: %v", err)
		}
	}
	if !strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") {
		return
	}
	err := openapi3filter.ValidateResponse(t.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: w.Code, Header: w.Header(), Body: readCloser(w.Body.Bytes()), Options: in.Options,
	})
	if err != nil {
		t.Errorf("answer: %v", err)
	}
}
