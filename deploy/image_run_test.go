//go:build image

package deploy

// `make e2e-image`: the image runs in containers with the settings of the manifests.

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// container is the command line that starts args in the image.
func container(flags []string, args ...string) []string {
	return append(append(append([]string{"run"}, ulimits...), flags...), append([]string{imageName}, args...)...)
}

// asManifest are the flags that make a container what the kubelet makes of the
// StatefulSet, and its arguments. token is one that reads, writes and backs up.
func asManifest(t *testing.T, p *podman) (flags, args []string, token string) {
	t.Helper()
	objects := build(t, "overlays/badger")
	pod := only[appsv1.StatefulSet](t, objects).Spec.Template.Spec
	c := pod.Containers[0]
	flags = []string{
		"--user", fmt.Sprintf("%d:%d", *pod.SecurityContext.RunAsUser, *pod.SecurityContext.RunAsGroup),
		"--memory", fmt.Sprint(c.Resources.Limits.Memory().Value()),
	}
	if *c.SecurityContext.ReadOnlyRootFilesystem {
		flags = append(flags, "--read-only", "--read-only-tmpfs=false")
	}
	if !*c.SecurityContext.AllowPrivilegeEscalation {
		flags = append(flags, "--security-opt", "no-new-privileges")
	}
	for _, d := range c.SecurityContext.Capabilities.Drop {
		flags = append(flags, "--cap-drop", string(d))
	}
	for _, e := range c.Env {
		flags = append(flags, "--env", e.Name+"="+e.Value)
	}
	dir := t.TempDir()
	secret, config, token := mountedFiles(t, objects, dir)
	for _, m := range c.VolumeMounts {
		from, ok := map[string]string{"config": config, "auth": secret, "data": "luminate-data"}[m.Name]
		if !ok {
			t.Fatalf("volume %s is not known to this test", m.Name)
		}
		if from != "luminate-data" { // the kubelet mounts both so
			m.MountPath += ":ro"
		}
		flags = append(flags, "--volume", from+":"+m.MountPath)
	}
	return flags, c.Args, token
}

// mountedFiles writes the folders that the kubelet makes of the Secret and the
// ConfigMap, the one with a mount point for the other.
func mountedFiles(t *testing.T, objects []any, dir string) (secret, config, token string) {
	t.Helper()
	secret, config = filepath.Join(dir, "secret"), filepath.Join(dir, "config")
	sh(t, `mkdir -p "$1/secret" "$1/config/auth"; head -c 48 /dev/urandom | base64 >"$1/secret/jwt-secret"
		chgrp 65532 "$1/secret/jwt-secret"; chmod 440 "$1/secret/jwt-secret"; chmod 755 "$1" "$1/secret" "$1/config"`, dir)
	for _, o := range objects {
		if m, ok := o.(*corev1.ConfigMap); ok {
			for name, text := range m.Data {
				if err := os.WriteFile(filepath.Join(config, name), []byte(text), 0o644); err != nil { //nolint:gosec // the pod's user reads it
					t.Fatal(err)
				}
			}
		}
	}
	out, err := exec.Command(binary(t, "luminate"), "token", "--key", filepath.Join(secret, "jwt-secret"), "--tenant", "shop", "--scopes", "read,write,operator").Output()
	if err != nil {
		t.Fatalf("luminate token: %v", err)
	}
	token = strings.TrimSpace(string(out))
	if err := os.WriteFile(filepath.Join(secret, "token"), []byte(token), 0o444); err != nil { //nolint:gosec // for the backup in the container
		t.Fatal(err)
	}
	return secret, config, token
}

// exited waits for a container and returns its exit code with its log.
func (p *podman) exited(name string) (code, log string) {
	p.t.Helper()
	return p.run("wait", name), p.run("logs", name)
}

func TestImage(t *testing.T) {
	p := newPodman(t)
	buildImage(t, p)
	t.Run("Config", func(t *testing.T) { testImageConfig(t, p) })
	t.Run("Unauthenticated", func(t *testing.T) { testImageUnauthenticated(t, p) })
	t.Run("AsManifest", func(t *testing.T) { testImageAsManifest(t, p) })
}

// testImageConfig: the version that the build was given, nobody's user, no shell.
func testImageConfig(t *testing.T, p *podman) {
	var images []struct {
		Config struct {
			User            string
			Entrypoint, Cmd []string
			ExposedPorts    map[string]any
			Volumes         map[string]any
		}
		Architecture string
	}
	if err := json.Unmarshal([]byte(p.run("image", "inspect", imageName)), &images); err != nil || len(images) != 1 {
		t.Fatalf("inspect: %v", err)
	}
	c := images[0].Config
	if got := fmt.Sprintf("%s %s %s %d %v", c.User, c.Entrypoint, c.Cmd, len(c.ExposedPorts), c.Volumes); got != "65532:65532 [/luminate] [serve --storage.badger.dir=/var/lib/luminate] 2 map[/var/lib/luminate:map[]]" {
		t.Errorf("the image is %s", got)
	}
	want := fmt.Sprintf("luminate %s (%s, linux/%s)", imageVersion, runtime.Version(), images[0].Architecture)
	if got := p.run(container([]string{"--rm", "--network", "none"}, "version")...); got != want {
		t.Errorf("it tells %q, want %q", got, want)
	}
	if out, err := p.try(container([]string{"--rm", "--network", "none", "--entrypoint", "/bin/sh"}, "-c", "true")...); err == nil || !strings.Contains(out, "no such file") {
		t.Errorf("it has a shell: %v %s", err, out)
	}
}

// testImageUnauthenticated: on all addresses it starts only if told, and warns.
func testImageUnauthenticated(t *testing.T, p *podman) {
	all := []string{"--network", "none", "--env", "LUMINATE_SERVER_LISTEN=0.0.0.0:8080"}
	out, err := p.try(container(append([]string{"--rm"}, all...))...)
	if err == nil || !strings.Contains(out, "server.allowUnauthenticated: true") {
		t.Errorf("it listens on all addresses without authentication: %v\n%s", err, out)
	}
	address := freeAddress(t)
	p.run(container([]string{"--detach", "--name", "open", "--publish", address + ":8080", "--env", "LUMINATE_SERVER_LISTEN=0.0.0.0:8080", "--env", "LUMINATE_SERVER_ALLOW_UNAUTHENTICATED=true"})...)
	ready(t, p, "open", "http://"+address)
	if log := p.run("logs", "open"); !strings.Contains(log, `"level":"WARN","msg":"authentication is off`) {
		t.Errorf("it does not warn:\n%s", log)
	}
	p.run("stop", "--time", "60", "open")
	if code, log := p.exited("open"); code != "0" {
		t.Errorf("it ends with %s:\n%s", code, log)
	}
}

func ready(t *testing.T, p *podman, name, url string) {
	t.Helper()
	eventually(t, time.Minute, func() error {
		status, body, err := do(t.Context(), http.MethodGet, url+"/readyz", nil)
		if err == nil && status == http.StatusOK {
			return nil
		}
		log, _ := p.try("logs", name)
		return fmt.Errorf("%d %s %w\n%s", status, body, err, log)
	})
}

// testImageAsManifest writes into a container with the settings of overlays/badger,
// takes a backup inside, stops it while it serves, and finds the data in the next.
func testImageAsManifest(t *testing.T, p *podman) {
	flags, args, token := asManifest(t, p)
	// A volume of its own file system has this folder, which is not the pod's to read.
	p.run("volume", "create", "luminate-data")
	data := p.run("volume", "inspect", "--format", "{{.Mountpoint}}", "luminate-data")
	sh(t, `mkdir -m 700 "$1/lost+found"; chown 65532:65532 "$1"`, data)
	auth := []string{"Authorization", "Bearer " + token}
	query := func(url string) string {
		t.Helper()
		status, body, err := do(t.Context(), http.MethodGet, url+"/api/v1/query?query=orders", nil, auth...)
		if err != nil || status != http.StatusOK {
			t.Errorf("query: %d %s %v", status, body, err)
		}
		return body
	}
	start := func(name string) (api, internal string) {
		t.Helper()
		api, internal = freeAddress(t), freeAddress(t)
		p.run(container(append([]string{"--detach", "--name", name, "--publish", api + ":8080", "--publish", internal + ":9090"}, flags...), args...)...)
		ready(t, p, name, "http://"+internal)
		return "http://" + api, "http://" + internal
	}

	api, internal := start("first")
	if status, _, err := do(t.Context(), http.MethodGet, api+"/api/v1/query?query=orders", nil); err != nil || status != http.StatusUnauthorized {
		t.Errorf("without a token it answers %d, %v", status, err)
	}
	status, body, err := do(t.Context(), http.MethodPost, api+"/api/v1/write", []byte(`{"metrics":[{"name":"orders","value":42,"dimensions":{"shop":"a"}}]}`),
		append(auth, "Content-Type", "application/json")...)
	if err != nil || status/100 != 2 || !strings.Contains(body, `"accepted":1`) {
		t.Fatalf("write: %d %s %v", status, body, err)
	}
	if got := query(api); !strings.Contains(got, `"42"`) {
		t.Errorf("the query answers %s", got)
	}
	out := p.run("exec", "first", "/luminate", "backup", "--url", "http://127.0.0.1:8080", "--token-file", "/etc/luminate/auth/token", "--out", "/var/lib/luminate/")
	if !strings.Contains(out, "backup to /var/lib/luminate/luminate-") {
		t.Errorf("the backup tells %q", out)
	}
	// Nothing but the volume is written: the root is read-only.
	if diff := p.run("diff", "first"); strings.Contains(diff, "A /var/lib") || strings.Contains(diff, "A /tmp/") {
		t.Errorf("the container wrote beside its volume:\n%s", diff)
	}

	p.run("kill", "--signal", "TERM", "first")
	// Readiness goes while the API still answers: the configuration gives it five seconds.
	eventually(t, 4*time.Second, func() error {
		status, body, err := do(t.Context(), http.MethodGet, internal+"/readyz", nil)
		if err != nil || status != http.StatusServiceUnavailable {
			return fmt.Errorf("readyz: %d %s %w", status, body, err)
		}
		return nil
	})
	if got := query(api); !strings.Contains(got, `"42"`) {
		t.Errorf("while it drains the query answers %s", got)
	}
	code, log := p.exited("first")
	if code != "0" || !strings.Contains(log, "luminate stopped") {
		t.Errorf("it ends with %s:\n%s", code, log)
	}

	api, _ = start("second")
	if got := query(api); !strings.Contains(got, `"42"`) {
		t.Errorf("after the restart the query answers %s", got)
	}
	p.run("stop", "--time", "60", "second")
	code, log = p.exited("second")
	if code != "0" || strings.Contains(log, "without an orderly shutdown") {
		t.Errorf("the second ends with %s:\n%s", code, log)
	}
}
