package storage

// CardinalityQuery asks how series spread over metrics and labels.
type CardinalityQuery struct {
	Selection  Selection
	LabelNames []string // also count series for each value of these labels
	TopN       int      // length of every list, 0 = 10
	// MetricsOnly asks for Series, Metrics and TotalMetrics alone: a backend may leave
	// out the rest, which costs far more.
	MetricsOnly bool
}

// Count is a name with a number.
type Count struct {
	Name  string
	Count uint64
}

// Cardinality counts series; lists have the greatest first, then by name.
type Cardinality struct {
	Series             uint64
	Metrics            []Count            // series of each metric
	LabelNames         []Count            // series that have the label
	LabelValueCounts   []Count            // distinct values of each label
	LabelPairs         []Count            // series with "name=value"
	LabelValues        map[string][]Count // series for each value of the asked labels
	TotalMetrics       uint64             // distinct metrics
	TotalLabelNames    uint64             // distinct label names
	TotalLabelPairs    uint64             // distinct name=value pairs
	LabelValuesTotals  map[string]uint64  // distinct values of the asked labels
	LabelMemoryInBytes []Count            // bytes of each label's values, name first as in status/tsdb
}
