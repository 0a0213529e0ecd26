package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v2"
)

// registerCertificate registers when the listener's certificate ends. The files are
// read at each scrape, as the listener reads them at each handshake.
func registerCertificate(reg prometheus.Registerer, webConfigFile string) {
	promauto.With(reg).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "luminate_tls_certificate_expiry_timestamp_seconds",
		Help: "Unix time at which the listener's certificate ends: +Inf without TLS, 0 if it cannot be read.",
	}, func() float64 {
		cert, err := listenerCertificate(webConfigFile)
		switch {
		case err != nil:
			return 0
		case cert == nil:
			return math.Inf(1)
		}
		return float64(cert.NotAfter.Unix())
	})
}

// listenerCertificate reads the certificate that a web configuration names or holds;
// nil where it asks for no TLS.
func listenerCertificate(webConfigFile string) (*x509.Certificate, error) {
	if webConfigFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(webConfigFile)
	if err != nil {
		return nil, err
	}
	var c web.Config
	if err := yaml.Unmarshal(text, &c); err != nil {
		return nil, fmt.Errorf("%s: %w", webConfigFile, err)
	}
	chain := []byte(c.TLSConfig.TLSCert)
	if path := c.TLSConfig.TLSCertPath; path != "" {
		if !filepath.IsAbs(path) { // as the listener resolves it
			path = filepath.Join(filepath.Dir(webConfigFile), path)
		}
		if chain, err = os.ReadFile(path); err != nil {
			return nil, err
		}
	}
	if len(bytes.TrimSpace(chain)) == 0 {
		return nil, nil
	}
	// The first certificate is the listener's own, those behind it its signers'.
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
	}
	return nil, errors.New("no certificate")
}
