package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"
)

// tokenFlags are what `luminate token` is told.
type tokenFlags struct {
	key, tenant, subject, ttl, kid, issuer, audience string
	tenants, scopes, matchers                        []string
	customer, customerLabel, url                     string
	grafana                                          bool
}

func tokenCommand(env []string) *cobra.Command {
	var f tokenFlags
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Mint a token",
		Long: `Mint a token, on standard output; its id and expiry go to standard error.

The key is --key (a file with an HS256 secret, or a PEM private key: RSA, ECDSA,
Ed25519), else the secret of LUMINATE_AUTH_JWT_SECRET, else that of the file in
auth.jwtSecretFile. Issuer and audience are those of the configuration.`,
		Example: `  luminate token --key secret --tenant team-a --scopes write --ttl 90d
  luminate token --key secret --tenants team-a,team-b --scopes write --subject agent-7
  luminate token --key secret --tenant shop --customer acme --grafana --url https://metrics.example.com`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := loadConfig(cmd.Flags(), env)
			if err != nil {
				return err
			}
			return mintToken(cmd.OutOrStdout(), cmd.ErrOrStderr(), &cfg, f, time.Now())
		},
	}
	fs := cmd.Flags()
	fs.String("config", "", "YAML file with the configuration, for the key, the issuer and the audience")
	fs.String("auth.jwtSecretFile", "", "file with the HS256 secret, as serve has it")
	fs.StringVar(&f.key, "key", "", "file with an HS256 secret or a PEM private key")
	fs.StringVar(&f.tenant, "tenant", "", "the token's tenant")
	fs.StringSliceVar(&f.tenants, "tenants", nil, "further tenants that a header may choose; * is every tenant")
	fs.StringSliceVar(&f.scopes, "scopes", []string{"read", "write"}, "read, write, admin, operator")
	fs.StringVar(&f.ttl, "ttl", "30d", "time until it expires, such as 12h or 90d")
	fs.StringVar(&f.subject, "subject", "", "who holds it, for logs and revocation")
	fs.StringArrayVar(&f.matchers, "matcher", nil, `narrow every read to matching series, such as 'region="eu"'; may repeat`)
	fs.StringVar(&f.kid, "kid", "", "id of the key, for a key set")
	fs.StringVar(&f.issuer, "issuer", "", "iss claim (default: auth.issuer)")
	fs.StringVar(&f.audience, "audience", "", "aud claim (default: auth.audience)")
	fs.StringVar(&f.customer, "customer", "", "a token that reads the series of one customer, and nothing else")
	fs.StringVar(&f.customerLabel, "customer-label", "customer_id", "label that names the customer")
	fs.BoolVar(&f.grafana, "grafana", false, "print a Grafana data source (provisioning YAML) with the token")
	fs.StringVar(&f.url, "url", "http://127.0.0.1:8080", "address of Luminate, for --grafana")
	return cmd
}

// mintToken writes the token, or the data source with it, to out.
func mintToken(out, errOut io.Writer, cfg *Config, f tokenFlags, now time.Time) error {
	key, err := signingKey(cfg, f.key)
	if err != nil {
		return err
	}
	g, err := f.grant(cfg)
	if err != nil {
		return err
	}
	token, id, err := tenancy.Mint(key, g, now)
	if err != nil {
		return err
	}
	fmt.Fprintf(errOut, "token %s of %q expires %s\n", id, g.Subject, now.Add(g.TTL).UTC().Format(time.RFC3339))
	if f.grafana {
		_, err = io.WriteString(out, grafanaDataSource(f, token))
		return err
	}
	_, err = fmt.Fprintln(out, token)
	return err
}

// signingKey reads the key to sign with.
func signingKey(cfg *Config, path string) (any, error) {
	if path == "" {
		if cfg.Auth.JWTSecret != "" {
			return tenancy.ParseSigningKey([]byte(cfg.Auth.JWTSecret))
		}
		if path = cfg.Auth.JWTSecretFile; path == "" {
			return nil, errors.New("no key: give --key, or configure auth.jwtSecretFile (openssl rand -hex 32 makes a secret)")
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	key, err := tenancy.ParseSigningKey(b)
	if err != nil {
		return nil, fmt.Errorf("key in %s: %w", path, err)
	}
	return key, nil
}

// grant turns flags into what the token allows.
func (f tokenFlags) grant(cfg *Config) (tenancy.Grant, error) {
	ttl, err := model.ParseDuration(f.ttl)
	if err != nil {
		return tenancy.Grant{}, fmt.Errorf("--ttl: %w", err)
	}
	g := tenancy.Grant{
		Subject: f.subject, Tenant: f.tenant, Tenants: f.tenants, Matchers: f.matchers, KeyID: f.kid,
		Issuer: f.issuer, Audience: f.audience, TTL: time.Duration(ttl),
	}
	for _, s := range f.scopes {
		g.Scopes = append(g.Scopes, tenancy.Scope(strings.TrimSpace(s)))
	}
	if f.customer != "" {
		t, err := storage.ParseTenant(f.tenant)
		if err != nil {
			return g, fmt.Errorf("--customer needs --tenant: %w", err)
		}
		c := tenancy.CustomerGrant(t, f.customerLabel, f.customer, g.TTL)
		c.KeyID, c.Issuer, c.Audience = g.KeyID, g.Issuer, g.Audience
		c.Matchers = append(c.Matchers, g.Matchers...)
		if f.subject != "" {
			c.Subject = f.subject
		}
		g = c
	}
	if g.Issuer == "" {
		g.Issuer = cfg.Auth.Issuer
	}
	if g.Audience == "" {
		g.Audience = cfg.Auth.Audience
	}
	return g, nil
}

// grafanaDataSource is a provisioning file of Grafana. The token is a secure
// field, which Grafana encrypts and never shows again.
func grafanaDataSource(f tokenFlags, token string) string {
	name := "Luminate"
	if f.customer != "" {
		name += " " + f.customer
	} else if f.tenant != "" {
		name += " " + f.tenant
	}
	return fmt.Sprintf(`apiVersion: 1
datasources:
  - name: %q
    type: prometheus
    access: proxy
    url: %q
    jsonData:
      httpMethod: POST
      prometheusType: Prometheus
      timeInterval: 15s
      httpHeaderName1: Authorization
    secureJsonData:
      httpHeaderValue1: %q
`, name, f.url, "Bearer "+token)
}
