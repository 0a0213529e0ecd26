// Package index holds the series of one partition (one tenant, one day): their labels as symbols, the look-up by
// hash, the postings, and the series ids in extents. Mem is the index of an open partition, in memory; Packed reads
// the same index of a closed partition from a key-value store, only as much of it as a question needs. Both are a
// Reader.
//
// A series id is a uint32 below MaxSeriesID, unique within the partition and never reused. Ids are handed out in
// extents of GroupSize ids, so that a group (id / GroupSize) holds series of one metric only. The metric is the value
// of the label __name__, "" where a series has none. A metric's number (MetricID) is its lowest group.
//
// Labels are canonical bytes: for each label, names ascending, uvarint(len(name)) name uvarint(len(value)) value; names
// are unique, no value is empty. A series is identified by the 128-bit hash of these bytes: equal hashes are the same
// series.
//
// Locking of Mem: one writer, many readers; the caller holds a sync.RWMutex around it. Create, Insert,
// InsertRecord, Seal and MarkWritten need the write lock, everything else the read lock; the writer's own goroutine may
// read without a lock while nobody else can write. What methods return (bitmaps, byte slices, strings)
// belongs to the caller and stays valid after the lock is released. Packed needs no lock.
//
// The package knows nothing of Badger; Source and Sink are its view of the store. DESIGN.md draws the bytes.
package index
