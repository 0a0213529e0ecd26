package wal

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"hash/crc32"
)

const (
	segmentMagic   = "LUMIWAL\n"
	segmentVersion = 1

	headerCopyBytes = 32
	headerBytes     = 2 * headerCopyBytes

	frameHeaderBytes = 17
	gapPayloadBytes  = 9
)

// Reasons of a gap.
const (
	gapLost    = 1 // records were there and could not be read
	gapSkipped = 2 // the LSNs were never given out
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// segmentHeader is written twice, so that one damaged sector at the start does
// not take the salt, and with it every record, away.
type segmentHeader struct {
	first uint64 // LSN of the first record
	salt  [8]byte
}

func newSegmentHeader(first uint64) segmentHeader {
	h := segmentHeader{first: first}
	_, _ = rand.Read(h.salt[:]) // crypto/rand never fails
	return h
}

// seed is the checksum's initial state for the segment's records.
func (h segmentHeader) seed() uint32 { return crc32.Checksum(h.salt[:], castagnoli) }

func (h segmentHeader) appendTo(dst []byte) []byte {
	for range 2 {
		start := len(dst)
		dst = append(dst, segmentMagic...)
		dst = binary.LittleEndian.AppendUint32(dst, segmentVersion)
		dst = binary.LittleEndian.AppendUint64(dst, h.first)
		dst = append(dst, h.salt[:]...)
		dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
	}
	return dst
}

// parseSegmentHeader reads the header at the start of b, which may be short.
// copies is how many of the two copies are sound; 0 means no header.
func parseSegmentHeader(b []byte, name string) (h segmentHeader, copies int, err error) {
	for i := range 2 {
		if len(b) < (i+1)*headerCopyBytes {
			break
		}
		c := b[i*headerCopyBytes : (i+1)*headerCopyBytes]
		crc := binary.LittleEndian.Uint32(c[28:])
		if !bytes.HasPrefix(c, []byte(segmentMagic)) || crc != crc32.Checksum(c[:28], castagnoli) {
			continue
		}
		if v := binary.LittleEndian.Uint32(c[8:]); v != segmentVersion {
			return h, 0, &VersionError{File: name, Found: v, Supported: segmentVersion}
		}
		h.first = binary.LittleEndian.Uint64(c[12:])
		copy(h.salt[:], c[20:28])
		copies++
	}
	return h, copies, nil
}

// A frame is crc4 | length4 | lsn8 | type1 | payload; the checksum covers all
// that follows it, begun with the segment's seed.

func frameLen(frame []byte) int     { return int(binary.LittleEndian.Uint32(frame[4:])) }
func frameLSN(frame []byte) uint64  { return binary.LittleEndian.Uint64(frame[8:]) }
func frameType(frame []byte) Type   { return Type(frame[16]) }
func frameBody(frame []byte) []byte { return frame[frameHeaderBytes:] }

// sealFrame fills in LSN and checksum of a complete frame.
func sealFrame(frame []byte, lsn uint64, seed uint32) {
	binary.LittleEndian.PutUint64(frame[8:], lsn)
	binary.LittleEndian.PutUint32(frame, crc32.Update(seed, castagnoli, frame[4:]))
}

// appendGap appends a sealed frame that says that first to last hold no records.
func appendGap(dst []byte, first, last uint64, reason byte, seed uint32) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0, gapPayloadBytes, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(typeGap))
	dst = binary.LittleEndian.AppendUint64(dst, first)
	dst = append(dst, reason)
	sealFrame(dst[start:], last, seed)
	return dst
}

// frameFirst is the first LSN that the frame stands for: its own, or a gap's
// lower end.
func frameFirst(frame []byte) uint64 {
	if frameType(frame) == typeGap {
		return binary.LittleEndian.Uint64(frameBody(frame))
	}
	return frameLSN(frame)
}

// validGap tells whether a frame of typeGap is one that appendGap made.
func validGap(frame []byte) bool {
	p := frameBody(frame)
	return len(p) == gapPayloadBytes && (p[8] == gapLost || p[8] == gapSkipped) &&
		binary.LittleEndian.Uint64(p) <= frameLSN(frame)
}
