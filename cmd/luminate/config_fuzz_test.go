package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// FuzzConfigFile gives arbitrary bytes as a configuration file: it is refused, or it
// is valid and its printed form is read as the same again.
func FuzzConfigFile(f *testing.F) {
	for _, s := range []string{
		"", "server:\n  listen: 127.0.0.1:1\n", "storage: {badger: {dir: x, maxBytes: 90GiB}}\n", "server: 7\n", "a: &a [*a]\n",
		"auth:\n  leeway: 1h\nlog: {level: debug}\nserver.maxConnections: 5\n", "tenancy: {tenants: [a, b], create: listed}\n", "query:\n  timeout: -1s\n",
	} {
		f.Add([]byte(s))
	}
	read := func(t *testing.T, text []byte) (Config, error) {
		path := filepath.Join(t.TempDir(), "luminate.yaml")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
		addConfigFlags(fs)
		if err := fs.Parse([]string{"--config", path}); err != nil {
			t.Fatal(err)
		}
		cfg, _, err := loadConfig(fs, nil)
		return cfg, err
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		cfg, err := read(t, text)
		if err != nil {
			return
		}
		printed := renderConfig(&cfg)
		again, err := read(t, []byte(printed))
		if err != nil || renderConfig(&again) != printed {
			t.Fatalf("%q is printed as\n%s\nwhich is read as %v\n%s", text, printed, err, renderConfig(&again))
		}
	})
}

// FuzzParseBytes: a size is what its digits say, in its unit.
func FuzzParseBytes(f *testing.F) {
	for _, s := range []string{"0", "1KiB", "90 GiB", "-3MiB", "9223372036854775807", "4294967296TiB", "KiB", "1KiBKiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := parseBytes(text)
		if err != nil {
			return
		}
		for _, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
			if strings.HasSuffix(text, unit) {
				if n%1024 != 0 {
					t.Fatalf("%q is %d", text, n)
				}
				return
			}
		}
		if want, err := strconv.ParseInt(text, 10, 64); err != nil || n != want {
			t.Fatalf("%q is %d", text, n)
		}
	})
}
