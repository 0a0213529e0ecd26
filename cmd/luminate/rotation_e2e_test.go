//go:build e2e

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/luminate/luminate/storage/clickhouse/chtest"
)

// Between two requests of a sender lies thinkTime, so that connections are idle for
// idleTime now and then; an answer does not pause for as long.
const (
	thinkTime = 250 * time.Millisecond
	idleTime  = 200 * time.Millisecond
)

// relay passes bytes to a server and can end connections on which nothing is under
// way, so that a client has to connect anew.
type relay struct {
	to string
	ln net.Listener
	wg sync.WaitGroup

	mu    sync.Mutex
	pairs map[*relayed]bool
}

// relayed is one connection; answered is when the server last sent something, 0 while
// the client waits.
type relayed struct {
	client, server net.Conn
	answered       atomic.Int64
}

func (p *relayed) close() {
	p.client.Close()
	p.server.Close()
}

func startRelay(t *testing.T, to string) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{to: to, ln: ln, pairs: map[*relayed]bool{}}
	r.wg.Go(r.accept)
	t.Cleanup(func() {
		ln.Close()
		r.mu.Lock()
		for p := range r.pairs {
			p.close()
		}
		r.mu.Unlock()
		r.wg.Wait()
	})
	return r
}

func (r *relay) accept() {
	for {
		client, err := r.ln.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", r.to)
		if err != nil {
			client.Close()
			continue
		}
		p := &relayed{client: client, server: server}
		r.mu.Lock()
		r.pairs[p] = true
		r.mu.Unlock()
		r.wg.Go(func() { r.pass(p, server, client, func() { p.answered.Store(0) }) })
		r.wg.Go(func() { r.pass(p, client, server, func() { p.answered.Store(time.Now().UnixNano()) }) })
	}
}

func (r *relay) pass(p *relayed, dst, src net.Conn, note func()) {
	defer func() {
		p.close()
		r.mu.Lock()
		delete(r.pairs, p)
		r.mu.Unlock()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			note()
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// renew ends every connection of now as soon as it is idle.
func (r *relay) renew(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	old := map[*relayed]bool{}
	for p := range r.pairs {
		old[p] = true
	}
	r.mu.Unlock()
	if len(old) == 0 {
		t.Fatal("there are no connections to renew")
	}
	eventually(t, 30*time.Second, func() error {
		for p := range old {
			at := p.answered.Load()
			if at != 0 && time.Since(time.Unix(0, at)) > idleTime {
				p.close()
				delete(old, p)
			}
		}
		if len(old) > 0 {
			return fmt.Errorf("%d connections are never idle", len(old))
		}
		return nil
	})
}

// pairOf is PEM text of a fresh certificate, and of it with its key.
func pairOf(t *testing.T, name string) (cert *x509.Certificate, public, pair string) {
	t.Helper()
	dir := t.TempDir()
	cert = certificate(t, dir, name)
	read := func(file string) string {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	public = read("cert.pem")
	return cert, public, public + read("key.pem")
}

// steadyLoad sends requests over new TLS connections until it is told to stop, and counts
// those that fail.
type steadyLoad struct {
	t              *testing.T
	base           string
	client         *http.Client
	ok, failed     atomic.Int64
	writes         atomic.Int64
	ctx            context.Context
	cancel         context.CancelFunc
	wg             sync.WaitGroup
	firstTimestamp int64
}

func (l *steadyLoad) run(write bool, id int) {
	tick := time.NewTicker(thinkTime)
	defer tick.Stop()
	for i := int64(0); l.ctx.Err() == nil; i++ {
		select {
		case <-tick.C:
		case <-l.ctx.Done():
			return
		}
		var resp *http.Response
		var err error
		if write {
			body := fmt.Sprintf(`{"metrics":[{"name":"rotation","timestamp":%d,"value":1,"dimensions":{"w":"%d"}}]}`, l.firstTimestamp+i, id)
			resp, err = l.client.Post(l.base+"/api/v1/write", "application/json", strings.NewReader(body))
		} else {
			resp, err = l.client.Get(l.base + "/api/v1/query?query=" + url.QueryEscape("sum(count_over_time(rotation[1h]))"))
		}
		if err == nil {
			text, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("%s: %s", resp.Status, text)
			}
		}
		if err != nil {
			if l.failed.Add(1) <= 5 {
				l.t.Errorf("write %t: %v", write, err)
			}
			continue
		}
		l.ok.Add(1)
		if write {
			l.writes.Add(1)
		}
	}
}

// more waits until so many further requests have been answered.
func (l *steadyLoad) more(n int64) {
	l.t.Helper()
	want := l.ok.Load() + n
	eventually(l.t, time.Minute, func() error {
		if got := l.ok.Load(); got < want {
			return fmt.Errorf("%d requests were answered, want %d", got, want)
		}
		return nil
	})
}

// TestRotationUnderLoad changes ClickHouse's password, its certificate and the one that
// signs it, and the listener's own, while requests run: no restart, and none fails.
func TestRotationUnderLoad(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		chtest.Replace(t, path, text)
		return path
	}
	_, publicA, pairA := pairOf(t, "clickhouse-a")
	_, publicB, pairB := pairOf(t, "clickhouse-b")
	listener1, _, own1 := pairOf(t, "luminate-1")
	listener2, _, own2 := pairOf(t, "luminate-2")
	file("own1.pem", own1)
	file("own2.pem", own2)
	web := func(pair string) string {
		return file("web.yml", "tls_server_config:\n  cert_file: "+pair+"\n  key_file: "+pair+"\n")
	}

	server := chtest.OwnSecure(t, "first", pairA)
	database := server.Database(t)
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	r := startRelay(t, server.Addr())
	bin, err := luminateBinary()
	if err != nil {
		t.Fatal(err)
	}
	addr, internal := freeAddress(t), freeAddress(t)
	p := startProcess(t, "http://"+internal, "/readyz", nil, bin, "serve", "--server.listen", addr, "--server.internalListen", internal,
		"--server.webConfigFile", web("own1.pem"), "--storage.backend=clickhouse", "--log.format=text",
		"--storage.clickhouse.dsn", "clickhouse://default@"+r.ln.Addr().String()+u.Path+"?secure=true",
		"--storage.clickhouse.passwordFile", file("password", "first\n"), "--storage.clickhouse.caFile", file("ca.pem", publicA))

	roots := x509.NewCertPool()
	roots.AddCert(listener1)
	roots.AddCert(listener2)
	var seen atomic.Pointer[x509.Certificate]
	tr := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, VerifyConnection: func(s tls.ConnectionState) error {
		seen.Store(s.PeerCertificates[0])
		return nil
	}}}
	ctx, cancel := context.WithCancel(t.Context())
	l := &steadyLoad{t: t, base: "https://" + addr, client: &http.Client{Transport: tr, Timeout: time.Minute}, ctx: ctx, cancel: cancel, firstTimestamp: time.Now().UnixMilli()}
	defer tr.CloseIdleConnections()
	defer l.wg.Wait()
	defer cancel()
	for i := range 4 {
		l.wg.Go(func() { l.run(i%2 == 0, i) })
	}
	l.more(60)

	// The password: both are valid for a while, as with ALTER USER … ADD IDENTIFIED.
	server.SetPasswords(t, "first", "second")
	file("password", "second\n")
	r.renew(t)
	l.more(30)
	server.SetPasswords(t, "second")
	r.renew(t)
	l.more(30)

	// ClickHouse's certificate, signed by another one: both are trusted for a while.
	file("ca.pem", publicA+publicB)
	server.SetCertificate(t, pairB)
	r.renew(t)
	l.more(30)
	file("ca.pem", publicB)
	r.renew(t)
	l.more(30)

	// Luminate's own: the web configuration names the new pair from one moment on.
	web("own2.pem")
	l.more(30)
	if !seen.Load().Equal(listener2) {
		t.Error("the listener still shows its old certificate")
	}
	cancel()
	l.wg.Wait()
	t.Logf("%d requests, %d failed", l.ok.Load(), l.failed.Load())
	if l.failed.Load() > 0 {
		t.Errorf("%d requests failed; the server says\n%s", l.failed.Load(), p.log)
	}
	l.wantWritten()

	// What was rotated away opens nothing any more.
	if _, err := tls.Dial("tcp", server.Addr(), &tls.Config{RootCAs: poolOf(t, publicA)}); err == nil {
		t.Error("the old certificate is still served")
	}
}

func poolOf(t *testing.T, text string) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(text)) {
		t.Fatal("no certificate")
	}
	return pool
}

// wantWritten counts what was acknowledged.
func (l *steadyLoad) wantWritten() {
	l.t.Helper()
	resp, err := l.client.Get(l.base + "/api/v1/query?query=" + url.QueryEscape("sum(count_over_time(rotation[1h]))"))
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if want := fmt.Sprintf(`"%d"]`, l.writes.Load()); !strings.Contains(string(body), want) {
		l.t.Errorf("%d samples were acknowledged, the query says %s", l.writes.Load(), body)
	}
}
