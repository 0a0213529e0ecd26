package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func load(t *testing.T, yaml string, env []string, args ...string) (Config, []string, error) {
	t.Helper()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	addConfigFlags(fs)
	if yaml != "" {
		path := filepath.Join(t.TempDir(), "luminate.yaml")
		if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return loadConfig(fs, env)
}

func TestFlagBeatsEnvironmentBeatsFileBeatsDefault(t *testing.T) {
	yaml := "server:\n  listen: 127.0.0.1:1\n  idleTimeout: 7s\nstorage:\n  badger:\n    dir: /file\n    walSync: always\nlog:\n  level: warn\n"
	env := []string{"LUMINATE_SERVER_LISTEN=127.0.0.1:2", "LUMINATE_STORAGE_BADGER_DIR=/env", "PATH=/bin", "LUMINATE_TEST_CLICKHOUSE=x"}
	cfg, warnings, err := load(t, yaml, env, "--server.listen", "127.0.0.1:3")
	if err != nil || len(warnings) > 0 {
		t.Fatalf("load: %v, warnings %q", err, warnings)
	}
	for _, c := range []struct{ what, got, want string }{
		{"flag", cfg.Server.Listen, "127.0.0.1:3"},
		{"environment", cfg.Storage.Badger.Dir, "/env"},
		{"file", cfg.Storage.Badger.WALSync, "always"},
		{"file duration", cfg.Server.IdleTimeout.String(), "7s"},
		{"file over default", cfg.Log.Level, "warn"},
		{"default", cfg.Tenancy.Header, "X-Scope-OrgID"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, c.got, c.want)
		}
	}
}

func TestEnvironmentNames(t *testing.T) {
	f := func(env string, get func(Config) any, want any) {
		t.Helper()
		cfg, _, err := load(t, "", []string{env})
		if err != nil {
			t.Fatalf("%s: %v", env, err)
		}
		if got := get(cfg); got != want {
			t.Errorf("%s: got %v, want %v", env, got, want)
		}
	}
	f("LUMINATE_STORAGE_BADGER_WALSYNC=always", func(c Config) any { return c.Storage.Badger.WALSync }, "always")
	f("LUMINATE_STORAGE_BADGER_WAL_SYNC=always", func(c Config) any { return c.Storage.Badger.WALSync }, "always")
	f("LUMINATE_AUTH_JWKS_URL=http://127.0.0.1/x", func(c Config) any { return c.Auth.JWKSURL }, "http://127.0.0.1/x")
	f("LUMINATE_AUTH_JWT_SECRET_FILE=/s", func(c Config) any { return c.Auth.JWTSecretFile }, "/s")
	f("LUMINATE_AUTH_JWT_SECRET=hush", func(c Config) any { return c.Auth.JWTSecret }, "hush")
	f("LUMINATE_QUERY_MAX_SAMPLES=7", func(c Config) any { return c.Query.MaxSamples }, 7)
	f("LUMINATE_STORAGE_BADGER_MAX_BYTES=2GiB", func(c Config) any { return c.Storage.Badger.MaxBytes }, int64(2)<<30)
	f("LUMINATE_QUERY_TIMEOUT=90s", func(c Config) any { return c.Query.Timeout }, 90*time.Second)
	f("LUMINATE_SERVER_CORS_ORIGINS=https://a, https://b", func(c Config) any { return strings.Join(c.Server.CORSOrigins, "|") }, "https://a|https://b")
}

func TestBadConfigurationIsNamed(t *testing.T) {
	f := func(yaml string, env []string, want ...string) {
		t.Helper()
		_, _, err := load(t, yaml, env)
		if err == nil {
			t.Fatalf("%q %q: no error", yaml, env)
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q %q: error %q does not say %q", yaml, env, err, w)
			}
		}
	}
	f("server:\n  lisen: x\n", nil, `unknown key "server.lisen"`, `did you mean "server.listen"`)
	f("storage:\n  badger:\n    walsync: os\nnonsense: 1\n", nil, "storage.badger.walsync", "storage.badger.walSync", "nonsense")
	f("", []string{"LUMINATE_SERVER_LISTENN=1"}, "LUMINATE_SERVER_LISTENN", "server.listen")
	f("query:\n  timeout: soon\n", nil, "query.timeout", "soon", "duration")
	f("query:\n  maxSamples: many\n", nil, "query.maxSamples", "whole number")
	f("admin:\n  enable: perhaps\n", nil, "admin.enable", "true or false")
	f("storage:\n  backend: sqlite\n  badger:\n    walSync: never\n", nil, "storage.backend", "sqlite", "storage.badger.walSync")
	f("server:\n  listen: 0.0.0.0:8080\n", nil, "not a loopback address", "server.allowUnauthenticated")
	f("server:\n  listen: :8080\n", nil, "not a loopback address")
	f("storage:\n  backend: clickhouse\n", nil, "storage.clickhouse.dsn")
	f("not: [valid", nil, "config file")
}

func TestListeningBeyondLoopback(t *testing.T) {
	f := func(yaml string) {
		t.Helper()
		if _, _, err := load(t, yaml, nil); err != nil {
			t.Errorf("%q: %v", yaml, err)
		}
	}
	f("server:\n  listen: 0.0.0.0:8080\n  allowUnauthenticated: true\n")
	f("server:\n  listen: 0.0.0.0:8080\nauth:\n  jwtSecretFile: /x\n")
	f("server:\n  listen: '[::1]:8080'\n")
	f("server:\n  listen: localhost:8080\n")
}

// TestServiceLinks: what Kubernetes sets in a pod for a Service named luminate is no
// setting of ours, and hides no misspelt one.
func TestServiceLinks(t *testing.T) {
	pod := []string{"KUBERNETES_SERVICE_HOST=10.96.0.1", "KUBERNETES_PORT=tcp://10.96.0.1:443", "LUMINATE_SERVER_LISTEN=127.0.0.1:2"}
	links := []string{
		"LUMINATE_SERVICE_HOST=10.96.145.78", "LUMINATE_SERVICE_PORT=8080", "LUMINATE_SERVICE_PORT_HTTP=8080", "LUMINATE_PORT=tcp://10.96.145.78:8080",
		"LUMINATE_PORT_8080_TCP=tcp://10.96.145.78:8080", "LUMINATE_PORT_8080_TCP_PROTO=tcp", "LUMINATE_PORT_8080_TCP_PORT=8080", "LUMINATE_PORT_8080_TCP_ADDR=10.96.145.78",
		"LUMINATE_READ_SERVICE_HOST=10.96.0.9", "LUMINATE_READ_PORT=tcp://10.96.0.9:80",
	}
	cfg, _, err := load(t, "", slices.Concat(pod, links))
	if err != nil || cfg.Server.Listen != "127.0.0.1:2" {
		t.Fatalf("in a pod: %q, %v", cfg.Server.Listen, err)
	}
	f := func(env []string, want string) {
		t.Helper()
		if _, _, err := load(t, "", env); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", env, err)
		}
	}
	f(links[:4], "LUMINATE_SERVICE_PORT_HTTP") // not in a pod
	f(append(pod, "LUMINATE_PORT=1"), "LUMINATE_PORT")
	f(slices.Concat(pod, links, []string{"LUMINATE_SERVER_LISTENN=1"}), "LUMINATE_SERVER_LISTENN")
	f(slices.Concat(pod, links, []string{"LUMINATE_PORTS=1"}), "LUMINATE_PORTS")
}

func TestRenamedKeyWarns(t *testing.T) {
	renamedKeys["storage.path"] = "storage.badger.dir"
	defer delete(renamedKeys, "storage.path")
	cfg, warnings, err := load(t, "storage:\n  path: /old\n", nil)
	if err != nil || cfg.Storage.Badger.Dir != "/old" {
		t.Fatalf("got %q, %v", cfg.Storage.Badger.Dir, err)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "storage.badger.dir") {
		t.Fatalf("warnings: %q", warnings)
	}
}

func TestEveryKeyIsDocumented(t *testing.T) {
	for _, k := range configKeys() {
		if k.Doc == "" {
			t.Errorf("%s has no doc tag", k.Key)
		}
	}
}

func TestShownConfigurationHidesSecrets(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Auth.JWTSecret = "canary-secret"
	cfg.Storage.ClickHouse.DSN = "clickhouse://user:canary-password@host:9000/db"
	cfg.Storage.ClickHouse.Shards = []string{"clickhouse://user:canary-password@shard:9000/db"}
	shown := renderConfig(&cfg)
	for _, v := range flagValues(&cfg) {
		shown += v
	}
	if strings.Contains(shown, "canary") {
		t.Fatalf("a secret is shown:\n%s", shown)
	}
	if !strings.Contains(shown, "clickhouse://user:***@host:9000/db") {
		t.Fatalf("the DSN is gone:\n%s", shown)
	}
	// What is shown is a configuration that loads, but for the cut passwords.
	if _, _, err := load(t, renderConfig(&cfg), nil); err != nil {
		t.Fatalf("the shown configuration does not load: %v", err)
	}
}
