package badger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	badgerdb "github.com/dgraph-io/badger/v4"

	"github.com/luminate/luminate/storage"
)

// restoringFile marks a directory whose restore is not complete; Open refuses it.
const restoringFile = "RESTORING"

// Restore fills dir, which must be absent or empty, from an archive that Backup
// wrote, and checks every count and sum in it. After an error the directory must not
// be used: Open refuses it, and Restore may be called again once it was removed.
func Restore(ctx context.Context, r io.Reader, dir string, log *slog.Logger) (storage.BackupReport, error) {
	rep, err := restore(ctx, r, dir, log)
	if err != nil {
		err = fmt.Errorf("restore into %s: %w", dir, err)
		if errors.Is(err, errDamaged) {
			return rep, storage.Errorf(storage.KindInvalid, "restore", "%w", err)
		}
		return rep, internal("restore", err)
	}
	return rep, nil
}

func restore(ctx context.Context, r io.Reader, dir string, log *slog.Logger) (rep storage.BackupReport, err error) {
	if err := prepareDir(dir); err != nil {
		return rep, err
	}
	a := &archiveReader{r: r, sum: sha256.New()}
	if err := a.begin(); err != nil {
		return rep, err
	}
	kv, err := openKV(filepath.Join(dir, kvDir), log)
	if err != nil {
		return rep, err
	}
	w := &restorer{dir: dir, kv: kv, batch: kv.NewWriteBatch()}
	err = w.run(ctx, a)
	w.batch.Cancel()
	if err = errors.Join(err, w.closeFile(), kv.Close()); err != nil {
		return rep, err
	}
	for _, d := range []string{walDir, snapshotDir, "."} {
		if err := syncDir(filepath.Join(dir, d)); err != nil {
			return rep, err
		}
	}
	if err := os.Remove(filepath.Join(dir, restoringFile)); err != nil {
		return rep, err
	}
	rep = storage.BackupReport{Bytes: a.bytes, Entries: w.entries, SHA256: hex.EncodeToString(a.sum.Sum(nil))}
	return rep, syncDir(dir)
}

func prepareDir(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(list) > 0 {
		return storage.Errorf(storage.KindInvalid, "restore", "%s is not empty", dir)
	}
	for _, d := range []string{walDir, snapshotDir} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, restoringFile), nil, 0o600)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// restorer writes what the frames hold.
type restorer struct {
	dir     string
	kv      *badgerdb.DB
	batch   *badgerdb.WriteBatch
	file    *os.File
	entries uint64
	files   uint64
}

func (w *restorer) run(ctx context.Context, a *archiveReader) error {
	for {
		if err := storage.ContextError(ctx, "restore"); err != nil {
			return err
		}
		typ, payload, before, err := a.next()
		if err != nil {
			return err
		}
		switch typ {
		case frameEntries:
			err = w.addEntries(payload)
		case frameFile:
			err = w.beginFile(string(payload))
		case frameFileData:
			if w.file == nil {
				return fmt.Errorf("bytes of no file: %w", errDamaged)
			}
			_, err = w.file.Write(payload)
		case frameEnd:
			if err := w.checkEnd(a, payload, before); err != nil {
				return err
			}
			return w.batch.Flush()
		default:
			err = fmt.Errorf("frame of type %d: %w", typ, errDamaged)
		}
		if err != nil {
			return err
		}
	}
}

func (w *restorer) addEntries(payload []byte) error {
	return eachEntry(payload, func(key, value []byte) error {
		w.entries++
		return w.batch.Set(key, value)
	})
}

// eachEntry calls f with every pair of a frame that is sound in itself; f may keep
// what it gets.
func eachEntry(payload []byte, f func(key, value []byte) error) error {
	r := recordReader{b: payload}
	for len(r.b) > 0 {
		key, value := bytes.Clone(r.bytes()), bytes.Clone(r.bytes())
		if r.bad || len(key) == 0 {
			return fmt.Errorf("entries: %w", errDamaged)
		}
		if err := verifyEntry(key, value); err != nil {
			return err
		}
		if err := f(key, value); err != nil {
			return err
		}
	}
	return nil
}

// beginFile opens the next file. Names are of the two folders only, so that an
// archive cannot write elsewhere.
func (w *restorer) beginFile(name string) error {
	if err := w.closeFile(); err != nil {
		return err
	}
	dir, base, ok := strings.Cut(name, "/")
	if !ok || dir != walDir && dir != snapshotDir || base != filepath.Base(base) || strings.HasPrefix(base, ".") {
		return fmt.Errorf("file name %q: %w", name, errDamaged)
	}
	f, err := os.OpenFile(filepath.Join(w.dir, dir, base), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	w.file = f
	w.files++
	return nil
}

func (w *restorer) closeFile() error {
	if w.file == nil {
		return nil
	}
	err := errors.Join(w.file.Sync(), w.file.Close())
	w.file = nil
	return err
}

func (w *restorer) checkEnd(a *archiveReader, payload, before []byte) error {
	if len(payload) != 16+sha256.Size {
		return fmt.Errorf("last frame: %w", errDamaged)
	}
	entries, files := binary.LittleEndian.Uint64(payload), binary.LittleEndian.Uint64(payload[8:])
	if entries != w.entries || files != w.files {
		return fmt.Errorf("the archive has %d entries and %d files, its end says %d and %d: %w", w.entries, w.files, entries, files, errDamaged)
	}
	if !bytes.Equal(payload[16:], before) {
		return fmt.Errorf("sum of the archive: %w", errDamaged)
	}
	var one [1]byte
	if n, err := a.r.Read(one[:]); n > 0 || err != nil && err != io.EOF {
		return fmt.Errorf("bytes after the end of the archive: %w", errors.Join(err, errDamaged))
	}
	return nil
}
