package badger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	badgerdb "github.com/dgraph-io/badger/v4"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger/internal/block"
)

// An archive is a magic, a version and frames: type1 | length4 | crc4 | payload,
// little-endian, the checksum over type, length and payload. The last frame counts
// what came before and holds its SHA-256.
const (
	archiveMagic   = "LUMIBAK\n"
	archiveVersion = 1

	frameEntries  = 1 // Badger's entries: uvarint key length, key, uvarint value length, value
	frameFile     = 2 // name of a file of the log or a snapshot, relative to the directory
	frameFileData = 3 // its next bytes
	frameEnd      = 4 // entries8 | files8 | sha256 of all bytes before the frame

	archiveChunk  = 1 << 20
	maxFrameBytes = 8 << 20
)

// archiveWriter writes frames and keeps count.
type archiveWriter struct {
	w       io.Writer
	sum     hash.Hash
	bytes   uint64
	entries uint64
	files   uint64
	buf     []byte
}

func (a *archiveWriter) write(b []byte) error {
	n, err := a.w.Write(b)
	a.bytes += uint64(n)
	a.sum.Write(b[:n])
	if err != nil {
		return storage.Errorf(storage.KindUnavailable, "backup", "write: %w", err)
	}
	return nil
}

func (a *archiveWriter) frame(typ byte, payload []byte) error {
	head := make([]byte, 9)
	head[0] = typ
	binary.LittleEndian.PutUint32(head[1:], uint32(len(payload)))
	crc := crc32.Update(crc32.Checksum(head[:5], castagnoli), castagnoli, payload)
	binary.LittleEndian.PutUint32(head[5:], crc)
	if err := a.write(head); err != nil {
		return err
	}
	return a.write(payload)
}

func (a *archiveWriter) entry(key, value []byte) error {
	a.entries++
	a.buf = appendBytes(a.buf, key)
	a.buf = appendBytes(a.buf, value)
	if len(a.buf) < archiveChunk {
		return nil
	}
	return a.flush()
}

func (a *archiveWriter) flush() error {
	if len(a.buf) == 0 {
		return nil
	}
	err := a.frame(frameEntries, a.buf)
	a.buf = a.buf[:0]
	return err
}

func (a *archiveWriter) end() error {
	b := binary.LittleEndian.AppendUint64(nil, a.entries)
	b = binary.LittleEndian.AppendUint64(b, a.files)
	return a.frame(frameEnd, a.sum.Sum(b))
}

// Backup implements storage.Store. It saves the head, then writes Badger's entries
// as of one moment, the snapshot, and the log behind it; Restore and Open put them
// together as a recovery does. Every value's checksum is verified on the way: an
// archive of damaged data is an error, never a short archive.
func (db *DB) Backup(ctx context.Context, w io.Writer) (storage.BackupReport, error) {
	if err := db.alive(ctx, "backup"); err != nil {
		return storage.BackupReport{}, err
	}
	defer db.leave()
	db.snapMu.Lock() // nothing cuts the log meanwhile
	defer db.snapMu.Unlock()
	a := &archiveWriter{w: w, sum: sha256.New()}
	if err := db.writeArchive(ctx, a); err != nil {
		return storage.BackupReport{}, internal("backup", err)
	}
	return storage.BackupReport{Bytes: a.bytes, Entries: a.entries, SHA256: hex.EncodeToString(a.sum.Sum(nil))}, nil
}

func (db *DB) writeArchive(ctx context.Context, a *archiveWriter) error {
	if err := db.snapshotLocked(true); err != nil {
		return err
	}
	if err := db.verifyTables(); err != nil {
		return err
	}
	head := binary.LittleEndian.AppendUint32([]byte(archiveMagic), archiveVersion)
	if err := a.write(head); err != nil {
		return err
	}
	if err := db.archiveEntries(ctx, a); err != nil {
		return err
	}
	// Every delete that the entries show is in the log by now: it is copied last.
	for _, dir := range []string{snapshotDir, walDir} {
		if err := db.archiveFiles(ctx, a, dir); err != nil {
			return err
		}
	}
	return a.end()
}

func (db *DB) archiveEntries(ctx context.Context, a *archiveWriter) error {
	txn := db.view()
	defer txn.Discard()
	o := badgerdb.DefaultIteratorOptions
	o.PrefetchValues = false
	it := txn.NewIterator(o)
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		if a.entries%1024 == 0 {
			if err := storage.ContextError(ctx, "backup"); err != nil {
				return err
			}
		}
		key := it.Item().Key()
		err := it.Item().Value(func(value []byte) error {
			if err := verifyEntry(key, value); err != nil {
				return err
			}
			return a.entry(key, value)
		})
		if err != nil {
			return err
		}
	}
	return a.flush()
}

// verifyEntry checks a value by the checksum of its kind.
func verifyEntry(key, value []byte) (err error) {
	row := byte(0)
	if len(key) > 9 && key[0] == keyPartitionRow {
		row = key[9]
	}
	switch row {
	case rowFloats:
		_, err = block.OpenFloats(value)
	case rowHists:
		_, err = block.OpenHistograms(value)
	case rowIndex: // checked by the index when it is opened
	default:
		_, err = openValue(key, value)
	}
	if err != nil {
		return fmt.Errorf("entry %x: %w", key, err)
	}
	return nil
}

// archiveFiles copies the files of one folder as they are. The newest segment may
// grow meanwhile: what is cut off of its last record was not there when the backup
// began, and recovery cuts it off again.
func (db *DB) archiveFiles(ctx context.Context, a *archiveWriter, dir string) error {
	list, err := os.ReadDir(filepath.Join(db.cfg.Dir, dir))
	if err != nil {
		return err
	}
	for _, e := range list {
		ext := filepath.Ext(e.Name())
		if !e.Type().IsRegular() || ext != ".snap" && ext != ".wal" {
			continue
		}
		if err := storage.ContextError(ctx, "backup"); err != nil {
			return err
		}
		if err := a.file(filepath.Join(db.cfg.Dir, dir, e.Name()), dir+"/"+e.Name()); err != nil {
			return fmt.Errorf("copy %s: %w", e.Name(), err)
		}
	}
	return nil
}

func (a *archiveWriter) file(path, name string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := a.frame(frameFile, []byte(name)); err != nil {
		return err
	}
	a.files++
	buf := make([]byte, archiveChunk)
	for {
		n, err := io.ReadFull(f, buf)
		if n > 0 {
			if err := a.frame(frameFileData, buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// archiveReader reads and checks frames.
type archiveReader struct {
	r     io.Reader
	sum   hash.Hash
	bytes uint64
	buf   []byte
}

func (a *archiveReader) begin() error {
	head := make([]byte, len(archiveMagic)+4)
	if err := a.fill(head); err != nil {
		return err
	}
	if !bytes.HasPrefix(head, []byte(archiveMagic)) {
		return storage.Errorf(storage.KindInvalid, "restore", "this is not an archive of Luminate")
	}
	if v := binary.LittleEndian.Uint32(head[len(archiveMagic):]); v != archiveVersion {
		return &FormatError{Dir: "the archive", Found: v, Supported: archiveVersion}
	}
	return nil
}

func (a *archiveReader) fill(b []byte) error {
	n, err := io.ReadFull(a.r, b)
	a.bytes += uint64(n)
	a.sum.Write(b[:n])
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("the archive ends at byte %d: %w", a.bytes, errDamaged)
	}
	return err
}

// next returns the next frame; the payload is valid until the next call. before is
// the sum of all bytes before the frame.
func (a *archiveReader) next() (typ byte, payload, before []byte, err error) {
	before = a.sum.Sum(nil)
	var head [9]byte
	if err := a.fill(head[:]); err != nil {
		return 0, nil, nil, err
	}
	n := binary.LittleEndian.Uint32(head[1:])
	if n > maxFrameBytes {
		return 0, nil, nil, fmt.Errorf("frame of %d bytes before byte %d: %w", n, a.bytes, errDamaged)
	}
	if cap(a.buf) < int(n) {
		a.buf = make([]byte, n)
	}
	payload = a.buf[:n]
	if err := a.fill(payload); err != nil {
		return 0, nil, nil, err
	}
	crc := crc32.Update(crc32.Checksum(head[:5], castagnoli), castagnoli, payload)
	if crc != binary.LittleEndian.Uint32(head[5:]) {
		return 0, nil, nil, fmt.Errorf("checksum before byte %d: %w", a.bytes, errDamaged)
	}
	return head[0], payload, before, nil
}
