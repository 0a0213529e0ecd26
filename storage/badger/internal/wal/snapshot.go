package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

const (
	snapshotSuffix  = ".snap"
	snapshotMagic   = "LUMISNP\n"
	snapshotVersion = 1

	snapshotHeaderBytes = 24
	sectionHeaderBytes  = 9
	snapshotFooterBytes = 8

	// footerType is the type of the frame that ends a snapshot.
	footerType = 0

	// MaxSectionBytes bounds one section's payload.
	MaxSectionBytes = 64 << 20
)

// SnapshotWriter writes one snapshot. It is not safe for concurrent use, and
// must end in Commit or Abort.
type SnapshotWriter struct {
	fs       fileSystem
	dir      string
	lsn      uint64
	tmp      string
	f        file
	buf      []byte
	crc      uint32 // of all bytes so far
	sections uint32
	size     int64
	err      error // sticky
}

// CreateSnapshot begins a snapshot of the state after lsn in dir, which must
// exist. Until Commit it has a temporary name and readers do not see it.
func CreateSnapshot(dir string, lsn uint64) (*SnapshotWriter, error) {
	return createSnapshot(osFS{}, dir, lsn)
}

func createSnapshot(fs fileSystem, dir string, lsn uint64) (*SnapshotWriter, error) {
	tmp := filepath.Join(dir, lsnName(lsn, snapshotSuffix)+tmpSuffix)
	f, err := fs.Create(tmp)
	if err != nil {
		return nil, fmt.Errorf("create snapshot: %w", noSpace(err))
	}
	w := &SnapshotWriter{fs: fs, dir: dir, lsn: lsn, tmp: tmp, f: f, buf: make([]byte, 0, windowBytes)}
	head := append(w.buf, snapshotMagic...)
	head = binary.LittleEndian.AppendUint32(head, snapshotVersion)
	head = binary.LittleEndian.AppendUint64(head, lsn)
	head = binary.LittleEndian.AppendUint32(head, crc32.Checksum(head, castagnoli))
	w.crc = crc32.Checksum(head, castagnoli)
	w.buf, w.size = head, int64(len(head))
	return w, nil
}

// noSpace marks a full disk, so that callers need not know errno; nil stays nil.
func noSpace(err error) error {
	if isNoSpace(err) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

// Section appends a section. typ is the caller's, 1 to 255; payload is copied or
// written before it returns. After an error only Abort is of use.
func (w *SnapshotWriter) Section(typ uint8, payload []byte) error {
	if w.err != nil {
		return fmt.Errorf("write snapshot section: %w", w.err)
	}
	if typ == footerType {
		return errors.New("write snapshot section: type 0 is reserved")
	}
	if len(payload) > MaxSectionBytes {
		return fmt.Errorf("write snapshot section of %d bytes, limit %d: %w", len(payload), MaxSectionBytes, ErrTooLarge)
	}
	w.sections++
	w.frame(typ, payload)
	if w.err != nil {
		return fmt.Errorf("write snapshot section: %w", w.err)
	}
	return nil
}

// frame writes crc4 | length4 | type1 | payload; the checksum covers all that
// follows it.
func (w *SnapshotWriter) frame(typ uint8, payload []byte) {
	var head [sectionHeaderBytes]byte
	binary.LittleEndian.PutUint32(head[4:], uint32(len(payload)))
	head[8] = typ
	crc := crc32.Update(crc32.Checksum(head[4:], castagnoli), castagnoli, payload)
	binary.LittleEndian.PutUint32(head[:], crc)
	w.put(head[:])
	w.put(payload)
}

func (w *SnapshotWriter) put(b []byte) {
	w.crc = crc32.Update(w.crc, castagnoli, b)
	w.size += int64(len(b))
	if len(w.buf)+len(b) > cap(w.buf) {
		w.flush()
	}
	if len(b) > cap(w.buf) {
		w.write(b)
		return
	}
	w.buf = append(w.buf, b...)
}

func (w *SnapshotWriter) flush() {
	w.write(w.buf)
	w.buf = w.buf[:0]
}

func (w *SnapshotWriter) write(b []byte) {
	if w.err != nil || len(b) == 0 {
		return
	}
	n, err := w.f.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.err = noSpace(err)
	}
}

// Size is the number of bytes written so far.
func (w *SnapshotWriter) Size() int64 { return w.size }

// Commit completes the snapshot: when it returns nil, the snapshot is on stable
// storage under its name and older ones are gone. Before that they are not
// touched. After an error nothing may be truncated on the strength of this
// snapshot; if only syncing the directory or removing older ones failed, it is
// there all the same.
func (w *SnapshotWriter) Commit() error {
	if w.err == nil {
		var foot [snapshotFooterBytes]byte
		binary.LittleEndian.PutUint32(foot[:], w.sections)
		binary.LittleEndian.PutUint32(foot[4:], w.crc)
		w.frame(footerType, foot[:])
		w.flush()
	}
	if w.err == nil {
		w.err = noSpace(w.f.Sync())
	}
	if w.err != nil {
		return fmt.Errorf("commit snapshot: %w", errors.Join(w.err, w.discard()))
	}
	path := filepath.Join(w.dir, lsnName(w.lsn, snapshotSuffix))
	err := w.f.Close()
	w.f = nil
	if err == nil {
		err = w.fs.Rename(w.tmp, path)
	}
	if err != nil {
		w.err = err
		return fmt.Errorf("commit snapshot: %w", errors.Join(err, w.discard()))
	}
	w.err = ErrClosed
	if err := w.fs.SyncDir(w.dir); err != nil {
		return fmt.Errorf("commit snapshot: sync directory: %w", err)
	}
	if err := w.removeOlder(); err != nil {
		return fmt.Errorf("commit snapshot: remove older: %w", err)
	}
	return nil
}

func (w *SnapshotWriter) removeOlder() error {
	files, err := list(w.dir, snapshotSuffix)
	if err != nil {
		return err
	}
	for _, f := range files.files {
		if f.FirstLSN < w.lsn {
			err = errors.Join(err, w.fs.Remove(f.Path))
		}
	}
	return err
}

// Abort removes what was written. After Commit or Abort it does nothing.
func (w *SnapshotWriter) Abort() error {
	if errors.Is(w.err, ErrClosed) {
		return nil
	}
	return w.discard()
}

func (w *SnapshotWriter) discard() error {
	var err error
	if w.f != nil {
		err = w.f.Close()
		w.f = nil
	}
	if rm := w.fs.Remove(w.tmp); rm != nil && !errors.Is(rm, os.ErrNotExist) {
		err = errors.Join(err, rm)
	}
	w.err = ErrClosed
	if err != nil {
		return fmt.Errorf("abort snapshot: %w", err)
	}
	return nil
}
