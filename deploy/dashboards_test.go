package deploy

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"
)

// dashboard is the part of Grafana's model that the tests look at.
type dashboard struct {
	UID, Title, Description string
	Editable                bool
	SchemaVersion           int
	Tags                    []string
	Templating              struct{ List []variable }
	Panels                  []panel

	file string
}

type variable struct {
	Name, Label, Type, Definition, Regex, AllValue string
	Multi, IncludeAll                              bool
	Datasource                                     *dataSource
	Query                                          json.RawMessage
}

type dataSource struct{ Type, UID string }

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               *dataSource
	GridPos                  struct{ H, W, X, Y int }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Targets                  []target
}

type target struct {
	Expr, RefID, Format string
	Instant, Exemplar   bool
	Datasource          *dataSource
}

func dashboards(t *testing.T) []dashboard {
	t.Helper()
	files, err := filepath.Glob("grafana/dashboards/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	var out []dashboard
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var form bytes.Buffer
		if err := json.Indent(&form, bytes.TrimSpace(text), "", "  "); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		if form.WriteByte('\n'); !bytes.Equal(form.Bytes(), text) {
			t.Errorf("%s is not indented by two spaces", f) // or every change of it is a change of all lines
		}
		d := dashboard{file: filepath.Base(f)}
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		out = append(out, d)
	}
	return out
}

// plain replaces Grafana's variables by values with which an expression parses.
func plain(expr string) string {
	expr = strings.NewReplacer("$__rate_interval", "1m", "$__range", "1h", "$__interval", "1m", "$top", "3").Replace(expr)
	return regexp.MustCompile(`\$\{?\w+\}?`).ReplaceAllString(expr, ".+")
}

var promqlParser = parser.NewParser(parser.Options{})

// selectors returns the selectors of an expression.
func selectors(t *testing.T, expr string) []*parser.VectorSelector {
	t.Helper()
	e, err := promqlParser.ParseExpr(plain(expr))
	if err != nil {
		t.Errorf("%s: %v", expr, err)
		return nil
	}
	var out []*parser.VectorSelector
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		if s, ok := n.(*parser.VectorSelector); ok {
			out = append(out, s)
		}
		return nil
	})
	return out
}

// notOfLuminate are the dashboards over other data: they have no job or instance.
var notOfLuminate = map[string]bool{"customers.json": true}

func TestDashboardsAreConventional(t *testing.T) {
	uids := map[string]string{}
	for _, d := range dashboards(t) {
		if other := uids[d.UID]; other != "" || d.UID == "" {
			t.Errorf("%s: uid %q is empty or that of %s", d.file, d.UID, other)
		}
		uids[d.UID] = d.file
		if d.UID != "luminate-"+strings.TrimSuffix(d.file, ".json") || d.Editable || d.SchemaVersion < 39 || d.Title == "" || d.Description == "" || !slices.Contains(d.Tags, "luminate") {
			t.Errorf("%s: uid %s, editable %t, schema %d, title %q, description %q, tags %v", d.file, d.UID, d.Editable, d.SchemaVersion, d.Title, d.Description, d.Tags)
		}
		checkVariables(t, d)
		ids := map[int]bool{}
		for _, p := range d.Panels {
			if ids[p.ID] || p.ID == 0 {
				t.Errorf("%s: panel %q: id %d is not its own", d.file, p.Title, p.ID)
			}
			ids[p.ID] = true
			checkPanel(t, d, p)
		}
		checkGrid(t, d)
	}
}

func checkVariables(t *testing.T, d dashboard) {
	t.Helper()
	have := map[string]variable{}
	for _, v := range d.Templating.List {
		have[v.Name] = v
		if v.Label == "" {
			t.Errorf("%s: variable %s has no label", d.file, v.Name)
		}
		if v.Type == "query" && (v.Datasource == nil || v.Datasource.UID != "${datasource}") {
			t.Errorf("%s: variable %s is not asked of ${datasource}", d.file, v.Name)
		}
		if v.IncludeAll && (v.AllValue != ".+" || !v.Multi) {
			t.Errorf("%s: variable %s: all is %q, multi %t", d.file, v.Name, v.AllValue, v.Multi)
		}
	}
	if v := have["datasource"]; v.Type != "datasource" || string(v.Query) != `"prometheus"` {
		t.Errorf("%s: no variable for the data source", d.file)
	}
	if notOfLuminate[d.file] {
		return
	}
	for _, name := range []string{"job", "instance"} {
		if v := have[name]; v.Type != "query" || !v.IncludeAll {
			t.Errorf("%s: variable %s is missing, or has no All", d.file, name)
		}
	}
}

func checkPanel(t *testing.T, d dashboard, p panel) {
	t.Helper()
	if p.Type == "row" {
		return
	}
	if p.Title == "" || p.Description == "" || !strings.HasSuffix(p.Description, ".") || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
		t.Errorf("%s: panel %q: title, description (a sentence), unit or targets are missing", d.file, p.Title)
	}
	if p.Datasource == nil || p.Datasource.UID != "${datasource}" {
		t.Errorf("%s: panel %q is not of ${datasource}", d.file, p.Title)
	}
	for _, x := range p.Targets {
		if x.Datasource == nil || x.Datasource.UID != "${datasource}" || x.RefID == "" {
			t.Errorf("%s: panel %q: target %s: data source or refId is missing", d.file, p.Title, x.RefID)
		}
		checkRanges(t, d, p, x.Expr)
		for _, s := range selectors(t, x.Expr) {
			for _, name := range []string{"job", "instance"} {
				if !notOfLuminate[d.file] && !hasMatcher(s, name) {
					t.Errorf("%s: panel %q: %s has no matcher on %s", d.file, p.Title, s, name)
				}
			}
		}
	}
}

func hasMatcher(s *parser.VectorSelector, name string) bool {
	return slices.ContainsFunc(s.LabelMatchers, func(m *labels.Matcher) bool {
		return m.Name == name && m.Type == labels.MatchRegexp
	})
}

// checkRanges demands that counters are read through rate or increase, over
// $__rate_interval, $__range, or a burn rate's own windows.
func checkRanges(t *testing.T, d dashboard, p panel, expr string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`\[([^\]]+)\]`).FindAllStringSubmatch(expr, -1) {
		fixed := (p.Title == "Burn rate" && (m[1] == "5m" || m[1] == "1h")) || strings.Contains(expr, "deriv(")
		if m[1] != "$__rate_interval" && m[1] != "$__range" && !fixed {
			t.Errorf("%s: panel %q: window [%s]", d.file, p.Title, m[1])
		}
	}
	e, err := promqlParser.ParseExpr(plain(expr))
	if err != nil {
		return // told already
	}
	parser.Inspect(e, func(n parser.Node, path []parser.Node) error {
		s, ok := n.(*parser.VectorSelector)
		if !ok || !strings.HasSuffix(s.Name, "_total") && !strings.HasSuffix(s.Name, "_bucket") {
			return nil
		}
		for _, up := range path {
			if c, ok := up.(*parser.Call); ok && (c.Func.Name == "rate" || c.Func.Name == "increase") {
				return nil
			}
			if a, ok := up.(*parser.AggregateExpr); ok && a.Op == parser.COUNT {
				return nil // counts series
			}
		}
		if !sinceStart[p.Title] {
			t.Errorf("%s: panel %q: counter %s without rate or increase", d.file, p.Title, s)
		}
		return nil
	})
}

// sinceStart are panels that show counters as they stand: since the process began.
var sinceStart = map[string]bool{"Lost log records": true, "Bytes for each sample": true}

// checkGrid demands that panels lie within Grafana's 24 columns and do not overlap.
func checkGrid(t *testing.T, d dashboard) {
	t.Helper()
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		g := p.GridPos
		if g.W <= 0 || g.H <= 0 || g.X < 0 || g.X+g.W > 24 {
			t.Errorf("%s: panel %q lies at %+v", d.file, p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("%s: panels %q and %q overlap", d.file, other, p.Title)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}

// TestProvisioning reads the provisioning files as Grafana does, strictly.
func TestProvisioning(t *testing.T) {
	type source struct {
		Name, UID, Type, Access, URL string
		IsDefault, Editable          bool
		JSONData                     map[string]any
		SecureJSONData               map[string]string
	}
	var sources struct {
		APIVersion  int
		Prune       bool
		Datasources []source
	}
	strictYAML(t, "grafana/provisioning/datasources/luminate.yaml", &sources)
	uids := map[string]bool{}
	for _, s := range sources.Datasources {
		uids[s.UID] = true
		if s.Type != "prometheus" || s.JSONData["httpMethod"] != "POST" || s.JSONData["httpHeaderName1"] != "X-Scope-OrgID" || s.SecureJSONData["httpHeaderValue1"] == "" || s.JSONData["timeInterval"] == "" {
			t.Errorf("data source %s: %+v", s.Name, s)
		}
	}
	if !uids["luminate"] || !uids["luminate-itself"] || sources.APIVersion != 1 {
		t.Errorf("data sources: %v", uids)
	}
	var providers struct {
		APIVersion int
		Providers  []struct {
			Name, Folder, FolderUID, Type   string
			DisableDeletion, AllowUIUpdates bool
			UpdateIntervalSeconds           int
			Options                         struct{ Path string }
		}
	}
	strictYAML(t, "grafana/provisioning/dashboards/luminate.yaml", &providers)
	compose, err := os.ReadFile("compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range providers.Providers {
		if mount := "./grafana/dashboards:" + p.Options.Path + ":ro"; !strings.Contains(string(compose), mount) {
			t.Errorf("compose.yaml does not mount %s", mount)
		}
	}
	if len(providers.Providers) != 1 {
		t.Errorf("%d providers", len(providers.Providers))
	}
}

func strictYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}
