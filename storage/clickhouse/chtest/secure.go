package chtest

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Secure is a server of the test's own that demands a password and speaks TLS. Both
// may be changed while it runs; what is connected stays so. It is always the engine as
// a library: an installed ClickHouse reads its users again in its own time.
type Secure struct {
	*Server
	users, pair string
}

// OwnSecure starts one. pair is PEM text of a certificate and its key.
func OwnSecure(t testing.TB, password, pair string) *Secure {
	t.Helper()
	dir := t.TempDir()
	s := &Secure{users: filepath.Join(dir, "users"), pair: filepath.Join(dir, "pair.pem")}
	launch, err := libraryLauncher("-users", s.users, "-cert", s.pair)
	if err != nil {
		giveUp(t, err)
	}
	s.SetPasswords(t, password)
	s.SetCertificate(t, pair)
	addr, err := freeAddr()
	if err != nil {
		t.Fatal(err)
	}
	base := baseURL(addr)
	base.User, base.RawQuery = url.UserPassword("default", password), "secure=true&skip_verify=true"
	p := &process{launch: launch, dir: dir, addr: addr, base: base}
	if err := p.start(); err != nil {
		t.Fatalf("chtest: start a secure ClickHouse: %v", err)
	}
	s.Server = &Server{base: base, proc: p, fresh: true}
	t.Cleanup(func() { p.stop() })
	return s
}

// SetPasswords makes these the valid passwords, for connections from now on.
func (s *Secure) SetPasswords(t testing.TB, passwords ...string) {
	t.Helper()
	Replace(t, s.users, "default:"+strings.Join(passwords, "\ndefault:")+"\n")
	if s.Server != nil {
		s.base.User = url.UserPassword("default", passwords[len(passwords)-1])
	}
}

// SetCertificate makes this the certificate, for connections from now on.
func (s *Secure) SetCertificate(t testing.TB, pair string) {
	t.Helper()
	Replace(t, s.pair, pair)
}

// Replace makes text the content of a file at once, as a rotation does.
func Replace(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
