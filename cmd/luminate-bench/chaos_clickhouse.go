package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

const (
	outageDatabase = "luminate_chaos"
	// refusedWithin is how soon a write that cannot be stored must be answered.
	refusedWithin = 5 * time.Second
	// toldWithin is how soon /readyz must tell of an outage, and of its end.
	toldWithin = 10 * time.Second
	// outageTime is how long ClickHouse is away or slow.
	outageTime = 3 * time.Second
	// maxGoroutinesLeft is how many more goroutines than before the outages may run.
	maxGoroutinesLeft = 20
)

// outage is the real binary before a ClickHouse whose network this process controls.
type outage struct {
	c     *chaos
	o     *outcome
	l     *ledger
	s     *server
	proxy *toxiproxy.Proxy
}

// clickhouseTrouble takes ClickHouse away, slows it, and cuts connections in the middle
// of inserts, while a ledger is written: what was acknowledged must be there once.
func clickhouseTrouble(ctx context.Context, c *chaos, o *outcome) (err error) {
	x, stop, err := c.startOutage(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := x.settle(ctx); err != nil { // pools are filled, so that goroutines can be compared
		return err
	}
	before := x.goroutines(ctx)
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"down", x.down}, {"slow", x.slow}, {"silent", x.silent}, {"cuts", x.cuts},
	} {
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		if err := x.readBack(ctx, step.name); err != nil {
			return fmt.Errorf("after %s: %w", step.name, err)
		}
	}
	o.set("goroutinesBefore", before)
	for begin := time.Now(); time.Since(begin) < time.Minute; wait(ctx, time.Second) {
		if o.set("goroutinesAfter", x.goroutines(ctx)); o.Numbers["goroutinesAfter"] <= before+maxGoroutinesLeft {
			break
		}
	}
	o.expect(o.Numbers["goroutinesAfter"] <= before+maxGoroutinesLeft, "%v goroutines run, %v did before", o.Numbers["goroutinesAfter"], before)
	o.set("acknowledgedSamples", float64(x.l.samples()))
	o.set("refusals", float64(x.l.refused.Load()))
	o.set("refusedSecondsMax", x.l.slowest().Seconds())
	o.expect(x.l.refused.Load() > 0, "nothing was refused: the outages are none")
	o.expect(x.l.slowest() <= refusedWithin, "a refusal took %s", x.l.slowest().Round(time.Millisecond))
	return nil
}

// startOutage starts an engine, the proxy before it and the server behind it.
func (c *chaos) startOutage(ctx context.Context, o *outcome) (*outage, func() error, error) {
	e, err := newEngine(ctx, filepath.Join(c.dir, "engine"))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: no ClickHouse is at hand: %w", errNotRun, err)
	}
	dsn, err := e.Create(ctx, outageDatabase)
	if err != nil {
		e.Stop()
		return nil, nil, err
	}
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.New(io.Discard))
	p := toxiproxy.NewProxy(api, "clickhouse", "127.0.0.1:0", e.Addr())
	if err := p.Start(); err != nil {
		e.Stop()
		return nil, nil, err
	}
	s, err := c.server(filepath.Join(c.dir, "unused"), nil, "--storage.backend", "clickhouse",
		"--storage.clickhouse.dsn", strings.Replace(dsn, e.Addr(), p.Listen, 1))
	if err == nil {
		err = c.startReady(ctx, s, o)
	}
	if err != nil {
		p.Stop()
		e.Stop()
		return nil, nil, err
	}
	x := &outage{c: c, o: o, l: newLedger(4, 40), s: s, proxy: p}
	return x, func() error {
		x.l.client.CloseIdleConnections()
		err := s.stop(syscall.SIGTERM)
		p.Stop()
		e.Stop()
		return err
	}, nil
}

// during writes the ledger while f makes trouble, and a while after.
func (x *outage) during(ctx context.Context, f func() error) error {
	writing, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- x.l.write(writing, x.s.url) }()
	wait(ctx, 300*time.Millisecond)
	err := f()
	wait(ctx, 500*time.Millisecond)
	cancel()
	return errors.Join(err, <-done)
}

func (x *outage) settle(ctx context.Context) error {
	if err := x.during(ctx, func() error { return nil }); err != nil {
		return err
	}
	return x.readBack(ctx, "the start")
}

// down refuses connections and ends those that are.
func (x *outage) down(ctx context.Context) error {
	return x.during(ctx, func() error {
		x.proxy.Stop()
		x.told(ctx, http.StatusServiceUnavailable, "notReadySecondsMax")
		wait(ctx, outageTime)
		err := x.proxy.Start()
		x.told(ctx, http.StatusOK, "readyAgainSecondsMax")
		return err
	})
}

// slow delays every answer by half a second, which is no outage.
func (x *outage) slow(ctx context.Context) error {
	before := x.l.samples()
	err := x.during(ctx, func() error {
		return x.poison(ctx, "slow", `"type":"latency","stream":"downstream","attributes":{"latency":500,"jitter":200}`, outageTime)
	})
	x.o.expect(x.l.samples() > before, "nothing was stored while ClickHouse was slow")
	return err
}

// silent lets connections be and delivers nothing, as a network that drops packets.
func (x *outage) silent(ctx context.Context) error {
	return x.during(ctx, func() error {
		if err := x.addToxic("silent", `"type":"timeout","stream":"upstream","attributes":{"timeout":0}`); err != nil {
			return err
		}
		x.told(ctx, http.StatusServiceUnavailable, "notReadySecondsMax")
		wait(ctx, 4*outageTime)
		if err := x.proxy.Toxics.RemoveToxic(ctx, "silent"); err != nil {
			return err
		}
		x.told(ctx, http.StatusOK, "readyAgainSecondsMax")
		return nil
	})
}

// cuts ends connections after so many bytes of what they send, which is in the middle
// of an insert, again and again.
func (x *outage) cuts(ctx context.Context) error {
	for i := range x.c.o.chCuts {
		kind := fmt.Sprintf(`"type":"limit_data","stream":"upstream","attributes":{"bytes":%d}`, 500+x.c.rng.IntN(40_000))
		if i%2 == 1 {
			kind = fmt.Sprintf(`"type":"limit_data","stream":"downstream","attributes":{"bytes":%d}`, 300+x.c.rng.IntN(2_000)) // the answer is lost
		}
		err := x.during(ctx, func() error { return x.poison(ctx, "cut", kind, time.Duration(100+x.c.rng.IntN(500))*time.Millisecond) })
		if err != nil {
			return fmt.Errorf("cut %d: %w", i, err)
		}
		x.o.add("cuts", 1)
	}
	return nil
}

func (x *outage) addToxic(name, kind string) error {
	_, err := x.proxy.Toxics.AddToxicJson(strings.NewReader(`{"name":"` + name + `",` + kind + `}`))
	return err
}

func (x *outage) poison(ctx context.Context, name, kind string, d time.Duration) error {
	if err := x.addToxic(name, kind); err != nil {
		return err
	}
	wait(ctx, d)
	return x.proxy.Toxics.RemoveToxic(ctx, name)
}

// told waits until /readyz answers status and keeps the longest wait.
func (x *outage) told(ctx context.Context, status int, figure string) {
	begin, last := time.Now(), 0
	for time.Since(begin) < 2*toldWithin && ctx.Err() == nil {
		resp, err := x.l.client.Get(x.s.url + "/readyz")
		if err == nil {
			last = resp.StatusCode
			_ = drain(resp)
			if last == status {
				break
			}
		}
		wait(ctx, 50*time.Millisecond)
	}
	took := time.Since(begin)
	x.o.max(figure, took.Seconds())
	x.o.expect(last == status && took <= toldWithin, "/readyz answers %d after %s, not %d", last, took.Round(time.Millisecond), status)
}

// readBack compares everything that was acknowledged, and counts it: more than once
// would show in the count. What was stored without its answer may be there, a batch
// for each writer at most.
func (x *outage) readBack(ctx context.Context, after string) error {
	if err := x.c.verify(ctx, x.l, x.s, x.o, true); err != nil {
		return err
	}
	got, err := x.count(ctx)
	if err != nil {
		return err
	}
	least, most := float64(x.l.samples()), float64(x.l.samples()+len(x.l.acked)*x.l.series)
	x.o.expect(got >= least && got <= most, "after %s: %v samples are counted, %v were acknowledged", after, got, least)
	return nil
}

// count asks for the number of all samples of the ledger.
func (x *outage) count(ctx context.Context) (float64, error) {
	last := 0
	for _, n := range x.l.acked {
		last = max(last, n)
	}
	_, body, err := query(ctx, x.l.client, x.s.url, "/api/v1/query", url.Values{
		"query": {fmt.Sprintf("sum(count_over_time(%s[%dms]))", ledgerMetric, int64(last+2)*ledgerStep)},
		"time":  {seconds(x.l.base + int64(last)*ledgerStep)},
	})
	if err != nil {
		return 0, err
	}
	var answer struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.Data.Result) != 1 {
		return 0, fmt.Errorf("count: %w: %.200s", err, body)
	}
	return strconv.ParseFloat(fmt.Sprint(answer.Data.Result[0].Value[1]), 64)
}

// goroutines reads the server's own count; 0 if it does not answer.
func (x *outage) goroutines(ctx context.Context) float64 {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, x.s.url+"/metrics", nil)
	if err != nil {
		return 0
	}
	resp, err := x.l.client.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
		if rest, ok := strings.CutPrefix(sc.Text(), "go_goroutines "); ok {
			n, _ := strconv.ParseFloat(rest, 64)
			return n
		}
	}
	return 0
}
