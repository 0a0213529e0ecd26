package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/luminate/luminate"

// packageMap says which packages of ours a package may import; a package that is
// not in it, or an edge that is not, fails. Tests may import more.
var packageMap = map[string][]string{
	"cmd/luminate":                  {"remote", "promql", "native", "tenancy", "storage", "storage/badger", "storage/clickhouse"},
	"cmd/luminate-bench":            {"storage", "storage/storagetest", "storage/clickhouse/chtest", "storage/badger", "tenancy"},
	"remote":                        {"storage", "tenancy"},
	"promql":                        {"storage", "tenancy"},
	"promql/conformance":            {"promql", "storage"},
	"native":                        {"storage", "tenancy"},
	"tenancy":                       {"storage"},
	"storage":                       {},
	"storage/storagetest":           {"storage"},
	"storage/internal/lookup":       {"storage"},
	"storage/badger":                {"storage", "storage/internal/lookup", "storage/badger/internal/wal", "storage/badger/internal/block", "storage/badger/internal/index", "storage/internal/grid"},
	"storage/badger/internal/wal":   {},
	"storage/badger/internal/block": {},
	"storage/badger/internal/index": {},
	"storage/internal/grid":         {"storage"},
	"storage/clickhouse":            {"storage", "storage/internal/grid", "storage/internal/lookup"},
	"storage/clickhouse/chtest":     {},
	"deploy":                        {},
	"internal/gates":                {},
	"internal/proctest":             {},
}

func TestPackageMap(t *testing.T) {
	root := "../.."
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "data" || name == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		rel, _ := filepath.Rel(root, filepath.Dir(path))
		pkg := filepath.ToSlash(rel)
		// What lies under chtest is a program and its parts, all for tests.
		if strings.HasPrefix(pkg, "storage/clickhouse/chtest/") || pkg == "internal/deps" {
			return nil
		}
		allowed, ok := packageMap[pkg]
		if !ok {
			t.Errorf("package %s is not in the package map", pkg)
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, imp := range f.Imports {
			name, _ := strconv.Unquote(imp.Path.Value)
			ours, isOurs := strings.CutPrefix(name, module+"/")
			switch {
			case isOurs && !slices.Contains(allowed, ours) && !strings.HasPrefix(ours, pkg+"/"):
				t.Errorf("%s imports %s, which the package map does not allow", path, ours)
			case name == "net/http" && (pkg == "storage" || strings.HasPrefix(pkg, "storage/badger")):
				t.Errorf("%s: storage knows nothing of HTTP", path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
