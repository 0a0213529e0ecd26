// Package wal keeps what the Badger backend may not lose between two flushes:
// a write-ahead log of segment files, and the framing of head snapshots.
//
// A Log is a directory of segments, each a header and a sequence of records.
// Every record has a log sequence number (LSN); LSNs begin at 1 and rise by
// one, so a missing record is always seen, and counted, at the next start.
//
// Invariants:
//
//   - One group of records is one write(2). Under SyncAlways the group, and the
//     name of a new segment, are on stable storage when Append returns.
//   - Nothing is ever written after a partial write: the segment is cut back
//     first, or the log stays broken until it is opened again.
//   - Recovery never drops a record in silence. What it could not read is in
//     the RecoveryReport, and the damaged file is kept beside the log.
//   - A recovered segment is never appended to.
//
// The package knows nothing of series, partitions or Badger: payloads are
// opaque to the log. SamplesEncoder and SeriesEncoder give the two hot payloads
// their form; DESIGN.md draws the bytes.
package wal
