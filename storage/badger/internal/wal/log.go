package wal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
)

// Log is an open write-ahead log. Append, AdvanceLSN and Close belong to one
// goroutine, the committer; all other methods may be called from anywhere.
type Log struct {
	dir string
	cfg Config
	fs  fileSystem

	// Writer's state. write guards it against a Close or Sync from elsewhere.
	write    sync.Mutex
	active   file // nil until the first Append after Open
	bytes    int64
	seed     uint32
	next     uint64
	skipFrom uint64 // first LSN of a range to be skipped; 0: none
	broken   error
	closed   bool

	mu       sync.Mutex
	segments []SegmentInfo // by FirstLSN; the last one may be active

	size atomic.Int64
	last atomic.Uint64
}

// Append writes the batch as one group, in one write, and returns the LSN of its
// first record; the others follow by one. Under SyncAlways the group is on
// stable storage when it returns.
//
// Errors: ErrTooLarge and ErrNoSpace leave the log as it was, and the same batch
// may be appended again. After any ErrBroken the group may or may not be seen by
// the next recovery, and the log refuses everything. An empty batch writes
// nothing and returns the next LSN.
func (l *Log) Append(b *Batch) (first uint64, err error) {
	l.write.Lock()
	defer l.write.Unlock()
	if err := l.usable(); err != nil {
		return 0, fmt.Errorf("append to log: %w", err)
	}
	if b.Len() == 0 {
		return l.next, nil
	}
	if err := b.check(l.cfg.MaxRecordBytes); err != nil {
		return 0, fmt.Errorf("append to log: %w", err)
	}
	if l.active == nil || l.bytes >= l.cfg.SegmentBytes || l.skipFrom != 0 {
		if err := l.rotate(); err != nil {
			return 0, fmt.Errorf("begin log segment: %w", err)
		}
	}
	b.seal(l.next, l.seed)
	n, err := l.active.Write(b.buf)
	if err == nil && n < len(b.buf) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return 0, fmt.Errorf("append to log: %w", l.undo(err))
	}
	if l.cfg.Sync == SyncAlways {
		if err := l.active.Sync(); err != nil {
			return 0, fmt.Errorf("sync log: %w", l.breakLog(err))
		}
	}
	first = l.next
	l.advance(uint64(b.Len()), int64(len(b.buf)))
	return first, nil
}

// advance accounts for a written group.
func (l *Log) advance(records uint64, bytes int64) {
	l.next += records
	l.bytes += bytes
	l.size.Add(bytes)
	l.last.Store(l.next - 1)
	l.mu.Lock()
	s := &l.segments[len(l.segments)-1]
	s.LastLSN, s.Bytes = l.next-1, l.bytes
	l.mu.Unlock()
}

func (l *Log) usable() error {
	if l.closed {
		return ErrClosed
	}
	return l.broken
}

// breakLog makes the log refuse everything from now on.
func (l *Log) breakLog(cause error) error {
	l.broken = fmt.Errorf("%w: %w", ErrBroken, cause)
	return l.broken
}

// undo answers a failed write of a group. A full disk is not the end: when the
// part that was written can be cut off, the log is as it was before.
func (l *Log) undo(cause error) error {
	if !isNoSpace(cause) {
		return l.breakLog(cause)
	}
	if err := l.active.Truncate(l.bytes); err != nil {
		return l.breakLog(errors.Join(cause, err))
	}
	return fmt.Errorf("%w: %w", ErrNoSpace, cause)
}

// rotate begins a segment whose first LSN is the next one. The old segment needs
// no sync: under SyncAlways each of its groups was synced.
func (l *Log) rotate() error {
	first := l.next
	if l.skipFrom != 0 {
		first = l.skipFrom
	}
	h := newSegmentHeader(first)
	start := h.appendTo(make([]byte, 0, 2*headerBytes))
	if l.skipFrom != 0 {
		start = appendGap(start, first, l.next-1, gapSkipped, h.seed())
	}
	path := filepath.Join(l.dir, lsnName(first, segmentSuffix))
	f, err := l.create(path, start)
	if err != nil {
		return err
	}
	if l.active != nil {
		if err := l.active.Close(); err != nil {
			return l.breakLog(errors.Join(err, f.Close()))
		}
	}
	l.active, l.bytes, l.seed, l.skipFrom = f, int64(len(start)), h.seed(), 0
	info := SegmentInfo{Path: path, FirstLSN: first, LastLSN: l.next - 1, Bytes: l.bytes}
	l.mu.Lock()
	defer l.mu.Unlock()
	// An empty segment that recovery found under the same name was replaced.
	if i := len(l.segments) - 1; i >= 0 && l.segments[i].FirstLSN == first {
		l.size.Add(-l.segments[i].Bytes)
		l.segments = l.segments[:i]
	}
	l.segments = append(l.segments, info)
	l.size.Add(info.Bytes)
	return nil
}

// Rotate begins a new, empty segment, so that TruncateBefore can remove every
// record there is. It belongs to the same goroutine as Append.
func (l *Log) Rotate() error {
	l.write.Lock()
	defer l.write.Unlock()
	if err := l.usable(); err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}
	if l.active == nil && l.skipFrom == 0 && l.next == 1 {
		return nil // nothing was ever written
	}
	if err := l.syncLocked(); err != nil {
		return err
	}
	if err := l.rotate(); err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}
	return l.syncLocked()
}

// create makes a segment file that begins with start. When it fails without
// breaking the log, no file is left behind.
func (l *Log) create(path string, start []byte) (file, error) {
	f, err := l.fs.Create(path)
	if err != nil {
		if isNoSpace(err) {
			return nil, fmt.Errorf("%w: %w", ErrNoSpace, err)
		}
		return nil, err
	}
	n, err := f.Write(start)
	if err == nil && n < len(start) {
		err = io.ErrShortWrite
	}
	if err != nil {
		closeErr := errors.Join(f.Close(), l.fs.Remove(path))
		if !isNoSpace(err) || closeErr != nil {
			return nil, l.breakLog(errors.Join(err, closeErr))
		}
		return nil, fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	if l.cfg.Sync == SyncAlways {
		// The records' own fsync does not cover the file's name.
		if err := l.fs.SyncDir(l.dir); err != nil {
			return nil, l.breakLog(errors.Join(err, f.Close()))
		}
	}
	return f, nil
}

// AdvanceLSN makes sure that the next record's LSN is above lsn. The engine calls
// it after Open with the highest LSN that it finds in blocks and snapshots: a log
// that lost its tail must not give out an LSN that a watermark already covers.
func (l *Log) AdvanceLSN(lsn uint64) {
	l.write.Lock()
	defer l.write.Unlock()
	if lsn < l.next {
		return
	}
	if l.skipFrom == 0 {
		l.skipFrom = l.next
	}
	l.next = lsn + 1
	l.last.Store(lsn)
}

// Sync puts everything appended so far on stable storage, in either mode. A
// failure breaks the log.
func (l *Log) Sync() error {
	l.write.Lock()
	defer l.write.Unlock()
	if err := l.usable(); err != nil {
		return fmt.Errorf("sync log: %w", err)
	}
	return l.syncLocked()
}

func (l *Log) syncLocked() error {
	if l.active == nil {
		return nil
	}
	if err := errors.Join(l.active.Sync(), l.fs.SyncDir(l.dir)); err != nil {
		return fmt.Errorf("sync log: %w", l.breakLog(err))
	}
	return nil
}

// TruncateBefore removes the segments whose records are all below lsn. The
// newest segment always stays: it remembers which LSNs were given out.
func (l *Log) TruncateBefore(lsn uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	removed := 0
	var err error
	for removed+1 < len(l.segments) && l.segments[removed+1].FirstLSN <= lsn {
		err = l.fs.Remove(l.segments[removed].Path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			break
		}
		l.size.Add(-l.segments[removed].Bytes)
		removed++
		err = nil
	}
	if removed > 0 {
		l.segments = slices.Delete(l.segments, 0, removed)
		err = errors.Join(err, l.fs.SyncDir(l.dir))
	}
	if err != nil {
		return fmt.Errorf("truncate log before %d: %w", lsn, err)
	}
	return nil
}

// Size is the number of bytes of all segments.
func (l *Log) Size() int64 { return l.size.Load() }

// LastLSN is the LSN before the next record's: that of the last record
// acknowledged or recovered, or what AdvanceLSN raised it to; 0 before the first.
func (l *Log) LastLSN() uint64 { return l.last.Load() }

// Segments lists the segments, oldest first. The caller owns the slice.
func (l *Log) Segments() []SegmentInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.segments)
}

// Close syncs and closes the log. Of a broken log it returns ErrBroken. Closing
// again does nothing.
func (l *Log) Close() error {
	l.write.Lock()
	defer l.write.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	err := l.broken
	if err == nil {
		err = l.syncLocked()
	}
	if l.active != nil {
		err = errors.Join(err, l.active.Close())
		l.active = nil
	}
	if err != nil {
		return fmt.Errorf("close log: %w", err)
	}
	return nil
}
