package chtest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// engineVersion and engineSums pin what npm is asked for and what it must send.
const engineVersion = "26.5.3"

var engineSums = map[string]string{
	"@chdb/lib-linux-x64-gnu": "b874e449710950da3abd7e20376f7bb3387d9e03adcc7082f022be18dfdf316a",
}

// cacheDir is where engine and server live across test runs.
func cacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(base, "luminate-test")
	return dir, os.MkdirAll(dir, 0o755)
}

// fetchEngine returns the path of libchdb.so; the first call on a machine fetches it
// with npm (167 MB).
func fetchEngine() (string, error) {
	if runtime.GOARCH != "amd64" {
		return "", fmt.Errorf("the engine as a library is pinned for amd64 only, this is %s", runtime.GOARCH)
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	lib := filepath.Join(cache, "chdb-"+engineVersion, "package", "libchdb.so")
	return lib, once(lib, func() error { return npmPack(cache, "@chdb/lib-linux-x64-gnu") })
}

// npmPack fetches a package, checks it and unpacks it. The folder gets its name last,
// so a fetch that was cut off leaves nothing that looks whole.
func npmPack(cache, name string) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	cmd := exec.Command(npm, "pack", "--silent", name+"@"+engineVersion)
	cmd.Dir = tmp
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm pack %s: %w: %s", name, err, out)
	}
	found, _ := filepath.Glob(filepath.Join(tmp, "*.tgz"))
	if len(found) != 1 {
		return fmt.Errorf("npm pack %s left %d archives", name, len(found))
	}
	if err := checkSum(found[0], engineSums[name]); err != nil {
		return err
	}
	if out, err := exec.Command("tar", "-xzf", found[0], "-C", tmp).CombinedOutput(); err != nil {
		return fmt.Errorf("unpack %s: %w: %s", name, err, out)
	}
	if err := os.Remove(found[0]); err != nil {
		return err
	}
	dest := filepath.Join(cache, "chdb-"+engineVersion)
	if err := os.RemoveAll(dest); err != nil {
		return err
	}
	return os.Rename(tmp, dest)
}

func checkSum(path, want string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("%s has SHA-256 %s, %s is pinned", filepath.Base(path), got, want)
	}
	return nil
}

// buildServer compiles chserver into the cache, under the hash of its sources.
func buildServer() (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	sum, err := sourceHash(root)
	if err != nil {
		return "", err
	}
	bin := filepath.Join(cache, "chserver-"+sum)
	return bin, once(bin, func() error {
		tmp := bin + ".tmp"
		cmd := exec.Command("go", "build", "-o", tmp, "./storage/clickhouse/chtest/chserver")
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build chserver: %w: %s", err, out)
		}
		return os.Rename(tmp, bin)
	})
}

// moduleRoot is the nearest folder above the test's that holds a go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("no go.mod above the working folder: tests run inside the module")
		}
		dir = up
	}
}

// sourceHash covers what the server is built from: its packages, the versions of its
// dependencies, the toolchain.
func sourceHash(root string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), runtime.GOARCH)
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mod)) {
		if strings.Contains(line, "ClickHouse/ch-go") || strings.Contains(line, "ebitengine/purego") {
			io.WriteString(h, line)
		}
	}
	dir := filepath.Join(root, "storage", "clickhouse", "chtest")
	for _, sub := range []string{"chserver", "internal"} {
		err := filepath.WalkDir(filepath.Join(dir, sub), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
				return err
			}
			b, err := os.ReadFile(path)
			fmt.Fprintf(h, "%s %d\n%s", d.Name(), len(b), b)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}
