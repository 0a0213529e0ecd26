//go:build image || kubernetes

package deploy

// The image of the Dockerfile, built with podman. It needs root, podman, runc and a
// static busybox, and no registry: the images that the Dockerfile names are made here.

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	imageName    = "localhost/luminate:test"
	imageVersion = "v1.2.3-image"
	distroless   = "gcr.io/distroless/static-debian12:nonroot"
)

// podman runs containers from a store of its own, which goes with the test.
type podman struct {
	t     *testing.T
	store string
}

func newPodman(t *testing.T) *podman {
	t.Helper()
	for _, program := range []string{"podman", "runc", "busybox"} {
		if _, err := exec.LookPath(program); err != nil || os.Getuid() != 0 {
			t.Fatalf("building the image needs root, podman, runc and a static busybox (as root: apt-get install podman runc netavark iptables busybox-static); %s: %v, user %d", program, err, os.Getuid())
		}
	}
	// A short path: sockets of conmon lie in it.
	store, err := os.MkdirTemp("", "pod")
	if err != nil {
		t.Fatal(err)
	}
	p := &podman{t: t, store: store}
	t.Cleanup(func() {
		_, _ = p.try("rm", "--all", "--force", "--time", "0")
		if err := os.RemoveAll(store); err != nil {
			t.Error(err)
		}
	})
	return p
}

// try returns what podman printed, on both outputs.
func (p *podman) try(args ...string) (string, error) {
	all := append([]string{
		"--root", filepath.Join(p.store, "root"), "--runroot", filepath.Join(p.store, "run"), "--tmpdir", filepath.Join(p.store, "tmp"),
		"--storage-driver", "vfs", "--runtime", "runc", "--cgroup-manager", "cgroupfs", "--log-level", "error",
	}, args...)
	out, err := exec.Command("podman", all...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (p *podman) run(args ...string) string {
	p.t.Helper()
	out, err := p.try(args...)
	if err != nil {
		p.t.Fatalf("podman %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// limits stay below what this machine's root may raise; podman's default is a million.
var ulimits = []string{"--ulimit", "nofile=8192:8192", "--ulimit", "nproc=8192:8192"}

// from makes an image of a folder: what a registry has under the name.
func (p *podman) from(name, containerfile string, fill func(dir string)) {
	p.t.Helper()
	dir := p.t.TempDir()
	fill(dir)
	if err := os.WriteFile(filepath.Join(dir, "Containerfile"), []byte("FROM scratch\nCOPY . /\n"+containerfile), 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.run("build", "--isolation", "chroot", "--tag", name, "--file", filepath.Join(dir, "Containerfile"), dir)
}

func sh(t *testing.T, script string, args ...string) string {
	t.Helper()
	out, err := exec.Command("sh", append([]string{"-ec", script, "sh"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

// buildImage builds deploy/Dockerfile as it stands, on stand-ins for its two bases:
// Go's image has a busybox for a shell, and sees the toolchain and the caches of this
// machine; the distroless one has the users and folders that it documents.
func buildImage(t *testing.T, p *podman) {
	t.Helper()
	text, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	golang := regexp.MustCompile(`golang:\S+`).FindString(string(text))
	p.from("docker.io/library/"+golang, "ENV PATH=/usr/local/go/bin:/bin GOTOOLCHAIN=local GOFLAGS=-buildvcs=false GOPATH=/go GOCACHE=/root/.cache/go-build\n", func(dir string) {
		sh(t, `mkdir -p "$1/bin" "$1/usr/local/go" "$1/etc" "$1/tmp" "$1/root"
			cp "$(command -v busybox)" "$1/bin/busybox"
			for a in sh mkdir; do ln -s busybox "$1/bin/$a"; done
			if [ -d /etc/ssl/certs ]; then mkdir -p "$1/etc/ssl" && cp -rL /etc/ssl/certs "$1/etc/ssl/"; fi`, dir)
	})
	p.from(distroless, "USER 65532\nENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nWORKDIR /home/nonroot\n", func(dir string) {
		sh(t, `mkdir -p "$1/etc" "$1/tmp" "$1/root" "$1/home/nonroot" "$1/var/lib"
			chmod 1777 "$1/tmp"; chmod 700 "$1/home/nonroot"; chown 65532:65532 "$1/home/nonroot"
			printf 'root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' >"$1/etc/passwd"
			printf 'root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n' >"$1/etc/group"`, dir)
	})
	caches := sh(t, `echo "$(go env GOROOT):/usr/local/go:ro $(go env GOMODCACHE):/go/pkg/mod $(go env GOCACHE):/root/.cache/go-build"`)
	args := []string{"build", "--isolation", "chroot", "--network", "host", "--file", "Dockerfile", "--build-arg", "VERSION=" + imageVersion, "--tag", imageName}
	for _, c := range strings.Fields(caches) {
		args = append(args, "--volume", c)
	}
	p.run(append(args, append(ulimits, "..")...)...)
}
