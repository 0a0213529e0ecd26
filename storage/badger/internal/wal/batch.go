package wal

import (
	"encoding/binary"
	"fmt"
)

// maxKeptBytes is the largest buffer that Reset keeps for the next group; one
// giant group must not pin its memory for ever.
const maxKeptBytes = 16 << 20

// Batch collects the records of one group in the very bytes that are written.
// The zero value is ready; a Batch is reused through Reset and is not safe for
// concurrent use.
type Batch struct {
	buf   []byte
	count int
}

// Reset empties the batch and keeps its buffer.
func (b *Batch) Reset() {
	if cap(b.buf) > maxKeptBytes {
		b.buf = nil
	}
	b.buf, b.count = b.buf[:0], 0
}

// Len is the number of records.
func (b *Batch) Len() int { return b.count }

// Size is the number of bytes that the group takes in the log.
func (b *Batch) Size() int { return len(b.buf) }

// Add appends a record with a copy of payload. Its LSN will be the group's first
// LSN plus the number of records added before.
func (b *Batch) Add(t Type, payload []byte) {
	b.Finish(t, append(b.Start(), payload...))
}

// Start returns the buffer to append a payload to, without a copy:
//
//	buf := b.Start()
//	buf = encode(buf) // appends only
//	b.Finish(wal.TypeSamples, buf)
//
// A Start that no Finish follows adds nothing.
func (b *Batch) Start() []byte {
	var header [frameHeaderBytes]byte
	return append(b.buf, header[:]...)
}

// Finish completes the record begun by the last Start. buf is what Start
// returned, with the payload appended. The log's own type is a caller's bug.
func (b *Batch) Finish(t Type, buf []byte) {
	payload := len(buf) - len(b.buf) - frameHeaderBytes
	if t == typeGap || payload < 0 {
		panic("wal: Finish without Start, or with a reserved type")
	}
	frame := buf[len(b.buf):]
	// A payload beyond 32 bits wraps here and is refused by check, which
	// compares the whole.
	binary.LittleEndian.PutUint32(frame[4:], uint32(min(payload, maxGroupBytes)))
	frame[16] = byte(t)
	b.buf = buf
	b.count++
}

// check refuses records and groups beyond their bounds.
func (b *Batch) check(maxRecordBytes int) error {
	if len(b.buf) > maxGroupBytes {
		return fmt.Errorf("group of %d bytes, limit %d: %w", len(b.buf), maxGroupBytes, ErrTooLarge)
	}
	for rest := b.buf; len(rest) > 0; {
		n := frameLen(rest)
		if n > maxRecordBytes {
			return fmt.Errorf("record of %d bytes, limit maxRecordBytes %d: %w", n, maxRecordBytes, ErrTooLarge)
		}
		rest = rest[frameHeaderBytes+n:]
	}
	return nil
}

// seal numbers the records from first on and fills in their checksums. Sealing
// again is allowed: a group refused for want of space is appended once more.
func (b *Batch) seal(first uint64, seed uint32) {
	for rest := b.buf; len(rest) > 0; first++ {
		n := frameHeaderBytes + frameLen(rest)
		sealFrame(rest[:n], first, seed)
		rest = rest[n:]
	}
}
