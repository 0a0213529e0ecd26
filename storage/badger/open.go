package badger

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	badgerdb "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/zeebo/xxh3"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger/internal/block"
	"github.com/luminate/luminate/storage/badger/internal/index"
	"github.com/luminate/luminate/storage/badger/internal/wal"
	"github.com/luminate/luminate/storage/internal/lookup"
)

// formatVersion is the version of everything under the directory.
const formatVersion = 1

// The files and folders of the data directory.
const (
	kvDir       = "kv"
	walDir      = "wal"
	snapshotDir = "snapshot"
	lockFile    = "LOCK"
)

// DB is a storage.Store on one directory. Open makes it; all methods are safe for
// concurrent use.
type DB struct {
	cfg      Config
	logger   *slog.Logger
	met      *metrics
	lookups  *lookup.Cache
	kv       *badgerdb.DB
	lock     *dirLock
	hashSeed uint64

	wal  atomic.Pointer[wal.Log]
	head head
	disk diskGuard

	// kvMu is held shared by writers to kv, and alone while prefixes are dropped:
	// Badger refuses writes meanwhile.
	kvMu sync.RWMutex

	persistMu sync.Mutex // one writer of series rows at a time

	sequenceMu  sync.Mutex // serialises writes to kv, so that their numbers have no holes
	sequence    uint64
	tableDamage atomic.Pointer[string] // what checkTables found last

	mu         sync.RWMutex // guards what follows
	tenants    map[string]*tenant
	byID       map[uint32]*tenant
	gone       map[uint32]bool // tenants that were deleted, so that replay skips them
	nextTenant uint32
	firstDay   atomic.Int32 // days before it were dropped by maxBytes

	queue         chan *request
	queued        atomic.Int64
	applied       atomic.Uint64 // the last LSN that is in the head
	closing       chan struct{}
	committerGone chan struct{}
	flush         *flusher
	background    sync.WaitGroup
	stop          context.CancelFunc // ends maintenance
	pressure      chan struct{}      // the head is over its bound

	scans      sync.Pool // of *scan, for their buffers
	callers    callers
	closeOnce  sync.Once
	closeErr   error
	closed     atomic.Bool
	openParts  atomic.Int64
	openSeries atomic.Int64
	diskUsed   atomic.Int64
	packed     *index.PackedCache[*partition]
	snapMu     sync.Mutex   // one snapshot, cleanup or backup at a time
	snapAt     atomic.Int64 // clock at the last snapshot, ms
	snapWAL    atomic.Int64 // size of the log after it
	recovery   RecoveryReport
	replay     *replay // while Open runs
}

var _ storage.Store = (*DB)(nil)

// Open opens the directory, recovers what the last process left, and starts the
// engine. A directory of a newer format is refused with a *FormatError, one that
// another process uses with KindUnavailable.
func Open(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*DB, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	db := &DB{
		cfg: cfg, logger: log.With("backend", "badger"),
		tenants: map[string]*tenant{}, byID: map[uint32]*tenant{}, gone: map[uint32]bool{}, nextTenant: 1,
		queue: make(chan *request, cfg.QueueRequests), closing: make(chan struct{}), committerGone: make(chan struct{}),
		pressure: make(chan struct{}, 1),
	}
	db.firstDay.Store(minDay)
	db.packed = index.NewPackedCache[*partition](packedIndexes)
	db.head.arena = block.NewArena(true)
	db.head.flushSamples, db.head.exemplars = cfg.FlushSamples, cfg.ExemplarsPerSeries
	db.head.now = func() int64 { return cfg.Now().UnixMilli() }
	db.flush = newFlusher(db)
	db.head.ready = db.flush.add
	db.disk.init(db)
	db.met = newMetrics(reg, db)
	db.lookups = lookup.New(cfg.DiscoveryCacheBytes, "luminate_badger_", reg)
	if err := db.open(); err != nil {
		return nil, fmt.Errorf("open badger store %s: %w", cfg.Dir, errors.Join(err, db.release()))
	}
	registerKV(reg, db)
	ctx, stop := context.WithCancel(context.Background())
	db.stop = stop
	go db.committer()
	db.background.Go(func() { db.flush.run(ctx) })
	db.background.Go(func() { db.maintain(ctx) })
	return db, nil
}

func (db *DB) open() (err error) {
	if err := os.MkdirAll(db.cfg.Dir, 0o700); err != nil {
		return err
	}
	if db.lock, err = lockDir(filepath.Join(db.cfg.Dir, lockFile)); err != nil {
		return unavailable("open", "the directory is in use by another process: %w", err)
	}
	if _, err := os.Stat(filepath.Join(db.cfg.Dir, restoringFile)); err == nil {
		return storage.Errorf(storage.KindInvalid, "open", "a restore into the directory did not complete: remove it and restore again")
	}
	db.disk.check()
	if err := db.checkMinimumSpace(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(db.cfg.Dir, snapshotDir), 0o700); err != nil {
		return err
	}
	kv, err := openKV(filepath.Join(db.cfg.Dir, kvDir), db.logger)
	if err != nil { // Badger returns what cannot even be closed
		return fmt.Errorf("open key-value store: %w", err)
	}
	db.kv = kv
	if err := db.readFormat(); err != nil {
		return err
	}
	return db.recover()
}

// kvOptions are Badger's options; DESIGN.md gives the reasons.
func kvOptions(dir string, log *slog.Logger) badgerdb.Options {
	o := badgerdb.DefaultOptions(dir).WithSyncWrites(true).
		WithDetectConflicts(false).WithNumVersionsToKeep(1).WithMetricsEnabled(false).
		WithMemTableSize(16 << 20).WithNumMemtables(2).WithNumCompactors(2).
		WithNumLevelZeroTables(4).WithNumLevelZeroTablesStall(8).
		WithBaseTableSize(baseTableSize(dir)).WithCompression(options.None).WithBlockCacheSize(0).
		WithBlockSize(32 << 10).WithIndexCacheSize(32 << 20).
		WithValueThreshold(1 << 20).WithValueLogFileSize(64 << 20).
		WithLogger(kvLogger{log})
	o.TableSizeMultiplier = 1
	return o
}

// baseTableSize is 4 MiB, which keeps compaction small, and 8 MiB for large stores:
// each table is an open file and a map.
func baseTableSize(dir string) int64 {
	const large = 50 << 30
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err == nil && len(tables) > large/(4<<20) {
		return 8 << 20
	}
	return 4 << 20
}

func openKV(dir string, log *slog.Logger) (*badgerdb.DB, error) {
	if err := probeTables(dir); err != nil {
		return nil, err
	}
	return badgerdb.Open(kvOptions(dir, log))
}

// kvLogger hands Badger's messages on; its information is our debugging.
type kvLogger struct{ log *slog.Logger }

func (l kvLogger) Errorf(f string, a ...any)   { l.log.Error("badger: " + fmt.Sprintf(f, a...)) }
func (l kvLogger) Warningf(f string, a ...any) { l.log.Warn("badger: " + fmt.Sprintf(f, a...)) }
func (l kvLogger) Infof(f string, a ...any)    { l.log.Debug("badger: " + fmt.Sprintf(f, a...)) }
func (l kvLogger) Debugf(f string, a ...any)   { l.log.Debug("badger: " + fmt.Sprintf(f, a...)) }

// readFormat checks the format version, or writes it into a new directory.
func (db *DB) readFormat() error {
	key := []byte{keyFormat}
	value, err := db.get(key)
	if errors.Is(err, badgerdb.ErrKeyNotFound) {
		value = binary.LittleEndian.AppendUint32(nil, formatVersion)
		var seed [8]byte
		_, _ = rand.Read(seed[:]) // never fails
		db.hashSeed = binary.LittleEndian.Uint64(seed[:])
		return db.put(key, append(value, seed[:]...))
	}
	if err != nil {
		return fmt.Errorf("read format version: %w", err)
	}
	if len(value) < 4 {
		return fmt.Errorf("read format version: %w", errDamaged)
	}
	if v := binary.LittleEndian.Uint32(value); v != formatVersion {
		return &FormatError{Dir: db.cfg.Dir, Found: v, Supported: formatVersion}
	}
	if len(value) != 12 {
		return fmt.Errorf("read hash seed: %w", errDamaged)
	}
	db.hashSeed = binary.LittleEndian.Uint64(value[4:])
	return nil
}

// hash identifies a series by its canonical label bytes. The seed is the
// directory's own, so that nobody can make labels that collide.
func (db *DB) hash(labels []byte) index.Hash128 { return xxh3.Hash128Seed(labels, db.hashSeed) }

// SeriesSeed is the seed of those hashes, for whoever hashes a batch's series before it
// comes here.
func (db *DB) SeriesSeed() uint64 { return db.hashSeed }

func (db *DB) now() time.Time { return db.cfg.Now() }

// get returns a checked copy of a value.
func (db *DB) get(key []byte) (value []byte, err error) {
	defer damageOf(&err)
	err = db.kv.View(func(txn *badgerdb.Txn) error {
		item, err := txn.Get(key)
		if err != nil {
			return err
		}
		raw, err := item.ValueCopy(nil)
		if err != nil {
			return err
		}
		value, err = openValue(key, raw)
		return err
	})
	return value, err
}

// scan calls fn with every key below prefix and its checked value; both are valid
// during the call only. A damaged value is given to fn as err.
func (db *DB) scan(prefix []byte, fn func(key, value []byte, err error) error) (err error) {
	defer damageOf(&err)
	return db.kv.View(func(txn *badgerdb.Txn) error {
		o := badgerdb.DefaultIteratorOptions
		o.Prefix, o.PrefetchValues = prefix, false
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			item := it.Item()
			err := item.Value(func(raw []byte) error {
				value, err := openValue(item.Key(), raw)
				return fn(item.Key(), value, err)
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// dropPrefixes removes all keys below the prefixes, and their bytes.
func (db *DB) dropPrefixes(prefixes ...[]byte) error {
	if len(prefixes) == 0 {
		return nil
	}
	db.kvMu.Lock()
	defer db.kvMu.Unlock()
	return db.kv.DropPrefix(prefixes...)
}

// callers counts the method calls that are under way, so that Close does not take
// the files and the memory from under them.
type callers struct {
	mu     sync.Mutex
	n      int
	closed bool
	idle   chan struct{} // closed when the last caller left after close
}

func (c *callers) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.n++
	return true
}

func (c *callers) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n--; c.n == 0 && c.closed {
		close(c.idle)
	}
}

// close lets no more callers in; the channel is closed when the last has left.
func (c *callers) close() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed, c.idle = true, make(chan struct{})
	if c.n == 0 {
		close(c.idle)
	}
	return c.idle
}

// enter is what every method of a tenant does first; leave is due when it returns nil.
func (db *DB) enter(ctx context.Context, op string, t storage.Tenant) error {
	if err := t.Validate(); err != nil {
		return err
	}
	return db.alive(ctx, op)
}

func (db *DB) alive(ctx context.Context, op string) error {
	if err := storage.ContextError(ctx, op); err != nil && !db.closed.Load() {
		return err
	}
	if !db.callers.enter() {
		return errClosed(op)
	}
	return nil
}

func (db *DB) leave() { db.callers.leave() }

// Close implements storage.Store: it lets running calls end, writes the head as
// blocks, cuts the log and releases the directory.
func (db *DB) Close() error {
	db.closeOnce.Do(func() {
		db.closed.Store(true)
		idle := db.callers.close()
		close(db.closing)
		<-db.committerGone
		<-idle
		db.stop()
		db.background.Wait()
		db.closeErr = internal("close", db.shutdown())
	})
	return db.closeErr
}

// shutdown flushes and saves everything; what fails stays in the log.
func (db *DB) shutdown() error {
	var err error
	if db.disk.err() == nil {
		err = db.flush.everything(context.Background())
		if err == nil {
			err = db.snapshot(true)
		}
	}
	return errors.Join(err, db.release())
}

// release closes files without writing anything more than they must.
func (db *DB) release() error {
	var errs []error
	if l := db.wal.Load(); l != nil {
		if err := l.Close(); !errors.Is(err, wal.ErrBroken) {
			errs = append(errs, err)
		}
	}
	if db.kv != nil {
		errs = append(errs, db.kv.Close())
	}
	db.head.mu.Lock()
	db.head.arena.Close()
	db.head.mu.Unlock()
	if db.lock != nil {
		errs = append(errs, db.lock.unlock())
	}
	return errors.Join(errs...)
}
