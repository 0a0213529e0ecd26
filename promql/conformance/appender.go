package conformance

import (
	"context"
	"fmt"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	promstorage "github.com/prometheus/prometheus/storage"

	"github.com/luminate/luminate/storage"
)

// AppenderV2 returns an appender that collects a batch until Commit.
func (s *Storage) AppenderV2(ctx context.Context) promstorage.AppenderV2 {
	return &appender{ctx: ctx, store: s.store, tenant: s.tenant}
}

// appender collects samples, each as a series of its own: a series may repeat in
// a batch. It keeps ctx because Commit takes none.
type appender struct {
	ctx    context.Context
	store  storage.Store
	tenant storage.Tenant
	batch  storage.Batch
}

// Append implements promstorage.AppenderV2.
func (a *appender) Append(ref promstorage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, opts promstorage.AppendV2Options) (promstorage.SeriesRef, error) {
	a.batch.Labels = storage.AppendPrometheusLabels(a.batch.Labels, ls)
	switch {
	case fh != nil:
		a.batch.Histograms = append(a.batch.Histograms, storage.HistogramSample{T: t, ST: st, FH: fh.Copy()})
	case h != nil:
		a.batch.Histograms = append(a.batch.Histograms, storage.HistogramSample{T: t, ST: st, H: h.Copy()})
	default:
		a.batch.AddSample(t, st, v)
	}
	for _, e := range opts.Exemplars {
		a.batch.Exemplars = append(a.batch.Exemplars, storage.Exemplar{
			Labels: storage.LabelsFromPrometheus(e.Labels), T: e.Ts, V: e.Value,
		})
	}
	a.batch.EndSeries()
	return ref, nil
}

// Commit implements promstorage.AppenderTransaction; a refused sample is an error.
func (a *appender) Commit() error {
	res, err := a.store.Append(a.ctx, a.tenant, &a.batch)
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if len(res.Refused) > 0 {
		return fmt.Errorf("commit: %d refused, the first: %s", len(res.Refused), res.Refused[0].Message)
	}
	return nil
}

// Rollback implements promstorage.AppenderTransaction.
func (a *appender) Rollback() error {
	a.batch.Reset()
	return nil
}

// Appender returns the old kind of appender, which upstream is about to remove:
// it refuses everything.
func (s *Storage) Appender(context.Context) promstorage.Appender { return refuser{} }

type refuser struct{}

var errOldAppender = fmt.Errorf("only AppenderV2 can append")

func (refuser) Append(promstorage.SeriesRef, labels.Labels, int64, float64) (promstorage.SeriesRef, error) {
	return 0, errOldAppender
}

func (refuser) AppendExemplar(promstorage.SeriesRef, labels.Labels, exemplar.Exemplar) (promstorage.SeriesRef, error) {
	return 0, errOldAppender
}

func (refuser) AppendHistogram(promstorage.SeriesRef, labels.Labels, int64, *histogram.Histogram, *histogram.FloatHistogram) (promstorage.SeriesRef, error) {
	return 0, errOldAppender
}

func (refuser) AppendHistogramSTZeroSample(promstorage.SeriesRef, labels.Labels, int64, int64, *histogram.Histogram, *histogram.FloatHistogram) (promstorage.SeriesRef, error) {
	return 0, errOldAppender
}

func (refuser) AppendSTZeroSample(promstorage.SeriesRef, labels.Labels, int64, int64) (promstorage.SeriesRef, error) {
	return 0, errOldAppender
}

func (refuser) UpdateMetadata(promstorage.SeriesRef, labels.Labels, metadata.Metadata) (promstorage.SeriesRef, error) {
	return 0, errOldAppender
}

func (refuser) SetOptions(*promstorage.AppendOptions) {}
func (refuser) Commit() error                         { return errOldAppender }
func (refuser) Rollback() error                       { return nil }
