package deploy

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/luminate/luminate/internal/proctest"
)

// fileOf returns a file that grafana/README.md shows, by the name in its first line.
func fileOf(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("grafana/README.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```yaml\n# " + regexp.QuoteMeta(name) + "\n(.*?)```").FindStringSubmatch(string(text))
	if m == nil {
		t.Fatalf("grafana/README.md does not show %s", name)
	}
	return m[1]
}

// prometheusBinary finds the real Prometheus, or builds it.
func prometheusBinary(t *testing.T) string { return prometheusProgram(t, "prometheus") }

func prometheusProgram(t *testing.T, name string) string {
	t.Helper()
	path, err := proctest.Prometheus(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestAlertOverDataInLuminate runs a real Prometheus with the configuration and the
// rule that the README shows, which reads what Luminate stores, and waits for the
// alert: in Prometheus, and written back into Luminate.
func TestAlertOverDataInLuminate(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the server and Prometheus")
	}
	t.Parallel()
	lum := startLuminate(t, nil)
	seed := exec.Command(binary(t, "luminate-bench"), "example", "--url", lum.url, "--customers", "10", "--span", "10m")
	if out, err := seed.CombinedOutput(); err != nil {
		t.Fatalf("seed example customers: %v\n%s", err, out)
	}
	dir, addr := t.TempDir(), freeAddress(t)
	config := strings.NewReplacer("http://127.0.0.1:8080", lum.url, "evaluation_interval: 15s", "evaluation_interval: 1s").Replace(fileOf(t, "prometheus.yml"))
	if strings.Count(config, lum.url) != 2 || !strings.Contains(config, "evaluation_interval: 1s") {
		t.Fatalf("the configuration is not what the test expects:\n%s", config)
	}
	for name, text := range map[string]string{"prometheus.yml": config, "customers.rules.yaml": fileOf(t, "customers.rules.yaml")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	prom := startProcess(t, "http://"+addr, "/-/ready", nil, prometheusBinary(t), "--config.file", filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", addr, "--log.level", "warn")
	eventually(t, time.Minute, func() error {
		_, text, err := do(t.Context(), "GET", prom.url+"/api/v1/alerts", nil)
		if err != nil {
			return err
		}
		var a struct {
			Data struct {
				Alerts []struct {
					Labels map[string]string
					State  string
				}
			}
		}
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			return err
		}
		for _, x := range a.Data.Alerts {
			if x.State == "firing" && x.Labels["alertname"] == "CustomerRequestsFail" && strings.HasPrefix(x.Labels["customer_id"], "cust_") {
				return nil
			}
		}
		return fmt.Errorf("nothing fires: %.500s\n%s", text, prom.log.String())
	})
	query := lum.url + "/api/v1/query?" + url.Values{"query": {`count(ALERTS{alertname="CustomerRequestsFail",alertstate="firing"}) > 0`}}.Encode()
	eventually(t, time.Minute, func() error {
		_, text, err := do(t.Context(), "GET", query, nil, "X-Scope-OrgID", "default")
		if err != nil || !strings.Contains(text, `"value"`) {
			return fmt.Errorf("ALERTS are not in Luminate: %.300s (%v)", text, err)
		}
		return nil
	})
}
