package promql

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
	"github.com/luminate/luminate/tenancy"
)

var testTenant = storage.MustTenant("tests")

// serve runs the API over store as cmd/luminate would, with one tenant.
func serve(t *testing.T, store storage.Store, change func(*Config)) *httptest.Server {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Info.AdminEnabled = func() bool { return true }
	if change != nil {
		change(&cfg)
	}
	api, err := New(store, cfg, discardLog(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(routed(api))
	t.Cleanup(func() {
		srv.Close()
		if err := api.Close(); err != nil {
			t.Error(err)
		}
	})
	return srv
}

// routed is api with its routes and a middleware that knows one tenant.
func routed(api *API) http.Handler {
	r := mux.NewRouter().UseEncodedPath()
	api.Register(r)
	r.HandleFunc("/api/v1/query", api.ServeQuery)
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.ServeHTTP(w, req.WithContext(tenancy.NewContext(req.Context(), tenancy.Identity{Tenant: testTenant})))
	})
}

func appendAll(t *testing.T, store storage.Store, b *storage.Batch) {
	t.Helper()
	storagetest.MustAppend(t, store, testTenant.String(), b)
}

// request is a line of testdata/prometheus-requests.txt.
type request struct {
	line             string
	tag              string
	method, endpoint string
	params           url.Values
}

var placeholder = regexp.MustCompile(`\{([TM])([+-]\d+)?\}`)

func readRequests(t *testing.T, end int64) []request {
	t.Helper()
	data, err := os.ReadFile("../testdata/prometheus-requests.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out []request
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		filled := placeholder.ReplaceAllStringFunc(line, func(s string) string {
			m := placeholder.FindStringSubmatch(s)
			offset, _ := strconv.ParseInt(m[2], 10, 64)
			if m[1] == "M" {
				return strconv.FormatInt(end+offset*1000, 10)
			}
			return strconv.FormatInt(end/1000+offset, 10)
		})
		f := strings.SplitN(filled, " ", 4)
		r := request{line: line, tag: f[0], method: f[1], endpoint: f[2], params: url.Values{}}
		if len(f) == 4 {
			for pair := range strings.SplitSeq(f[3], " ;; ") {
				name, value, ok := strings.Cut(pair, "=")
				if !ok {
					t.Fatalf("no = in %q of %q", pair, line)
				}
				r.params.Add(name, strings.ReplaceAll(value, "%2B", "+"))
			}
		}
		out = append(out, r)
	}
	return out
}

// exchange is what came back.
type exchange struct {
	status      int
	contentType string
	body        []byte
}

func (r request) do(t *testing.T, base string) exchange {
	t.Helper()
	u := base + "/api/v1/" + r.endpoint
	var body io.Reader
	if r.method == http.MethodPost {
		body = strings.NewReader(r.params.Encode())
	} else if len(r.params) > 0 {
		u += "?" + r.params.Encode()
	}
	req, err := http.NewRequestWithContext(t.Context(), r.method, u, body)
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return exchange{resp.StatusCode, resp.Header.Get("Content-Type"), b}
}

// envelope is an answer with data as it was sent.
type envelope struct {
	Status    string          `json:"status"`
	Data      json.RawMessage `json:"data"`
	ErrorType string          `json:"errorType"`
	Error     string          `json:"error"`
	Warnings  []string        `json:"warnings"`
	Infos     []string        `json:"infos"`
}

// TestSameAsPrometheus asks a real Prometheus and this package, both holding the
// same data, the requests of testdata/prometheus-requests.txt; on Badger once more with all
// pushed into the storage that can be.
func TestSameAsPrometheus(t *testing.T) {
	base := startPrometheus(t)
	end := time.Now().Truncate(time.Minute).UnixMilli() - 60_000
	data := sampleData(end)
	remoteWrite(t, base, data)
	requests := readRequests(t, end)
	want := make([]exchange, len(requests))
	for i, r := range requests {
		want[i] = r.do(t, base)
	}
	compare := func(t *testing.T, store storage.Store, minSeries uint64) {
		appendAll(t, store, data)
		srv := serve(t, store, func(c *Config) { c.PlannerMinSeries = minSeries })
		for i, r := range requests {
			t.Run(r.line, func(t *testing.T) { compareExchanges(t, r.tag, r.do(t, srv.URL), want[i]) })
		}
	}
	t.Run("model", func(t *testing.T) { compare(t, storagetest.NewModel(), 1000) })
	t.Run("badger", func(t *testing.T) { compare(t, openBadger(t), 1000) })
	t.Run("badger, pushed", func(t *testing.T) { compare(t, openBadger(t), 0) })
	t.Logf("%d requests compared", len(requests))
}

func compareExchanges(t *testing.T, tag string, got, want exchange) {
	t.Helper()
	if got.status != want.status || got.contentType != want.contentType {
		t.Fatalf("got %d %q, Prometheus %d %q\n%s\n%s", got.status, got.contentType, want.status, want.contentType, got.body, want.body)
	}
	if len(want.body) == 0 || len(got.body) == 0 {
		if string(got.body) != string(want.body) {
			t.Errorf("got body %s, Prometheus %s", got.body, want.body)
		}
		return
	}
	var g, w envelope
	if err := json.Unmarshal(got.body, &g); err != nil {
		t.Fatalf("%v in %s", err, got.body)
	}
	if err := json.Unmarshal(want.body, &w); err != nil {
		t.Fatal(err)
	}
	if g.Status != w.Status || g.ErrorType != w.ErrorType || g.Error != w.Error {
		t.Errorf("got  %s %s %q\nPrometheus %s %s %q", g.Status, g.ErrorType, g.Error, w.Status, w.ErrorType, w.Error)
	}
	for _, msgs := range [][]string{g.Warnings, w.Warnings, g.Infos, w.Infos} {
		slices.Sort(msgs)
	}
	if !slices.Equal(g.Warnings, w.Warnings) || !slices.Equal(g.Infos, w.Infos) {
		t.Errorf("got warnings %q infos %q, Prometheus %q %q", g.Warnings, g.Infos, w.Warnings, w.Infos)
	}
	gd, wd := string(g.Data), string(w.Data)
	switch tag {
	case "~":
		gd, wd = canonical(t, g.Data), canonical(t, w.Data)
	case "k":
		gd, wd = keysOf(t, g.Data), keysOf(t, w.Data)
	}
	if gd != wd {
		t.Errorf("data\ngot        %s\nPrometheus %s", gd, wd)
	}
}

// canonical renders data with its top-level list in order; elements stay byte by
// byte.
func canonical(t *testing.T, data json.RawMessage) string {
	t.Helper()
	var result struct {
		ResultType string            `json:"resultType"`
		Result     []json.RawMessage `json:"result"`
	}
	list := &result.Result
	if data[0] == '[' {
		if err := json.Unmarshal(data, list); err != nil {
			t.Fatal(err)
		}
	} else if err := json.Unmarshal(data, &result); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(*list, func(a, b json.RawMessage) int { return strings.Compare(string(a), string(b)) })
	out, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// keysOf renders the keys of an object, two levels deep.
func keysOf(t *testing.T, data json.RawMessage) string {
	t.Helper()
	var top map[string]json.RawMessage
	if err := json.Unmarshal(data, &top); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(top)) {
		var inner map[string]json.RawMessage
		if json.Unmarshal(top[k], &inner) == nil {
			k += strings.Join(slices.Sorted(maps.Keys(inner)), ",")
		}
		out = append(out, k)
	}
	return strings.Join(out, " ")
}
