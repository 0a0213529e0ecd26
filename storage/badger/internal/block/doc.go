// Package block holds the sample codecs of the Badger engine: the head stream of one open series, the float block of
// one group (64 neighbouring series of a metric) and the block of native histograms of one group.
//
// Everything is bit-exact: a float64 comes back with the bits it went in with, NaN payloads, negative zero, denormals
// and infinities included. The package knows nothing of Badger, of labels or of tenants.
//
// Ownership: encoders append to the caller's slice and keep nothing of their input. Decoders fill buffers that the
// caller reuses; what they return is valid until the next call with the same buffer. Stored bytes are never trusted:
// every block carries a CRC32C, every declared size is checked against a limit before memory is taken for it, and
// damage is reported as an error that wraps ErrDamaged, never as a panic.
//
// The bytes are drawn in DESIGN.md; testdata holds golden blocks of format 1.
package block
