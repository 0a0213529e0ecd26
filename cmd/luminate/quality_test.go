package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// sourceFiles calls f with every Go file of the repository.
func sourceFiles(t *testing.T, f func(path string, text []byte)) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "../.." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err == nil {
			f(path, text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

var leakCheck = regexp.MustCompile(`goleak\.(VerifyTestMain|Find)\(|proctest\.Main\(m\)|os\.Exit\(Main\(m\)\)`)

// TestEveryPackageLooksForLeaks: the tests of each package end with a look for
// goroutines that are left.
func TestEveryPackageLooksForLeaks(t *testing.T) {
	checked := map[string]bool{}
	sourceFiles(t, func(path string, text []byte) {
		if !strings.HasSuffix(path, "_test.go") {
			return
		}
		dir := filepath.Dir(path)
		checked[dir] = checked[dir] || strings.Contains(string(text), "\nfunc TestMain(") && leakCheck.Match(text)
	})
	if len(checked) < 15 {
		t.Errorf("only %d packages have tests", len(checked))
	}
	for dir, ok := range checked {
		if !ok {
			t.Errorf("%s has tests and no TestMain with goleak", dir)
		}
	}
}

// TestSQLIsNotPutTogetherFromText: statements lie in .sql files and values are bound;
// only names from an allow-list are rendered into them. storage/clickhouse/schema.go
// alone makes DDL, of constant table names and a cluster's name that Validate checks.
func TestSQLIsNotPutTogetherFromText(t *testing.T) {
	statement := regexp.MustCompile("(?i)Sprintf\\(\\s*[\"`](select|insert|alter|delete|update|create|drop|truncate|optimize|system|with)\\s")
	sourceFiles(t, func(path string, text []byte) {
		if !strings.HasSuffix(path, "_test.go") && !strings.Contains(path, "chtest") && filepath.ToSlash(path) != "../../storage/clickhouse/schema.go" {
			if m := statement.Find(text); m != nil {
				t.Errorf("%s builds SQL by %s", path, m)
			}
		}
	})
}
