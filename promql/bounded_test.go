package promql

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/luminate/luminate/storage/storagetest"
)

// TestBoundsOfTheText: what is longer, deeper or has a longer regex than allowed is the query's own fault, on every route
// that takes a query or a selector, and the answer names the setting.
func TestBoundsOfTheText(t *testing.T) {
	srv := serve(t, storagetest.NewModel(), func(c *Config) { c.MaxTextBytes, c.MaxDepth, c.MaxRegexBytes = 20_000, 30, 4096 })
	nested := func(n int) string { return strings.Repeat("(", n) + "up" + strings.Repeat(")", n) }
	for what, c := range map[string]struct{ query, selector, setting string }{
		"as long as allowed":  {"up " + strings.Repeat(" ", 19_997), `up{a="` + strings.Repeat("x", 19_900) + `"}`, ""},
		"too long":            {"up " + strings.Repeat(" ", 19_998), `up{a="` + strings.Repeat("x", 20_000) + `"}`, "query.maxTextBytes"},
		"as deep as allowed":  {nested(29), "", ""},
		"too deep":            {nested(30), "", "query.maxDepth"},
		"a long chain":        {"1" + strings.Repeat(" + 1", 40), "", "query.maxDepth"},
		"a regex as allowed":  {`up{a=~"` + strings.Repeat("x", 4094) + `.*"}`, `up{a=~"` + strings.Repeat("x", 4094) + `.*"}`, ""},
		"too long a regex":    {`up{a=~"` + strings.Repeat("x", 4095) + `.*"}`, `up{a=~"` + strings.Repeat("x", 4095) + `.*"}`, "query.maxRegexBytes"},
		"one that must not":   {`sum(rate(up{a!~"` + strings.Repeat("x", 4097) + `"}[5m]))`, `{__name__!~"` + strings.Repeat("x", 4097) + `",a="b"}`, "query.maxRegexBytes"},
		"a long literal fine": {`up{a="` + strings.Repeat("x", 5000) + `"}`, "", ""},
	} {
		paths := map[string]string{"/api/v1/query?query=": c.query, "/api/v1/query_range?start=0&end=60&step=15&query=": c.query,
			"/api/v1/format_query?query=": c.query, "/api/v1/parse_query?query=": c.query, "/api/v1/query_exemplars?start=0&end=60&query=": c.query}
		if c.selector != "" {
			for _, p := range []string{"/api/v1/series?match[]=", "/api/v1/labels?match[]=", "/api/v1/label/a/values?match[]=", "/federate?match[]="} {
				paths[p] = c.selector
			}
		}
		for path, text := range paths {
			resp, body := get(t, srv.URL+path+url.QueryEscape(text))
			switch {
			case c.setting == "" && resp.StatusCode != http.StatusOK:
				t.Errorf("%s, %s: %d %.200s", what, path, resp.StatusCode, body)
			case c.setting != "" && (resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, c.setting)):
				t.Errorf("%s, %s: %d %.200s, want 400 that names %s", what, path, resp.StatusCode, body, c.setting)
			}
		}
	}
}
