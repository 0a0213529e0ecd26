// Package storagetest defines what a correct storage.Store is: an obviously
// correct in-memory Model, the conformance suite Run that every backend and every
// wrapper passes, seeded generators of series shared by tests, benchmarks, fuzzing
// and load, benchmarks that fit any Store, and Faulty, which scripts failures.
package storagetest
