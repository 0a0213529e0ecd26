package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/luminate/luminate/tenancy"
	"sigs.k8s.io/yaml"
)

const authExamples = "../../deploy/auth"

// tokenOf runs the real `luminate token`.
func tokenOf(t *testing.T, args ...string) string {
	t.Helper()
	bin, err := luminateBinary()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(bin, append([]string{"token"}, args...)...).Output()
	if err != nil {
		t.Fatalf("token %v: %v", args, err)
	}
	return strings.TrimSpace(string(out))
}

// keep writes a file into a folder of the test's own.
func keep(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// secretServer runs the example jwt-secret, with its files where the test has them.
func secretServer(t *testing.T) (p *process, secret string) {
	t.Helper()
	secret = keep(t, "jwt-secret", authSecret+"\n")
	limits, err := os.ReadFile(filepath.Join(authExamples, "jwt-secret", "limits.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	p = startLuminate(t, t.TempDir(), "--config", filepath.Join(authExamples, "jwt-secret", "luminate.yaml"),
		"--auth.jwtSecretFile", secret, "--auth.revokedFile", keep(t, "revoked", ""),
		"--limits.file", keep(t, "limits.yaml", string(limits)), "--server.internalListen", freeAddress(t))
	return p, secret
}

const oneMetric = `{"metrics":[{"name":"orders","value":7,"dimensions":{"customer_id":"acme"}},{"name":"orders","value":8,"dimensions":{"customer_id":"other"}}]}`

func TestExampleDev(t *testing.T) {
	p := startLuminate(t, t.TempDir(), "--config", filepath.Join(authExamples, "dev", "luminate.yaml"))
	if status, body, _ := do(t, "POST", p.url+"/api/v1/write", "application/json", oneMetric); status != 200 {
		t.Errorf("write without a token: %d %s", status, body)
	}
	if _, body, _ := do(t, "GET", p.url+"/api/v1/query?query=orders", "", ""); !strings.Contains(body, "acme") {
		t.Errorf("read: %s", body)
	}
	if _, body, _ := do(t, "GET", p.url+"/api/v1/query?query=orders", "", "", "X-Scope-OrgID", "team"); strings.Contains(body, "acme") {
		t.Errorf("read of another tenant: %s", body)
	}
}

func TestExampleSecretAndCustomer(t *testing.T) {
	p, secret := secretServer(t)
	if status, _, h := do(t, "POST", p.url+"/api/v1/write", "application/json", oneMetric); status != 401 || h.Get("WWW-Authenticate") == "" {
		t.Errorf("write without a token: %d", status)
	}
	writer := "Bearer " + tokenOf(t, "--auth.jwtSecretFile", secret, "--tenant", "shop", "--scopes", "write")
	status, body, h := do(t, "POST", p.url+"/api/v1/write", "application/json", oneMetric, "Authorization", writer)
	if status != 200 || h.Get("X-RateLimit-Limit") != "100000" {
		t.Errorf("write: %d %s %v", status, body, h)
	}
	if status, _, _ := do(t, "GET", p.url+"/api/v1/query?query=orders", "", "", "Authorization", writer); status != 403 {
		t.Errorf("read with a token to write: %d", status)
	}
	if status, _, _ := do(t, "GET", p.url+"/metrics", "", ""); status != 404 {
		t.Errorf("/metrics beside an internal listener: %d, want 404", status)
	}

	printed := tokenOf(t, "--key", secret, "--tenant", "shop", "--customer", "acme", "--grafana", "--url", "http://luminate:8080")
	var source, example struct {
		Datasources []struct {
			Name, Type, URL string
			JSONData        map[string]string `json:"jsonData"`
			SecureJSONData  map[string]string `json:"secureJsonData"`
		}
	}
	file, err := os.ReadFile(filepath.Join(authExamples, "grafana-customer", "datasource.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for b, into := range map[string]any{printed: &source, string(file): &example} {
		if err := yaml.Unmarshal([]byte(b), into); err != nil {
			t.Fatal(err)
		}
	}
	got := source.Datasources[0].SecureJSONData["httpHeaderValue1"]
	source.Datasources[0].SecureJSONData["httpHeaderValue1"] = "Bearer $LUMINATE_TOKEN"
	if fmt.Sprint(source) != fmt.Sprint(example) {
		t.Errorf("printed %v\nexample %v", source, example)
	}
	for _, q := range []string{"orders", `orders{customer_id="other"}`, `sum by (customer_id) (orders)`, `{__name__=~".+"}`} {
		status, body, _ := do(t, "POST", p.url+"/api/v1/query", "application/x-www-form-urlencoded", url.Values{"query": {q}}.Encode(), "Authorization", got)
		if status != 200 || strings.Contains(body, `"other"`) || q == "orders" && !strings.Contains(body, "acme") {
			t.Errorf("%s as the customer: %d %s", q, status, body)
		}
	}
	if status, _, _ := do(t, "POST", p.url+"/api/v1/write", "application/json", oneMetric, "Authorization", got); status != 403 {
		t.Errorf("a customer writes: %d", status)
	}
}

func TestExampleKeySet(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b64 := func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	public, err := key.PublicKey.Bytes() // 4, X, Y
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(map[string]any{"keys": []map[string]string{{
		"kty": "EC", "crv": "P-256", "kid": "k1", "use": "sig", "alg": "ES256", "x": b64(public[1:33]), "y": b64(public[33:]),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(set) }))
	defer provider.Close()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	private := keep(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	config := filepath.Join(authExamples, "jwks", "luminate.yaml")
	p := startLuminate(t, t.TempDir(), "--config", config, "--auth.jwksURL", provider.URL)
	mint := func(args ...string) string {
		return "Bearer " + tokenOf(t, append([]string{"--config", config, "--key", private, "--kid", "k1", "--scopes", "read,write"}, args...)...)
	}
	for token, want := range map[string]int{
		mint("--tenant", "team-a"):                                                  200,
		mint("--tenant", "not-listed"):                                              403,
		mint("--tenant", "team-a", "--issuer", "somebody"):                          401,
		mint("--tenant", "team-a", "--audience", "other"):                           401,
		mint("--tenant", "team-a", "--kid", "unknown"):                              401,
		"Bearer " + mintFor(t, tenancy.Grant{Tenant: "team-a", Scopes: everyScope}): 401,
	} {
		if status, body, _ := do(t, "POST", p.url+"/api/v1/write", "application/json", oneMetric, "Authorization", token); status != want {
			t.Errorf("%d %s, want %d", status, body, want)
		}
	}
}

// TestExamplesOfPrometheus runs a real Prometheus with each of the two examples.
func TestExamplesOfPrometheus(t *testing.T) {
	if testing.Short() {
		t.Skip("runs Prometheus")
	}
	bin, err := prometheusBinary()
	if err != nil {
		t.Fatal(err)
	}
	p, secret := secretServer(t)
	example := func(folder, token string) {
		file, err := os.ReadFile(filepath.Join(authExamples, folder, "prometheus.yml"))
		if err != nil {
			t.Fatal(err)
		}
		startPrometheus(t, bin, func(self string) string {
			return strings.NewReplacer(
				"http://luminate:8080", p.url, "/etc/prometheus/luminate-token", keep(t, "token", token+"\n"),
				"localhost:9090", self, "scrape_interval: 15s", "scrape_interval: 500ms",
			).Replace(string(file))
		})
	}
	example("prometheus-basic-auth", tokenOf(t, "--key", secret, "--tenant", "team-p", "--scopes", "read,write"))
	example("agent-many-tenants", tokenOf(t, "--key", secret, "--tenants", "team-a,team-b", "--scopes", "write"))
	all := "Bearer " + tokenOf(t, "--key", secret, "--tenants", "*", "--scopes", "read")
	for tenant, want := range map[string]string{"team-p": `"job":"prometheus"`, "team-a": `"team":"a"`, "team-b": `"team":"b"`} {
		eventually(t, time.Minute, func() error {
			status, body, _ := do(t, "GET", p.url+"/api/v1/query?query=up", "", "", "Authorization", all, "X-Scope-OrgID", tenant)
			if status != 200 || !strings.Contains(body, want) || strings.Count(body, `"metric"`) != 1 {
				return fmt.Errorf("%s: %d %s", tenant, status, body)
			}
			return nil
		})
	}
	status, body, _ := do(t, "GET", p.url+"/api/v1/query?query="+url.QueryEscape("count by (__tenant_id__) (up)"), "", "", "Authorization", all, "X-Scope-OrgID", "team-a|team-b|team-p")
	if status != 200 || strings.Count(body, "__tenant_id__") != 3 {
		t.Errorf("over all three: %d %s", status, body)
	}
}

// TestTokenCommandTellsWhatIsWrong gives it what cannot be minted.
func TestTokenCommandTellsWhatIsWrong(t *testing.T) {
	secret := keep(t, "secret", authSecret)
	for want, args := range map[string][]string{
		"no key":           {"--tenant", "a"},
		"names no tenant":  {"--key", secret},
		"is not one of":    {"--key", secret, "--tenant", "a", "--scopes", "root"},
		"--ttl":            {"--key", secret, "--tenant", "a", "--ttl", "soon"},
		"must be positive": {"--key", secret, "--tenant", "a", "--ttl", "0s"},
		"--customer":       {"--key", secret, "--customer", "acme"},
		"at least 32":      {"--key", keep(t, "short", "short"), "--tenant", "a"},
		"matcher":          {"--key", secret, "--tenant", "a", "--matcher", `a=~"("`},
		"tenant id":        {"--key", secret, "--tenant", "../a"},
		"no such file":     {"--key", filepath.Join(t.TempDir(), "none"), "--tenant", "a"},
		"is not a private": {"--key", keep(t, "pub", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), "--tenant", "a"},
	} {
		err := run(t.Context(), append([]string{"token"}, args...), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
}
