package deploy

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	markdownLink = regexp.MustCompile(`\]\(([^)#]+)(?:#[^)]*)?\)`)
	configKey    = regexp.MustCompile("`((?:server|storage|auth|tenancy|limits|query|write|otlp|metrics|admin|log)\\.[A-Za-z.]+)[`:]")
)

// TestOperatorsGuide: every link of the operator's pages leads to a file, and every
// configuration key that they name exists.
func TestOperatorsGuide(t *testing.T) {
	keys, err := os.ReadFile("configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range []string{"README.md", "runbooks/backup.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		links := markdownLink.FindAllStringSubmatch(string(text), -1)
		named := configKey.FindAllStringSubmatch(string(text), -1)
		if page == "README.md" && (len(links) < 5 || len(named) < 5) {
			t.Errorf("%s: %d links and %d keys found, the test looks wrongly", page, len(links), len(named))
		}
		for _, l := range links {
			if strings.Contains(l[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), l[1])); err != nil {
				t.Errorf("%s: link to %s: %v", page, l[1], err)
			}
		}
		for _, k := range named {
			if !strings.Contains(string(keys), "| `"+k[1]+"` |") && !strings.HasSuffix(k[1], ".md") {
				t.Errorf("%s: no configuration key %s", page, k[1])
			}
		}
	}
}
