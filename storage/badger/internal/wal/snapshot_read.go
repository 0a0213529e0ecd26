package wal

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

// SnapshotProblem is a snapshot that could not be used.
type SnapshotProblem struct {
	Path string // where the damaged file is kept now
	LSN  uint64
	Err  error
}

// SnapshotReader reads a verified snapshot section by section.
type SnapshotReader struct {
	lsn      uint64
	size     int64
	f        *os.File
	r        *bufio.Reader
	crc      uint32
	sections uint32
	read     int64
	payload  []byte
}

// OpenNewestSnapshot returns the newest snapshot in dir that is sound in every
// byte, or nil when there is none. Damaged ones are renamed aside and reported;
// left-over temporary files are removed. A snapshot of another format version is
// refused with a *VersionError, and a failing read is an error, not damage.
func OpenNewestSnapshot(dir string) (*SnapshotReader, []SnapshotProblem, error) {
	return openNewestSnapshot(osFS{}, dir)
}

func openNewestSnapshot(fs fileSystem, dir string) (*SnapshotReader, []SnapshotProblem, error) {
	files, err := list(dir, snapshotSuffix)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open snapshot: %w", err)
	}
	for _, tmp := range files.tmp {
		if err := fs.Remove(tmp); err != nil {
			return nil, nil, fmt.Errorf("open snapshot: %w", err)
		}
	}
	var problems []SnapshotProblem
	for i := len(files.files) - 1; i >= 0; i-- {
		s := files.files[i]
		r, err := openSnapshot(s)
		if err == nil {
			return r, problems, nil
		}
		if !errors.Is(err, ErrCorrupt) {
			return nil, problems, fmt.Errorf("open snapshot %s: %w", s.Path, err)
		}
		aside, nameErr := asideName(s.Path)
		if nameErr == nil {
			nameErr = errors.Join(fs.Rename(s.Path, aside), fs.SyncDir(dir))
		}
		if nameErr != nil {
			return nil, problems, fmt.Errorf("open snapshot: %w", nameErr)
		}
		problems = append(problems, SnapshotProblem{Path: aside, LSN: s.FirstLSN, Err: err})
	}
	return nil, problems, nil
}

// openSnapshot verifies the whole file, then opens it for use.
func openSnapshot(s SegmentInfo) (*SnapshotReader, error) {
	f, err := os.Open(s.Path)
	if err != nil {
		return nil, err
	}
	r := &SnapshotReader{f: f, size: s.Bytes}
	if err := r.verify(s); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return r, nil
}

func (r *SnapshotReader) verify(s SegmentInfo) error {
	if err := r.begin(filepath.Base(s.Path)); err != nil {
		return err
	}
	if r.lsn != s.FirstLSN {
		return corruptf("header says LSN %d, name says %d", r.lsn, s.FirstLSN)
	}
	for {
		if _, _, err := r.Next(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
	}
	return r.begin(filepath.Base(s.Path))
}

// begin reads the header, from the file's start.
func (r *SnapshotReader) begin(name string) error {
	if _, err := r.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if r.r == nil {
		r.r = bufio.NewReaderSize(r.f, int(min(r.size, windowBytes)))
	} else {
		r.r.Reset(r.f)
	}
	r.sections, r.read, r.crc = 0, 0, 0
	var head [snapshotHeaderBytes]byte
	if err := r.fill(head[:]); err != nil {
		return err
	}
	sum := binary.LittleEndian.Uint32(head[20:])
	if !bytes.HasPrefix(head[:], []byte(snapshotMagic)) || sum != crc32.Checksum(head[:20], castagnoli) {
		return corruptf("snapshot header")
	}
	if v := binary.LittleEndian.Uint32(head[8:]); v != snapshotVersion {
		return &VersionError{File: name, Found: v, Supported: snapshotVersion}
	}
	r.lsn = binary.LittleEndian.Uint64(head[12:])
	return nil
}

// fill reads exactly len(b) bytes and adds them to the total checksum.
func (r *SnapshotReader) fill(b []byte) error {
	n, err := io.ReadFull(r.r, b)
	r.read += int64(n)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return corruptf("snapshot ends at %d", r.read)
	}
	if err != nil {
		return err
	}
	r.crc = crc32.Update(r.crc, castagnoli, b)
	return nil
}

// LSN is the LSN that the snapshot was created with.
func (r *SnapshotReader) LSN() uint64 { return r.lsn }

// Size is the file's size in bytes.
func (r *SnapshotReader) Size() int64 { return r.size }

// Next returns the next section, or io.EOF after the last. The payload is valid
// until the next call. Checksums are verified once more while reading.
func (r *SnapshotReader) Next() (typ uint8, payload []byte, err error) {
	before := r.crc
	var head [sectionHeaderBytes]byte
	if err := r.fill(head[:]); err != nil {
		return 0, nil, fmt.Errorf("read snapshot: %w", err)
	}
	n := int64(binary.LittleEndian.Uint32(head[4:]))
	if n > MaxSectionBytes || n > r.size-r.read {
		return 0, nil, fmt.Errorf("read snapshot: %w", corruptf("section of %d bytes at %d", n, r.read))
	}
	if int64(cap(r.payload)) < n {
		r.payload = make([]byte, n)
	}
	payload = r.payload[:n]
	if err := r.fill(payload); err != nil {
		return 0, nil, fmt.Errorf("read snapshot: %w", err)
	}
	sum := crc32.Update(crc32.Checksum(head[4:], castagnoli), castagnoli, payload)
	if sum != binary.LittleEndian.Uint32(head[:]) {
		return 0, nil, fmt.Errorf("read snapshot: %w", corruptf("section checksum before %d", r.read))
	}
	if head[8] != footerType {
		r.sections++
		return head[8], payload, nil
	}
	if err := r.checkFooter(payload, before); err != nil {
		return 0, nil, fmt.Errorf("read snapshot: %w", err)
	}
	return 0, nil, io.EOF
}

func (r *SnapshotReader) checkFooter(p []byte, crc uint32) error {
	if len(p) != snapshotFooterBytes {
		return corruptf("footer of %d bytes", len(p))
	}
	if n := binary.LittleEndian.Uint32(p); n != r.sections {
		return corruptf("%d sections, footer says %d", r.sections, n)
	}
	if binary.LittleEndian.Uint32(p[4:]) != crc {
		return corruptf("total checksum")
	}
	if r.read != r.size {
		return corruptf("%d bytes after the footer", r.size-r.read)
	}
	return nil
}

// Close closes the file.
func (r *SnapshotReader) Close() error { return r.f.Close() }
