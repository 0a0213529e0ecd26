package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/luminate/luminate/storage"
)

const (
	// appendPatience is how long an append waits before anybody asks whether the
	// servers answer at all; with vigilInterval and probeTimeout it is the time to a
	// refusal while the network swallows everything: under 5 s.
	appendPatience = 1500 * time.Millisecond
	vigilInterval  = 500 * time.Millisecond
	probeTimeout   = 2 * time.Second
)

// vigil tells a slow server from one that is gone: an append waits for the first, and
// is refused for the second, so that its sender can keep the data and try again. An
// append that is refused so may still be stored, which is harmless.
type vigil struct {
	mu      sync.Mutex
	waiting map[*waiter]struct{}
}

// waiter is one append under way.
type waiter struct {
	since  time.Time
	cancel context.CancelCauseFunc
}

// attend registers an append. done ends that and replaces an error that the vigil
// caused by its reason.
func (v *vigil) attend(ctx context.Context) (_ context.Context, done func(error) error) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &waiter{since: time.Now(), cancel: cancel}
	v.mu.Lock()
	if v.waiting == nil {
		v.waiting = map[*waiter]struct{}{}
	}
	v.waiting[w] = struct{}{}
	v.mu.Unlock()
	return ctx, func(err error) error {
		v.mu.Lock()
		delete(v.waiting, w)
		v.mu.Unlock()
		var gone *storage.Error
		if err != nil && errors.As(context.Cause(ctx), &gone) {
			err = gone
		}
		cancel(nil)
		return err
	}
}

// impatient lists the appends that have waited for appendPatience.
func (v *vigil) impatient() (out []*waiter) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for w := range v.waiting {
		if time.Since(w.since) >= appendPatience {
			out = append(out, w)
		}
	}
	return out
}

// keepVigil asks every shard, as soon as somebody has waited for long, and refuses
// those who did if one does not answer.
func (s *Store) keepVigil() {
	tick := time.NewTicker(vigilInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		if len(s.vigil.impatient()) == 0 {
			continue
		}
		if err := s.probe(); err != nil {
			for _, w := range s.vigil.impatient() {
				w.cancel(err)
			}
		}
	}
}

// probe asks each shard for a one, over connections that nothing else uses.
func (s *Store) probe() error {
	ctx, cancel := detached(probeTimeout)
	defer cancel()
	err := s.onShards(ctx, func(ctx context.Context, sh *shard) error {
		return s.each(ctx, &shard{index: sh.index, read: sh.probe}, "SELECT 1", nil, func(driver.Rows) error { return nil })
	})
	if err == nil {
		return nil
	}
	return &storage.Error{Op: "append", Kind: storage.KindUnavailable, Err: fmt.Errorf("clickhouse does not answer: %w", err)}
}
