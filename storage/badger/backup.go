package badger

import (
	"context"
	"io"

	"github.com/luminate/luminate/storage"
)

// Backup implements storage.Store.
func (db *DB) Backup(ctx context.Context, w io.Writer) (storage.BackupReport, error) {
	return storage.BackupReport{}, storage.Errorf(storage.KindUnsupported, "backup", "not here yet")
}
