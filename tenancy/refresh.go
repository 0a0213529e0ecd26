package tenancy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/luminate/luminate/storage"
)

// tick is the time between looks at how much of the limits is used.
const tick = 10 * time.Second

// A limit warns once when more than warnAt of it is used, and again only after its
// use has fallen below rearmAt.
const (
	warnAt  = 0.8
	rearmAt = 0.7
)

// Run reads the limits file again when it changes, learns from the store how many
// series and bytes tenants have, and warns of limits that are nearly used up, until
// ctx is done. store is not the wrapped one.
func (l *Limiter) Run(ctx context.Context, store storage.Store) error {
	files, use, poll := time.NewTicker(l.cfg.Reload), time.NewTicker(tick), time.NewTicker(l.cfg.Poll)
	defer files.Stop()
	defer use.Stop()
	defer poll.Stop()
	l.learn(ctx, store)
	var exchange <-chan time.Time
	if l.share != nil {
		t := time.NewTicker(exchangeEvery)
		defer t.Stop()
		exchange = t.C
		l.share.join(ctx, store)
	}
	for {
		select {
		case <-ctx.Done():
			l.saveUsage()
			return nil
		case <-exchange:
			l.share.exchange(ctx)
		case <-files.C:
			if err := l.reload(); err != nil {
				l.log.Error("keep the old limits", "err", err)
			}
		case <-use.C:
			l.measure(l.cfg.Now())
			l.saveUsage()
		case <-poll.C:
			l.learn(ctx, store)
		}
	}
}

// reload reads the files and puts changed limits into force. A file that is not
// right keeps the old values.
func (l *Limiter) reload() error {
	if l.file == nil {
		return nil
	}
	l.reloadMu.Lock()
	defer l.reloadMu.Unlock()
	return l.reloadLocked()
}

func (l *Limiter) reloadLocked() error {
	err := l.readLocked()
	l.metrics.reloaded(err == nil, l.set.Load().hash, l.cfg.Now())
	if err != nil {
		l.file.read, l.admin.read = false, false // tell again at the next look
		return fmt.Errorf("load limits file %s: %w", l.cfg.File, err)
	}
	return nil
}

func (l *Limiter) readLocked() error {
	b, changed, err := l.file.load()
	if err != nil {
		return err
	}
	admin, adminChanged, err := l.admin.load()
	if errors.Is(err, fs.ErrNotExist) {
		admin, adminChanged, err = nil, len(l.adminBytes) > 0, nil
	}
	if err != nil {
		return err
	}
	if !changed && !adminChanged {
		return nil
	}
	file, err := parseLimitFile(b)
	if err != nil {
		return err
	}
	over, err := parseLimitFile(admin)
	if err != nil {
		return fmt.Errorf("%s: %w", l.admin.path, err)
	}
	set, err := buildLimits(l.cfg.Defaults, file, over)
	if err != nil {
		return err
	}
	set.hash = hashLimits(b, admin)
	l.fileBytes, l.adminBytes = b, admin
	l.publish(set)
	return nil
}

// publish puts limits into force for every tenant.
func (l *Limiter) publish(set *limitSet) {
	l.set.Store(set)
	now := l.cfg.Now()
	for _, s := range l.all() {
		s.apply(set.of(s.tenant), l.processes(), now)
	}
}

// learn asks the store what it knows of tenants, over all processes.
func (l *Limiter) learn(ctx context.Context, store storage.Store) {
	all, err := store.Tenants(ctx)
	if err != nil {
		if ctx.Err() == nil {
			l.log.Warn("limits on stored bytes go by an old count", "err", err)
		}
		return
	}
	known := make(map[storage.Tenant]storage.TenantStats, len(all))
	for _, x := range all {
		t, err := storage.ParseTenant(x.Tenant)
		if err != nil {
			continue
		}
		known[t] = x
		if limits := l.LimitsOf(t); limits.StoredBytes > 0 {
			l.state(t) // a limit that binds from the first write on
		}
	}
	for _, s := range l.all() {
		s.bytes.Store(known[s.tenant].Bytes)
		s.active.Store(known[s.tenant].ActiveSeries)
	}
}

// measure computes rates, tells metrics, and warns.
func (l *Limiter) measure(now time.Time) {
	inUse, queued := l.queue.load()
	l.metrics.queriesInUse.Set(float64(inUse))
	l.metrics.queriesQueued.Set(float64(queued))
	for _, s := range l.all() {
		accepted := s.accepted.Load()
		s.mu.Lock()
		if elapsed := now.Sub(s.lastAt).Seconds(); elapsed > 0 {
			s.perSec = float64(accepted-s.lastTik) / elapsed
			s.lastTik, s.lastAt = accepted, now
		}
		if s.series != nil {
			s.series.rotate(now)
		}
		s.mu.Unlock()
		for _, u := range s.usage(l.processes(), now) {
			if u.Limit <= 0 {
				continue
			}
			ratio := u.Used / u.Limit
			l.metrics.usage.WithLabelValues(s.tenant.String(), u.ID).Set(ratio)
			l.warn(s, u, ratio)
		}
	}
}

func (l *Limiter) warn(s *tenantState, u limitUse, ratio float64) {
	s.mu.Lock()
	before := s.warned[u.ID]
	after := ratio >= warnAt || before && ratio >= rearmAt
	s.warned[u.ID] = after
	s.mu.Unlock()
	if after && !before {
		l.log.Warn("a limit is nearly used up", "tenant", s.tenant.String(), "limit", u.ID, "setting", u.Setting, "used", u.Used, "allowed", u.Limit)
	}
}

// limitUse is how much of one limit is used.
type limitUse struct {
	ID      string  `json:"limit"`
	Setting string  `json:"setting"`
	Used    float64 `json:"used"`
	Limit   float64 `json:"allowed"` // in this process, 0 = no bound
}

// usage lists what is used of every limit on a quantity.
func (s *tenantState) usage(processes int, now time.Time) []limitUse {
	limits := s.limits.Load()
	n := float64(processes)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dayLocked(now)
	var series, metrics, largest int
	if s.series != nil {
		series, metrics = s.series.len(), s.series.active
		for _, c := range s.series.counts {
			largest = max(largest, c)
		}
	} else {
		series = int(s.active.Load())
	}
	return []limitUse{
		{"samples-per-second", "limits.samplesPerSecond", s.perSec, limits.SamplesPerSecond / n},
		{"samples-per-day", "limits.samplesPerDay", float64(s.today), float64(limits.SamplesPerDay) / n},
		{"stored-bytes", "limits.storedBytes", float64(s.bytes.Load()), float64(limits.StoredBytes)},
		{"max-active-series", "limits.maxActiveSeries", float64(series), float64(limits.MaxActiveSeries)},
		{"max-active-series-per-metric", "limits.maxActiveSeriesPerMetric", float64(largest), float64(limits.MaxActiveSeriesPerMetric)},
		{"max-metrics", "limits.maxMetrics", float64(metrics), float64(limits.MaxMetrics)},
	}
}

// savedUsage is what survives a restart: the samples of the day.
type savedUsage struct {
	Day     int64            `json:"day"` // since 1970
	Samples map[string]int64 `json:"samples"`
}

// saveUsage writes the day's counts beside the limits file; a crash loses those of
// the last tick.
func (l *Limiter) saveUsage() {
	if l.stateFile == "" {
		return
	}
	now := l.cfg.Now()
	u := savedUsage{Day: now.Unix() / 86400, Samples: map[string]int64{}}
	for _, s := range l.all() {
		s.mu.Lock()
		s.dayLocked(now)
		if s.today > 0 {
			u.Samples[s.tenant.String()] = s.today
		}
		s.mu.Unlock()
	}
	if len(u.Samples) == 0 {
		return
	}
	b, err := json.Marshal(u)
	if err == nil {
		err = writeAtomically(l.stateFile, b)
	}
	if err != nil {
		l.log.Warn("the samples of the day are not saved: a restart begins them anew", "err", err)
	}
}

func (l *Limiter) restoreUsage() error {
	b, err := os.ReadFile(l.stateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("restore usage: %w", err)
	}
	var u savedUsage
	if err := json.Unmarshal(b, &u); err != nil {
		return fmt.Errorf("restore usage from %s: %w", l.stateFile, err)
	}
	if u.Day != l.cfg.Now().Unix()/86400 {
		return nil
	}
	for name, n := range u.Samples {
		if t, err := storage.ParseTenant(name); err == nil && n >= 0 {
			s := l.state(t)
			s.mu.Lock()
			s.day, s.today = u.Day, n
			s.mu.Unlock()
		}
	}
	return nil
}
