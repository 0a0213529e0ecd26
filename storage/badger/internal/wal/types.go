package wal

// Type says what a record's payload holds. The numbers are on disk: they are
// never reused, and a new meaning takes a new number.
type Type uint8

const (
	// typeGap is the log's own: a range of LSNs that holds no records, because
	// they were lost (and reported) or never given out. Never handed to replay.
	typeGap Type = 0

	// TypeSamples holds float samples of one tenant and day: SamplesEncoder.
	TypeSamples Type = 1
	// TypeSeries holds new series of one tenant and day: SeriesEncoder.
	TypeSeries Type = 2
	// TypeTenant registers a tenant: its number and its name. Payload by the engine.
	TypeTenant Type = 3
	// TypeHistogram holds native histogram samples. Payload by the engine.
	TypeHistogram Type = 4
	// TypeExemplar holds exemplars. Payload by the engine.
	TypeExemplar Type = 5
	// TypeMetadata holds a metric's type, unit and help. Payload by the engine.
	TypeMetadata Type = 6
	// TypeDelete holds a selection and a time range; it hides records with a
	// lower LSN only. Payload by the engine.
	TypeDelete Type = 7
	// TypeRetention holds a tenant's retention policies. Payload by the engine.
	TypeRetention Type = 8
)

// Record is one record as replay sees it.
type Record struct {
	LSN     uint64
	Type    Type
	Payload []byte // valid during the call only
}
