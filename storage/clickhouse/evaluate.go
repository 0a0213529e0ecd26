package clickhouse

import (
	"context"

	"github.com/luminate/luminate/storage"
)

// Evaluate implements storage.Store.
func (s *Store) Evaluate(ctx context.Context, t storage.Tenant, g storage.Grid) (*storage.GridResult, error) {
	if err := s.enter(ctx, "evaluate", t); err != nil {
		return nil, err
	}
	if err := g.Validate(); err != nil {
		return nil, err
	}
	return nil, storage.Errorf(storage.KindUnsupported, "evaluate", "no grids yet")
}
