// Package storage is the vocabulary of Luminate: tenants, labels, samples,
// batches, selections and grids, the typed errors, and Store, the one interface
// that every backend implements and every wrapper keeps.
//
// Times are Unix milliseconds and bounds are inclusive unless a comment says
// otherwise. A series is identified by its labels, the metric name among them as
// `__name__`; a tenant is never a label but an explicit argument of every method.
//
// Two samples of one series at one timestamp are resolved by value alone, the
// same on every backend and in any order of arrival: the greater in the total
// order of CompareValues wins, and a histogram is greater than any float. So
// appending the same batch twice, or two replicas of it, changes nothing.
//
// The package knows nothing of HTTP, JSON or any database.
package storage
