package deploy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

// selects tells whether a selector names something and matches what has labels.
func selects(s *metav1.LabelSelector, have map[string]string) bool {
	if s == nil || len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		return false
	}
	sel, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && sel.Matches(labels.Set(have))
}

// checkLuminate asserts what every installation of Luminate must have.
func checkLuminate(t *testing.T, objects []any, selector *metav1.LabelSelector, pod *corev1.PodTemplateSpec) {
	t.Helper()
	if !selects(selector, pod.Labels) {
		t.Errorf("the selector %v does not select the pods, which have %v", selector, pod.Labels)
	}
	services := 0
	for _, o := range objects {
		if s, ok := o.(*corev1.Service); ok {
			services++
			checkService(t, s, pod)
		}
	}
	if services != 2 {
		t.Errorf("%d services, want the API's and the internal one", services)
	}
	checkDrain(t, &pod.Spec, configOf(t, objects))
	checkPod(t, &pod.Spec)
	checkVolumes(t, objects, &pod.Spec)
	checkNetwork(t, objects, pod)
}

// checkService: a service must find the pods, and its ports must be theirs.
func checkService(t *testing.T, s *corev1.Service, pod *corev1.PodTemplateSpec) {
	t.Helper()
	if len(s.Spec.Selector) == 0 || !labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(pod.Labels)) {
		t.Errorf("service %s selects %v, the pods have %v", s.Name, s.Spec.Selector, pod.Labels)
	}
	for _, p := range s.Spec.Ports {
		if name := p.TargetPort.StrVal; !hasPort(pod.Spec.Containers[0], name) {
			t.Errorf("service %s sends to port %q, which the pods do not have", s.Name, name)
		}
	}
}

func hasPort(c corev1.Container, name string) bool {
	return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == name })
}

// checkDrain: the grace period is longer than preStop and what the configuration
// says of draining.
func checkDrain(t *testing.T, p *corev1.PodSpec, config string) {
	t.Helper()
	var c struct {
		Server struct{ DrainDelay, ShutdownTimeout metav1.Duration }
	}
	if err := yaml.Unmarshal([]byte(config), &c); err != nil || c.Server.DrainDelay.Duration == 0 || c.Server.ShutdownTimeout.Duration == 0 {
		t.Fatalf("drain of the configuration: %v, %+v", err, c)
	}
	l := p.Containers[0].Lifecycle
	if l == nil || l.PreStop == nil || l.PreStop.Sleep == nil {
		t.Fatal("preStop must sleep")
	}
	needed := time.Duration(l.PreStop.Sleep.Seconds)*time.Second + c.Server.DrainDelay.Duration + c.Server.ShutdownTimeout.Duration
	if grace := time.Duration(*p.TerminationGracePeriodSeconds) * time.Second; grace <= needed {
		t.Errorf("the grace period is %s, preStop and drain take %s", grace, needed)
	}
}

func checkPod(t *testing.T, p *corev1.PodSpec) {
	t.Helper()
	c := p.Containers[0]
	for want, got := range map[string]*corev1.Probe{"/startupz": c.StartupProbe, "/livez": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		if got == nil || got.HTTPGet == nil || got.HTTPGet.Path != want || !hasPort(c, got.HTTPGet.Port.StrVal) {
			t.Errorf("the probe of %s asks %+v", want, got)
		}
	}
	for _, list := range []corev1.ResourceList{c.Resources.Requests, c.Resources.Limits} {
		if list.Cpu().IsZero() || list.Memory().IsZero() {
			t.Errorf("requests and limits: %+v", c.Resources)
		}
	}
	checkMemoryLimit(t, c)
	if own := c.SecurityContext; own == nil || own.ReadOnlyRootFilesystem == nil || !*own.ReadOnlyRootFilesystem {
		t.Errorf("the root filesystem is writable: %+v", own)
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

// checkVolumes: what is mounted exists, and files that the configuration names as
// secrets come from Secrets, which no manifest holds itself.
func checkVolumes(t *testing.T, objects []any, p *corev1.PodSpec) {
	t.Helper()
	secrets := map[string]bool{} // folders
	for _, v := range p.Volumes {
		switch {
		case v.ConfigMap != nil:
			if !slices.ContainsFunc(objects, func(o any) bool {
				c, ok := o.(*corev1.ConfigMap)
				return ok && c.Name == v.ConfigMap.Name
			}) {
				t.Errorf("volume %s: there is no ConfigMap %s", v.Name, v.ConfigMap.Name)
			}
		case v.Secret != nil:
			for _, m := range p.Containers[0].VolumeMounts {
				if m.Name == v.Name && m.ReadOnly {
					secrets[m.MountPath] = true
				}
			}
		}
	}
	for _, line := range strings.Split(configOf(t, objects), "\n") {
		key, path, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if key != "jwtSecretFile" && key != "passwordFile" {
			continue
		}
		if dir := path[:strings.LastIndex(path, "/")]; !secrets[dir] {
			t.Errorf("%s is %s, which is on no Secret", key, path)
		}
	}
}

// checkNetwork asserts that everything is denied by default, that profiles are for
// the monitoring namespace alone, and that pods can ask for names.
func checkNetwork(t *testing.T, objects []any, pod *corev1.PodTemplateSpec) {
	t.Helper()
	deny, dns := false, false
	for _, o := range objects {
		p, ok := o.(*networkingv1.NetworkPolicy)
		if !ok {
			continue
		}
		everyPod := len(p.Spec.PodSelector.MatchLabels)+len(p.Spec.PodSelector.MatchExpressions) == 0
		if !everyPod && !selects(&p.Spec.PodSelector, pod.Labels) {
			t.Errorf("policy %s is for no pod", p.Name)
		}
		deny = deny || everyPod && len(p.Spec.PolicyTypes) == 2 && len(p.Spec.Ingress)+len(p.Spec.Egress) == 0
		for _, in := range p.Spec.Ingress {
			for _, port := range in.Ports {
				if !hasPort(pod.Spec.Containers[0], port.Port.StrVal) {
					t.Errorf("policy %s opens port %q, which the pods do not have", p.Name, port.Port.StrVal)
				}
				if port.Port.StrVal == "internal" && len(in.From) == 0 {
					t.Errorf("%s opens the internal port to everybody", p.Name)
				}
			}
		}
		dns = dns || slices.ContainsFunc(p.Spec.Egress, reachesDNS)
	}
	if !deny {
		t.Error("no policy denies by default")
	}
	if !dns {
		t.Error("the pods cannot ask for names")
	}
}

// reachesDNS tells whether a rule lets through to the cluster's name service, whose
// pods have this label everywhere.
func reachesDNS(e networkingv1.NetworkPolicyEgressRule) bool {
	for _, to := range e.To {
		if selects(to.NamespaceSelector, map[string]string{"kubernetes.io/metadata.name": "kube-system"}) &&
			selects(to.PodSelector, map[string]string{"k8s-app": "kube-dns"}) {
			return slices.ContainsFunc(e.Ports, func(p networkingv1.NetworkPolicyPort) bool { return p.Port.IntValue() == 53 })
		}
	}
	return false
}

// TestEveryPodIsConfined asserts on all pods, also those of the ClickHouse example,
// what namespaces with the restricted standard demand, and that images are pinned.
func TestEveryPodIsConfined(t *testing.T) {
	pods := 0
	for _, dir := range overlays {
		for _, o := range build(t, dir) {
			switch o := o.(type) {
			case *corev1.Namespace:
				for _, mode := range []string{"enforce", "warn"} {
					if got := o.Labels["pod-security.kubernetes.io/"+mode]; got != "restricted" {
						t.Errorf("%s: namespace %s: pod security: %s is %q", dir, o.Name, mode, got)
					}
				}
			case *corev1.Secret:
				t.Errorf("%s: Secret %s is in the repository", dir, o.Name)
			case *appsv1.StatefulSet:
				pods++
				checkConfined(t, dir+" "+o.Name, &o.Spec.Template.Spec)
			case *appsv1.Deployment:
				pods++
				checkConfined(t, dir+" "+o.Name, &o.Spec.Template.Spec)
			}
		}
	}
	if pods != 5 {
		t.Errorf("%d pods were looked at, want 5", pods)
	}
}

func checkConfined(t *testing.T, where string, p *corev1.PodSpec) {
	t.Helper()
	isTrue := func(b *bool) bool { return b != nil && *b }
	isFalse := func(b *bool) bool { return b != nil && !*b }
	s := p.SecurityContext
	if s == nil || !isTrue(s.RunAsNonRoot) || s.RunAsUser == nil || *s.RunAsUser == 0 || s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("%s: security context of the pod: %+v", where, s)
	}
	if !isFalse(p.AutomountServiceAccountToken) || p.HostNetwork || p.HostPID || p.HostIPC {
		t.Errorf("%s: the pod has a token or a namespace of its host", where)
	}
	// A Service named luminate would set LUMINATE_PORT and others in every pod beside it.
	if !isFalse(p.EnableServiceLinks) {
		t.Errorf("%s: the pod gets variables of the namespace's Services", where)
	}
	for _, c := range slices.Concat(p.InitContainers, p.Containers) {
		own := c.SecurityContext
		if own == nil || !isFalse(own.AllowPrivilegeEscalation) || own.Capabilities == nil || fmt.Sprint(own.Capabilities.Drop) != "[ALL]" || len(own.Capabilities.Add) > 0 {
			t.Errorf("%s: security context of %s: %+v", where, c.Name, own)
		}
		checkPinned(t, where, c.Image)
		for _, e := range c.Env {
			name := strings.ToLower(e.Name)
			if e.Value != "" && (strings.Contains(name, "secret") || strings.Contains(name, "password")) {
				t.Errorf("%s: %s holds a secret itself", where, e.Name)
			}
		}
	}
}

// checkPinned: an image without a tag is :latest.
func checkPinned(t *testing.T, where, image string) {
	t.Helper()
	name := image[strings.LastIndex(image, "/")+1:]
	if _, tag, ok := strings.Cut(name, ":"); !ok && !strings.Contains(name, "@sha256:") || tag == "latest" {
		t.Errorf("%s: image %s is not pinned", where, image)
	}
}
