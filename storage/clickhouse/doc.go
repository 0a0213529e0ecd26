// Package clickhouse is the backend for a ClickHouse cluster: storage.Store by
// processes that keep no state, as many as are needed.
//
// # Tables
//
//	samples      floats, ordered by (tenant, metric, loc, series_id, ts)
//	histograms   native histograms, in the same order, as remote-write messages
//	exemplars    exemplars, in the same order
//	series       one row for each series and UTC day: the label index
//	metric_meta  type, unit and help of a metric
//	retention    policies; deletes: receipts; meta: facts about the schema;
//	notes        what processes tell each other, for two hours
//
// series_id is the xxh3 hash of the canonical label bytes; loc the hash of the value
// of the locality label (meta), so that the series of one customer are neighbours on
// disk. A partition is a UTC day of one retention class.
//
// # Invariants
//
//   - A value reaches the database as a bound parameter or in a column, never as SQL.
//   - A series' row is stored before its samples. A cache of known rows spares
//     storing it again; a delete of anyone makes every process forget that cache
//     before its next block (table deletes, read before each block).
//   - Append answers once ClickHouse has every block that holds a row of the batch.
//     A block's own retry carries its deduplication token; a sender's repetition
//     lands on the same key with the same value image and is one sample, before a
//     merge by the reader, after it by ReplacingMergeTree(image).
//   - A delete is a lightweight DELETE: it masks the rows of the parts that exist, so
//     what is inserted afterwards is visible; APPLY DELETED MASK frees the bytes.
package clickhouse
