package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/luminate/luminate/storage/storagetest"
	"github.com/luminate/luminate/tenancy"
)

// serveHere runs the whole server in this process until the test ends, and returns
// its address.
func serveHere(t *testing.T, edit func(*Config)) string {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Server.Listen, cfg.Storage.Badger.Dir = "127.0.0.1:0", t.TempDir()
	edit(&cfg)
	ctx, cancel := context.WithCancel(context.Background())
	bound, done := make(chan net.Addr, 1), make(chan error, 1)
	go func() {
		done <- serve(ctx, &cfg, slog.New(slog.DiscardHandler), func(a net.Addr) { bound <- a })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	select {
	case a := <-bound:
		return a.String()
	case <-time.After(time.Minute):
		t.Fatal("the server does not listen")
		return ""
	}
}

// certificate writes a certificate for 127.0.0.1, signed by itself, with its key.
func certificate(t *testing.T, dir, name string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestTLS swaps the certificate while running, refuses old versions, and demands a
// client's certificate where it is told to.
func TestTLS(t *testing.T) {
	dir, clientDir := t.TempDir(), t.TempDir()
	first := certificate(t, dir, "first")
	client := certificate(t, clientDir, "client")
	web := filepath.Join(dir, "web.yml")
	config := func(extra string) {
		t.Helper()
		if err := os.WriteFile(web, []byte("tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n"+extra), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config("")
	addr := serveHere(t, func(c *Config) { c.Server.WebConfigFile = web })
	roots := x509.NewCertPool()
	roots.AddCert(first)
	get := func(c *tls.Config) (*x509.Certificate, error) {
		tr := &http.Transport{TLSClientConfig: c, DisableKeepAlives: true}
		defer tr.CloseIdleConnections()
		resp, err := (&http.Client{Transport: tr, Timeout: 10 * time.Second}).Get("https://" + addr + "/livez")
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != 200 {
			return nil, fmt.Errorf("status %d", resp.StatusCode)
		}
		return resp.TLS.PeerCertificates[0], nil
	}
	eventually(t, time.Minute, func() error { _, err := get(&tls.Config{RootCAs: roots}); return err })
	if _, err := get(&tls.Config{RootCAs: roots, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 is accepted")
	}
	if c, err := listenerCertificate(web); err != nil || !c.Equal(first) {
		t.Errorf("the certificate that the metric tells of: %v, %v", c, err)
	}
	second := certificate(t, dir, "second")
	roots.AddCert(second)
	if got, err := get(&tls.Config{RootCAs: roots}); err != nil || !got.Equal(second) {
		t.Errorf("the handshake after the swap: %v, %v", got, err)
	}
	// A client's certificate: the web configuration is read at each handshake too.
	pemFile, err := os.ReadFile(filepath.Join(clientDir, "cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "clients.pem"), pemFile, 0o600); err != nil {
		t.Fatal(err)
	}
	config("  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: clients.pem\n")
	if _, err := get(&tls.Config{RootCAs: roots}); err == nil {
		t.Error("a client without a certificate is let in")
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(clientDir, "cert.pem"), filepath.Join(clientDir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := get(&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}); err != nil {
		t.Errorf("a client with its certificate %s: %v", client.Subject, err)
	}
}

// TestSlowClientsAreCut opens connections that send a header byte by byte, and one
// that never finishes its body; good requests go on meanwhile.
func TestSlowClientsAreCut(t *testing.T) {
	addr := serveHere(t, func(c *Config) {
		c.Server.ReadHeaderTimeout, c.Server.ReadTimeout = 300*time.Millisecond, 600*time.Millisecond
	})
	eventually(t, time.Minute, func() error {
		resp, err := http.Get("http://" + addr + "/readyz")
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != 200 {
			return fmt.Errorf("status %d", resp.StatusCode)
		}
		return nil
	})
	var slow []net.Conn
	for i := range 50 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		text := "GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
		if i%2 == 0 {
			text = "POST /api/v1/write HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{"
		}
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, c)
	}
	if status, _, _ := do(t, "POST", "http://"+addr+"/api/v1/write", "application/json", oneMetric); status != 200 {
		t.Errorf("a good write beside slow ones: %d", status)
	}
	for _, c := range slow {
		if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(bufio.NewReader(c))
		if err != nil && os.IsTimeout(err) {
			t.Fatal("a slow connection is still open")
		}
		if strings.HasPrefix(string(answer), "HTTP/1.1 2") {
			t.Errorf("half a request was answered %.30q", answer)
		}
	}
}

// TestBombs sends bodies that claim or become far more than they are.
func TestBombs(t *testing.T) {
	s := newAuthServer(t, storagetest.NewModel(), nil)
	auth := "Bearer " + mintFor(t, tenancy.Grant{Tenant: "a", Scopes: everyScope})
	claim := string(append(binary.AppendUvarint(nil, 4<<30-1), "xxxx"...))
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	for range 64 {
		if _, err := zw.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		path, typ, encoding, body string
	}{
		"snappy claims 4 GiB":            {"/api/v1/write", "application/x-protobuf", "snappy", claim},
		"snappy claims 4 GiB, read":      {"/api/v1/read", "application/x-protobuf", "snappy", claim},
		"gzip 1000:1, native":            {"/api/v1/write", "application/json", "gzip", zipped.String()},
		"gzip 1000:1, OTLP":              {"/api/v1/otlp/v1/metrics", "application/x-protobuf", "gzip", zipped.String()},
		"a million open brackets":        {"/api/v1/write", "application/json", "", strings.Repeat("[", 1<<20)},
		"a query of a million brackets":  {"/api/v1/query", "application/json", "", strings.Repeat("[", 1<<20)},
		"a PromQL of ten thousand signs": {"/api/v1/query", "application/x-www-form-urlencoded", "", "query=" + strings.Repeat("-", 10_000) + "x"},
	} {
		headers := []string{"Authorization", auth, "Content-Type", x.typ}
		if x.encoding != "" {
			headers = append(headers, "Content-Encoding", x.encoding)
		}
		status, body := s.call(t, "POST", x.path, x.body, headers...)
		if status < 400 && name != "a PromQL of ten thousand signs" || status >= 500 {
			t.Errorf("%s: %d %.200s", name, status, body)
		}
	}
}

// TestHeadersOfAnswers checks what browsers are told.
func TestHeadersOfAnswers(t *testing.T) {
	preflight := []string{"Origin", "https://page.example", "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "authorization"}
	for origins, want := range map[string]string{"": "", "https://page.example": "https://page.example", "https://other.example": ""} {
		s := newAuthServer(t, storagetest.NewModel(), func(c *Config) {
			if origins != "" {
				c.Server.CORSOrigins = []string{origins}
			}
		})
		req, err := http.NewRequestWithContext(t.Context(), "OPTIONS", s.URL+"/api/v1/query", nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(preflight); i += 2 {
			req.Header.Set(preflight[i], preflight[i+1])
		}
		resp, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("Access-Control-Allow-Origin"); got != want {
			t.Errorf("origins %q: a page is allowed %q, want %q", origins, got, want)
		}
		for _, h := range []string{"X-Content-Type-Options", "X-Frame-Options", "Content-Security-Policy", "Referrer-Policy"} {
			if resp.Header.Get(h) == "" {
				t.Errorf("an answer without %s", h)
			}
		}
	}
}
