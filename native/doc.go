// Package native is Luminate's own JSON API: writing and querying metrics,
// discovery, cardinality, administration, and what tells a caller about itself.
// openapi.yaml describes the whole HTTP surface, this package's and the others'.
//
// # What a series is
//
// A metric's name with its dimensions names a series. Two rules follow from how
// series are stored, and everybody who writes should know them.
//
// One writer. A series is meant to have one writer. If two pods count
// logins{tier="free"} and both write it, they write the same series, and where
// their timestamps meet the greater value stays and the other is gone. So each
// writer puts its name into the request, {"source": "pod-7", "metrics": […]}: it
// becomes the dimension `instance` of every metric that has none, and the series
// are apart. Nothing else changes: an aggregate that does not group by instance
// folds it away by itself.
//
// One sample a millisecond. A series holds one sample for each millisecond. Within
// one request Luminate looks after this: of several measurements of a series on
// one millisecond the first stays and the others move to the next milliseconds
// that are free, in order, so that every event counts. The answer tells how many
// moved ("adjusted"). A measurement that would have to move by more than a second
// is refused: who has thousands of events at once should send a counter. Two
// requests cannot see each other; there the greater value of a millisecond stays.
//
// What this makes easy: a request that has timestamps can be repeated as often as
// one likes, after a time-out for instance. It lands on itself, moved measurements
// included, since where they move depends on the request alone. A request without
// timestamps is stored at the server's present time and is new data each time.
//
// To correct a value downwards, delete the range and write it again.
//
// # What a query sees
//
// Buckets are [start, end), labelled by their start and aligned to UTC, or for
// days, weeks (from Monday) and months to a time zone. The first and the last
// bucket hold what of them lies in the time range. Counters are read with the
// query type rate, single events with the aggregations sum and count.
//
// rate is the sum of a counter's increases in the bucket over the bucket's
// seconds. A fall counts as a restart from zero, and the step from the last sample
// before the bucket (not older than five minutes) counts, too. Nothing is
// extrapolated: the rates of neighbouring buckets add up to the counter's whole
// increase. PromQL's rate() is another thing: it guesses the increase between the
// window's edges and the samples next to them, does not see the step into the
// window, and of one event that a counter shows gives back a fraction.
//
// A percentile is over all samples of the group's bucket, with linear
// interpolation: exact on the embedded backend, on ClickHouse exact up to a million
// samples a group and within 1 % of the rank beyond. An integral is the area under each series (value × seconds, by
// trapezoids), summed over the group.
//
// # What differs from Prometheus on purpose
//
//   - Names follow Prometheus's old rules (letters, digits, underscores), and are
//     reserved from two underscores on; queries may name any stored series.
//   - Buckets are [start, end) and labelled by their start, where PromQL's windows are
//     (start, end] and labelled by their end.
//   - rate does not extrapolate, as said above.
//   - A query that finds nothing has an empty result, never the last value before:
//     there is no lookback.
//
// # Invariants
//
// Nothing is stored before the whole body was read and found to be valid, and an
// answer tells of every metric that was not stored. A query that the storage
// cannot evaluate exactly is evaluated over its series; one that cannot be
// answered is an error and never an empty answer. Errors have one form, and one
// function maps the storage's kinds to them.
package native
