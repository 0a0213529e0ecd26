package deploy

import (
	"encoding/xml"
	"fmt"
	"os"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

func TestClickHouseClusterShape(t *testing.T) {
	objects := build(t, "clickhouse-cluster")
	seen := 0
	for _, o := range objects {
		s, ok := o.(*appsv1.StatefulSet)
		if !ok {
			continue
		}
		seen++
		if want := map[string]int32{"clickhouse": 4, "keeper": 3}[s.Name]; s.Spec.Replicas == nil || *s.Spec.Replicas != want {
			t.Errorf("%s: replicas %v, want %d", s.Name, s.Spec.Replicas, want)
		}
		if len(s.Spec.VolumeClaimTemplates) != 1 {
			t.Errorf("%s: data does not lie on a claim", s.Name)
		}
		if !selects(s.Spec.Selector, s.Spec.Template.Labels) {
			t.Errorf("%s does not select its pods", s.Name)
		}
		if !slices.ContainsFunc(objects, func(o any) bool {
			svc, ok := o.(*corev1.Service)
			return ok && svc.Name == s.Spec.ServiceName && svc.Spec.ClusterIP == corev1.ClusterIPNone
		}) {
			t.Errorf("%s: there is no headless service %s, which names its pods", s.Name, s.Spec.ServiceName)
		}
	}
	if seen != 2 {
		t.Errorf("%d StatefulSets, want ClickHouse and Keeper", seen)
	}
	if !slices.ContainsFunc(objects, func(o any) bool {
		p, ok := o.(*networkingv1.NetworkPolicy)
		return ok && len(p.Spec.PodSelector.MatchLabels) == 0 && len(p.Spec.Ingress)+len(p.Spec.Egress) == 0
	}) {
		t.Error("no policy denies by default")
	}
}

// fromEnv is an element whose text a variable gives.
type fromEnv struct {
	Name string `xml:"from_env,attr"`
}

type clusterConfig struct {
	Listen  string `xml:"listen_host"`
	Cluster struct {
		Secret fromEnv `xml:"secret"`
		Shards []struct {
			Internal bool `xml:"internal_replication"`
			Replicas []struct {
				Host string `xml:"host"`
				Port int    `xml:"port"`
			} `xml:"replica"`
		} `xml:"shard"`
	} `xml:"remote_servers>luminate"`
	Keepers []struct {
		Host string `xml:"host"`
		Port int    `xml:"port"`
	} `xml:"zookeeper>node"`
	Shard       fromEnv `xml:"macros>shard"`
	Replica     fromEnv `xml:"macros>replica"`
	Interserver fromEnv `xml:"interserver_http_host"`
}

type keeperConfig struct {
	Listen string `xml:"listen_host"`
	Server struct {
		Port    int     `xml:"tcp_port"`
		ID      fromEnv `xml:"server_id"`
		Servers []struct {
			ID   int    `xml:"id"`
			Host string `xml:"hostname"`
			Port int    `xml:"port"`
		} `xml:"raft_configuration>server"`
	} `xml:"keeper_server"`
}

func readXML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// TestClickHouseClusterConfig: two shards of two replicas whose names are the pods',
// three Keepers, all of them reachable from other pods, and every variable that the
// files name is set by the manifests.
func TestClickHouseClusterConfig(t *testing.T) {
	var c clusterConfig
	readXML(t, "kubernetes/clickhouse-cluster/config/cluster.xml", &c)
	if c.Listen != "0.0.0.0" || len(c.Cluster.Shards) != 2 || len(c.Keepers) != 3 {
		t.Fatalf("cluster: %+v", c)
	}
	for i, s := range c.Cluster.Shards {
		if !s.Internal || len(s.Replicas) != 2 {
			t.Fatalf("shard %d: %+v", i, s)
		}
		for j, r := range s.Replicas {
			if want := fmt.Sprintf("clickhouse-%d.clickhouse-nodes.clickhouse.svc", 2*i+j); r.Host != want || r.Port != 9000 {
				t.Errorf("replica %d of shard %d is %+v, want %s", j, i, r, want)
			}
		}
	}
	var k keeperConfig
	readXML(t, "kubernetes/clickhouse-cluster/config/keeper.xml", &k)
	if k.Listen != "0.0.0.0" || len(k.Server.Servers) != 3 {
		t.Fatalf("keeper: %+v", k)
	}
	for i, s := range k.Server.Servers {
		want := fmt.Sprintf("keeper-%d.keeper.clickhouse.svc", i)
		if s.Host != want || s.ID != i+1 || c.Keepers[i].Host != want || c.Keepers[i].Port != k.Server.Port {
			t.Errorf("keeper %d is %+v, ClickHouse asks %+v", i, s, c.Keepers[i])
		}
	}
	for _, o := range build(t, "clickhouse-cluster") {
		if s, ok := o.(*appsv1.StatefulSet); ok {
			checkEnvironment(t, s, map[string][]string{
				"clickhouse": {c.Cluster.Secret.Name, c.Shard.Name, c.Replica.Name, c.Interserver.Name}, "keeper": {k.Server.ID.Name},
			}[s.Name])
		}
	}
}

// checkEnvironment: the container sets each variable, in env or in its command.
func checkEnvironment(t *testing.T, s *appsv1.StatefulSet, names []string) {
	t.Helper()
	c := s.Spec.Template.Spec.Containers[0]
	for _, name := range names {
		inEnv := slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == name })
		if name == "" || !inEnv && !containsWord(c.Args[0], name+"=") {
			t.Errorf("%s: nothing sets %q", s.Name, name)
		}
	}
}

func containsWord(text, word string) bool {
	for i := 0; i+len(word) <= len(text); i++ {
		if text[i:i+len(word)] == word && (i == 0 || text[i-1] == ' ') {
			return true
		}
	}
	return false
}
