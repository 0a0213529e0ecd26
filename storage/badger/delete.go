package badger

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	badgerdb "github.com/dgraph-io/badger/v4"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger/internal/index"
	"github.com/luminate/luminate/storage/badger/internal/wal"
)

// tombstone hides the samples of ids in [mint, maxt] from blocks with an LSN below
// its own. Bounds are cut to the partition's day.
type tombstone struct {
	lsn        uint64
	mint, maxt int64
	ids        *roaring.Bitmap
	receipt    string // the delete that it belongs to
}

func (t *tombstone) hides(lsn uint64, id uint32) bool { return lsn < t.lsn && t.ids.Contains(id) }

func (t *tombstone) encode() ([]byte, error) {
	ids, err := t.ids.ToBytes()
	if err != nil {
		return nil, fmt.Errorf("encode tombstone: %w", err)
	}
	b := appendVarints(nil, t.mint, t.maxt)
	b = appendBytes(b, t.receipt)
	return appendBytes(b, ids), nil
}

func decodeTombstone(lsn uint64, b []byte) (tombstone, error) {
	r := recordReader{b: b}
	t := tombstone{lsn: lsn, mint: r.varint(), maxt: r.varint(), receipt: r.string(), ids: roaring.New()}
	ids := r.bytes()
	if err := r.err("tombstone"); err != nil {
		return t, err
	}
	if err := t.ids.UnmarshalBinary(slices.Clone(ids)); err != nil {
		return t, fmt.Errorf("read tombstone: %w: %w", err, errDamaged)
	}
	return t, nil
}

// receiptRow is a delete receipt as Badger keeps it.
type receiptRow struct {
	Selector      string     `json:"selector"`
	MinT          int64      `json:"minT"`
	MaxT          int64      `json:"maxT"`
	MatchedSeries uint64     `json:"matchedSeries"`
	CreatedAt     time.Time  `json:"createdAt"`
	ErasedAt      *time.Time `json:"erasedAt,omitempty"`
}

func (r receiptRow) receipt(id string) storage.DeleteReceipt {
	out := storage.DeleteReceipt{
		ID: id, State: storage.DeleteHidden, Selector: r.Selector, MinT: r.MinT, MaxT: r.MaxT,
		MatchedSeries: r.MatchedSeries, CreatedAt: r.CreatedAt,
	}
	if r.ErasedAt != nil {
		out.State, out.ErasedAt = storage.DeleteErased, *r.ErasedAt
	}
	return out
}

// Delete implements storage.Store.
func (db *DB) Delete(ctx context.Context, t storage.Tenant, s storage.Selection) (storage.DeleteReceipt, error) {
	if err := db.enter(ctx, "delete", t); err != nil {
		return storage.DeleteReceipt{}, err
	}
	defer db.leave()
	if err := s.Validate(); err != nil {
		return storage.DeleteReceipt{}, err
	}
	var raw [12]byte
	_, _ = rand.Read(raw[:]) // never fails
	id := hex.EncodeToString(raw[:])
	row := receiptRow{Selector: storage.FormatSelector(s.Matchers), MinT: s.MinT, MaxT: s.MaxT, CreatedAt: db.now().UTC()}
	tn := db.lookupTenant(t)
	if tn != nil {
		var err error
		if row.MatchedSeries, err = db.countSeries(ctx, tn, s); err != nil {
			return storage.DeleteReceipt{}, internal("delete", err)
		}
	}
	err := db.exclusive(ctx, "delete", func() error {
		tn, err := db.ensureTenant(t)
		if err != nil {
			return err
		}
		return db.delete(tn, id, s, row)
	})
	if err != nil {
		return storage.DeleteReceipt{}, internal("delete", err)
	}
	return row.receipt(id), nil
}

// delete logs and applies a delete; the committer runs it.
func (db *DB) delete(tn *tenant, id string, s storage.Selection, row receiptRow) error {
	rec := deleteRecord{tenant: tn.id, id: id, mint: s.MinT, maxt: s.MaxT, createdAt: row.CreatedAt, matchers: s.Matchers}
	var b wal.Batch
	b.Add(wal.TypeDelete, appendDeleteRecord(nil, rec))
	lsn, err := db.log(&b)
	if err != nil {
		return err
	}
	if err := db.applyDelete(tn, rec, lsn, row.MatchedSeries); err != nil {
		return err
	}
	db.applied.Store(lsn)
	return nil
}

// removedAtOnce is how many groups a delete takes samples out of while readers wait.
// What is frozen in between has an older LSN, so the tombstone hides it.
const removedAtOnce = 64

// applyDelete takes samples out of the head and writes tombstones and receipt.
// Replaying it does the same again. The tombstones are visible before the head
// changes, and until then hide nothing of it but what is frozen.
func (db *DB) applyDelete(tn *tenant, rec deleteRecord, lsn uint64, matched uint64) error {
	left := false
	for _, p := range tn.partitions(rec.mint, rec.maxt) {
		ids, err := db.selectIDs(context.Background(), p, rec.matchers)
		if err != nil {
			return err
		}
		if !ids.IsEmpty() {
			t := tombstone{lsn: lsn, mint: max(rec.mint, p.mint()), maxt: min(rec.maxt, p.maxt()), ids: ids, receipt: rec.id}
			if err := db.addTombstone(p, t); err != nil {
				return err
			}
			left = true
		}
		closed := !p.isOpen() && !ids.IsEmpty()
		if closed {
			if err := db.loadExemplars(p); err != nil {
				return err
			}
		}
		db.head.mu.Lock()
		if !ids.IsEmpty() {
			groups := 0
			_ = forEachGroup(ids, func(n uint32, want uint64) error {
				if groups++; groups%removedAtOnce == 0 { // let readers in between
					db.head.mu.Unlock()
					db.head.mu.Lock()
				}
				if g := p.group(n); g != nil && lsn > g.flushed {
					db.head.remove(g, want, rec.mint, rec.maxt)
				}
				return nil
			})
			db.head.removeExemplars(p, ids, rec.mint, rec.maxt)
		}
		p.applied = max(p.applied, lsn)
		db.head.mu.Unlock()
		if closed {
			if err := db.unloadExemplars(p); err != nil {
				return err
			}
		}
	}
	row := receiptRow{
		Selector: storage.FormatSelector(rec.matchers), MinT: rec.mint, MaxT: rec.maxt,
		MatchedSeries: matched, CreatedAt: rec.createdAt.UTC(),
	}
	if !left {
		now := db.now().UTC()
		row.ErasedAt = &now
	}
	return db.putReceipt(tn, rec.id, row)
}

// addTombstone stores a tombstone and makes it visible.
func (db *DB) addTombstone(p *partition, t tombstone) error {
	value, err := t.encode()
	if err != nil {
		return err
	}
	if err := db.put(p.tombstoneKey(t.lsn), value); err != nil {
		return fmt.Errorf("write tombstone: %w", err)
	}
	old := *p.tombstones.Load()
	next := make([]tombstone, 0, len(old)+1)
	for _, o := range old {
		if o.lsn != t.lsn { // replay writes it again
			next = append(next, o)
		}
	}
	next = append(next, t)
	p.tombstones.Store(&next)
	p.changed()
	return nil
}

func (db *DB) putReceipt(tn *tenant, id string, row receiptRow) error {
	b, err := json.Marshal(row)
	if err != nil {
		return fmt.Errorf("encode receipt: %w", err)
	}
	if err := db.put(receiptKey(tn.id, id), b); err != nil {
		return fmt.Errorf("write receipt: %w", err)
	}
	return nil
}

// readReceipt returns badgerdb.ErrKeyNotFound for an unknown id.
func (db *DB) readReceipt(tn *tenant, id string) (row receiptRow, err error) {
	b, err := db.get(receiptKey(tn.id, id))
	if err != nil {
		return row, err
	}
	if err := json.Unmarshal(b, &row); err != nil {
		return row, fmt.Errorf("read receipt %s: %w: %w", id, err, errDamaged)
	}
	return row, nil
}

// DeleteStatus implements storage.Store.
func (db *DB) DeleteStatus(ctx context.Context, t storage.Tenant, id string) (storage.DeleteReceipt, error) {
	if err := db.enter(ctx, "delete status", t); err != nil {
		return storage.DeleteReceipt{}, err
	}
	defer db.leave()
	notFound := storage.Errorf(storage.KindNotFound, "delete status", "no delete with id %q", id)
	tn := db.lookupTenant(t)
	if tn == nil || id == "" || len(id) > 1024 {
		return storage.DeleteReceipt{}, notFound
	}
	row, err := db.readReceipt(tn, id)
	if errors.Is(err, badgerdb.ErrKeyNotFound) {
		return storage.DeleteReceipt{}, notFound
	}
	if err != nil {
		return storage.DeleteReceipt{}, internal("delete status", err)
	}
	return row.receipt(id), nil
}

// countSeries counts the series that have samples in the selection.
func (db *DB) countSeries(ctx context.Context, tn *tenant, s storage.Selection) (uint64, error) {
	parts := tn.partitions(s.MinT, s.MaxT)
	seen := map[index.Hash128]struct{}{}
	for _, p := range parts {
		ids, err := db.selectIDs(ctx, p, s.Matchers)
		if err != nil {
			return 0, err
		}
		err = p.scanGroups(ctx, db, ids, s.MinT, s.MaxT, func(g *groupColumns) error {
			return db.withIndex(ctx, p, func(r index.Reader) error {
				return g.eachID(func(id uint32) error {
					h, err := r.Hash(id)
					seen[h] = struct{}{}
					return err
				})
			})
		})
		if err != nil {
			return 0, err
		}
	}
	return uint64(len(seen)), nil
}

// Exchange implements storage.Store: a folder has one process.
func (db *DB) Exchange(ctx context.Context, _ storage.Note, _ time.Time) ([]storage.Note, error) {
	if err := storage.ContextError(ctx, "exchange"); err != nil {
		return nil, err
	}
	return nil, storage.Errorf(storage.KindUnsupported, "exchange", "the data is this process's alone")
}

// DeleteTenant implements storage.Store. The tenant's number is marked as gone
// before anything is dropped, so that a crash in between cannot bring it back.
func (db *DB) DeleteTenant(ctx context.Context, t storage.Tenant) error {
	if err := db.enter(ctx, "delete tenant", t); err != nil {
		return err
	}
	defer db.leave()
	tn := db.lookupTenant(t)
	if tn == nil {
		return nil
	}
	db.snapMu.Lock()
	defer db.snapMu.Unlock()
	err := db.exclusive(ctx, "delete tenant", func() error {
		if db.lookupTenant(t) != tn {
			return nil
		}
		if err := db.markGone(tn); err != nil {
			return err
		}
		db.mu.Lock()
		delete(db.tenants, tn.name)
		delete(db.byID, tn.id)
		db.gone[tn.id] = true
		db.mu.Unlock()
		return nil
	})
	if err != nil {
		return internal("delete tenant", err)
	}
	for _, p := range tn.partitions(math.MinInt64, math.MaxInt64) {
		db.forget(p)
	}
	return internal("delete tenant", db.dropTenantRows(tn))
}

func (db *DB) markGone(tn *tenant) error {
	return db.update(func(txn *badgerdb.Txn) error {
		key := numberKey(keyTenantGone, tn.id)
		return errors.Join(txn.Delete(tenantKey(tn.name)), txn.Set(key, sealValue(key, nil)))
	})
}

// dropTenantRows frees everything of a tenant that was marked as gone.
func (db *DB) dropTenantRows(tn *tenant) error {
	prefixes := [][]byte{numberKey(keyMetadata, tn.id), numberKey(keyRetention, tn.id), numberKey(keyReceipt, tn.id)}
	var states [][]byte
	err := db.scan([]byte{keyPartition}, func(key, _ []byte, _ error) error {
		if day, id, ok := parsePartitionKey(key); ok && id == tn.id {
			prefixes = append(prefixes, partitionPrefix(day, id))
			states = append(states, slices.Clone(key))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range tn.partitions(math.MinInt64, math.MaxInt64) {
		prefixes = append(prefixes, partitionPrefix(p.day, tn.id))
	}
	if err := db.dropPrefixes(prefixes...); err != nil {
		return fmt.Errorf("drop tenant %q: %w", tn.name, err)
	}
	if len(states) == 0 {
		return nil
	}
	return db.remove(states...)
}

// forget drops a partition from memory; nothing writes it from now on.
func (db *DB) forget(p *partition) {
	db.quiesce(p)
	db.packed.Forget(p)
	p.mu.Lock()
	if p.idx != nil {
		db.openParts.Add(-1)
		db.openSeries.Add(-int64(p.idx.SeriesCount()))
	}
	p.idx, p.unlogged, p.unpersisted = index.NewMem(), nil, nil
	p.changed()
	p.mu.Unlock()
	db.head.mu.Lock()
	db.head.forget(p)
	db.head.mu.Unlock()
}
