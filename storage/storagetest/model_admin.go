package storagetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/luminate/luminate/storage"
)

// Delete implements storage.Store: points go at once.
func (m *Model) Delete(ctx context.Context, t storage.Tenant, q storage.Selection) (storage.DeleteReceipt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter(ctx, "delete", t); err != nil {
		return storage.DeleteReceipt{}, err
	}
	if err := q.Validate(); err != nil {
		return storage.DeleteReceipt{}, err
	}
	d := m.tenant(t)
	m.deletes++
	now := m.cfg.Now()
	r := storage.DeleteReceipt{
		ID: fmt.Sprintf("d%d", m.deletes), State: storage.DeleteErased, Selector: storage.FormatSelector(q.Matchers),
		MinT: q.MinT, MaxT: q.MaxT, CreatedAt: now, ErasedAt: now,
	}
	for key, s := range d.series {
		if !storage.Matches(s.labels, q.Matchers) {
			continue
		}
		before := len(s.points)
		maps.DeleteFunc(s.points, func(ts int64, _ modelPoint) bool { return ts >= q.MinT && ts <= q.MaxT })
		s.exemplars = slices.DeleteFunc(s.exemplars, func(e storage.Exemplar) bool { return e.T >= q.MinT && e.T <= q.MaxT })
		if len(s.points) < before {
			r.MatchedSeries++
		}
		if len(s.points) == 0 && len(s.exemplars) == 0 {
			delete(d.series, key)
		}
	}
	d.receipts[r.ID] = r
	return r, nil
}

// DeleteStatus implements storage.Store.
func (m *Model) DeleteStatus(ctx context.Context, t storage.Tenant, id string) (storage.DeleteReceipt, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.enter(ctx, "delete status", t); err != nil {
		return storage.DeleteReceipt{}, err
	}
	if d := m.tenants[t.String()]; d != nil {
		if r, ok := d.receipts[id]; ok {
			return r, nil
		}
	}
	return storage.DeleteReceipt{}, storage.Errorf(storage.KindNotFound, "delete status", "no delete with id %q", id)
}

// Retention implements storage.Store.
func (m *Model) Retention(ctx context.Context, t storage.Tenant) ([]storage.RetentionPolicy, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.enter(ctx, "retention", t); err != nil {
		return nil, err
	}
	if d := m.tenants[t.String()]; d != nil {
		return slices.Clone(d.retention), nil
	}
	return nil, nil
}

// SetRetention implements storage.Store.
func (m *Model) SetRetention(ctx context.Context, t storage.Tenant, p storage.RetentionPolicy) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter(ctx, "set retention", t); err != nil {
		return err
	}
	if err := p.Validate(); err != nil {
		return err
	}
	d := m.tenant(t)
	d.retention = slices.DeleteFunc(d.retention, func(x storage.RetentionPolicy) bool { return x.Metric == p.Metric })
	d.retention = append(d.retention, p)
	storage.SortRetention(d.retention)
	return nil
}

// RemoveRetention implements storage.Store.
func (m *Model) RemoveRetention(ctx context.Context, t storage.Tenant, metric string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter(ctx, "remove retention", t); err != nil {
		return err
	}
	d := m.tenant(t)
	n := len(d.retention)
	d.retention = slices.DeleteFunc(d.retention, func(x storage.RetentionPolicy) bool { return x.Metric == metric })
	if len(d.retention) == n {
		return storage.Errorf(storage.KindNotFound, "remove retention", "no policy for %q", metric)
	}
	return nil
}

// Cleanup implements storage.Store.
func (m *Model) Cleanup(ctx context.Context) (storage.CleanupReport, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.open(ctx, "cleanup"); err != nil {
		return storage.CleanupReport{}, err
	}
	for _, d := range m.tenants {
		for key, s := range d.series {
			mint, _ := m.window(d, s.labels.Metric())
			maps.DeleteFunc(s.points, func(ts int64, _ modelPoint) bool { return ts < mint })
			if len(s.points) == 0 {
				delete(d.series, key)
			}
		}
	}
	return storage.CleanupReport{}, nil
}

// Tenants implements storage.Store.
func (m *Model) Tenants(ctx context.Context) ([]storage.TenantStats, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.open(ctx, "tenants"); err != nil {
		return nil, err
	}
	var out []storage.TenantStats
	for _, name := range slices.Sorted(maps.Keys(m.tenants)) {
		d := m.tenants[name]
		if len(d.series) > 0 {
			bytes := uint64(0)
			for _, s := range d.series {
				bytes += uint64(len(s.labels) + 16*len(s.points))
			}
			out = append(out, storage.TenantStats{Tenant: name, ActiveSeries: uint64(len(d.series)), Bytes: bytes, LastWrite: d.lastWrite})
		}
	}
	return out, nil
}

// DeleteTenant implements storage.Store.
func (m *Model) DeleteTenant(ctx context.Context, t storage.Tenant) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter(ctx, "delete tenant", t); err != nil {
		return err
	}
	delete(m.tenants, t.String())
	return nil
}

// Exchange implements storage.Store: whoever holds the model shares its notes.
func (m *Model) Exchange(ctx context.Context, post storage.Note, since time.Time) ([]storage.Note, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.open(ctx, "exchange"); err != nil {
		return nil, err
	}
	now := m.cfg.Now()
	m.notes = slices.DeleteFunc(m.notes, func(n storage.Note) bool { return now.Sub(n.At) > storage.NoteLife })
	if len(post.Body) > 0 {
		post.At, post.Body = now, bytes.Clone(post.Body)
		m.notes = append(m.notes, post)
	}
	var out []storage.Note
	for _, n := range m.notes {
		if n.Process == post.Process {
			n.Body = nil
		}
		if n.At.After(since) {
			out = append(out, n)
		}
	}
	return out, nil
}

// Health implements storage.Store.
func (m *Model) Health(context.Context) storage.Health {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return storage.Health{Backend: "model", Status: storage.HealthDown, Error: "the store is closed"}
	}
	return storage.Health{Backend: "model", Status: storage.HealthOK}
}

// Backup implements storage.Store: one line for each sample.
func (m *Model) Backup(ctx context.Context, w io.Writer) (storage.BackupReport, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var r storage.BackupReport
	if err := m.open(ctx, "backup"); err != nil {
		return r, err
	}
	sum := sha256.New()
	for name, d := range m.tenants {
		for _, s := range d.series {
			for t, p := range s.points {
				n, err := fmt.Fprintf(io.MultiWriter(w, sum), "%s %s %d %v\n", name, s.labels, t, p)
				if err != nil {
					return r, storage.Errorf(storage.KindUnavailable, "backup", "write: %w", err)
				}
				r.Bytes += uint64(n)
				r.Entries++
			}
		}
	}
	r.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return r, nil
}
