package storagetest

import (
	"context"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/luminate/luminate/storage"
)

// Fault is what happens to one call of a Faulty store. The zero Fault lets the
// call through.
type Fault struct {
	// Delay holds the call up, or until the context is done (then the call fails
	// with the context's kind).
	Delay time.Duration
	// Err fails the call: before it reaches the store, or for a sequence after
	// After elements were yielded.
	Err   error
	After int
}

// Faulty passes calls on to a Store after asking Script for each what shall
// happen. Script gets the method's name; nil lets everything through. It is safe
// for concurrent use if Script is.
type Faulty struct {
	next storage.Store

	mu     sync.Mutex
	script func(method string) Fault
	calls  map[string]int
}

// NewFaulty wraps next.
func NewFaulty(next storage.Store, script func(method string) Fault) *Faulty {
	return &Faulty{next: next, script: script, calls: map[string]int{}}
}

// FailWith returns a script that fails every call with an error of kind k.
func FailWith(k storage.Kind) func(string) Fault {
	return func(method string) Fault {
		return Fault{Err: storage.Errorf(k, method, "scripted %s failure", k)}
	}
}

// SetScript replaces the script.
func (f *Faulty) SetScript(script func(method string) Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.script = script
}

// Calls tells how often a method was called.
func (f *Faulty) Calls(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[method]
}

// begin applies the delay and returns the fault.
func (f *Faulty) begin(ctx context.Context, method string) (Fault, error) {
	f.mu.Lock()
	f.calls[method]++
	var fault Fault
	if f.script != nil {
		fault = f.script(method)
	}
	f.mu.Unlock()
	if fault.Delay > 0 {
		timer := time.NewTimer(fault.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return fault, storage.ContextError(ctx, method)
		}
	}
	return fault, nil
}

// call runs a method that is not a sequence.
func call[T any](f *Faulty, ctx context.Context, method string, fn func() (T, error)) (T, error) {
	var zero T
	fault, err := f.begin(ctx, method)
	if err != nil {
		return zero, err
	}
	if fault.Err != nil {
		return zero, fault.Err
	}
	return fn()
}

// sequence runs a method that yields, and cuts it off.
func sequence[T any](f *Faulty, ctx context.Context, method string, fn func() iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		fault, err := f.begin(ctx, method)
		if err != nil {
			yield(zero, err)
			return
		}
		n := 0
		if fault.Err == nil || fault.After > 0 {
			for v, err := range fn() {
				if fault.Err != nil && n == fault.After {
					break
				}
				n++
				if !yield(v, err) {
					return
				}
			}
		}
		if fault.Err != nil {
			yield(zero, fault.Err)
		}
	}
}

// Append implements storage.Store.
func (f *Faulty) Append(ctx context.Context, t storage.Tenant, b *storage.Batch) (storage.AppendResult, error) {
	return call(f, ctx, "Append", func() (storage.AppendResult, error) { return f.next.Append(ctx, t, b) })
}

// Select implements storage.Store.
func (f *Faulty) Select(ctx context.Context, t storage.Tenant, s storage.Selection) iter.Seq2[storage.Series, error] {
	return sequence(f, ctx, "Select", func() iter.Seq2[storage.Series, error] { return f.next.Select(ctx, t, s) })
}

// SelectLabels implements storage.Store.
func (f *Faulty) SelectLabels(ctx context.Context, t storage.Tenant, s storage.Selection) iter.Seq2[storage.Labels, error] {
	return sequence(f, ctx, "SelectLabels", func() iter.Seq2[storage.Labels, error] { return f.next.SelectLabels(ctx, t, s) })
}

// Evaluate implements storage.Store.
func (f *Faulty) Evaluate(ctx context.Context, t storage.Tenant, g storage.Grid) (*storage.GridResult, error) {
	return call(f, ctx, "Evaluate", func() (*storage.GridResult, error) { return f.next.Evaluate(ctx, t, g) })
}

// Estimate implements storage.Store.
func (f *Faulty) Estimate(ctx context.Context, t storage.Tenant, s storage.Selection) (storage.Estimate, error) {
	return call(f, ctx, "Estimate", func() (storage.Estimate, error) { return f.next.Estimate(ctx, t, s) })
}

// LabelNames implements storage.Store.
func (f *Faulty) LabelNames(ctx context.Context, t storage.Tenant, s storage.Selection) ([]string, error) {
	return call(f, ctx, "LabelNames", func() ([]string, error) { return f.next.LabelNames(ctx, t, s) })
}

// LabelValues implements storage.Store.
func (f *Faulty) LabelValues(ctx context.Context, t storage.Tenant, name string, s storage.Selection) ([]string, error) {
	return call(f, ctx, "LabelValues", func() ([]string, error) { return f.next.LabelValues(ctx, t, name, s) })
}

// Metadata implements storage.Store.
func (f *Faulty) Metadata(ctx context.Context, t storage.Tenant, q storage.MetadataQuery) ([]storage.Metadata, error) {
	return call(f, ctx, "Metadata", func() ([]storage.Metadata, error) { return f.next.Metadata(ctx, t, q) })
}

// Exemplars implements storage.Store.
func (f *Faulty) Exemplars(ctx context.Context, t storage.Tenant, q storage.ExemplarQuery) ([]storage.ExemplarSeries, error) {
	return call(f, ctx, "Exemplars", func() ([]storage.ExemplarSeries, error) { return f.next.Exemplars(ctx, t, q) })
}

// Cardinality implements storage.Store.
func (f *Faulty) Cardinality(ctx context.Context, t storage.Tenant, q storage.CardinalityQuery) (storage.Cardinality, error) {
	return call(f, ctx, "Cardinality", func() (storage.Cardinality, error) { return f.next.Cardinality(ctx, t, q) })
}

// Delete implements storage.Store.
func (f *Faulty) Delete(ctx context.Context, t storage.Tenant, s storage.Selection) (storage.DeleteReceipt, error) {
	return call(f, ctx, "Delete", func() (storage.DeleteReceipt, error) { return f.next.Delete(ctx, t, s) })
}

// DeleteStatus implements storage.Store.
func (f *Faulty) DeleteStatus(ctx context.Context, t storage.Tenant, id string) (storage.DeleteReceipt, error) {
	return call(f, ctx, "DeleteStatus", func() (storage.DeleteReceipt, error) { return f.next.DeleteStatus(ctx, t, id) })
}

// Retention implements storage.Store.
func (f *Faulty) Retention(ctx context.Context, t storage.Tenant) ([]storage.RetentionPolicy, error) {
	return call(f, ctx, "Retention", func() ([]storage.RetentionPolicy, error) { return f.next.Retention(ctx, t) })
}

// SetRetention implements storage.Store.
func (f *Faulty) SetRetention(ctx context.Context, t storage.Tenant, p storage.RetentionPolicy) error {
	_, err := call(f, ctx, "SetRetention", func() (struct{}, error) { return struct{}{}, f.next.SetRetention(ctx, t, p) })
	return err
}

// RemoveRetention implements storage.Store.
func (f *Faulty) RemoveRetention(ctx context.Context, t storage.Tenant, metric string) error {
	_, err := call(f, ctx, "RemoveRetention", func() (struct{}, error) { return struct{}{}, f.next.RemoveRetention(ctx, t, metric) })
	return err
}

// Cleanup implements storage.Store.
func (f *Faulty) Cleanup(ctx context.Context) (storage.CleanupReport, error) {
	return call(f, ctx, "Cleanup", func() (storage.CleanupReport, error) { return f.next.Cleanup(ctx) })
}

// Tenants implements storage.Store.
func (f *Faulty) Tenants(ctx context.Context) ([]storage.TenantStats, error) {
	return call(f, ctx, "Tenants", func() ([]storage.TenantStats, error) { return f.next.Tenants(ctx) })
}

// DeleteTenant implements storage.Store.
func (f *Faulty) DeleteTenant(ctx context.Context, t storage.Tenant) error {
	_, err := call(f, ctx, "DeleteTenant", func() (struct{}, error) { return struct{}{}, f.next.DeleteTenant(ctx, t) })
	return err
}

// Exchange implements storage.Store.
func (f *Faulty) Exchange(ctx context.Context, post storage.Note, since time.Time) ([]storage.Note, error) {
	return call(f, ctx, "Exchange", func() ([]storage.Note, error) { return f.next.Exchange(ctx, post, since) })
}

// Health implements storage.Store; a scripted error makes the store down.
func (f *Faulty) Health(ctx context.Context) storage.Health {
	h, err := call(f, ctx, "Health", func() (storage.Health, error) { return f.next.Health(ctx), nil })
	if err != nil {
		return storage.Health{Backend: "faulty", Status: storage.HealthDown, Error: err.Error()}
	}
	return h
}

// Backup implements storage.Store.
func (f *Faulty) Backup(ctx context.Context, w io.Writer) (storage.BackupReport, error) {
	return call(f, ctx, "Backup", func() (storage.BackupReport, error) { return f.next.Backup(ctx, w) })
}

// Close implements storage.Store and is never scripted, so that tests clean up.
func (f *Faulty) Close() error { return f.next.Close() }
