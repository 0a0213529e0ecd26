//go:build kubernetes

package deploy

// `make e2e-kubernetes`: a Kubernetes of this machine's own admits every overlay, its
// controllers make the pods, and a kubelet with containerd runs those of overlays/badger.
// All of it lives in network, mount and process namespaces of its own and ends with them.

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/luminate/luminate/storage/clickhouse/chtest"
)

// operatorVersion is the newest release of the Prometheus operator that is a module
// with its CustomResourceDefinitions.
const operatorVersion = "v0.85.0"

// insideEnv names the folder with what TestKubernetes has made for the process that
// it starts in the namespaces.
const insideEnv = "LUMINATE_TEST_KUBERNETES_INSIDE"

func TestKubernetes(t *testing.T) {
	if dir := os.Getenv(insideEnv); dir != "" {
		testInside(t, dir)
		return
	}
	programs, err := filepath.Abs("../bin/kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"containerd", "containerd-shim-runc-v2", "ctr", "unshare", "ip", "/usr/lib/cni/bridge", programs + "/kubelet"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("make e2e-kubernetes needs what make e2e-image needs, and containerd with CNI's plugins (as root: apt-get install containerd containernetworking-plugins iproute2): %v", err)
		}
	}
	// A short path: sockets lie in it.
	dir, err := os.MkdirTemp("", "k8s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	chtest.DSN(t) // fetches the engine, which has no way out of the namespaces
	saveImages(t, dir)
	sh(t, `cp "$(go mod download -json github.com/prometheus-operator/prometheus-operator@$2 | sed -n 's/.*"Dir": "\(.*\)",/\1/p')"/example/prometheus-operator-crd/*_servicemonitors.yaml "$1"
		cp "$(go mod download -json github.com/prometheus-operator/prometheus-operator@$2 | sed -n 's/.*"Dir": "\(.*\)",/\1/p')"/example/prometheus-operator-crd/*_prometheusrules.yaml "$1"
		head -c 48 /dev/urandom | base64 >"$1/jwt-secret"
		"$3" token --key "$1/jwt-secret" --tenant shop --scopes read,write,operator >"$1/token"
		openssl genrsa -out "$1/sa.key" 2048`, dir, operatorVersion, binary(t, "luminate"))
	cmd := exec.Command("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private",
		os.Args[0], "-test.run", "^TestKubernetes$", "-test.v", "-test.timeout", "15m")
	cmd.Env = append(os.Environ(), insideEnv+"="+dir, "PATH="+programs+":"+os.Getenv("PATH"))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	const cgroups = `find /sys/fs/cgroup -path '*/k8s.io*' -type d`
	before := sh(t, cgroups)
	err = cmd.Run()
	if before == "" { // the kernel keeps empty cgroups; a containerd of this machine's own has its in the same place
		sh(t, cgroups+` -depth -exec rmdir {} \;`)
	}
	if err != nil {
		t.Errorf("in its namespaces: %v", err)
	}
}

// saveImages leaves the image of the Dockerfile under the name that the manifests
// have, and one that only waits, for the pods' sandboxes.
func saveImages(t *testing.T, dir string) {
	t.Helper()
	p := newPodman(t)
	buildImage(t, p)
	image := sh(t, `sed -n 's/^ *image: //p' kubernetes/overlays/badger/statefulset.yaml`)
	p.run("tag", imageName, image)
	p.run("save", "--output", filepath.Join(dir, "luminate.tar"), image)
	p.from("localhost/pause:test", "USER 65535:65535\nENTRYPOINT [\"/busybox\", \"sleep\", \"86400\"]\n", func(dir string) {
		sh(t, `cp "$(command -v busybox)" "$1/busybox"`, dir)
	})
	p.run("save", "--output", filepath.Join(dir, "pause.tar"), "localhost/pause:test")
}

// cluster is a Kubernetes with one node at most, in this process's namespaces.
type cluster struct {
	t   *testing.T
	dir string
}

func testInside(t *testing.T, dir string) {
	// A node has an address that is not loopback, and a default route; nothing leads out.
	sh(t, `ip link set lo up; ip link add node0 type veth peer name node1; ip address add 10.0.0.2/24 dev node0; ip link set node0 up; ip link set node1 up; ip route add default dev node0
		for d in /run /var/log; do mount -t tmpfs tmpfs $d; done; mkdir -p /run/lock`)
	c := &cluster{t: t, dir: dir}
	c.startControlPlane()
	c.apply("--filename", dir+"/monitoring.coreos.com_servicemonitors.yaml", "--filename", dir+"/monitoring.coreos.com_prometheusrules.yaml")
	c.run("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	for _, step := range []struct {
		name string
		run  func(*cluster)
	}{{"Admission", testAdmission}, {"Controllers", testControllers}, {"Pod", testPod}, {"Staging", testStaging}} {
		if step.name == "Pod" {
			c.startNode()
		}
		if !t.Run(step.name, func(t *testing.T) { step.run(&cluster{t: t, dir: dir}) }) {
			break // each begins with what the one before left
		}
	}
}

// start runs a program of the cluster until the namespaces end; its log is a file.
func (c *cluster) start(args ...string) {
	c.t.Helper()
	log, err := os.Create(filepath.Join(c.dir, filepath.Base(args[0])+".log"))
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, log, log
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
		if c.t.Failed() {
			c.t.Logf("the end of %s:\n%s", log.Name(), sh(c.t, `tail -n 15 "$1"`, log.Name()))
		}
	})
}

func (c *cluster) write(name, text string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) startControlPlane() {
	c.t.Helper()
	c.write("tokens", "local,admin,1,system:masters\n")
	c.write("kubeconfig", `{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: k, user: u}}],
clusters: [{name: k, cluster: {server: "https://127.0.0.1:6443", certificate-authority: certs/apiserver.crt}}], users: [{name: u, user: {token: local}}]}`)
	c.start("etcd", "--data-dir", "etcd", "--unsafe-no-fsync")
	c.start("kube-apiserver", "--etcd-servers", "http://127.0.0.1:2379", "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1", "--cert-dir", "certs",
		"--service-account-key-file", "sa.key", "--service-account-signing-key-file", "sa.key", "--service-account-issuer", "https://kubernetes.default.svc",
		"--token-auth-file", "tokens", "--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.96.0.0/16", "--endpoint-reconciler-type", "none", "--kubelet-preferred-address-types", "InternalIP")
	eventually(c.t, time.Minute, func() error {
		_, stderr, err := c.kubectl("get", "--raw", "/readyz")
		if err != nil {
			return fmt.Errorf("%w: %s", err, stderr)
		}
		return nil
	})
	c.start("kube-controller-manager", "--kubeconfig", "kubeconfig", "--bind-address", "127.0.0.1", "--cert-dir", "certs-controllers", "--service-account-private-key-file", "sa.key", "--leader-elect=false")
}

func (c *cluster) kubectl(args ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	cmd := exec.Command("kubectl", append([]string{"--kubeconfig", filepath.Join(c.dir, "kubeconfig")}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return strings.TrimSpace(out.String()), strings.TrimSpace(errs.String()), err
}

func (c *cluster) run(args ...string) string {
	c.t.Helper()
	out, stderr, err := c.kubectl(args...)
	if err != nil {
		c.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
	return out
}

// apply applies on the server, which must neither refuse nor warn.
func (c *cluster) apply(args ...string) string {
	c.t.Helper()
	out, stderr, err := c.kubectl(append([]string{"apply", "--server-side", "--validate=strict"}, args...)...)
	if err != nil || stderr != "" || out == "" {
		c.t.Errorf("kubectl apply %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
	return out
}

// refused applies text, which the server must refuse or warn of with these words.
func (c *cluster) refused(text, words string) {
	c.t.Helper()
	c.write("refused.yaml", text)
	_, stderr, _ := c.kubectl("apply", "--server-side", "--validate=strict", "--dry-run=server", "--filename", filepath.Join(c.dir, "refused.yaml"))
	if !strings.Contains(stderr, words) {
		c.t.Errorf("not told %q, but %q, of:\n%s", words, stderr, text)
	}
}

// testAdmission: the real server takes every object of every overlay, without a
// warning; and it would have told.
func testAdmission(c *cluster) {
	for _, dir := range overlays {
		out := c.apply("--kustomize", filepath.Join("kubernetes", dir))
		if got, want := strings.Count(out, "serverside-applied"), len(build(c.t, dir)); got != want {
			c.t.Errorf("%s: %d objects were applied, it has %d:\n%s", dir, got, want, out)
		}
	}
	// An operator's own overlay, with the optional component.
	sh(c.t, `cp -r kubernetes "$1/kubernetes"; mkdir "$1/kubernetes/overlays/own"`, c.dir)
	c.write("kubernetes/overlays/own/kustomization.yaml", "resources: [../clickhouse]\ncomponents: [../../components/inflight-autoscaling]\n")
	c.apply("--dry-run=server", "--kustomize", filepath.Join(c.dir, "kubernetes/overlays/own"))
	for _, namespace := range []string{"luminate", "luminate-staging", "clickhouse"} {
		pod := fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: root, namespace: %s}\nspec: {containers: [{name: c, image: i}]}\n", namespace)
		c.refused(pod, `violates PodSecurity "restricted:latest"`)
		c.refused(fmt.Sprintf("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: root, namespace: %s}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}\n", namespace), "would violate PodSecurity")
	}
	c.refused("apiVersion: monitoring.coreos.com/v1\nkind: ServiceMonitor\nmetadata: {name: m, namespace: luminate}\nspec: {selector: {}, endpoints: [{prot: internal}]}\n", ".spec.endpoints[0].prot: field not declared in schema")
	c.refused("apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata: {name: r, namespace: luminate}\nspec: {groups: [{name: g, interval: soon}]}\n", "spec.groups[0].interval")
}

// testControllers: they make of the overlays the pods that were meant, and the
// budgets count them.
func testControllers(c *cluster) {
	want := map[string]int{"luminate statefulset/luminate": 1, "luminate deployment/luminate": 3, "luminate-staging deployment/luminate": 2, "clickhouse statefulset/keeper": 3, "clickhouse statefulset/clickhouse": 4}
	for where, n := range want {
		namespace, object, _ := strings.Cut(where, " ")
		eventually(c.t, 2*time.Minute, func() error {
			// The autoscaler brings a Deployment from one replica to its least number.
			if got := c.run("--namespace", namespace, "get", object, "--output", "jsonpath={.spec.replicas} {.status.replicas}"); got != fmt.Sprintf("%d %d", n, n) {
				return fmt.Errorf("%s has %s pods, want %d; %s", where, got, n, c.run("--namespace", namespace, "get", "events", "--field-selector", "type=Warning"))
			}
			return nil
		})
	}
	// In the namespace luminate both overlays were applied: one selects the pods of the other too.
	for where, n := range map[string]int{"luminate-staging luminate": 2, "clickhouse keeper": 3, "clickhouse clickhouse": 4} {
		namespace, budget, _ := strings.Cut(where, " ")
		eventually(c.t, time.Minute, func() error {
			if got := c.run("--namespace", namespace, "get", "pdb", budget, "--output", "jsonpath={.status.expectedPods}"); got != fmt.Sprint(n) {
				return fmt.Errorf("the budget %s counts %s pods, want %d", where, got, n)
			}
			return nil
		})
	}
	c.run("delete", "deployments,statefulsets,hpa", "--all", "--all-namespaces")
	c.run("delete", "pods", "--all", "--all-namespaces", "--force", "--grace-period=0")
	c.run("delete", "pvc", "--all", "--all-namespaces")
}

// startNode starts the scheduler, containerd with the two images, and a kubelet.
func (c *cluster) startNode() {
	c.t.Helper()
	c.write("containerd.toml", strings.ReplaceAll(`version = 2
root = "DIR/containerd"
state = "/run/containerd-state"
oom_score = 0
[grpc]
  address = "DIR/c.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:test"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "DIR/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
`, "DIR", c.dir))
	if err := os.Mkdir(filepath.Join(c.dir, "cni"), 0o700); err != nil {
		c.t.Fatal(err)
	}
	c.write("cni/10-bridge.conflist", fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "pods0", "isGateway": true,
"ipam": {"type": "host-local", "dataDir": "%s/ipam", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}`, c.dir))
	c.write("kubelet.yaml", strings.ReplaceAll(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
containerRuntimeEndpoint: unix://DIR/c.sock
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
oomScoreAdj: 0
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
`, "DIR", c.dir))
	c.start("containerd", "--config", "containerd.toml")
	for _, image := range []string{"luminate.tar", "pause.tar"} {
		eventually(c.t, time.Minute, func() error {
			out, err := exec.Command("ctr", "--address", filepath.Join(c.dir, "c.sock"), "--namespace", "k8s.io", "images", "import", "--snapshotter", "native", filepath.Join(c.dir, image)).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	}
	c.start("kube-scheduler", "--kubeconfig", "kubeconfig", "--bind-address", "127.0.0.1", "--cert-dir", "certs-scheduler", "--leader-elect=false")
	c.start("kubelet", "--kubeconfig", "kubeconfig", "--config", "kubelet.yaml", "--root-dir", filepath.Join(c.dir, "kubelet"), "--cert-dir", "certs-kubelet", "--hostname-override", "node", "--node-ip", "10.0.0.2")
	eventually(c.t, 2*time.Minute, func() error {
		if out, stderr, err := c.kubectl("wait", "--for=condition=Ready", "node/node", "--timeout=1s"); err != nil {
			return fmt.Errorf("%w: %s %s", err, out, stderr)
		}
		return nil
	})
}

// running returns the environment and the status, as /proc has them, of the one
// process that runs /luminate serve.
func running() (environ, status string, err error) {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return "", "", err
	}
	for _, path := range lines {
		if b, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(b, []byte("/luminate\x00serve\x00")) {
			continue // it may have ended meanwhile
		}
		e, err := os.ReadFile(filepath.Join(filepath.Dir(path), "environ"))
		if err != nil {
			return "", "", err
		}
		s, err := os.ReadFile(filepath.Join(filepath.Dir(path), "status"))
		return string(e), string(s), err
	}
	return "", "", os.ErrNotExist
}

// testPod: a kubelet runs the pod of overlays/badger as it stands: it becomes ready by
// its probes, is confined, takes writes, makes a backup, drains, and its data stay.
func testPod(c *cluster) {
	// A volume of its own file system: its root is root's, with a folder that is nobody's to read.
	sh(c.t, `mkdir -p "$1/volume"; chmod 755 "$1" "$1/volume"; mkdir -m 700 "$1/volume/lost+found"`, c.dir)
	c.write("volume.yaml", fmt.Sprintf(`{apiVersion: v1, kind: PersistentVolume, metadata: {name: data}, spec: {capacity: {storage: 100Gi}, accessModes: [ReadWriteOnce], local: {path: %s/volume},
nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node]}]}]}}}}`, c.dir))
	c.apply("--filename", filepath.Join(c.dir, "volume.yaml"))
	c.run("--namespace", "luminate", "create", "secret", "generic", "luminate-auth", "--from-file", filepath.Join(c.dir, "jwt-secret"), "--from-file", filepath.Join(c.dir, "token"))
	c.apply("--kustomize", "kubernetes/overlays/badger")
	api := c.rolledOut()
	environ, status, err := running()
	if err != nil || strings.Contains(environ, "LUMINATE_PORT") {
		c.t.Errorf("the process: %v, environment %q", err, environ)
	}
	for _, want := range []string{"Uid:\t65532\t65532\t65532\t65532\n", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
		if !strings.Contains(status, want) {
			c.t.Errorf("the process is not %q:\n%s", want, status)
		}
	}

	token, err := os.ReadFile(filepath.Join(c.dir, "token"))
	if err != nil {
		c.t.Fatal(err)
	}
	auth := []string{"Authorization", "Bearer " + strings.TrimSpace(string(token)), "Content-Type", "application/json"}
	code, body, err := do(c.t.Context(), http.MethodPost, api+"/api/v1/write", []byte(`{"metrics":[{"name":"orders","value":42,"dimensions":{"shop":"a"}}]}`), auth...)
	if err != nil || !strings.Contains(body, `"accepted":1`) {
		c.t.Fatalf("write: %d %s %v", code, body, err)
	}
	_, told, err := c.kubectl("--namespace", "luminate", "exec", "luminate-0", "--", "/luminate", "backup", "--url", "http://127.0.0.1:8080", "--token-file", "/etc/luminate/auth/token", "--out", "/var/lib/luminate/")
	if err != nil || !strings.Contains(told, "backup to /var/lib/luminate/luminate-") {
		c.t.Errorf("the backup: %v, it tells %q", err, told)
	}
	if code, _, err := do(c.t.Context(), http.MethodGet, api+"/api/v1/query?query=orders", nil); err != nil || code != http.StatusUnauthorized {
		c.t.Errorf("without a token it answers %d, %v", code, err)
	}

	// A rollout to pods that get the variables of Services: the old pod drains, the new one is not confused.
	log := exec.Command("kubectl", "--kubeconfig", filepath.Join(c.dir, "kubeconfig"), "--namespace", "luminate", "logs", "--follow", "luminate-0")
	var text bytes.Buffer
	log.Stdout, log.Stderr = &text, &text
	if err := log.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.run("--namespace", "luminate", "patch", "statefulset", "luminate", "--type=json", "--patch", `[{"op": "replace", "path": "/spec/template/spec/enableServiceLinks", "value": true}]`)
	api = c.rolledOut()
	_ = log.Wait() // the pod is gone
	if got := text.String(); !strings.Contains(got, "luminate shuts down") || !strings.Contains(got, "luminate stopped") {
		c.t.Errorf("the first pod did not end in order:\n%s", got)
	}
	if environ, _, err := running(); err != nil || !strings.Contains(environ, "LUMINATE_PORT_8080_TCP_ADDR=") {
		c.t.Errorf("the pod has no variables of Services, so it proves nothing: %v\n%q", err, environ)
	}
	if code, body, err := do(c.t.Context(), http.MethodGet, api+"/api/v1/query?query=orders", nil, auth...); err != nil || code != http.StatusOK || !strings.Contains(body, `"42"`) {
		c.t.Errorf("after the rollout the query answers %d %s, %v", code, body, err)
	}
	c.run("--namespace", "luminate", "delete", "statefulset", "luminate")
	c.run("--namespace", "luminate", "wait", "--for=delete", "pod/luminate-0", "--timeout=60s")
	c.idle()
}

// idle waits until no container runs: each is ended in order.
func (c *cluster) idle() {
	c.t.Helper()
	eventually(c.t, time.Minute, func() error {
		out, err := exec.Command("ctr", "--address", filepath.Join(c.dir, "c.sock"), "--namespace", "k8s.io", "tasks", "list", "--quiet").Output()
		if err != nil || len(out) > 0 {
			return fmt.Errorf("containers still run: %v %s", err, out)
		}
		return nil
	})
}

// rolledOut waits until the StatefulSet's pod is ready, never restarted, and behind
// the Service, and returns the address of its API.
func (c *cluster) rolledOut() string {
	c.t.Helper()
	if _, stderr, err := c.kubectl("--namespace", "luminate", "rollout", "status", "statefulset/luminate", "--timeout=180s"); err != nil {
		out, _, _ := c.kubectl("--namespace", "luminate", "describe", "pods")
		log, _, _ := c.kubectl("--namespace", "luminate", "logs", "luminate-0", "--previous")
		c.t.Fatalf("rollout: %v\n%s\n%s\n%s", err, stderr, out, log)
	}
	var pod struct {
		Status struct {
			PodIP             string
			ContainerStatuses []struct{ RestartCount int }
		}
	}
	if err := json.Unmarshal([]byte(c.run("--namespace", "luminate", "get", "pod", "luminate-0", "--output", "json")), &pod); err != nil || pod.Status.PodIP == "" {
		c.t.Fatalf("the pod: %v %+v", err, pod)
	}
	if s := pod.Status.ContainerStatuses; len(s) != 1 || s[0].RestartCount != 0 {
		c.t.Errorf("the container was restarted: %+v", s)
	}
	for _, service := range []string{"luminate", "luminate-internal"} {
		eventually(c.t, time.Minute, func() error {
			got := strings.Fields(c.run("--namespace", "luminate", "get", "endpointslices", "--selector", "kubernetes.io/service-name="+service, "--output", "jsonpath={.items[*].endpoints[?(@.conditions.ready==true)].addresses[*]}"))
			if !slices.Equal(got, []string{pod.Status.PodIP}) {
				return fmt.Errorf("service %s leads to %v, the pod is %s", service, got, pod.Status.PodIP)
			}
			return nil
		})
	}
	return "http://" + pod.Status.PodIP + ":8080"
}

// testStaging: the pods of overlays/staging, before a ClickHouse of the tests that has
// the name which the configuration says: both become ready, read what one has written,
// and so do those of the next rollout.
func testStaging(c *cluster) {
	clickhouse := chtest.Own(c.t)
	clickhouse.Exec(c.t, "CREATE DATABASE luminate_staging")
	forward(c.t, "10.0.0.2:9000", clickhouse.Addr())
	in := func(args ...string) string {
		c.t.Helper()
		return c.run(append([]string{"--namespace", "luminate-staging"}, args...)...)
	}
	in("create", "secret", "generic", "luminate-auth", "--from-file", filepath.Join(c.dir, "jwt-secret"))
	in("create", "secret", "generic", "luminate-clickhouse", "--from-literal=password=secret")
	c.apply("--kustomize", "kubernetes/overlays/staging")
	// What DNS would tell; no other change to the overlay.
	in("patch", "deployment", "luminate", "--type=json", "--patch", `[{"op": "add", "path": "/spec/template/spec/hostAliases", "value": [{"ip": "10.0.0.2", "hostnames": ["clickhouse.clickhouse.svc"]}]}]`)
	pods := func() []string {
		c.t.Helper()
		if _, stderr, err := c.kubectl("--namespace", "luminate-staging", "rollout", "status", "deployment/luminate", "--timeout=180s"); err != nil {
			out, _, _ := c.kubectl("--namespace", "luminate-staging", "describe", "pods")
			log, _, _ := c.kubectl("--namespace", "luminate-staging", "logs", "deployment/luminate")
			c.t.Fatalf("rollout: %v\n%s\n%s\n%s", err, stderr, out, log)
		}
		var ready []string
		eventually(c.t, time.Minute, func() error { // the autoscaler begins with one pod
			ready = strings.Fields(in("get", "endpointslices", "--selector", "kubernetes.io/service-name=luminate", "--output", "jsonpath={.items[*].endpoints[?(@.conditions.ready==true)].addresses[*]}"))
			if len(ready) != 2 {
				return fmt.Errorf("the Service leads to %v, want two pods; %s", ready, in("get", "pods", "--output", "wide"))
			}
			return nil
		})
		return ready
	}
	first := pods()
	token, err := os.ReadFile(filepath.Join(c.dir, "token"))
	if err != nil {
		c.t.Fatal(err)
	}
	auth := []string{"Authorization", "Bearer " + strings.TrimSpace(string(token)), "Content-Type", "application/json"}
	code, body, err := do(c.t.Context(), http.MethodPost, "http://"+first[0]+":8080/api/v1/write", []byte(`{"metrics":[{"name":"orders","value":42,"dimensions":{"shop":"a"}}]}`), auth...)
	if err != nil || !strings.Contains(body, `"accepted":1`) {
		c.t.Fatalf("write: %d %s %v", code, body, err)
	}
	reads := func(ips []string) {
		c.t.Helper()
		for _, ip := range ips {
			if code, body, err := do(c.t.Context(), http.MethodGet, "http://"+ip+":8080/api/v1/query?query=orders", nil, auth...); err != nil || code != http.StatusOK || !strings.Contains(body, `"42"`) {
				c.t.Errorf("%s answers %d %s, %v", ip, code, body, err)
			}
		}
	}
	reads(first)
	in("rollout", "restart", "deployment/luminate")
	second := pods()
	for _, ip := range second {
		if slices.Contains(first, ip) {
			c.t.Errorf("the pod %s is still of those before the rollout %v", ip, first)
		}
	}
	reads(second)
	in("delete", "hpa", "luminate")
	in("delete", "deployment", "luminate")
	c.idle()
}

// forward passes connections to address on to another, until the test ends.
func forward(t *testing.T, address, to string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return // closed
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			context.AfterFunc(ctx, func() { _, _ = in.Close(), out.Close() })
			for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
				wg.Go(func() {
					_, _ = io.Copy(pair[0], pair[1])
					_, _ = pair[0].Close(), pair[1].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		wg.Wait()
	})
}
