package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	idleConnections = 2000
	slowConnections = 200
	bombRounds      = 20
	bombSenders     = 4
	extraMemory     = 64 << 20
	// politeFloor is a latency that nobody complains about: a p99 below it passes
	// whatever its ratio to a baseline of a few milliseconds.
	politeFloor = 250 * time.Millisecond
)

// bomb is a small body that claims to be large.
type bomb struct {
	name, path, contentType, encoding string
	body                              []byte
}

func bombs() ([]bomb, error) {
	var z bytes.Buffer
	w, err := gzip.NewWriterLevel(&z, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, 1<<20)
	for range 256 {
		if _, err := w.Write(zeros); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	// A snappy block begins with its decoded length as a varint: 2³²−1 here.
	claim := append([]byte{0xff, 0xff, 0xff, 0xff, 0x0f}, bytes.Repeat([]byte{0x00, 0x61}, 512)...)
	return []bomb{
		{"snappy", "/api/v1/write", "application/x-protobuf", "snappy", claim},
		{"snappyRead", "/api/v1/read", "application/x-protobuf", "snappy", claim},
		{"gzipNative", "/api/v1/write", "application/json", "gzip", z.Bytes()},
		{"gzipOTLP", "/api/v1/otlp/v1/metrics", "application/x-protobuf", "gzip", z.Bytes()},
	}, nil
}

// hostileClients measures polite clients first alone, then beside bombs, and then
// beside idle and slow connections.
func hostileClients(ctx context.Context, c *chaos, o *outcome) error {
	s, err := c.server(filepath.Join(c.dir, "data"), nil)
	if err != nil {
		return err
	}
	if err := c.startReady(ctx, s, o); err != nil {
		return err
	}
	l := newLedger(2, 20)
	defer l.client.CloseIdleConnections()
	if err := writeFor(ctx, l, s, time.Second); err != nil {
		return err
	}
	anon := watchAnon(ctx, s)
	alone, err := polite(ctx, l, s, 3*time.Second)
	if err != nil {
		return err
	}
	before := anon()
	o.set("p99MillisecondsAlone", millis(alone))

	anon = watchAnon(ctx, s)
	throwing, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		defer cancel() // the polite stop when the bombs have
		done <- throwBombs(ctx, s, o)
	}()
	beside, err := polite(throwing, l, s, time.Minute)
	if err := errors.Join(err, <-done); err != nil {
		return err
	}
	o.judgeHostile("Bombs", alone, beside, before, anon())

	anon = watchAnon(ctx, s)
	conns, err := openConnections(ctx, s, o)
	if err != nil {
		return err
	}
	beside, err = polite(ctx, l, s, 3*time.Second)
	after := anon()
	shut := conns.awaitSlow(ctx)
	conns.close()
	o.set("slowLorisShutSeconds", shut.Seconds())
	o.expect(shut <= 30*time.Second, "slow connections were still open after %s", shut)
	o.judgeHostile("Connections", alone, beside, before, after)
	o.expect(s.alive(), "the server ended")
	if err != nil || !s.alive() {
		return errors.Join(err, ctx.Err())
	}
	return c.verify(ctx, l, s, o, true)
}

func (o *outcome) judgeHostile(name string, alone, beside time.Duration, before, after int64) {
	o.set("p99Milliseconds"+name, millis(beside))
	o.set("extraMiB"+name, float64(max(0, after-before))/(1<<20))
	o.expect(after-before <= extraMemory, "%s took %d MiB more", name, (after-before)>>20)
	o.expect(beside <= max(2*alone, politeFloor), "%s: polite requests' p99 went from %s to %s", name, alone, beside)
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// polite writes and queries for a while and returns the p99 of its latencies.
func polite(ctx context.Context, l *ledger, s *server, d time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var all []time.Duration
	for ctx.Err() == nil {
		begin := time.Now()
		status, err := l.writeOne(ctx, s.url, 0)
		if err == nil && status/100 == 2 {
			l.acked[0]++
			_, _, err = query(ctx, l.client, s.url, "/api/v1/query", url.Values{"query": {"count(ledger)"}})
		} else if err == nil {
			err = fmt.Errorf("a polite write got status %d", status)
		}
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return 0, err
		}
		all = append(all, time.Since(begin))
		wait(ctx, 5*time.Millisecond)
	}
	if len(all) == 0 {
		return 0, errors.New("no polite request was answered")
	}
	slices.Sort(all)
	return all[len(all)*99/100], nil
}

// throwBombs sends each bomb again and again; each must be refused with 4xx.
func throwBombs(ctx context.Context, s *server, o *outcome) error {
	list, err := bombs()
	if err != nil {
		return err
	}
	client := newClient()
	defer client.CloseIdleConnections()
	for _, b := range list {
		var slowest, bad, last atomic.Int64
		errs := make([]error, bombSenders)
		var wg sync.WaitGroup
		for i := range bombSenders {
			wg.Go(func() {
				for range bombRounds / bombSenders {
					begin := time.Now()
					status, err := postOnce(ctx, client, s.url+b.path, b.body, b.contentType, b.encoding)
					if err != nil && !brokenByServer(err) {
						errs[i] = err
						return
					}
					if err == nil && status/100 != 4 {
						bad.Add(1)
						last.Store(int64(status))
					}
					if took := int64(time.Since(begin)); took > slowest.Load() {
						slowest.Store(took)
					}
				}
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("bomb %s: %w", b.name, err)
		}
		o.add("bombs", bombRounds)
		o.set("rejectMillisecondsMax_"+b.name, millis(time.Duration(slowest.Load())))
		o.expect(bad.Load() == 0, "%d bombs %s were not refused: status %d", bad.Load(), b.name, last.Load())
	}
	return nil
}

// brokenByServer tells of a connection that the server closed before it had read
// the whole request, which is its right.
func brokenByServer(err error) bool {
	return errors.Is(err, io.EOF) || strings.Contains(err.Error(), "connection reset") || strings.Contains(err.Error(), "broken pipe")
}

// connections are idle ones, and slow ones that send a header for ever.
type connections struct {
	idle, slow []net.Conn
	opened     time.Time
	wg         sync.WaitGroup
}

// openConnections opens both kinds; the idle ones were polite once.
func openConnections(ctx context.Context, s *server, o *outcome) (*connections, error) {
	c := &connections{opened: time.Now()}
	addr := strings.TrimPrefix(s.url, "http://")
	buf := make([]byte, 4096)
	for range idleConnections {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			c.close()
			return nil, fmt.Errorf("idle connection %d: %w", len(c.idle), err)
		}
		c.idle = append(c.idle, conn)
		if _, err = io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"); err == nil {
			_, err = conn.Read(buf)
		}
		if err != nil {
			c.close()
			return nil, fmt.Errorf("idle connection %d: %w", len(c.idle), err)
		}
	}
	c.opened = time.Now()
	for range slowConnections {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			c.close()
			return nil, err
		}
		c.slow = append(c.slow, conn)
		c.wg.Go(func() { crawl(ctx, conn) })
	}
	o.set("idleConnections", idleConnections)
	o.set("slowConnections", slowConnections)
	return c, nil
}

// crawl sends a byte of a header every 200 ms until the server has had enough.
func crawl(ctx context.Context, conn net.Conn) {
	if _, err := io.WriteString(conn, "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nX-Slow: "); err != nil {
		return
	}
	for ctx.Err() == nil {
		if _, err := conn.Write([]byte("a")); err != nil {
			return
		}
		wait(ctx, 200*time.Millisecond)
	}
}

// awaitSlow returns how long after their start the server had shut the slow ones.
func (c *connections) awaitSlow(ctx context.Context) time.Duration {
	ended := make(chan struct{})
	go func() { c.wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
	case <-time.After(time.Minute):
	}
	return time.Since(c.opened)
}

func (c *connections) close() {
	for _, conn := range slices.Concat(c.idle, c.slow) {
		_ = conn.Close()
	}
	c.wg.Wait()
}

// newPost returns a POST with its headers.
func newPost(ctx context.Context, target string, body []byte, contentType, encoding string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Content-Encoding", encoding)
	if encoding == "snappy" {
		req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	}
	return req, nil
}

// drain reads an answer to its end, so that its connection is used again.
func drain(resp *http.Response) error {
	_, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	return errors.Join(err, resp.Body.Close())
}
