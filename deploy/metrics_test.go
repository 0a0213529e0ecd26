package deploy

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// documentedMetrics returns the types of the metrics in metrics.md by name.
func documentedMetrics(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(luminate_\\w+)` \\| (\\w+) \\|").FindAllStringSubmatch(string(text), -1) {
		out[m[1]] = m[2]
	}
	if len(out) < 50 {
		t.Fatalf("metrics.md has %d metrics", len(out))
	}
	return out
}

// isDocumented tells whether metrics.md has the metric of a series' name.
func isDocumented(metrics map[string]string, series string) bool {
	if metrics[series] != "" && metrics[series] != "histogram" {
		return true
	}
	for _, suffix := range []string{"_bucket", "_count", "_sum"} {
		if name, ok := strings.CutSuffix(series, suffix); ok && metrics[name] == "histogram" {
			return true
		}
	}
	return metrics[series] == "histogram" // native
}

// TestEveryMetricThatIsUsedExists looks up what alerts, rules and dashboards ask for.
func TestEveryMetricThatIsUsedExists(t *testing.T) {
	metrics, recorded := documentedMetrics(t), map[string]bool{}
	used := map[string][]string{} // expressions by where they stand
	for _, name := range []string{"luminate.rules.yaml", "luminate.alerts.yaml"} {
		for _, g := range readRules(t, name).Groups {
			for _, r := range g.Rules {
				recorded[r.Record] = true
				used[name] = append(used[name], r.Expr)
			}
		}
	}
	for _, d := range dashboards(t) {
		if notOfLuminate[d.file] {
			continue
		}
		for _, p := range d.Panels {
			for _, x := range p.Targets {
				used[d.file] = append(used[d.file], x.Expr)
			}
		}
		for _, v := range d.Templating.List {
			if m := labelValues.FindStringSubmatch(v.Definition); m != nil && m[1] != "" {
				used[d.file] = append(used[d.file], m[1])
			}
		}
	}
	for where, exprs := range used {
		for _, expr := range exprs {
			for _, s := range selectors(t, expr) {
				switch {
				case recorded[s.Name], isDocumented(metrics, s.Name):
				case s.Name == "up", strings.HasPrefix(s.Name, "go_"), strings.HasPrefix(s.Name, "process_"):
					// Prometheus's own, and its Go client's: panels over them are run live.
				case strings.HasPrefix(s.Name, "luminate_soak_") && where == "luminate.alerts.yaml":
					// luminate-bench soak's, whose own test reads them.
				case strings.HasPrefix(s.Name, "kube_") && where == "luminate.alerts.yaml":
					// kube-state-metrics'.
				default:
					t.Errorf("%s: metrics.md has no %s", where, s.Name)
				}
			}
		}
	}
}

// notLive are metrics that a busy server without authentication does not export,
// with the reason; an entry is the beginning of names.
var notLive = map[string]string{
	"luminate_auth_":                      "authentication is off",
	"luminate_remote_otlp_warnings_total": "nothing that is sent loses anything in translation",
}

// checkLive demands that every documented metric, but for those of the other backend
// (told by how they begin), is on /metrics: p's traffic has touched them all.
func checkLive(t *testing.T, p *process, otherBackend ...string) {
	t.Helper()
	metrics := documentedMetrics(t)
	eventually(t, time.Minute, func() error {
		_, page, err := do(t.Context(), "GET", p.url+"/metrics", nil)
		if err != nil {
			return err
		}
		exported := map[string]string{}
		for _, m := range regexp.MustCompile(`(?m)^# TYPE (luminate_\w+) (\w+)$`).FindAllStringSubmatch(page, -1) {
			exported[m[1]] = m[2]
		}
		for name, kind := range exported {
			if metrics[name] != kind {
				t.Errorf("%s is exported as a %s, metrics.md has %q", name, kind, metrics[name])
			}
		}
		for name := range metrics {
			if exported[name] == "" && !isNotLive(name, otherBackend) {
				return &missingMetric{name}
			}
		}
		return nil
	})
}

type missingMetric struct{ name string }

func (e *missingMetric) Error() string { return e.name + " of metrics.md is not exported" }

func isNotLive(name string, otherBackend []string) bool {
	for prefix := range notLive {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return slices.ContainsFunc(otherBackend, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}
