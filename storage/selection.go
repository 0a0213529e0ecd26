package storage

import (
	"slices"
	"strings"

	promlabels "github.com/prometheus/prometheus/model/labels"
)

// Matcher is one label predicate, Prometheus's own type: =, !=, =~ and !~ with
// anchored RE2, and a missing label equal to an empty value.
type Matcher = promlabels.Matcher

// Selection names series and a time range.
type Selection struct {
	// Matchers are joined by AND; none selects every series of the tenant.
	Matchers   []*Matcher
	MinT, MaxT int64 // inclusive
	// Limit ends the answer after so many series or values, 0 = all; what is left
	// out is not told, so callers that must tell ask for one more.
	Limit int
	// MaxSeries and MaxSamples fail the call with KindTooLarge instead of
	// answering more, 0 = no bound. A histogram counts as its buckets do in PromQL:
	// callers that care count themselves; here it counts as one.
	MaxSeries, MaxSamples int
	// Unsorted lets Select yield series in any order, which spares a backend
	// holding them all.
	Unsorted bool
	// Hold, where set, is told by Select of the memory of series that it holds before
	// it yields them, in bytes, and with a negative number as it hands them over: what
	// is yielded is the receiver's to count. An error of it ends the sequence.
	Hold func(bytes int64) error
	// Chunks lets Select hand out native histograms as the chunks that they are
	// stored as, undecoded, in Series.Chunks. A backend that stores none, or whose
	// chunks do not fit the range, answers samples.
	Chunks bool
}

// Validate checks that mint is not after maxt and no bound is negative.
func (s Selection) Validate() error {
	if s.MinT > s.MaxT {
		return Errorf(KindInvalid, "selection", "the range begins after it ends: %d > %d", s.MinT, s.MaxT)
	}
	if s.Limit < 0 || s.MaxSeries < 0 || s.MaxSamples < 0 {
		return Errorf(KindInvalid, "selection", "negative limit")
	}
	return nil
}

// Matches tells whether labels fulfil every matcher.
func Matches(l Labels, ms []*Matcher) bool {
	for _, m := range ms {
		if !m.Matches(l.Get(m.Name)) {
			return false
		}
	}
	return true
}

// MetricOf returns the metric that an equality matcher on __name__ names.
func MetricOf(ms []*Matcher) (string, bool) {
	i := slices.IndexFunc(ms, func(m *Matcher) bool {
		return m.Name == MetricName && m.Type == promlabels.MatchEqual && m.Value != ""
	})
	if i < 0 {
		return "", false
	}
	return ms[i].Value, true
}

// Series is what Select yields: labels with their samples in order of time, each
// time at most once over Samples, Histograms and Chunks together. The receiver owns
// all of it.
type Series struct {
	Labels     Labels
	Samples    []Sample
	STs        []int64 // start timestamps: nil, or one for each of Samples, 0 = unset
	Histograms []HistogramSample
	// Chunks are further native histograms, in order of time, where Selection.Chunks
	// asked for them. Each lies wholly in the range, and no other sample of the series
	// between its first and its last.
	Chunks []Chunk
}

// Len counts the samples of all kinds.
func (s *Series) Len() int {
	n := len(s.Samples) + len(s.Histograms)
	for i := range s.Chunks {
		n += s.Chunks[i].Samples
	}
	return n
}

// Sizes of what a series holds in memory, in bytes: a sample, the overhead beside
// labels and samples, and that of a chunk. A histogram counts as so many samples.
const (
	sampleBytes      = 16
	seriesBytes      = 256
	chunkBytes       = 64
	histogramSamples = 24
)

// Bytes estimates the memory that the series holds.
func (s *Series) Bytes() int64 {
	n := seriesBytes + int64(2*len(s.Labels)) +
		sampleBytes*int64(len(s.Samples)+histogramSamples*len(s.Histograms)) + int64(8*len(s.STs))
	for i := range s.Chunks {
		n += chunkBytes + int64(len(s.Chunks[i].Data))
	}
	return n
}

// Estimate is what a selection will cost, from the index alone. Values are upper
// bounds where a backend knows them and good guesses elsewhere.
type Estimate struct {
	Series  uint64
	Samples uint64
	Bytes   uint64 // memory that Select needs to hold them
}

// MetadataQuery narrows Store.Metadata.
type MetadataQuery struct {
	Metric         string // "" = all
	Limit          int    // metrics, 0 = all
	LimitPerMetric int    // entries for each metric, 0 = all
}

// ExemplarQuery selects exemplars of the series that match any of Selectors.
type ExemplarQuery struct {
	Selectors  [][]*Matcher
	MinT, MaxT int64
	Limit      int // exemplars in all, 0 = the backend's bound
}

// ExemplarSeries is a series with its exemplars in order of time.
type ExemplarSeries struct {
	Labels    Labels
	Exemplars []Exemplar
}

// FormatSelector renders matchers as a PromQL selector, `{}` for none.
func FormatSelector(ms []*Matcher) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, m := range ms {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(m.String())
	}
	b.WriteByte('}')
	return b.String()
}
