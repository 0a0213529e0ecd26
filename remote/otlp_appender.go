package remote

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	promlabels "github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	promstorage "github.com/prometheus/prometheus/storage"

	"github.com/luminate/luminate/storage"
)

// targetInfo is the series that the translator makes of a resource: no data point of
// the client's.
const targetInfo = "target_info"

// batchAppender is the translator's appender: it fills a batch, and refuses single
// samples without failing, so that the translator goes on with the others. Nothing
// is stored by Commit; the caller appends the batch.
type batchAppender struct {
	batch    *storage.Batch
	limits   ShapeLimits
	maxBytes int
	bytes    int   // taken by what is not in the columns themselves
	full     error // set once the batch takes more than maxBytes
	discard  bool  // only the translator's own errors are of interest

	current  []byte   // labels of the open series
	open     bool     // a series is open
	scratch  []byte   // labels of the sample at hand
	families []string // of each series
	family   string   // of the open series
	metas    map[string]metadata.Metadata
	refused  refusals
	points   map[string]struct{} // data points refused before the store
}

var _ promstorage.AppenderV2 = (*batchAppender)(nil)

func newBatchAppender(b *storage.Batch, limits ShapeLimits, maxBytes int) *batchAppender {
	a := &batchAppender{batch: b, limits: limits, maxBytes: maxBytes}
	a.restart()
	return a
}

// restart forgets all that was appended.
func (a *batchAppender) restart() {
	a.batch.Reset()
	a.bytes, a.full, a.open = 0, nil, false
	a.families = a.families[:0]
	a.metas = map[string]metadata.Metadata{}
	a.refused.reset()
	a.points = map[string]struct{}{}
}

// Append takes one sample. It fails only when the batch is full.
func (a *batchAppender) Append(_ promstorage.SeriesRef, ls promlabels.Labels, st, t int64, v float64,
	h *histogram.Histogram, fh *histogram.FloatHistogram, opts promstorage.AOptions) (promstorage.SeriesRef, error) {
	if a.discard {
		return 0, nil
	}
	if a.full != nil {
		return 0, a.full
	}
	a.scratch = storage.AppendPrometheusLabels(a.scratch[:0], ls)
	sample := counts{samples: 1}
	if h != nil || fh != nil {
		sample = counts{histograms: 1}
	}
	if bad := a.check(a.scratch, storage.HistogramSample{T: t, H: h, FH: fh}); bad.reason != "" {
		a.refuse(sample, bad, opts.MetricFamilyName, t)
		return 0, nil
	}
	a.openSeries(opts.MetricFamilyName)
	switch {
	case h != nil || fh != nil:
		a.batch.Histograms = append(a.batch.Histograms, storage.HistogramSample{T: t, ST: st, H: h, FH: fh})
		a.bytes += histogramBytes(h, fh)
	default:
		a.batch.AddSample(t, st, v)
	}
	a.exemplars(opts.Exemplars, t)
	a.describe(opts)
	return 0, a.checkSize()
}

// check finds what is wrong with a sample.
func (a *batchAppender) check(ls storage.Labels, h storage.HistogramSample) problem {
	n, named := 0, false
	for name, value := range ls.All() {
		n++
		named = named || name == storage.MetricName
		switch {
		case len(name) > a.limits.NameBytes || name == storage.MetricName && len(value) > a.limits.NameBytes:
			return limitProblem("a name has more than %d bytes"+byNameBytes+": %.64q…", a.limits.NameBytes, name)
		case len(value) > a.limits.ValueBytes:
			return limitProblem("the value of label %q has %d bytes, at most %d are allowed"+byValueBytes, name, len(value), a.limits.ValueBytes)
		case !utf8.ValidString(name) || !utf8.ValidString(value):
			return invalidUTF8(name)
		}
	}
	switch {
	case n > a.limits.Labels:
		return limitProblem("%d labels, at most %d are allowed"+byLabels, n, a.limits.Labels)
	case !named:
		return noMetricName
	case h.H == nil && h.FH == nil:
		return problem{}
	}
	if err := checkHistogram(h); err != nil {
		return problem{reason: storage.ReasonInvalidValue, format: func(string) string {
			return fmt.Sprintf("histogram at %d: %v", h.T, err)
		}}
	}
	return problem{}
}

// openSeries makes the series of the labels in a.scratch the current one. The
// translator writes one sample at a time; those that follow each other in one series
// are kept together.
func (a *batchAppender) openSeries(family string) {
	if a.open && bytes.Equal(a.scratch, a.current) {
		return
	}
	a.closeSeries()
	a.batch.Labels = append(a.batch.Labels, a.scratch...)
	a.current = append(a.current[:0], a.scratch...)
	a.open, a.family = true, family
}

func (a *batchAppender) closeSeries() {
	if !a.open {
		return
	}
	a.batch.EndSeries()
	a.families = append(a.families, a.family)
	a.open = false
}

// refuse counts a sample as refused, and its data point once.
func (a *batchAppender) refuse(n counts, bad problem, family string, t int64) {
	ls := storage.Labels(a.scratch)
	a.refused.add(bad.reason, n, ls, bad.text)
	if ls.Metric() != targetInfo {
		a.points[pointKey(family, ls, t)] = struct{}{}
	}
}

// pointKey names the data point that a sample is part of: a histogram or a summary
// becomes many series that differ in name, le and quantile.
func pointKey(family string, ls storage.Labels, t int64) string {
	var b []byte
	for name, value := range ls.All() {
		if name != storage.MetricName && name != "le" && name != "quantile" {
			b = storage.AppendLabel(b, name, value)
		}
	}
	return fmt.Sprintf("%s\x00%d\x00%s", family, t, b)
}

// exemplars adds the exemplars of the sample at time t, which stands for a missing
// time of their own.
func (a *batchAppender) exemplars(es []exemplar.Exemplar, t int64) {
	for _, e := range es {
		ls := storage.LabelsFromPrometheus(e.Labels)
		if ls.Validate() != nil || exemplarRunes(ls) > maxExemplarRunes {
			a.refused.add(storage.ReasonInvalidLabels, counts{exemplars: 1}, a.scratch, func() string {
				return "the labels of an exemplar are not valid UTF-8 or too long"
			})
			continue
		}
		if e.Ts == 0 {
			e.Ts = t
		}
		a.batch.Exemplars = append(a.batch.Exemplars, storage.Exemplar{Labels: ls, T: e.Ts, V: e.Value})
		a.bytes += 64 + len(ls)
	}
}

// describe adds the metadata of a metric family, once.
func (a *batchAppender) describe(opts promstorage.AOptions) {
	if opts.MetricFamilyName == "" || opts.Metadata.IsEmpty() {
		return
	}
	if m, ok := a.metas[opts.MetricFamilyName]; ok && m == opts.Metadata {
		return
	}
	a.metas[opts.MetricFamilyName] = opts.Metadata
	m := storage.Metadata{
		Metric: opts.MetricFamilyName,
		Type:   storage.MetricType(opts.Metadata.Type),
		Unit:   mendText(opts.Metadata.Unit, a.limits.ValueBytes),
		Help:   mendText(opts.Metadata.Help, a.limits.ValueBytes),
	}
	a.batch.Metadata = append(a.batch.Metadata, m)
	a.bytes += 64 + len(m.Metric) + len(m.Unit) + len(m.Help)
}

func (a *batchAppender) checkSize() error {
	b := a.batch
	if size := len(b.Labels) + 32*len(b.Series) + 24*len(b.Samples) + a.bytes; size > a.maxBytes {
		a.full = storage.LimitErrorf(storage.KindTooLarge, "translate", "max-batch-bytes", "remote.maxBatchBytes",
			"the request expands to more than %d bytes", a.maxBytes)
	}
	return a.full
}

// finish closes the last series.
func (a *batchAppender) finish() { a.closeSeries() }

// addStored notes the data points that the store refused.
func (a *batchAppender) addStored(refused []storage.Refusal) {
	for _, r := range refused {
		v := a.batch.At(r.Series)
		if v.Labels.Metric() == targetInfo || r.Exemplar {
			continue
		}
		if r.Sample >= 0 {
			a.points[pointKey(a.families[r.Series], v.Labels, r.T)] = struct{}{}
			continue
		}
		for _, s := range v.Samples {
			a.points[pointKey(a.families[r.Series], v.Labels, s.T)] = struct{}{}
		}
		for _, h := range v.Histograms {
			a.points[pointKey(a.families[r.Series], v.Labels, h.T)] = struct{}{}
		}
	}
}

// rejectedPoints counts the data points of which any part was refused.
func (a *batchAppender) rejectedPoints() int { return len(a.points) }

// Commit and Rollback end the translator's transaction, which is not ours.
func (a *batchAppender) Commit() error   { return nil }
func (a *batchAppender) Rollback() error { return nil }

func histogramBytes(h *histogram.Histogram, fh *histogram.FloatHistogram) int {
	if fh != nil {
		return 256 + 8*(len(fh.PositiveSpans)+len(fh.NegativeSpans)+len(fh.PositiveBuckets)+len(fh.NegativeBuckets)+len(fh.CustomValues))
	}
	return 256 + 8*(len(h.PositiveSpans)+len(h.NegativeSpans)+len(h.PositiveBuckets)+len(h.NegativeBuckets)+len(h.CustomValues))
}
