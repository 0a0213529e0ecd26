//go:build e2e

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/luminate/luminate/internal/proctest"
)

// victoriaBinary finds or builds a program of VictoriaMetrics that `make e2e`
// installs.
func victoriaBinary(t *testing.T, name string) string {
	t.Helper()
	path, err := proctest.Victoria(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestVMAgentAndVMAlert lets a real vmagent scrape Luminate and write to it, and a
// real vmalert evaluate rules over that and write its results back. Its state it
// restores with default_rollup, a function of MetricsQL that PromQL has not.
func TestVMAgentAndVMAlert(t *testing.T) {
	agentBin, alertBin := victoriaBinary(t, "vmagent"), victoriaBinary(t, "vmalert")
	lum := startLuminate(t, t.TempDir())
	agent := startVMAgent(t, agentBin, lum)
	value := func(query string) string { return scalarOf(t, lum.url, query, time.Now()) }
	eventually(t, time.Minute, func() error {
		if got := value(`sum by (job) (up{job="luminate"})`); got != "1" {
			return fmt.Errorf("up is %q", got)
		}
		if got := value(`count({job="luminate", __name__=~"luminate_.+"})`); got == "" {
			return fmt.Errorf("no metrics of Luminate have come")
		}
		return nil
	})

	dir := t.TempDir()
	rules := filepath.Join(dir, "rules.yml")
	if err := os.WriteFile(rules, []byte(`
groups:
  - name: luminate
    interval: 1s
    rules:
      - record: job:scrape_samples_scraped:max
        expr: max by (job) (max_over_time(scrape_samples_scraped{job="luminate"}[10s]))
        labels: {source: vmalert}
      - alert: LuminateIsUp
        expr: up{job="luminate"} == 1
        for: 2s
        labels: {severity: info}
        annotations: {summary: "{{ $labels.instance }} is up: {{ $value }}"}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	alert := startVMAlert(t, alertBin, lum, rules)
	eventually(t, time.Minute, func() error {
		if got := value(`job:scrape_samples_scraped:max{source="vmalert", job="luminate"} > 100`); got == "" {
			return fmt.Errorf("the recording rule has written nothing")
		}
		if got := value(`ALERTS{alertname="LuminateIsUp", alertstate="firing", severity="info"}`); got != "1" {
			return fmt.Errorf("the alert is %q", got)
		}
		if value(`ALERTS_FOR_STATE{alertname="LuminateIsUp"}`) == "" {
			return fmt.Errorf("the alert has no state")
		}
		return checkVMAlertRules(t, alert.url)
	})

	for _, name := range []string{"vmagent_remotewrite_packets_dropped_total", "vmagent_remotewrite_samples_dropped_total"} {
		if n := exposed(t, agent.url, name); n != 0 {
			t.Errorf("vmagent: %s is %v\n%s", name, n, agent.log)
		}
	}
	if strings.Contains(agent.log.String(), "unexpected status code") {
		t.Errorf("vmagent complains:\n%s", agent.log)
	}
}

func startVMAgent(t *testing.T, bin string, lum *process) *process {
	t.Helper()
	dir, addr := t.TempDir(), freeAddress(t)
	scrape := filepath.Join(dir, "scrape.yml")
	text := fmt.Sprintf("global: {scrape_interval: 500ms, scrape_timeout: 500ms}\nscrape_configs:\n  - {job_name: luminate, static_configs: [{targets: ['%s']}]}\n", strings.TrimPrefix(lum.url, "http://"))
	if err := os.WriteFile(scrape, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return startProcess(t, "http://"+addr, "/-/ready", nil, bin, "-httpListenAddr", addr, "-promscrape.config", scrape,
		"-remoteWrite.url", lum.url+"/api/v1/write", "-remoteWrite.headers", "X-Scope-OrgID: team-a",
		"-remoteWrite.flushInterval", "200ms", "-remoteWrite.tmpDataPath", filepath.Join(dir, "queue"))
}

func startVMAlert(t *testing.T, bin string, lum *process, rules string) *process {
	t.Helper()
	addr := freeAddress(t)
	const header = "X-Scope-OrgID: team-a"
	return startProcess(t, "http://"+addr, "/health", nil, bin, "-httpListenAddr", addr, "-rule", rules, "-notifier.blackhole",
		"-datasource.url", lum.url, "-datasource.headers", header, "-rule.evalDelay", "0s",
		"-remoteWrite.url", lum.url, "-remoteWrite.headers", header, "-remoteWrite.flushInterval", "200ms")
}

// checkVMAlertRules demands that every rule is in good health.
func checkVMAlertRules(t *testing.T, base string) error {
	t.Helper()
	_, body, _ := do(t, "GET", base+"/api/v1/rules", "", "")
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		return err
	}
	n := 0
	for _, g := range answer.Data.Groups {
		for _, r := range g.Rules {
			n++
			if r.Health != "ok" {
				return fmt.Errorf("rule %s is %s: %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	if n != 2 {
		return fmt.Errorf("%d rules in %s", n, body)
	}
	return nil
}

// exposed sums a metric that a process exposes.
func exposed(t *testing.T, base, name string) (sum float64) {
	t.Helper()
	_, body, _ := do(t, "GET", base+"/metrics", "", "")
	found := false
	for line := range strings.Lines(body) {
		if !strings.HasPrefix(line, name+"{") && !strings.HasPrefix(line, name+" ") {
			continue
		}
		f := strings.Fields(line)
		v, err := strconv.ParseFloat(f[len(f)-1], 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		sum, found = sum+v, true
	}
	if !found {
		t.Errorf("%s exposes no %s", base, name)
	}
	return sum
}
