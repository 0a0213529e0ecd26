package deploy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

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
	checkLuminate(t, objects, s.Spec.Selector, &s.Spec.Template)
}

func TestClickHouseOverlay(t *testing.T) {
	objects := build(t, "overlays/clickhouse")
	d := only[appsv1.Deployment](t, objects)
	checkRollout(t, d)
	checkAutoscaler(t, objects, d.Name, 3, 10)
	p := only[policyv1.PodDisruptionBudget](t, objects)
	if p.Spec.MaxUnavailable.IntValue() != 1 || !selects(p.Spec.Selector, d.Spec.Template.Labels) {
		t.Errorf("disruption budget: %+v", p.Spec)
	}
	checkLuminate(t, objects, d.Spec.Selector, &d.Spec.Template)
}

// TestStagingOverlay: all that production has, smaller, and apart from its data.
func TestStagingOverlay(t *testing.T) {
	objects := build(t, "overlays/staging")
	d := only[appsv1.Deployment](t, objects)
	checkRollout(t, d)
	checkAutoscaler(t, objects, d.Name, 2, 3)
	checkLuminate(t, objects, d.Spec.Selector, &d.Spec.Template)
	dsn := func(objects []any) string {
		return regexp.MustCompile(`dsn: (\S+)`).FindString(configOf(t, objects))
	}
	if staging, production := dsn(objects), dsn(build(t, "overlays/clickhouse")); staging == "" || staging == production {
		t.Errorf("staging writes into %s, production into %s", staging, production)
	}
	for _, o := range objects {
		if m, ok := o.(metav1.Object); ok && m.GetNamespace() != "luminate-staging" && m.GetName() != "luminate-staging" {
			t.Errorf("%T %s is in namespace %q", o, m.GetName(), m.GetNamespace())
		}
	}
}

// checkRollout: no pod is taken away before another is ready, and none shares fate
// with all others.
func checkRollout(t *testing.T, d *appsv1.Deployment) {
	t.Helper()
	if d.Spec.Replicas != nil {
		t.Error("replicas must be left to the autoscaler")
	}
	r := d.Spec.Strategy.RollingUpdate
	if r == nil || r.MaxUnavailable.IntValue() != 0 || r.MaxSurge.IntValue() < 1 {
		t.Errorf("a rollout must not take pods away: %+v", r)
	}
	var keys []string
	for _, c := range d.Spec.Template.Spec.TopologySpreadConstraints {
		keys = append(keys, c.TopologyKey)
		if !selects(c.LabelSelector, d.Spec.Template.Labels) {
			t.Errorf("the constraint on %s does not count these pods", c.TopologyKey)
		}
	}
	slices.Sort(keys)
	if fmt.Sprint(keys) != "[kubernetes.io/hostname topology.kubernetes.io/zone]" {
		t.Errorf("pods spread over %v", keys)
	}
}

// checkAutoscaler: CPU and memory, which metrics-server tells, and nothing else.
func checkAutoscaler(t *testing.T, objects []any, deployment string, least, most int32) {
	t.Helper()
	h := only[autoscalingv2.HorizontalPodAutoscaler](t, objects)
	if *h.Spec.MinReplicas != least || h.Spec.MaxReplicas != most || h.Spec.ScaleTargetRef.Name != deployment || h.Spec.ScaleTargetRef.Kind != "Deployment" {
		t.Errorf("autoscaler: %d to %d of %+v", *h.Spec.MinReplicas, h.Spec.MaxReplicas, h.Spec.ScaleTargetRef)
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
}

// TestInFlightComponent adds the optional component to the ClickHouse overlay, as an
// operator does in an overlay of his own.
func TestInFlightComponent(t *testing.T) {
	fs := filesys.MakeFsInMemory()
	if err := filepath.WalkDir("kubernetes", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return fs.WriteFile(path, text)
	}); err != nil {
		t.Fatal(err)
	}
	own := "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../clickhouse]\ncomponents: [../../components/inflight-autoscaling]\n"
	if err := fs.WriteFile("kubernetes/overlays/own/kustomization.yaml", []byte(own)); err != nil {
		t.Fatal(err)
	}
	h := only[autoscalingv2.HorizontalPodAutoscaler](t, buildIn(t, fs, "kubernetes/overlays/own"))
	if len(h.Spec.Metrics) != 3 || h.Spec.Metrics[2].Pods == nil {
		t.Fatalf("metrics: %+v", h.Spec.Metrics)
	}
	metric := h.Spec.Metrics[2].Pods.Metric.Name
	text, err := os.ReadFile("kubernetes/components/inflight-autoscaling/adapter-rule.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var rules []struct {
		SeriesQuery, MetricsQuery string
		Resources                 struct {
			Overrides map[string]struct{ Resource string }
		}
	}
	if err := yaml.UnmarshalStrict(text, &rules); err != nil || len(rules) != 1 || !strings.HasPrefix(rules[0].SeriesQuery, metric+"{") {
		t.Errorf("the adapter's rule does not serve %s: %v, %+v", metric, err, rules)
	}
	reference, err := os.ReadFile("metrics.md")
	if err != nil || !strings.Contains(string(reference), "`"+metric+"`") {
		t.Errorf("%s is no metric of ours: %v", metric, err)
	}
}

// TestConfigOfOverlays lets the real program read each overlay's configuration.
func TestConfigOfOverlays(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("s", 48)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"overlays/badger", "overlays/clickhouse", "overlays/staging"} {
		path := filepath.Join(t.TempDir(), "luminate.yaml")
		if err := os.WriteFile(path, []byte(configOf(t, build(t, dir))), 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"check-config", "--config", path, "--auth.jwtSecretFile", secret, "--storage.clickhouse.passwordFile", secret}
		if out, err := exec.Command(binary(t, "luminate"), args...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", dir, err, out)
		}
	}
}

// configOf returns the luminate.yaml that the pods mount.
func configOf(t *testing.T, objects []any) string {
	t.Helper()
	for _, o := range objects {
		if c, ok := o.(*corev1.ConfigMap); ok && c.Data["luminate.yaml"] != "" {
			return c.Data["luminate.yaml"]
		}
	}
	t.Fatal("no ConfigMap holds luminate.yaml")
	return ""
}

// TestMonitoringOverlay: the monitor finds the internal service, and every
// dashboard and rule is there.
func TestMonitoringOverlay(t *testing.T) {
	for _, dir := range []string{"overlays/monitoring", "overlays/staging"} {
		objects := build(t, dir)
		m := only[monitoringv1.ServiceMonitor](t, objects)
		installed := objects
		if dir == "overlays/monitoring" {
			installed = build(t, "overlays/clickhouse")
		}
		checkScraped(t, m, installed)
		if r := only[monitoringv1.PrometheusRule](t, objects); len(r.Spec.Groups) == 0 {
			t.Error("no rules")
		}
		checkDashboards(t, objects)
	}
}

func checkScraped(t *testing.T, m *monitoringv1.ServiceMonitor, objects []any) {
	t.Helper()
	for _, o := range objects {
		s, ok := o.(*corev1.Service)
		if !ok || s.Name != "luminate-internal" {
			continue
		}
		if !selects(&m.Spec.Selector, s.Labels) || m.Namespace != s.Namespace {
			t.Errorf("the monitor in %s selects %v, the service in %s has %v", m.Namespace, m.Spec.Selector.MatchLabels, s.Namespace, s.Labels)
		}
		if m.Spec.Endpoints[0].Port != s.Spec.Ports[0].Name {
			t.Errorf("the monitor scrapes port %q", m.Spec.Endpoints[0].Port)
		}
		return
	}
	t.Error("no service luminate-internal")
}

func checkDashboards(t *testing.T, objects []any) {
	t.Helper()
	found := map[string]string{}
	for _, o := range objects {
		if c, ok := o.(*corev1.ConfigMap); ok && c.Labels["grafana_dashboard"] == "1" {
			for name, text := range c.Data {
				found[name] = text
				// An annotation with a copy, which `kubectl apply` makes, holds 256 KiB.
				if len(text) > 200<<10 {
					t.Errorf("%s has %d bytes, too many for kubectl apply", name, len(text))
				}
			}
		}
	}
	files, err := filepath.Glob("grafana/dashboards/*.json")
	if err != nil || len(files) == 0 || len(files) != len(found) {
		t.Errorf("%d dashboards are ConfigMaps, there are %d files (%v)", len(found), len(files), err)
	}
	for _, f := range files {
		if text, err := os.ReadFile(f); err != nil || found[filepath.Base(f)] != string(text) {
			t.Errorf("%s is not what the ConfigMap holds (%v)", f, err)
		}
	}
}
