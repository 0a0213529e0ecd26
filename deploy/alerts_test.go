package deploy

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// ruleGroup and rule are the parts of Prometheus's rule files that ours use.
type ruleGroup struct {
	Name     string `json:"name"`
	Interval string `json:"interval,omitempty"`
	Rules    []rule `json:"rules"`
}

type rule struct {
	Record      string            `json:"record,omitempty"`
	Alert       string            `json:"alert,omitempty"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type ruleFile struct {
	Groups []ruleGroup `json:"groups"`
}

// alertCase is a line of tests/alerts.json: series as "name{labels}|values" for a
// test that fires and one that stays quiet, looked at after `at`.
type alertCase struct {
	Fire, Quiet []string
	At          string
}

func readRules(t *testing.T, name string) ruleFile {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("prometheus", name))
	if err != nil {
		t.Fatal(err)
	}
	var f ruleFile
	if err := yaml.UnmarshalStrict(text, &f); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return f
}

func alertsOf(t *testing.T) []rule {
	t.Helper()
	var out []rule
	for _, g := range readRules(t, "luminate.alerts.yaml").Groups {
		out = append(out, g.Rules...)
	}
	return out
}

// promtool finds the real promtool, or builds it.
func promtool(t *testing.T) string { return prometheusProgram(t, "promtool") }

func TestRulesAreValid(t *testing.T) {
	out, err := exec.Command(promtool(t), "check", "rules", "--lint=all", "--lint-fatal",
		"prometheus/luminate.rules.yaml", "prometheus/luminate.alerts.yaml").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// unitTest is a test in promtool's form, with what our own need of it.
type unitTest struct {
	Name        string           `json:"name"`
	Interval    string           `json:"interval"`
	InputSeries []map[string]any `json:"input_series"`
	Tests       []map[string]any `json:"promql_expr_test"`
}

// unitTestsOf makes the two tests of an alert.
func unitTestsOf(a rule, c alertCase) []unitTest {
	var out []unitTest
	for kind, series := range map[string][]string{"fires": c.Fire, "stays quiet": c.Quiet} {
		u := unitTest{Name: a.Alert + " " + kind, Interval: "1m"}
		for _, s := range series {
			name, values, _ := strings.Cut(s, "|")
			u.InputSeries = append(u.InputSeries, map[string]any{"series": name, "values": values})
		}
		want := []map[string]any{}
		if kind == "fires" {
			want = append(want, map[string]any{"labels": "{}", "value": 1})
		}
		u.Tests = []map[string]any{{
			"expr":      fmt.Sprintf(`count(ALERTS{alertname="%s", alertstate="firing", severity="%s"})`, a.Alert, a.Labels["severity"]),
			"eval_time": c.At, "exp_samples": want,
		}}
		out = append(out, u)
	}
	return out
}

// TestEveryAlertFiresAndStaysQuiet runs promtool over two tests for each alert. An
// alert has files of its own, with the recording rules if it uses them: with all
// rules in every test promtool takes minutes.
func TestEveryAlertFiresAndStaysQuiet(t *testing.T) {
	text, err := os.ReadFile("prometheus/tests/alerts.json")
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]alertCase{}
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	dir, recorded := t.TempDir(), readRules(t, "luminate.rules.yaml").Groups
	write := func(name string, v any) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, mustJSON(v), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	args := []string{"test", "rules"}
	for _, a := range alertsOf(t) {
		c, ok := cases[a.Alert]
		if !ok {
			t.Errorf("alert %s has no case in tests/alerts.json", a.Alert)
			continue
		}
		delete(cases, a.Alert)
		groups := []ruleGroup{{Name: "alert", Rules: []rule{a}}}
		if strings.Contains(a.Expr, "luminate:") {
			groups = slices.Concat(recorded, groups)
		}
		args = append(args, write(a.Alert+".yaml", map[string]any{
			"rule_files":          []string{write(a.Alert+".rules.yaml", ruleFile{Groups: groups})},
			"evaluation_interval": "1m", "tests": unitTestsOf(a, c),
		}))
	}
	for name := range cases {
		t.Errorf("tests/alerts.json has a case for %s, which is no alert", name)
	}
	if out, err := exec.Command(promtool(t), args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestEveryAlertHasARunbook follows each runbook_url to a heading with the five
// parts that a woken reader needs.
func TestEveryAlertHasARunbook(t *testing.T) {
	text, err := os.ReadFile("runbooks/README.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, s := range strings.Split("\n"+string(text), "\n## ")[1:] {
		title, body, _ := strings.Cut(s, "\n")
		sections[strings.ToLower(strings.TrimSpace(title))] = body
	}
	for _, a := range alertsOf(t) {
		u, err := url.Parse(a.Annotations["runbook_url"])
		if err != nil || !strings.HasSuffix(u.Path, "/deploy/runbooks/README.md") {
			t.Errorf("%s: runbook_url %q", a.Alert, a.Annotations["runbook_url"])
			continue
		}
		body, ok := sections[u.Fragment]
		if !ok {
			t.Errorf("%s: no heading for #%s", a.Alert, u.Fragment)
			continue
		}
		for _, part := range []string{"**Meaning**", "**Senders**", "**First step**", "**Limit**", "**Fix**"} {
			if !strings.Contains(body, part) {
				t.Errorf("%s: the runbook has no %s", a.Alert, part)
			}
		}
		if a.Annotations["summary"] == "" || a.Labels["severity"] == "" {
			t.Errorf("%s: summary or severity is missing", a.Alert)
		}
	}
}

// TestOperatorRulesAreTheSame keeps the PrometheusRule object equal to the files.
func TestOperatorRulesAreTheSame(t *testing.T) {
	var want []ruleGroup
	for _, name := range []string{"luminate.rules.yaml", "luminate.alerts.yaml"} {
		want = append(want, readRules(t, name).Groups...)
	}
	object := map[string]any{
		"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule",
		"metadata": map[string]any{"name": "luminate"}, "spec": ruleFile{Groups: want},
	}
	body, err := yaml.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "kubernetes/components/monitoring/prometheusrule.yaml",
		append([]byte("# Made from deploy/prometheus by `go test ./deploy -update`.\n"), body...))
}
