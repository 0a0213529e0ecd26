package tenancy

import (
	"context"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/luminate/luminate/storage"
)

// WrapConfig configures Wrap.
type WrapConfig struct {
	// Authenticated refuses every call whose context carries no identity.
	Authenticated bool
	// Limiter enforces limits on writes and reads, nil for none.
	Limiter *Limiter
}

// guarded is a store that keeps to the identity in the context: its tenant, the
// matchers of a narrowed token, several tenants of a federated read, and limits.
type guarded struct {
	next    storage.Store
	auth    bool
	limiter *Limiter // nil: no limits
}

// Wrap returns a store that narrows every read to what the identity in the context
// may see, answers federated reads, and enforces limits. It owns next's Close.
func Wrap(next storage.Store, cfg WrapConfig) storage.Store {
	return &guarded{next: next, auth: cfg.Authenticated, limiter: cfg.Limiter}
}

// enter checks that the identity may touch the tenant. A tenant of somebody else
// does not exist for the caller.
func (s *guarded) enter(ctx context.Context, op string, t storage.Tenant) (Identity, error) {
	id, ok := FromContext(ctx)
	switch {
	case t.IsZero():
		return id, t.Validate()
	case !ok && s.auth, ok && s.auth && !id.Authenticated:
		return id, storage.Errorf(storage.KindInternal, op, "no identity in the context: the request did not pass the gate")
	case ok && !id.Allows(t):
		return id, storage.Errorf(storage.KindNotFound, op, "tenant %q is not known", t)
	}
	return id, nil
}

// enterWhole is enter for what is about a whole tenant: not for a narrowed token,
// and not for several tenants at once.
func (s *guarded) enterWhole(ctx context.Context, op string, t storage.Tenant) error {
	id, err := s.enter(ctx, op, t)
	switch {
	case err != nil:
		return err
	case len(id.Matchers) > 0:
		return storage.Errorf(storage.KindInvalid, op, "the token is narrowed by matchers and cannot change a whole tenant")
	case id.Federated != nil:
		return storage.Errorf(storage.KindInvalid, op, "several tenants at once can only be read")
	}
	return nil
}

// enterAll is for what is about every tenant: without authentication, or for an
// operator.
func (s *guarded) enterAll(ctx context.Context, op string) error {
	id, ok := FromContext(ctx)
	switch {
	case !s.auth:
		return nil
	case !ok:
		return storage.Errorf(storage.KindInternal, op, "no identity in the context: the request did not pass the gate")
	case !id.Has(ScopeOperator):
		return storage.Errorf(storage.KindInvalid, op, "the scope %q is needed: this is about every tenant", ScopeOperator)
	}
	return nil
}

// narrow adds the identity's matchers. The given slice is not changed.
func narrow(id Identity, ms []*storage.Matcher) []*storage.Matcher {
	if len(id.Matchers) == 0 {
		return ms
	}
	return append(slices.Clip(ms), id.Matchers...)
}

// Select implements storage.Store.
func (s *guarded) Select(ctx context.Context, t storage.Tenant, q storage.Selection) iter.Seq2[storage.Series, error] {
	id, err := s.enter(ctx, "select", t)
	if err != nil {
		return failed[storage.Series](err)
	}
	q.Matchers = narrow(id, q.Matchers)
	if q, err = s.boundSelection(t, q); err != nil {
		return failed[storage.Series](err)
	}
	if f := federated(id, t); f != nil {
		return watched(s, t, s.selectFederated(ctx, f, q), samplesOf)
	}
	return watched(s, t, s.next.Select(ctx, t, q), samplesOf)
}

// SelectLabels implements storage.Store.
func (s *guarded) SelectLabels(ctx context.Context, t storage.Tenant, q storage.Selection) iter.Seq2[storage.Labels, error] {
	id, err := s.enter(ctx, "select labels", t)
	if err != nil {
		return failed[storage.Labels](err)
	}
	q.Matchers = narrow(id, q.Matchers)
	q = s.boundDiscovery(t, q)
	if l, observed := s.queryLimits(t); l != nil && !observed {
		q.MaxSeries = least(q.MaxSeries, l.MaxSeriesPerQuery)
	}
	if f := federated(id, t); f != nil {
		return watched(s, t, s.labelsFederated(ctx, f, q), noSamples)
	}
	return watched(s, t, s.next.SelectLabels(ctx, t, q), noSamples)
}

// Evaluate implements storage.Store. Groups of several tenants cannot be merged
// exactly, so a federated grid is left to the caller's Select.
func (s *guarded) Evaluate(ctx context.Context, t storage.Tenant, g storage.Grid) (*storage.GridResult, error) {
	id, err := s.enter(ctx, "evaluate", t)
	if err != nil {
		return nil, err
	}
	g.Matchers = narrow(id, g.Matchers)
	asked := g
	if g, err = s.boundGrid(t, g); err != nil {
		return nil, err
	}
	if federated(id, t) != nil {
		if err := g.Validate(); err != nil {
			return nil, err
		}
		return nil, storage.Errorf(storage.KindUnsupported, "evaluate", "a grid over several tenants")
	}
	return s.evaluate(ctx, t, g, asked)
}

// Estimate implements storage.Store.
func (s *guarded) Estimate(ctx context.Context, t storage.Tenant, q storage.Selection) (storage.Estimate, error) {
	id, err := s.enter(ctx, "estimate", t)
	if err != nil {
		return storage.Estimate{}, err
	}
	q.Matchers = narrow(id, q.Matchers)
	if f := federated(id, t); f != nil {
		return s.estimateFederated(ctx, f, q)
	}
	return s.next.Estimate(ctx, t, q)
}

// LabelNames implements storage.Store.
func (s *guarded) LabelNames(ctx context.Context, t storage.Tenant, q storage.Selection) ([]string, error) {
	id, err := s.enter(ctx, "label names", t)
	if err != nil {
		return nil, err
	}
	q.Matchers = narrow(id, q.Matchers)
	q = s.boundDiscovery(t, q)
	if f := federated(id, t); f != nil {
		return s.namesFederated(ctx, f, q)
	}
	return s.next.LabelNames(ctx, t, q)
}

// LabelValues implements storage.Store.
func (s *guarded) LabelValues(ctx context.Context, t storage.Tenant, name string, q storage.Selection) ([]string, error) {
	id, err := s.enter(ctx, "label values", t)
	if err != nil {
		return nil, err
	}
	q.Matchers = narrow(id, q.Matchers)
	q = s.boundDiscovery(t, q)
	if f := federated(id, t); f != nil {
		return s.valuesFederated(ctx, f, name, q)
	}
	return s.next.LabelValues(ctx, t, name, q)
}

// Metadata implements storage.Store. A narrowed token sees the metadata of the
// metrics of which it sees a series.
func (s *guarded) Metadata(ctx context.Context, t storage.Tenant, q storage.MetadataQuery) ([]storage.Metadata, error) {
	id, err := s.enter(ctx, "metadata", t)
	if err != nil {
		return nil, err
	}
	if f := federated(id, t); f != nil {
		return s.metadataFederated(ctx, f, id, q)
	}
	return s.metadataOf(ctx, t, id, q)
}

// Exemplars implements storage.Store.
func (s *guarded) Exemplars(ctx context.Context, t storage.Tenant, q storage.ExemplarQuery) ([]storage.ExemplarSeries, error) {
	id, err := s.enter(ctx, "exemplars", t)
	if err != nil {
		return nil, err
	}
	if len(id.Matchers) > 0 {
		selectors := make([][]*storage.Matcher, len(q.Selectors))
		for i, ms := range q.Selectors {
			selectors[i] = narrow(id, ms)
		}
		q.Selectors = selectors
	}
	if f := federated(id, t); f != nil {
		return s.exemplarsFederated(ctx, f, q)
	}
	return s.next.Exemplars(ctx, t, q)
}

// Cardinality implements storage.Store.
func (s *guarded) Cardinality(ctx context.Context, t storage.Tenant, q storage.CardinalityQuery) (storage.Cardinality, error) {
	id, err := s.enter(ctx, "cardinality", t)
	if err != nil {
		return storage.Cardinality{}, err
	}
	q.Selection.Matchers = narrow(id, q.Selection.Matchers)
	if f := federated(id, t); f != nil {
		return s.cardinalityFederated(ctx, f, q)
	}
	return s.next.Cardinality(ctx, t, q)
}

// Delete implements storage.Store; a narrowed token deletes what it can see.
func (s *guarded) Delete(ctx context.Context, t storage.Tenant, q storage.Selection) (storage.DeleteReceipt, error) {
	id, err := s.enter(ctx, "delete", t)
	if err != nil {
		return storage.DeleteReceipt{}, err
	}
	if federated(id, t) != nil {
		return storage.DeleteReceipt{}, storage.Errorf(storage.KindInvalid, "delete", "several tenants at once can only be read")
	}
	q.Matchers = narrow(id, q.Matchers)
	return s.next.Delete(ctx, t, q)
}

// DeleteStatus implements storage.Store.
func (s *guarded) DeleteStatus(ctx context.Context, t storage.Tenant, receipt string) (storage.DeleteReceipt, error) {
	if _, err := s.enter(ctx, "delete status", t); err != nil {
		return storage.DeleteReceipt{}, err
	}
	return s.next.DeleteStatus(ctx, t, receipt)
}

// Retention implements storage.Store.
func (s *guarded) Retention(ctx context.Context, t storage.Tenant) ([]storage.RetentionPolicy, error) {
	if _, err := s.enter(ctx, "retention", t); err != nil {
		return nil, err
	}
	return s.next.Retention(ctx, t)
}

// SetRetention implements storage.Store.
func (s *guarded) SetRetention(ctx context.Context, t storage.Tenant, p storage.RetentionPolicy) error {
	if err := s.enterWhole(ctx, "set retention", t); err != nil {
		return err
	}
	return s.next.SetRetention(ctx, t, p)
}

// RemoveRetention implements storage.Store.
func (s *guarded) RemoveRetention(ctx context.Context, t storage.Tenant, metric string) error {
	if err := s.enterWhole(ctx, "remove retention", t); err != nil {
		return err
	}
	return s.next.RemoveRetention(ctx, t, metric)
}

// Cleanup implements storage.Store. It shows nothing of a tenant and changes
// nothing that would not go by itself, so any identity may call it.
func (s *guarded) Cleanup(ctx context.Context) (storage.CleanupReport, error) {
	if _, ok := FromContext(ctx); s.auth && !ok {
		return storage.CleanupReport{}, s.enterAll(ctx, "cleanup")
	}
	return s.next.Cleanup(ctx)
}

// Tenants implements storage.Store: all of them for an operator and without
// authentication, else the identity's own.
func (s *guarded) Tenants(ctx context.Context) ([]storage.TenantStats, error) {
	id, ok := FromContext(ctx)
	if s.auth && !ok {
		return nil, s.enterAll(ctx, "tenants")
	}
	all, err := s.next.Tenants(ctx)
	if err != nil || !ok || !s.auth {
		return all, err
	}
	return slices.DeleteFunc(all, func(x storage.TenantStats) bool {
		t, err := storage.ParseTenant(x.Tenant)
		return err != nil || !id.Allows(t)
	}), nil
}

// DeleteTenant implements storage.Store.
func (s *guarded) DeleteTenant(ctx context.Context, t storage.Tenant) error {
	if err := s.enterWhole(ctx, "delete tenant", t); err != nil {
		return err
	}
	return s.next.DeleteTenant(ctx, t)
}

// Exchange implements storage.Store. Notes tell of every tenant.
func (s *guarded) Exchange(ctx context.Context, post storage.Note, since time.Time) ([]storage.Note, error) {
	if err := s.enterAll(ctx, "exchange"); err != nil {
		return nil, err
	}
	return s.next.Exchange(ctx, post, since)
}

// Health implements storage.Store; probes have no identity.
func (s *guarded) Health(ctx context.Context) storage.Health { return s.next.Health(ctx) }

// Backup implements storage.Store. It holds every tenant's data.
func (s *guarded) Backup(ctx context.Context, w io.Writer) (storage.BackupReport, error) {
	if err := s.enterAll(ctx, "backup"); err != nil {
		return storage.BackupReport{}, err
	}
	return s.next.Backup(ctx, w)
}

// Close implements storage.Store.
func (s *guarded) Close() error { return s.next.Close() }

// failed is a sequence that yields one error.
func failed[T any](err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		yield(zero, err)
	}
}
