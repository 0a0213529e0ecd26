// Package badger is the embedded backend: storage.Store on BadgerDB, one process,
// one directory, nothing to install.
//
// Badger holds only immutable, large values: blocks of 64 neighbouring series,
// series records, postings. What is newer than the last flush lives in memory (the
// head) and in a write-ahead log of our own beside Badger. DESIGN.md draws the
// formats and gives the reasons.
//
// # Keys
//
// All numbers are big-endian; part is the UTC day since 1970 plus 1<<31. Every
// value ends in the CRC32C of key and value, because Badger itself can drop or
// truncate on a flipped bit without an error.
//
//	00                                        format version, hash seed
//	01 | tenant name                          tenant number
//	02 | tenant4 | metric                     metadata
//	03 | part4 | tenant4                      state of a partition
//	04 | tenant4                              retention policies
//	05 | tenant4 | id                         delete receipt
//	06 | tenant4                              mark of a deleted tenant
//	07                                        first day that is kept (maxBytes)
//	08 | number8                              one for each write, to see lost ones
//	10 | part4 | tenant4 | 02 | seq4          new series, in order of creation
//	10 | part4 | tenant4 | 03 ...             packed index of a closed partition
//	10 | part4 | tenant4 | 40 | group4 | t0_4 | t1_4 | lsn8 | gen2   float block
//	10 | part4 | tenant4 | 41 | (same)        block of native histograms
//	10 | part4 | tenant4 | 42 | group4        LSN up to which a group is flushed
//	10 | part4 | tenant4 | 50 | group4          exemplars
//	10 | part4 | tenant4 | 60 | lsn8          tombstone
//
// # Invariants
//
//   - A sample is acknowledged after its record is in the log, and visible before.
//   - The record of a new series precedes its first sample in the same write.
//   - One goroutine, the committer, assigns LSNs and changes the head; the flusher
//     only freezes and releases what it has copied.
//   - A tombstone of LSN d hides the samples of blocks with an LSN below d, and
//     nothing else.
//   - What recovery cannot read is reported and counted, never silent.
package badger
