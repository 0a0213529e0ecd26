package deploy

import (
	"encoding/xml"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// composeFile is what our compose files use of the format; strict decoding refuses
// everything else.
type composeFile struct {
	Name       string                    `json:"name"`
	Services   map[string]composeService `json:"services"`
	Volumes    map[string]any            `json:"volumes"`
	ClickHouse composeService            `json:"x-clickhouse"`
}

type composeService struct {
	Image       string                       `json:"image"`
	Hostname    string                       `json:"hostname"`
	Build       *composeBuild                `json:"build"`
	Command     []string                     `json:"command"`
	Environment map[string]string            `json:"environment"`
	Volumes     []string                     `json:"volumes"`
	Ports       []string                     `json:"ports"`
	DependsOn   map[string]map[string]string `json:"depends_on"`
	Healthcheck *composeHealthcheck          `json:"healthcheck"`
	Ulimits     map[string]int               `json:"ulimits"`
	Restart     string                       `json:"restart"`
	MemLimit    string                       `json:"mem_limit"`
}

type composeBuild struct {
	Context    string `json:"context"`
	Dockerfile string `json:"dockerfile"`
}

type composeHealthcheck struct {
	Test     []string `json:"test"`
	Interval string   `json:"interval"`
	Retries  int      `json:"retries"`
}

func readCompose(t *testing.T, path string) composeFile {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var c composeFile
	if err := yaml.UnmarshalStrict(text, &c); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	for name, s := range c.Services {
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s: %s publishes %s beyond loopback", path, name, p)
			}
		}
		for dep := range s.DependsOn {
			if _, ok := c.Services[dep]; !ok {
				t.Errorf("%s: %s depends on %s, which is none of the services", path, name, dep)
			}
		}
		if (s.Image == "") == (s.Build == nil) || strings.HasSuffix(s.Image, ":latest") {
			t.Errorf("%s: %s has image %q and build %v", path, name, s.Image, s.Build)
		}
	}
	return c
}

// TestComposeFiles decodes both files strictly. No container engine runs them here.
func TestComposeFiles(t *testing.T) {
	readCompose(t, "compose.yaml")
	c := readCompose(t, "cluster/compose.yaml")
	var nodes []string
	for name, s := range c.Services {
		if !strings.HasPrefix(name, "clickhouse-") {
			continue
		}
		nodes = append(nodes, name)
		if s.Hostname != name || s.Environment["CLICKHOUSE_REPLICA"] != name || "clickhouse-"+s.Environment["CLICKHOUSE_SHARD"] != name[:len("clickhouse-1")] {
			t.Errorf("%s has hostname %q and %v", name, s.Hostname, s.Environment)
		}
		if len(s.Volumes) == 0 || s.Healthcheck == nil {
			t.Errorf("%s does not take over the common part", name)
		}
	}
	slices.Sort(nodes)
	config, err := os.ReadFile("cluster/cluster.xml")
	if err != nil {
		t.Fatal(err)
	}
	var hosts []string
	for _, m := range regexp.MustCompile(`<replica><host>([^<]+)</host>`).FindAllStringSubmatch(string(config), -1) {
		hosts = append(hosts, m[1])
	}
	if len(nodes) != 4 || !slices.Equal(nodes, hosts) {
		t.Errorf("the services are %v, the cluster's hosts %v", nodes, hosts)
	}
	for _, path := range []string{"cluster/cluster.xml", "cluster/keeper.xml"} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		d := xml.NewDecoder(f)
		for err == nil {
			_, err = d.Token()
		}
		if err != io.EOF {
			t.Errorf("%s: %v", path, err)
		}
		f.Close()
	}
}
