package deploy

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// overlays are what an operator applies.
var overlays = []string{"overlays/badger", "overlays/clickhouse", "overlays/monitoring", "overlays/staging", "clickhouse-cluster"}

// build builds an overlay as `kubectl apply -k` does and decodes every object
// strictly into its type.
func build(t *testing.T, dir string) []any {
	t.Helper()
	return buildIn(t, filesys.MakeFsOnDisk(), filepath.Join("kubernetes", dir))
}

func buildIn(t *testing.T, fs filesys.FileSystem, dir string) []any {
	t.Helper()
	res, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(fs, dir)
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
		"ServiceMonitor": &monitoringv1.ServiceMonitor{}, "PrometheusRule": &monitoringv1.PrometheusRule{},
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
	for _, dir := range overlays {
		if objects := build(t, dir); len(objects) < 5 {
			t.Errorf("%s: only %d objects", dir, len(objects))
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
