package wal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

const (
	windowBytes = 1 << 20
	// minResyncBudget and resyncFactor bound the bytes checksummed in vain while
	// looking for the next sound record: max(minimum, factor × file size).
	minResyncBudget = 64 << 20
	resyncFactor    = 4
)

// hole is a stretch of a segment that gave no record. first to last are the LSNs
// that are missing; first > last when none is.
type hole struct {
	off, bytes  int64
	first, last uint64
	reason      string
}

// scanner reads one segment's frames in order and steps over damage.
type scanner struct {
	r      io.ReaderAt
	size   int64
	seed   uint32
	next   uint64 // LSN expected
	limit  uint64 // no LSN of this segment reaches it
	budget int64  // left for resync

	window []byte
	start  int64 // offset of window[0]
}

// scanResult is what a whole scan found.
type scanResult struct {
	holes  []hole
	end    int64  // offset after the last sound frame
	next   uint64 // LSN after it
	frames uint64
	gaveUp bool // the resync budget ran out
}

func newScanner(r io.ReaderAt, size int64, h segmentHeader, limit uint64) *scanner {
	return &scanner{
		r: r, size: size, seed: h.seed(), next: h.first, limit: limit,
		budget: max(minResyncBudget, resyncFactor*size),
	}
}

// run calls emit with every sound frame, in LSN order. Frames are valid during
// the call. Bytes after result.end are no sound frame.
func (s *scanner) run(emit func(frame []byte, off int64) error) (scanResult, error) {
	res := scanResult{end: headerBytes, next: s.next}
	pos := int64(headerBytes)
	for pos < s.size {
		frame, err := s.frame(pos)
		if err != nil {
			return res, err
		}
		if frame == nil {
			found, err := s.resync(pos + 1)
			if err != nil {
				return res, err
			}
			if found < 0 {
				res.gaveUp = s.budget < 0
				break
			}
			if frame, err = s.frame(found); err != nil {
				return res, err
			}
			res.holes = append(res.holes, hole{
				off: pos, bytes: found - pos, first: s.next, last: frameFirst(frame) - 1,
				reason: "unreadable record",
			})
			pos = found
		} else if first := frameFirst(frame); first > s.next {
			res.holes = append(res.holes, hole{off: pos, first: s.next, last: first - 1, reason: "records missing"})
		}
		if err := emit(frame, pos); err != nil {
			return res, err
		}
		pos += int64(len(frame))
		s.next = frameLSN(frame) + 1
		res.end, res.next = pos, s.next
		res.frames++
	}
	return res, nil
}

// view returns n bytes at off, which must lie within the file.
func (s *scanner) view(off int64, n int) ([]byte, error) {
	if at := off - s.start; at >= 0 && at+int64(n) <= int64(len(s.window)) {
		return s.window[at : at+int64(n)], nil
	}
	want := int(min(int64(max(n, windowBytes)), s.size-off))
	if cap(s.window) < want {
		s.window = make([]byte, want)
	}
	s.window, s.start = s.window[:want], off
	if _, err := s.r.ReadAt(s.window, off); err != nil {
		s.window = s.window[:0]
		return nil, fmt.Errorf("read at %d: %w", off, err)
	}
	return s.window[:n], nil
}

// frame returns the sound frame at off, or nil. Only a failing read is an error.
func (s *scanner) frame(off int64) ([]byte, error) {
	if s.size-off < frameHeaderBytes {
		return nil, nil
	}
	head, err := s.view(off, frameHeaderBytes)
	if err != nil {
		return nil, err
	}
	lsn, n := frameLSN(head), frameHeaderBytes+int64(binary.LittleEndian.Uint32(head[4:]))
	if lsn < s.next || lsn >= s.limit || n > frameHeaderBytes+maxPayloadBytes || n > s.size-off {
		return nil, nil
	}
	if n > windowBytes {
		// A damaged length may claim megabytes: check before taking memory.
		sound, err := s.checkLarge(off, n)
		if err != nil || !sound {
			s.budget -= n
			return nil, err
		}
	}
	frame, err := s.view(off, int(n))
	if err != nil {
		return nil, err
	}
	if crc32.Update(s.seed, castagnoli, frame[4:]) != binary.LittleEndian.Uint32(frame) {
		s.budget -= n
		return nil, nil
	}
	if frameType(frame) == typeGap && (!validGap(frame) || frameFirst(frame) < s.next) {
		return nil, nil
	}
	return frame, nil
}

// checkLarge checks a frame's checksum without holding it in memory.
func (s *scanner) checkLarge(off, n int64) (bool, error) {
	var want [4]byte
	if _, err := s.r.ReadAt(want[:], off); err != nil {
		return false, fmt.Errorf("read at %d: %w", off, err)
	}
	crc := s.seed
	buf := make([]byte, 64<<10)
	for at, end := off+4, off+n; at < end; {
		part := buf[:min(int64(len(buf)), end-at)]
		if _, err := s.r.ReadAt(part, at); err != nil {
			return false, fmt.Errorf("read at %d: %w", at, err)
		}
		crc = crc32.Update(crc, castagnoli, part)
		at += int64(len(part))
	}
	return crc == binary.LittleEndian.Uint32(want[:]), nil
}

// resync returns the offset of the first sound frame at or after off, or -1. The
// checksum is salted for each segment, so bytes that a client made to look like
// a record, within a payload, are not taken for one.
func (s *scanner) resync(off int64) (int64, error) {
	for ; s.size-off >= frameHeaderBytes && s.budget >= 0; off++ {
		frame, err := s.frame(off)
		if err != nil {
			return 0, err
		}
		if frame != nil {
			return off, nil
		}
	}
	return -1, nil
}
