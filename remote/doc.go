// Package remote speaks Prometheus's remote protocols and OTLP: remote write 1.0
// and 2.0, remote read with both response types, and OTLP metrics over HTTP.
//
// Writes are decoded straight from the wire into a storage.Batch: label bytes go
// from the message into the batch's canonical form without label objects, and the
// whole request works in pooled memory. Nothing of a request outlives it; a Store
// copies what it keeps.
//
// Invariants:
//
//   - A 2xx answer to a write is sent only after the Store has acknowledged every
//     element of the request. What is refused is counted, named and answered with
//     400 (OTLP: partial success); the rest is stored.
//   - Our own fault is never a 4xx: senders drop what they get a 4xx for.
//   - Every size is checked before memory is taken for it: the body, the size that
//     a snappy or gzip body claims, and what a message would expand to.
//   - The bits of every value are kept, staleness markers included.
//
// DESIGN.md says what differs from Prometheus on purpose, and gives measured figures.
package remote
