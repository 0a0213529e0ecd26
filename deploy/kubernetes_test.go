package deploy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// serviceMonitor and prometheusRule are the parts of the operator's types that
// the manifests use; strict decoding refuses everything else.
type serviceMonitor struct {
	APIVersion, Kind string
	Metadata         metadata
	Spec             struct {
		Selector  struct{ MatchLabels map[string]string }
		Endpoints []struct{ Port, Path, Interval string }
	}
}

type prometheusRule struct {
	APIVersion, Kind string
	Metadata         metadata
	Spec             struct{ Groups []ruleGroup }
}

type metadata struct {
	Name, Namespace string
	Labels          map[string]string
	Annotations     map[string]string
}

// build builds an overlay as `kubectl apply -k` does and decodes every object
// strictly into its type.
func build(t *testing.T, dir string) []any {
	t.Helper()
	opts := krusty.MakeDefaultOptions()
	res, err := krusty.MakeKustomizer(opts).Run(filesys.MakeFsOnDisk(), filepath.Join("kubernetes", dir))
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	var out []any
	for _, r := range res.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, decode(t, dir, text))
	}
	return out
}

// decode decodes one object strictly into the type of its kind.
func decode(t *testing.T, where string, text []byte) any {
	t.Helper()
	var head struct{ Kind string }
	if err := yaml.Unmarshal(text, &head); err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	types := map[string]any{
		"Namespace": &corev1.Namespace{}, "ServiceAccount": &corev1.ServiceAccount{}, "Service": &corev1.Service{},
		"ConfigMap": &corev1.ConfigMap{}, "Secret": &corev1.Secret{}, "NetworkPolicy": &networkingv1.NetworkPolicy{},
		"StatefulSet": &appsv1.StatefulSet{}, "Deployment": &appsv1.Deployment{},
		"HorizontalPodAutoscaler": &autoscalingv2.HorizontalPodAutoscaler{}, "PodDisruptionBudget": &policyv1.PodDisruptionBudget{},
		"ServiceMonitor": &serviceMonitor{}, "PrometheusRule": &prometheusRule{},
	}
	obj, ok := types[head.Kind]
	if !ok {
		t.Fatalf("%s: kind %q is not covered by this test", where, head.Kind)
	}
	if err := yaml.UnmarshalStrict(text, obj); err != nil {
		t.Fatalf("%s: %s: %v\n%s", where, head.Kind, err, text)
	}
	return obj
}

// only returns the one object of type T.
func only[T any](t *testing.T, objects []any) *T {
	t.Helper()
	var found []*T
	for _, o := range objects {
		if x, ok := o.(*T); ok {
			found = append(found, x)
		}
	}
	if len(found) != 1 {
		t.Fatalf("there are %d objects of type %T, want 1", len(found), *new(T))
	}
	return found[0]
}

func TestManifestsDecodeStrictly(t *testing.T) {
	if err := yaml.UnmarshalStrict([]byte("kind: Deployment\nspec: {replicaz: 3}\n"), &appsv1.Deployment{}); err == nil {
		t.Fatal("strict decoding lets an unknown field through")
	}
	for _, dir := range []string{"overlays/badger", "overlays/clickhouse", "overlays/staging", "clickhouse-cluster"} {
		objects := build(t, dir)
		if len(objects) < 5 {
			t.Errorf("%s: only %d objects", dir, len(objects))
		}
		for _, o := range objects {
			b, _ := json.Marshal(o)
			if bytes.Contains(b, []byte(":latest")) {
				t.Errorf("%s: an image is :latest", dir)
			}
		}
	}
}

func TestEveryManifestIsPartOfAnOverlay(t *testing.T) {
	seen := map[string]bool{}
	err := filepath.WalkDir("kubernetes", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if filepath.Base(path) != "kustomization.yaml" {
			return nil
		}
		var k struct {
			Resources, Components []string
			ConfigMapGenerator    []struct{ Files []string }
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := yaml.Unmarshal(text, &k); err != nil {
			return err
		}
		for _, r := range append(k.Resources, k.Components...) {
			seen[filepath.Join(filepath.Dir(path), r)] = true
		}
		for _, g := range k.ConfigMapGenerator {
			for _, f := range g.Files {
				seen[filepath.Join(filepath.Dir(path), f)] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = filepath.WalkDir("kubernetes", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".yaml") && filepath.Base(path) != "kustomization.yaml" &&
			filepath.Base(path) != "adapter-rule.yaml" && !seen[path] {
			t.Errorf("%s is named by no kustomization", path)
		}
		return err
	})
}

func TestBadgerOverlay(t *testing.T) {
	objects := build(t, "overlays/badger")
	s := only[appsv1.StatefulSet](t, objects)
	if s.Spec.Replicas == nil || *s.Spec.Replicas != 1 {
		t.Errorf("an embedded store has one process, replicas is %v", s.Spec.Replicas)
	}
	if len(s.Spec.VolumeClaimTemplates) != 1 || s.Spec.PersistentVolumeClaimRetentionPolicy.WhenDeleted != appsv1.RetainPersistentVolumeClaimRetentionPolicyType {
		t.Error("the data must lie on a claim that outlives the StatefulSet")
	}
	for _, o := range objects {
		if _, ok := o.(*autoscalingv2.HorizontalPodAutoscaler); ok {
			t.Error("an embedded store must not scale out")
		}
	}
	checkPod(t, &s.Spec.Template.Spec)
	checkNetwork(t, objects)
}

func TestClickHouseOverlay(t *testing.T) {
	objects := build(t, "overlays/clickhouse")
	d := only[appsv1.Deployment](t, objects)
	if d.Spec.Replicas != nil {
		t.Error("replicas must be left to the autoscaler")
	}
	r := d.Spec.Strategy.RollingUpdate
	if r == nil || r.MaxUnavailable.IntValue() != 0 || r.MaxSurge.IntValue() < 1 {
		t.Errorf("a rollout must not take pods away: %+v", r)
	}
	if n := len(d.Spec.Template.Spec.TopologySpreadConstraints); n < 2 {
		t.Errorf("pods must spread over zones and nodes, there are %d constraints", n)
	}
	checkPod(t, &d.Spec.Template.Spec)

	h := only[autoscalingv2.HorizontalPodAutoscaler](t, objects)
	if *h.Spec.MinReplicas != 3 || h.Spec.MaxReplicas != 10 || h.Spec.ScaleTargetRef.Name != d.Name {
		t.Errorf("autoscaler: %d to %d of %s", *h.Spec.MinReplicas, h.Spec.MaxReplicas, h.Spec.ScaleTargetRef.Name)
	}
	var scaled []string
	for _, m := range h.Spec.Metrics {
		if m.Type != autoscalingv2.ResourceMetricSourceType {
			t.Errorf("metric of type %s needs more than metrics-server", m.Type)
			continue
		}
		scaled = append(scaled, string(m.Resource.Name))
	}
	if fmt.Sprint(scaled) != "[cpu memory]" {
		t.Errorf("scales on %v", scaled)
	}
	p := only[policyv1.PodDisruptionBudget](t, objects)
	if p.Spec.MaxUnavailable.IntValue() != 1 {
		t.Errorf("disruption budget: %+v", p.Spec)
	}
	checkNetwork(t, objects)
}

// checkPod asserts what every Luminate pod must have.
func checkPod(t *testing.T, p *corev1.PodSpec) {
	t.Helper()
	c := p.Containers[0]
	if c.StartupProbe == nil || c.LivenessProbe == nil || c.ReadinessProbe == nil {
		t.Fatal("three probes are needed")
	}
	for want, got := range map[string]*corev1.Probe{"/startupz": c.StartupProbe, "/livez": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		if got.HTTPGet == nil || got.HTTPGet.Path != want {
			t.Errorf("the probe of %s asks %+v", want, got.HTTPGet)
		}
	}
	if c.Lifecycle == nil || c.Lifecycle.PreStop == nil || c.Lifecycle.PreStop.Sleep == nil {
		t.Fatal("preStop must sleep")
	}
	// drainDelay 5 s and shutdownTimeout 25 s of luminate.yaml.
	if needed := c.Lifecycle.PreStop.Sleep.Seconds + 5 + 25; *p.TerminationGracePeriodSeconds <= needed {
		t.Errorf("the grace period is %d s, preStop and drain take %d s", *p.TerminationGracePeriodSeconds, needed)
	}
	for _, list := range []corev1.ResourceList{c.Resources.Requests, c.Resources.Limits} {
		if list.Cpu().IsZero() || list.Memory().IsZero() {
			t.Errorf("requests and limits: %+v", c.Resources)
		}
	}
	checkMemoryLimit(t, c)
	pod, own := p.SecurityContext, c.SecurityContext
	if pod == nil || own == nil || !*pod.RunAsNonRoot || *pod.RunAsUser == 0 || pod.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault ||
		*own.AllowPrivilegeEscalation || !*own.ReadOnlyRootFilesystem || fmt.Sprint(own.Capabilities.Drop) != "[ALL]" {
		t.Errorf("security contexts: %+v %+v", pod, own)
	}
	if p.AutomountServiceAccountToken == nil || *p.AutomountServiceAccountToken {
		t.Error("the service account's token is mounted")
	}
	for _, e := range c.Env {
		if strings.Contains(strings.ToLower(e.Name), "secret") && e.Value != "" {
			t.Errorf("%s holds a secret itself", e.Name)
		}
	}
}

// checkMemoryLimit asserts GOMEMLIMIT between 70 and 90 % of the memory limit.
func checkMemoryLimit(t *testing.T, c corev1.Container) {
	t.Helper()
	for _, e := range c.Env {
		if e.Name != "GOMEMLIMIT" {
			continue
		}
		q, err := resource.ParseQuantity(strings.TrimSuffix(e.Value, "B"))
		if err != nil {
			t.Fatal(err)
		}
		share := float64(q.Value()) / float64(c.Resources.Limits.Memory().Value())
		if share < 0.7 || share > 0.9 {
			t.Errorf("GOMEMLIMIT is %.0f %% of the limit", 100*share)
		}
		return
	}
	t.Error("no GOMEMLIMIT")
}

// checkNetwork asserts that everything is denied by default and profiles are for
// the monitoring namespace alone.
func checkNetwork(t *testing.T, objects []any) {
	t.Helper()
	deny := false
	for _, o := range objects {
		p, ok := o.(*networkingv1.NetworkPolicy)
		if !ok {
			continue
		}
		if len(p.Spec.PolicyTypes) == 2 && len(p.Spec.Ingress) == 0 && len(p.Spec.Egress) == 0 {
			deny = true
		}
		for _, in := range p.Spec.Ingress {
			for _, port := range in.Ports {
				if port.Port.StrVal == "internal" && len(in.From) == 0 {
					t.Errorf("%s opens the internal port to everybody", p.Name)
				}
			}
		}
	}
	if !deny {
		t.Error("no policy denies by default")
	}
}

func TestOperatorFindsTheInternalService(t *testing.T) {
	objects := build(t, "overlays/staging")
	m := only[serviceMonitor](t, objects)
	for _, o := range objects {
		s, ok := o.(*corev1.Service)
		if !ok || s.Name != "luminate-internal" {
			continue
		}
		for k, v := range m.Spec.Selector.MatchLabels {
			if s.Labels[k] != v {
				t.Errorf("the service has %s=%q, the monitor selects %q", k, s.Labels[k], v)
			}
		}
		if m.Spec.Endpoints[0].Port != s.Spec.Ports[0].Name {
			t.Errorf("the monitor scrapes port %q", m.Spec.Endpoints[0].Port)
		}
		return
	}
	t.Error("no service luminate-internal")
}

func TestClickHouseClusterShape(t *testing.T) {
	for _, o := range build(t, "clickhouse-cluster") {
		s, ok := o.(*appsv1.StatefulSet)
		if !ok {
			continue
		}
		if want := map[string]int32{"clickhouse": 4, "keeper": 3}[s.Name]; s.Spec.Replicas == nil || *s.Spec.Replicas != want {
			t.Errorf("%s: replicas %v, want %d", s.Name, s.Spec.Replicas, want)
		}
		if len(s.Spec.VolumeClaimTemplates) != 1 {
			t.Errorf("%s: data does not lie on a claim", s.Name)
		}
	}
}
