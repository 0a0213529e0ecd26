package wal

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
)

// headerless handles a segment without a readable header. At the log's end that
// is a segment whose header never reached the disk; elsewhere its records are
// lost, since the salt of their checksums is.
func (r *recovery) headerless(f *os.File, s SegmentInfo, limit uint64, last bool) error {
	if last {
		empty, err := holdsNothing(f, s.Bytes)
		if err != nil {
			return err
		}
		if empty {
			r.torn(s, s.Bytes)
			r.skip = 0 // no record can have been there
			r.dirty = true
			return r.fs.Remove(s.Path)
		}
		r.skip = uint64(s.Bytes)/frameHeaderBytes + 1
	}
	return r.repair(s, segmentHeader{first: s.FirstLSN}, limit, []hole{{
		bytes: s.Bytes, first: s.FirstLSN, last: limit - 1, reason: "header unreadable",
	}})
}

// holdsNothing tells whether a file without a header holds no byte of a record:
// it is not longer than a header, or goes on with zeros, as delayed allocation
// leaves a file that was never synced.
func holdsNothing(f io.ReaderAt, size int64) (bool, error) {
	if size <= headerBytes {
		return true, nil
	}
	buf := make([]byte, 64<<10)
	for off := int64(headerBytes); off < size; {
		part := buf[:min(int64(len(buf)), size-off)]
		if _, err := f.ReadAt(part, off); err != nil {
			return false, fmt.Errorf("read at %d: %w", off, err)
		}
		for _, b := range part {
			if b != 0 {
				return false, nil
			}
		}
		off += int64(len(part))
	}
	return true, nil
}

// cut removes what follows the last sound frame of the last segment. A segment
// left without frames stays: its name remembers the next LSN.
func (r *recovery) cut(s SegmentInfo, res scanResult) error {
	s.LastLSN = res.next - 1
	if s.Bytes > res.end {
		f, err := r.fs.OpenAppend(s.Path)
		if err != nil {
			return err
		}
		err = errors.Join(f.Truncate(res.end), f.Sync())
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("cut torn tail: %w", err)
		}
		s.Bytes = res.end
	}
	r.segments = append(r.segments, s)
	return nil
}

// repair reports the holes, replaces the segment by one that holds its sound
// records and says which are lost, and keeps the damaged file aside. A repair
// that fails leaves the segment as it was: nothing is lost by that, and the next
// start reports it again.
func (r *recovery) repair(s SegmentInfo, h segmentHeader, limit uint64, holes []hole) error {
	name := filepath.Base(s.Path)
	kept, fixed, err := r.replace(s, h, limit)
	if err != nil {
		r.report.RepairErrors = append(r.report.RepairErrors, fmt.Errorf("repair %s: %w", name, err))
		fixed = s
		fixed.LastLSN = max(r.next, s.FirstLSN) - 1
		if limit != math.MaxUint64 {
			fixed.LastLSN = limit - 1
		}
	}
	r.segments = append(r.segments, fixed)
	r.dirty = true
	for _, hl := range holes {
		d := Damage{Segment: name, Offset: hl.off, Bytes: hl.bytes, Reason: hl.reason}
		if kept != "" {
			d.Kept = filepath.Base(kept)
		}
		switch {
		case hl.first > hl.last:
		case hl.last >= math.MaxUint64-1:
			d.LostUnknown = true
			r.skip = max(r.skip, uint64(hl.bytes)/frameHeaderBytes+1)
		default:
			d.FirstLost, d.LastLost = hl.first, hl.last
		}
		r.damage(d)
	}
	r.log.Error("log segment is damaged", "segment", name, "kept", kept, "holes", len(holes), "err", err)
	if limit != math.MaxUint64 {
		r.next = limit
	}
	return nil
}

// replace writes the sound records anew, and swaps the files in an order that
// leaves a readable segment under the name at every moment.
func (r *recovery) replace(s SegmentInfo, h segmentHeader, limit uint64) (kept string, fixed SegmentInfo, err error) {
	tmp := s.Path + tmpSuffix
	fixed, err = r.rewrite(tmp, s, h, limit)
	if err == nil {
		kept, err = keepAside(r.fs, s.Path)
	}
	if err == nil {
		err = r.fs.Rename(tmp, s.Path)
	}
	if err != nil {
		if rmErr := r.fs.Remove(tmp); rmErr != nil && !errors.Is(rmErr, os.ErrNotExist) {
			err = errors.Join(err, rmErr)
		}
		return kept, SegmentInfo{}, err
	}
	fixed.Path = s.Path
	return kept, fixed, nil
}

// rewrite copies the sound records of s to a new segment at path, with a gap
// where records are lost.
func (r *recovery) rewrite(path string, s SegmentInfo, h segmentHeader, limit uint64) (fixed SegmentInfo, err error) {
	src, err := os.Open(s.Path)
	if err != nil {
		return fixed, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	dst, err := r.fs.Create(path)
	if err != nil {
		return fixed, err
	}
	w := segmentCopy{dst: dst, header: newSegmentHeader(s.FirstLSN), next: s.FirstLSN}
	w.buf = w.header.appendTo(nil)
	if h.salt != [8]byte{} {
		_, err = newScanner(src, s.Bytes, h, limit).run(w.add)
	}
	if err == nil && limit != math.MaxUint64 {
		w.gapUntil(limit)
	}
	err = errors.Join(err, w.flush())
	if err == nil {
		err = dst.Sync()
	}
	return SegmentInfo{FirstLSN: s.FirstLSN, LastLSN: w.next - 1, Bytes: w.bytes}, errors.Join(err, dst.Close())
}

// segmentCopy writes frames into a new segment, through a buffer.
type segmentCopy struct {
	dst    file
	header segmentHeader
	buf    []byte
	bytes  int64
	next   uint64
}

func (w *segmentCopy) add(frame []byte, _ int64) error {
	w.gapUntil(frameFirst(frame))
	at := len(w.buf)
	w.buf = append(w.buf, frame...)
	sealFrame(w.buf[at:], frameLSN(frame), w.header.seed())
	w.next = frameLSN(frame) + 1
	if len(w.buf) < windowBytes {
		return nil
	}
	return w.flush()
}

func (w *segmentCopy) gapUntil(lsn uint64) {
	if lsn > w.next {
		w.buf = appendGap(w.buf, w.next, lsn-1, gapLost, w.header.seed())
		w.next = lsn
	}
}

func (w *segmentCopy) flush() error {
	n, err := w.dst.Write(w.buf)
	w.bytes += int64(n)
	if err == nil && n < len(w.buf) {
		err = io.ErrShortWrite
	}
	w.buf = w.buf[:0]
	return err
}

// settle makes recovery's own changes last, and, under SyncAlways, what the
// process before had written without syncing: records that were replayed must not
// vanish below later ones that are synced.
func (r *recovery) settle(mode SyncMode) error {
	if mode == SyncAlways {
		for _, s := range r.segments {
			f, err := r.fs.OpenAppend(s.Path)
			if err != nil {
				return err
			}
			if err := errors.Join(f.Sync(), f.Close()); err != nil {
				return err
			}
		}
		r.dirty = r.dirty || len(r.segments) > 0
	}
	if r.dirty {
		if err := r.fs.SyncDir(r.dir); err != nil {
			return err
		}
	}
	files, err := list(r.dir, segmentSuffix)
	if err != nil {
		return err
	}
	r.report.Kept = files.damaged
	return nil
}
