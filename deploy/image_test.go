package deploy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/luminate/luminate/storage/clickhouse/chtest"
)

// TestDockerfile: a static binary, in an image without a shell, as nobody.
func TestDockerfile(t *testing.T) {
	text, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	_, final, ok := strings.Cut(string(text), "\nFROM gcr.io/distroless/static-debian12:nonroot\n")
	if !ok || strings.Contains(final, "\nFROM ") || strings.Contains(final, "\nRUN ") {
		t.Error("the last stage is not a bare distroless image")
	}
	for _, want := range []string{"CGO_ENABLED=0", "-trimpath", "-X main.version=$VERSION", "GOARCH=$TARGETARCH"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the build does not say %s", want)
		}
	}
	user := regexp.MustCompile(`(?m)^USER (\S+)$`).FindStringSubmatch(final)
	if user == nil || user[1] != "65532:65532" {
		t.Errorf("the image runs as %v", user)
	}
	for _, dir := range []string{"overlays/badger", "overlays/clickhouse"} {
		for _, o := range build(t, dir) {
			b, _ := json.Marshal(o)
			if id := regexp.MustCompile(`"runAsUser":(\d+)`).FindSubmatch(b); id != nil && !strings.HasPrefix(user[1], string(id[1])+":") {
				t.Errorf("%s runs as %s, the image's files belong to %s", dir, id[1], user[1])
			}
		}
	}
	if !regexp.MustCompile(`FROM --platform=\$BUILDPLATFORM golang:1\.\d+ AS build`).Match(text) {
		t.Error("the build stage is not pinned")
	}
}

// TestComposeFile: whatever it mounts or builds from exists, what waits for a service
// waits for one with a health check.
func TestComposeFile(t *testing.T) {
	c := readCompose(t, "compose.yaml")
	for _, name := range []string{"luminate", "clickhouse", "prometheus", "grafana"} {
		if _, ok := c.Services[name]; !ok {
			t.Errorf("there is no service %s", name)
		}
	}
	for name, s := range c.Services {
		if s.Image != "" {
			checkPinned(t, "compose "+name, s.Image)
		}
		if b := s.Build; b != nil {
			if _, err := os.Stat(filepath.Join(b.Context, b.Dockerfile)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if _, named := c.Volumes[from]; named {
				continue
			}
			if _, err := os.Stat(from); err != nil || !strings.HasPrefix(from, "./") {
				t.Errorf("%s mounts %s: %v", name, from, err)
			}
		}
		for other, how := range s.DependsOn {
			if how["condition"] == "service_healthy" && c.Services[other].Healthcheck == nil {
				t.Errorf("%s waits for the health of %s, which has no check", name, other)
			}
		}
	}
}

// TestComposeUp starts what `docker compose up` starts, as far as there are programs
// for it here: Luminate with the service's environment before the ClickHouse of the
// tests, and Prometheus with its configuration and command line, each under the
// addresses of this machine. Metrics of Luminate arrive in Luminate.
func TestComposeUp(t *testing.T) {
	c := readCompose(t, "compose.yaml")
	api, internal, own := freeAddress(t), freeAddress(t), freeAddress(t)
	var env []string
	for k, v := range c.Services["luminate"].Environment {
		switch k {
		case "LUMINATE_SERVER_LISTEN":
			v = api
		case "LUMINATE_SERVER_INTERNAL_LISTEN":
			v = internal
		case "LUMINATE_STORAGE_CLICKHOUSE_DSN":
			if !strings.Contains(v, "@clickhouse:9000/") {
				t.Errorf("Luminate writes to %s, which is no service of the file", v)
			}
			v = chtest.DSN(t)
		}
		env = append(env, k+"="+v)
	}
	startProcess(t, "http://"+api, "/readyz", env, binary(t, "luminate"), "serve", "--log.format", "text")

	p := c.Services["prometheus"]
	config := mounted(t, p, "/etc/prometheus/prometheus.yml")
	rules, err := filepath.Abs(mounted(t, p, "/etc/prometheus/rules"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	local := strings.NewReplacer("luminate:9090", internal, "luminate:8080", api, "localhost:9090", own,
		"/etc/prometheus/rules", rules, "scrape_interval: 15s", "scrape_interval: 1s").Replace(string(text))
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(local), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{prometheusBinary(t), "--storage.tsdb.path=" + dir, "--web.listen-address=" + own}
	for _, a := range p.Command {
		args = append(args, strings.Replace(a, "/etc/prometheus/prometheus.yml", filepath.Join(dir, "prometheus.yml"), 1))
	}
	startProcess(t, "http://"+own, "/-/ready", nil, args...)
	for _, query := range []string{`up{job="luminate"}==1`, `up{job="prometheus"}==1`, "luminate_http_requests_in_flight"} {
		eventually(t, time.Minute, func() error {
			status, body, err := do(t.Context(), http.MethodGet, "http://"+api+"/api/v1/query?query="+strings.NewReplacer("{", "%7B", "}", "%7D", `"`, "%22", "=", "%3D").Replace(query), nil)
			if err != nil || status != http.StatusOK || !strings.Contains(body, `"value"`) {
				return fmt.Errorf("%s: %d %s %w", query, status, body, err)
			}
			return nil
		})
	}
}

// mounted returns the file of this folder that a service sees under path.
func mounted(t *testing.T, s composeService, path string) string {
	t.Helper()
	for _, v := range s.Volumes {
		if f := strings.Split(v, ":"); f[1] == path {
			return f[0]
		}
	}
	t.Fatalf("nothing is mounted on %s", path)
	return ""
}

// TestVersionStamp: the binary that `make` builds tells the version it was given.
func TestVersionStamp(t *testing.T) {
	text, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^LDFLAGS\s+:= .*-X main\.version=\$\(VERSION\)$`).Match(text) {
		t.Fatal("the Makefile does not stamp main.version")
	}
	bin := filepath.Join(t.TempDir(), "luminate")
	if out, err := exec.Command("go", "build", "-ldflags", "-X main.version=v1.2.3-test", "-o", bin, "../cmd/luminate").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(bin, "version").Output()
	if err != nil || !strings.HasPrefix(string(out), "luminate v1.2.3-test (go") {
		t.Errorf("%q, %v", out, err)
	}
}

// TestWorkflows: CI and release run the same targets as a developer, and each is a
// target of the Makefile.
func TestWorkflows(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{"ci.yaml": {"dist", "vuln", "actionlint"}, "release.yaml": {"dist", "vuln"}}
	for name, targets := range want {
		text, err := os.ReadFile("../.github/workflows/" + name)
		if err != nil {
			t.Fatal(err)
		}
		var run []string
		for _, m := range regexp.MustCompile(`(?m)run: make (.*)$`).FindAllStringSubmatch(string(text), -1) {
			for _, word := range strings.Fields(m[1]) {
				if !strings.Contains(word, "=") {
					run = append(run, word)
				}
			}
		}
		for _, target := range run {
			if !regexp.MustCompile(`(?m)^` + target + `:`).Match(makefile) {
				t.Errorf("%s runs make %s, which the Makefile does not have", name, target)
			}
		}
		for _, target := range targets {
			if !slices.Contains(run, target) {
				t.Errorf("%s does not run make %s", name, target)
			}
		}
	}
	ci, err := os.ReadFile("../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{"make fmt vet", "make lint", "make test", "make e2e", "make cover-report", "make fuzz"} {
		if !strings.Contains(string(ci), "\n"+step) {
			t.Errorf(".ci/run does not %s", step)
		}
	}
}
