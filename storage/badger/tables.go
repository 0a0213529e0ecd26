package badger

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	badgerdb "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/ristretto/v2/z"
)

// probeTables opens each table of Badger's manifest as Badger will, and tells those
// that cannot be opened. Badger opens tables in goroutines of its own, where the
// panic that some damage causes ends the process; on an error it leaves goroutines
// behind, and on some it goes on without the table. Files that the manifest does not
// name are Badger's to remove, and an unreadable manifest is its to tell or mend.
func probeTables(dir string) error {
	f, err := os.Open(filepath.Join(dir, badgerdb.ManifestFilename))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	o := badgerdb.DefaultOptions(dir)
	manifest, _, err := badgerdb.ReplayManifestFile(f, o.ExternalMagicVersion, o)
	if err != nil {
		return nil //nolint:nilerr // Badger reads it next, and tells or mends it
	}
	var damaged []error
	for _, id := range slices.Sorted(maps.Keys(manifest.Tables)) {
		if err := probeTable(table.NewFilename(id, dir)); err != nil {
			damaged = append(damaged, fmt.Errorf("table %s: %w", table.IDToFilename(id), err))
		}
	}
	if len(damaged) == 0 {
		return nil
	}
	return fmt.Errorf("%w, restore a backup: %w", errDamaged, errors.Join(damaged...))
}

// probeTable opens a table and closes it.
func probeTable(path string) (err error) {
	m, err := z.OpenMmapFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil //nolint:nilerr // a file that is not there is Badger's to tell
	}
	defer func() {
		if r := recover(); r != nil {
			line := strings.Join(strings.Fields(fmt.Sprint(r)), " ")
			err = fmt.Errorf("opening it panics: %.100s", line)
		}
		_ = m.Close(-1)
	}()
	_, err = table.OpenTable(m, table.Options{ReadOnly: true}) // tables are not compressed
	return err
}

// badgerPanic begins the text of a panic of Badger's on a damaged block.
const badgerPanic = "==== Recovered===="

// damageOf turns Badger's panic on a damaged block into an error. Deferred by what
// reads through Badger; every other panic goes on.
func damageOf(err *error) {
	r := recover()
	if r == nil {
		return
	}
	text, _ := r.(string)
	about, ok := strings.CutPrefix(text, badgerPanic)
	if !ok {
		panic(r)
	}
	*err = fmt.Errorf("read tables: %.60s: %w", strings.Join(strings.Fields(about), " "), errDamaged)
}
