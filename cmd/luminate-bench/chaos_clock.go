package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger"
	"github.com/luminate/luminate/tenancy"
)

const (
	clockSecret = "a secret of the chaos run, 32 bytes or more"
	clockTenant = "clock"
	// clockWrites is the tenant's rate: so few that a burst is soon used up.
	clockWrites, clockBurst = 50, 20
	// unstuckWithin is how soon a tenant over its rate must be let in again.
	unstuckWithin = 2 * time.Second
	clockLeeway   = 30 * time.Second
	reopenEach    = 10 // jumps
)

// skewed is a clock that jumps. It has no monotonic reading, as a clock of the wall.
type skewed struct{ offset atomic.Int64 }

func (s *skewed) now() time.Time { return time.Now().Add(time.Duration(s.offset.Load())).Round(0) }

// clockRig is what of the program knows a clock, wired as the program wires it, in
// this process: the binary takes no clock from outside, and time namespaces do not
// shift the wall's.
type clockRig struct {
	clock   skewed
	dir     string
	o       *outcome
	db      *badger.DB
	store   storage.Store
	handler http.Handler
	written map[int64]float64 // acknowledged, by time
	next    float64
}

// clockJumps lets the clock jump by an hour and by a day, to and fro, under writes.
func clockJumps(ctx context.Context, c *chaos, o *outcome) (err error) {
	r := &clockRig{dir: filepath.Join(c.dir, "data"), o: o, written: map[int64]float64{}}
	if err := r.open(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.db.Close()) }()
	steps := []time.Duration{time.Hour, -time.Hour, 24 * time.Hour, -24 * time.Hour}
	for jump := range c.o.jumps {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		old, err := r.mint(10 * time.Minute)
		if err != nil {
			return err
		}
		r.useUp(old)
		to := time.Duration(r.clock.offset.Load()) + steps[c.rng.IntN(len(steps))]
		if to.Abs() > 72*time.Hour {
			to = 0
		}
		by := to - time.Duration(r.clock.offset.Swap(int64(to)))
		o.add("jumps", 1)
		if by > 10*time.Minute+clockLeeway {
			status, _ := r.post(old, r.clock.now())
			o.expect(status == http.StatusUnauthorized, "a token that expired by a jump of %s is answered %d", by, status)
			o.add("expiredTokensRefused", 1)
		}
		if err := r.work(by); err != nil {
			return err
		}
		if jump%reopenEach == reopenEach-1 {
			if err := r.reopen(ctx); err != nil {
				return err
			}
		}
	}
	r.clock.offset.Store(0)
	return r.reopen(ctx)
}

// open opens the store and puts the guards before it.
func (r *clockRig) open() error {
	log := slog.New(slog.DiscardHandler)
	cfg := badger.DefaultConfig()
	cfg.Dir, cfg.Now, cfg.MinFreeBytes = r.dir, r.clock.now, 0
	// Maintenance and snapshots are due all the time, so that they meet the jumps.
	cfg.MaintenanceInterval, cfg.SnapshotInterval = 20*time.Millisecond, 100*time.Millisecond
	db, err := badger.Open(cfg, log, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	ac := tenancy.DefaultAuthConfig()
	ac.Secret, ac.Leeway, ac.Now = clockSecret, clockLeeway, r.clock.now
	v, err1 := tenancy.NewVerifier(ac, log, nil)
	lc := tenancy.DefaultLimiterConfig()
	lc.Defaults.WriteRequestsPerSecond, lc.Defaults.WriteRequestBurst, lc.Now = clockWrites, clockBurst, r.clock.now
	l, err2 := tenancy.NewLimiter(lc, log, nil)
	gc := tenancy.DefaultGateConfig()
	gc.AuthRequired, gc.Now = true, r.clock.now
	g, err3 := tenancy.NewGate(gc, v, l, log, nil)
	if err := errors.Join(err1, err2, err3); err != nil {
		return errors.Join(err, db.Close())
	}
	r.db, r.store = db, tenancy.Wrap(db, tenancy.WrapConfig{Authenticated: true, Limiter: l})
	m := mux.NewRouter()
	m.Use(g.Middleware)
	m.HandleFunc("/api/v1/write", r.append).Methods(http.MethodPost)
	r.handler = m
	return g.Check(m)
}

// append stores one sample at the time that the request names.
func (r *clockRig) append(w http.ResponseWriter, req *http.Request) {
	id, _ := tenancy.FromContext(req.Context())
	at, err := time.Parse(time.RFC3339Nano, req.Header.Get("X-Sample-Time"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ms := at.UnixMilli()
	r.next++
	var b storage.Batch
	b.Add(storage.LabelsFromStrings(storage.MetricName, ledgerMetric), storage.Sample{T: ms, V: r.next})
	res, err := r.store.Append(req.Context(), id.Tenant, &b)
	if err != nil || res.Samples != 1 {
		http.Error(w, fmt.Sprint(err, res), http.StatusUnprocessableEntity)
		return
	}
	r.written[ms] = max(r.written[ms], r.next) // of two at one time the greater stays
}

func (r *clockRig) mint(ttl time.Duration) (string, error) {
	token, _, err := tenancy.Mint([]byte(clockSecret), tenancy.Grant{Tenant: clockTenant, Scopes: []tenancy.Scope{tenancy.ScopeWrite}, TTL: ttl}, r.clock.now())
	return token, err
}

func (r *clockRig) post(token string, at time.Time) (int, string) {
	req := httptest.NewRequest(http.MethodPost, "/api/v1/write", http.NoBody)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("X-Sample-Time", at.Format(time.RFC3339Nano))
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, req)
	body, _ := io.ReadAll(w.Body)
	return w.Code, string(body)
}

// useUp writes until the tenant is over its rate.
func (r *clockRig) useUp(token string) {
	for range 3 * clockBurst {
		status, body := r.post(token, r.clock.now())
		if status == http.StatusTooManyRequests {
			return
		}
		r.o.expect(status == http.StatusOK, "a write with a valid token is answered %d: %s", status, body)
	}
	r.o.expect(false, "the limiter lets everything in")
}

// work writes after a jump: soon let in, near samples and old ones taken, those too
// far ahead refused.
func (r *clockRig) work(by time.Duration) error {
	token, err := r.mint(10 * time.Minute)
	if err != nil {
		return err
	}
	for _, x := range []struct {
		ahead time.Duration
		want  int
	}{{0, http.StatusOK}, {30 * time.Minute, http.StatusOK}, {-48 * time.Hour, http.StatusOK}, {2 * time.Hour, http.StatusUnprocessableEntity}} {
		begin := time.Now()
		status, body := r.post(token, r.clock.now().Add(x.ahead))
		for status == http.StatusTooManyRequests && time.Since(begin) < 2*unstuckWithin {
			time.Sleep(5 * time.Millisecond)
			status, body = r.post(token, r.clock.now().Add(x.ahead))
		}
		waited := time.Since(begin)
		r.o.max("letInSecondsMax", waited.Seconds())
		r.o.expect(waited <= unstuckWithin, "after a jump of %s a tenant is refused for %s", by, waited)
		r.o.expect(status == x.want, "after a jump of %s a sample %s ahead is answered %d: %s", by, x.ahead, status, body)
	}
	return nil
}

// reopen runs the retention, starts the store anew and compares all samples.
func (r *clockRig) reopen(ctx context.Context) error {
	if _, err := r.db.Cleanup(ctx); err != nil {
		return err
	}
	if err := r.db.Close(); err != nil {
		return err
	}
	if err := r.open(); err != nil {
		return fmt.Errorf("open after the clock jumped: %w", err)
	}
	found, wrong := 0, 0
	sel := storage.Selection{MinT: time.Now().Add(-20 * 24 * time.Hour).UnixMilli(), MaxT: time.Now().Add(20 * 24 * time.Hour).UnixMilli()}
	for s, err := range r.db.Select(ctx, storage.MustTenant(clockTenant), sel) {
		if err != nil {
			return err
		}
		for _, x := range s.Samples {
			if want, ok := r.written[x.T]; ok && want == x.V {
				found++
			} else {
				wrong++
			}
		}
	}
	r.o.set("samples", float64(len(r.written)))
	r.o.add("lost", float64(len(r.written)-found))
	r.o.add("wrong", float64(wrong))
	r.o.expect(found == len(r.written) && wrong == 0, "%d of %d acknowledged samples are found, %d are wrong", found, len(r.written), wrong)
	return nil
}
