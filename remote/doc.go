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
// # What differs from Prometheus on purpose
//
//   - Out-of-order samples are taken, back to the tenant's retention.
//   - At one timestamp the greater value wins instead of a 400: retries are harmless.
//   - What can be stored of a request is stored, also in 1.0, and everything that is
//     not is answered 400 and named: bad series, exemplars that cannot be stored.
//   - A body that is too large is 413; a tenant over its rate is 429, our own overload
//     503.
//   - OTLP: a failed commit is never 200, bad points are a partial success, delta
//     temporality is refused with a message; our fault is 503, which clients repeat.
//   - Remote read streams XOR chunks made of columns; histograms go out as they are
//     stored, where the backend stores chunks.
//
// DESIGN.md gives the reasons, the smaller differences and measured figures.
package remote
