package storage

import "github.com/zeebo/xxh3"

// Batch is what Append takes: series with their samples, histograms, exemplars,
// and metadata, in flat columns that decoders fill and Reset reuses. A series
// may repeat within a batch, and its samples may be in any order.
//
// The caller owns the batch and its memory again once Append has returned; a
// Store copies what it keeps.
type Batch struct {
	Series     []BatchSeries
	Labels     []byte   // canonical label bytes of all series, back to back
	Samples    []Sample // of all series, back to back
	STs        []int64  // start timestamps: nil, or one for each of Samples, 0 = unset
	Histograms []HistogramSample
	Exemplars  []Exemplar
	Metadata   []Metadata

	hashes   []Hash128 // of each series' labels, by HashSeries; else of another length
	hashSeed uint64
}

// Hash128 identifies a series: the seeded xxh3 hash of its canonical label bytes.
type Hash128 = xxh3.Uint128

// BatchSeries delimits one series' share of the columns: each field is the end
// (exclusive) in its column, the begin is the end of the series before.
type BatchSeries struct {
	LabelsEnd, SamplesEnd, HistogramsEnd, ExemplarsEnd uint32
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	b.Series = b.Series[:0]
	b.Labels = b.Labels[:0]
	b.Samples = b.Samples[:0]
	b.STs = b.STs[:0]
	clear(b.Histograms)
	b.Histograms = b.Histograms[:0]
	clear(b.Exemplars)
	b.Exemplars = b.Exemplars[:0]
	clear(b.Metadata)
	b.Metadata = b.Metadata[:0]
	b.ForgetHashes()
}

// HashSeries hashes the labels of each series and keeps the hashes, for a store that
// needs the same ones: they are a noticeable part of what a sample costs. Whoever calls
// it calls ForgetHashes before the batch may change.
func (b *Batch) HashSeries(seed uint64) []Hash128 {
	b.hashes, b.hashSeed = b.hashes[:0], seed
	from := uint32(0)
	for i := range b.Series {
		to := b.Series[i].LabelsEnd
		b.hashes = append(b.hashes, xxh3.Hash128Seed(b.Labels[from:to], seed))
		from = to
	}
	return b.hashes
}

// Hashes returns what HashSeries has kept, nil if it was not called for these series
// or with another seed.
func (b *Batch) Hashes(seed uint64) []Hash128 {
	if len(b.hashes) != len(b.Series) || b.hashSeed != seed {
		return nil
	}
	return b.hashes
}

// ForgetHashes drops the hashes and keeps their memory.
func (b *Batch) ForgetHashes() { b.hashes = b.hashes[:0] }

// EndSeries closes the current series: all that was appended to the columns
// since the last call is its share.
func (b *Batch) EndSeries() {
	b.Series = append(b.Series, BatchSeries{
		LabelsEnd:     uint32(len(b.Labels)),
		SamplesEnd:    uint32(len(b.Samples)),
		HistogramsEnd: uint32(len(b.Histograms)),
		ExemplarsEnd:  uint32(len(b.Exemplars)),
	})
}

// Add appends a whole series of floats; a convenience for tests and tools.
func (b *Batch) Add(ls Labels, samples ...Sample) {
	b.Labels = append(b.Labels, ls...)
	b.Samples = append(b.Samples, samples...)
	b.padSTs()
	b.EndSeries()
}

// AddHistograms appends a whole series of native histograms.
func (b *Batch) AddHistograms(ls Labels, hs ...HistogramSample) {
	b.Labels = append(b.Labels, ls...)
	b.Histograms = append(b.Histograms, hs...)
	b.EndSeries()
}

// AddSample appends one sample with its start timestamp (0 = unset) to the
// current, still open series.
func (b *Batch) AddSample(t, st int64, v float64) {
	if st != 0 && len(b.STs) == 0 {
		b.STs = append(b.STs, make([]int64, len(b.Samples))...)
	}
	b.Samples = append(b.Samples, Sample{T: t, V: v})
	if st != 0 || len(b.STs) > 0 {
		b.STs = append(b.STs, st)
	}
}

// padSTs keeps the start timestamp column as long as Samples once it is in use.
func (b *Batch) padSTs() {
	if len(b.STs) > 0 {
		b.STs = append(b.STs, make([]int64, len(b.Samples)-len(b.STs))...)
	}
}

// BatchView is one series' share of a batch. Its slices point into the batch.
type BatchView struct {
	Labels     Labels
	Samples    []Sample
	STs        []int64 // nil, or one for each sample
	Histograms []HistogramSample
	Exemplars  []Exemplar
}

// At returns series i. It allocates nothing.
func (b *Batch) At(i int) BatchView {
	var from BatchSeries
	if i > 0 {
		from = b.Series[i-1]
	}
	to := b.Series[i]
	v := BatchView{
		Labels:     Labels(b.Labels[from.LabelsEnd:to.LabelsEnd]),
		Samples:    b.Samples[from.SamplesEnd:to.SamplesEnd],
		Histograms: b.Histograms[from.HistogramsEnd:to.HistogramsEnd],
		Exemplars:  b.Exemplars[from.ExemplarsEnd:to.ExemplarsEnd],
	}
	if len(b.STs) > 0 {
		v.STs = b.STs[from.SamplesEnd:to.SamplesEnd]
	}
	return v
}

// RefusalReason says why a sample was refused; a closed set fit for metric labels.
type RefusalReason string

// The reasons for which a Store, or a limit before it, refuses part of a batch.
const (
	ReasonTooOld        RefusalReason = "too_old"        // beyond the retention
	ReasonTooFarAhead   RefusalReason = "too_far_ahead"  // more than the future limit after now
	ReasonInvalidLabels RefusalReason = "invalid_labels" // not canonical, no metric name, bad UTF-8
	ReasonInvalidValue  RefusalReason = "invalid_value"  // e.g. an inconsistent histogram
	ReasonSeriesLimit   RefusalReason = "series_limit"   // active series limit of the tenant or metric
	ReasonLabelLimit    RefusalReason = "label_limit"    // too many labels, or too long
	ReasonExemplarLimit RefusalReason = "exemplar_limit" // too many exemplars in a request
	ReasonBucketLimit   RefusalReason = "bucket_limit"   // too many buckets of a native histogram
	ReasonForbidden     RefusalReason = "forbidden"      // outside what the writer's token allows
)

// Refusal tells of one refused sample. Series and Sample are positions in the
// batch (Sample in the series' share of its column); Sample is -1 when the whole
// series was refused.
type Refusal struct {
	Series, Sample int
	Histogram      bool // Sample counts in Histograms, not in Samples
	Exemplar       bool // Sample counts in Exemplars
	T              int64
	Reason         RefusalReason
	Message        string // says what and where; "" beyond the first MaxNamedRefusals
}

// MaxNamedRefusals bounds the refusals that carry a message.
const MaxNamedRefusals = 100

// AppendResult tells what became of a batch that Append did not fail on.
type AppendResult struct {
	Samples, Histograms, Exemplars int // stored, or already there
	// Refused lists every refused sample, in the batch's order; only the first
	// MaxNamedRefusals have a Message.
	Refused []Refusal
}

// RefusedSeries returns a set of the positions of wholly refused series.
func (r AppendResult) RefusedSeries() map[int]RefusalReason {
	m := map[int]RefusalReason{}
	for _, f := range r.Refused {
		if f.Sample < 0 {
			m[f.Series] = f.Reason
		}
	}
	return m
}
