package clickhouse

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/internal/lookup"
)

// Store is the ClickHouse backend.
type Store struct {
	cfg      Config
	log      *slog.Logger
	metrics  *metrics
	shards   []*shard
	locality string

	rosters      *rosterCache
	fewSeries    int // up to as many are named by id, see fewSeries
	rangeSamples int
	densities    densities

	buffer   *buffer
	series   *seriesCache
	policies *policyCache
	metadata *metadataCache
	activity *activity
	vigil    vigil

	discovery *discovery

	stop    chan struct{} // ends the watchers
	workers sync.WaitGroup

	mu     sync.Mutex
	closed bool
}

var _ storage.Store = (*Store)(nil)

// shard is one shard of the cluster: its series are on no other.
type shard struct {
	index       int
	read, write *pool
	probe       *pool // one connection, to ask whether the server answers
}

// Open connects, creates or migrates the schema if the configuration says so, and
// returns a store to be closed by the caller.
func Open(ctx context.Context, cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Store, error) {
	s, err := openShards(cfg)
	if err != nil {
		return nil, err
	}
	s.log, s.metrics = log, newMetrics(reg)
	s.discovery = newDiscovery(lookup.New(cfg.DiscoveryCacheBytes, "luminate_clickhouse_", reg), cfg)
	s.buffer = newBuffer(cfg, s.sendBlock)
	registerLoad(reg, s)
	if err := s.prepare(ctx); err != nil {
		s.closePools()
		return nil, err
	}
	s.workers.Go(s.watchParts)
	s.workers.Go(s.keepVigil)
	return s, nil
}

// openShards makes the pools; nothing is dialled yet.
func openShards(cfg Config) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, locality: cfg.LocalityLabel, fewSeries: fewSeries, rangeSamples: rangeSamples, rosters: newRosterCache(cfg), stop: make(chan struct{}), metrics: newMetrics(nil)}
	for i, dsn := range cfg.dsns() {
		sh := &shard{index: i}
		var err error
		if sh.read, err = newPool(dsn, cfg, cfg.ReadConns); err != nil {
			return nil, err
		}
		if sh.write, err = newPool(dsn, cfg, cfg.WriteConns); err != nil {
			return nil, err
		}
		if sh.probe, err = newPool(dsn, cfg, 1); err != nil {
			return nil, err
		}
		s.shards = append(s.shards, sh)
	}
	s.series = newSeriesCache(cfg)
	s.policies = &policyCache{}
	s.metadata = newMetadataCache()
	s.activity = newActivity(cfg)
	s.discovery = newDiscovery(nil, cfg)
	return s, nil
}

// prepare brings the schema up to date and reads what it fixes.
func (s *Store) prepare(ctx context.Context) error {
	if err := s.refuseUnfinished(ctx); err != nil {
		return err
	}
	if s.cfg.MigrateSchema {
		if err := s.schemaApply(ctx); err != nil {
			return err
		}
	}
	for _, sh := range s.shards {
		version, err := s.metaValue(ctx, sh, "schema_version")
		if err != nil {
			return translate(ctx, "open", fmt.Errorf("read schema version (is the schema applied?): %w", err))
		}
		have, _ := strconv.Atoi(version)
		want, _ := strconv.Atoi(schemaVersion)
		if have > want {
			return storage.Errorf(storage.KindInvalid, "open", "the database has schema version %s, this program knows up to %s", version, schemaVersion)
		}
	}
	label, err := s.metaValue(ctx, s.home(), "locality_label")
	if err != nil {
		return translate(ctx, "open", err)
	}
	if label != s.locality {
		s.log.Warn("the schema was created with another locality label, which stays", "configured", s.locality, "used", label)
		s.locality = label
	}
	epochs, err := s.readEpochs(ctx)
	if err != nil {
		return translate(ctx, "open", err)
	}
	s.series.setEpochs(epochs)
	return nil
}

// home is the shard of the small tables that are not sharded: metadata, policies,
// receipts.
func (s *Store) home() *shard { return s.shards[0] }

// shardOf returns the shard of a series.
func (s *Store) shardOf(id uint64) int { return int(id % uint64(len(s.shards))) }

// enter is what every method of a tenant does first.
func (s *Store) enter(ctx context.Context, op string, t storage.Tenant) error {
	if err := t.Validate(); err != nil {
		return err
	}
	return s.open(ctx, op)
}

func (s *Store) open(ctx context.Context, op string) error {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return &storage.Error{Op: op, Kind: storage.KindUnavailable, Err: errStoreClosed}
	}
	return storage.ContextError(ctx, op)
}

// Close sends what is buffered and closes the connections.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	close(s.stop)
	s.workers.Wait()
	s.buffer.close()
	s.closePools()
	return nil
}

func (s *Store) closePools() {
	for _, sh := range s.shards {
		sh.read.close()
		sh.write.close()
		sh.probe.close()
	}
}

// detached returns a context for work that outlives the request which caused it:
// several requests share a block.
func detached(timeout time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), timeout)
}

// onShards runs f for every shard at once and returns the first error.
func (s *Store) onShards(ctx context.Context, f func(ctx context.Context, sh *shard) error) error {
	if len(s.shards) == 1 {
		return f(ctx, s.shards[0])
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, len(s.shards))
	for _, sh := range s.shards {
		go func() { errs <- f(ctx, sh) }()
	}
	var first error
	for range s.shards {
		if err := <-errs; err != nil && first == nil {
			first = err
			cancel()
		}
	}
	return first
}
