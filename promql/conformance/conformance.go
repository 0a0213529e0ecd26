// Package conformance runs Prometheus's own PromQL acceptance tests over any
// storage.Store, through the same adapter that serves queries. Tests of the
// backends import it; the program does not.
package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	promengine "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	promstorage "github.com/prometheus/prometheus/storage"

	"github.com/luminate/luminate/promql"
	"github.com/luminate/luminate/storage"
)

// MaxSamples is the engine's bound on samples in memory, as upstream's own run of
// the tests has it.
const MaxSamples = 50_000

// Run runs every built-in test file and logs "passed/all". newStore is called at
// each `clear` of a file; the store must take samples of 1970 and before. Each time
// another tenant is used, so one store may be given again and again if its Close
// does nothing. Run closes what it was given. Files run side by side.
func Run(t *testing.T, newStore func(testing.TB) storage.Store) {
	RunWithEngine(t, promqltest.NewTestEngine(t, false, 5*time.Minute, MaxSamples), newStore)
}

// RunPlanned is Run with the planner before the engine and everything pushed into
// the store that can be.
func RunPlanned(t *testing.T, newStore func(testing.TB) storage.Store) {
	t.Helper()
	engine := promql.NewEngine(promengine.EngineOpts{ // as promqltest.NewTestEngine has it
		MaxSamples:               MaxSamples,
		Timeout:                  100 * time.Second,
		LookbackDelta:            5 * time.Minute,
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		EnableDelayedNameRemoval: true,
		UseStartTimestamps:       true,
		Parser:                   parser.NewParser(promqltest.TestParserOpts),
	}, promql.PlannerOptions{Enabled: true})
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	RunWithEngine(t, engine, newStore)
}

// RunWithEngine is Run with another engine.
func RunWithEngine(t *testing.T, engine promengine.QueryEngine, newStore func(testing.TB) storage.Store) {
	t.Helper()
	files := &counter{T: t}
	var stores atomic.Int64
	promqltest.RunBuiltinTestsWithStorage(files, engine, func(tb testing.TB) promstorage.Storage {
		return NewStorage(newStore(tb), storage.MustTenant(fmt.Sprintf("%s-%d", t.Name(), stores.Add(1))))
	})
	t.Cleanup(func() { t.Logf("promqltest: %d/%d files passed", files.passed.Load(), files.all) })
}

// counter counts the subtests that promqltest starts, one for each file, and lets them
// run side by side: a file waits for its store most of the time.
type counter struct {
	*testing.T
	all    int
	passed atomic.Int64
}

// Run implements promqltest.TBRun.
func (c *counter) Run(name string, f func(*testing.T)) bool {
	c.all++
	return c.T.Run(name, func(t *testing.T) {
		t.Parallel()
		t.Cleanup(func() {
			if !t.Failed() {
				c.passed.Add(1)
			}
		})
		f(t)
	})
}

// Storage is a Store as Prometheus's storage interface, with one fixed tenant.
type Storage struct {
	*promql.Queryable
	store  storage.Store
	tenant storage.Tenant
}

var _ promstorage.Storage = (*Storage)(nil)

// NewStorage shows one tenant of store; Close closes the store.
func NewStorage(store storage.Store, tenant storage.Tenant) *Storage {
	q := promql.NewQueryable(store, promql.QueryableOptions{
		Tenant: func(context.Context) storage.Tenant { return tenant },
	})
	return &Storage{Queryable: q, store: store, tenant: tenant}
}

// StartTime implements promstorage.Storage; nothing that is tested uses it.
func (s *Storage) StartTime() (int64, error) { return 0, errors.ErrUnsupported }

// Close closes the store.
func (s *Storage) Close() error {
	if err := s.store.Close(); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}
