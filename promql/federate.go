package promql

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/prometheus/model/histogram"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

// federated is the newest sample of one series; H is nil for a float.
type federated struct {
	labels storage.Labels
	t      int64
	v      float64
	h      *histogram.FloatHistogram
}

// serveFederate answers the newest sample of every matching series within the
// lookback delta in an exposition format, as Prometheus's /federate does: every
// type is untyped, staleness markers are left out, and native histograms are in
// the protobuf formats only.
func (a *API) serveFederate(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, fmt.Sprintf("error parsing form values: %v", err), http.StatusBadRequest)
		return
	}
	sets, err := a.parser.ParseMetricSelectors(r.Form["match[]"])
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	held := a.cfg.Memory.Begin(tenancy.TenantOf(r.Context()))
	defer held.Release()
	var found []federated
	for _, ms := range sets {
		if found, err = a.appendNewest(r, held, found, ms); err != nil {
			e := storeError(err)
			http.Error(w, e.err.Error(), e.code)
			return
		}
	}
	sortFederated(found)
	found = slices.CompactFunc(found, func(x, y federated) bool { return string(x.labels) == string(y.labels) })

	format := expfmt.NegotiateAccept(r.Header, expfmt.NewFormat(expfmt.TypeProtoDelim), expfmt.NewFormat(expfmt.TypeProtoText),
		expfmt.NewFormat(expfmt.TypeProtoCompact), expfmt.NewFormat(expfmt.TypeTextPlain))
	w.Header().Set("Content-Type", string(format))
	if err := encodeFamilies(expfmt.NewEncoder(w, format), found, format.FormatType()); err != nil {
		a.log.Debug("write federation", "err", err)
	}
}

// appendNewest adds the newest sample of each series that matches ms.
func (a *API) appendNewest(r *http.Request, held *tenancy.MemoryReservation, found []federated, ms []*storage.Matcher) ([]federated, error) {
	ctx, now := r.Context(), a.now()
	s := storage.Selection{
		Matchers: ms, MinT: milliseconds(now.Add(-a.cfg.LookbackDelta)), MaxT: milliseconds(now),
		MaxSeries: a.cfg.MaxSeries, MaxSamples: a.cfg.MaxSamples, Unsorted: true, Hold: held.Use,
	}
	if held.Counts() && held.Held() == 0 {
		est, err := a.store.Estimate(ctx, tenancy.TenantOf(ctx), s)
		if err != nil && storage.KindOf(err) != storage.KindUnsupported {
			return nil, err
		}
		if err := held.Await(ctx, product(est.Series, 1, 2*pushedBytes)); err != nil {
			return nil, err
		}
	}
	for data, err := range a.store.Select(ctx, tenancy.TenantOf(ctx), s) {
		if err != nil {
			return nil, err
		}
		if f, ok := newest(&data); ok && f.labels.Metric() != "" {
			if err := held.Use((&storage.Series{Labels: f.labels}).Bytes()); err != nil {
				return nil, err
			}
			found = append(found, f)
		}
	}
	return found, nil
}

// newest returns the last sample of s, false for none or a staleness marker.
func newest(s *storage.Series) (federated, bool) {
	f := federated{labels: s.Labels}
	nf, nh := len(s.Samples), len(s.Histograms)
	switch {
	case nh > 0 && (nf == 0 || s.Histograms[nh-1].T > s.Samples[nf-1].T):
		last := s.Histograms[nh-1]
		f.t, f.h = last.T, last.Float()
		return f, !last.IsStale()
	case nf > 0:
		f.t, f.v = s.Samples[nf-1].T, s.Samples[nf-1].V
		return f, !storage.IsStale(f.v)
	default:
		return f, false
	}
}

// sortFederated orders by metric, so that a family is in one piece, then by labels.
func sortFederated(fs []federated) {
	slices.SortFunc(fs, func(x, y federated) int {
		if c := strings.Compare(x.labels.Metric(), y.labels.Metric()); c != 0 {
			return c
		}
		return storage.CompareLabels(x.labels, y.labels)
	})
}

// encodeFamilies writes runs of one metric and one type as families.
func encodeFamilies(enc expfmt.Encoder, fs []federated, format expfmt.FormatType) error {
	proto := format == expfmt.TypeProtoDelim || format == expfmt.TypeProtoText || format == expfmt.TypeProtoCompact
	var family *dto.MetricFamily
	flush := func() error {
		if family == nil {
			return nil
		}
		return enc.Encode(family)
	}
	for i := range fs {
		f := &fs[i]
		if f.h != nil && !f.h.UsesCustomBuckets() && !proto {
			continue // the text format has no native histograms
		}
		name, typ := f.labels.Metric(), federatedType(f)
		if family == nil || family.GetName() != name || family.GetType() != typ {
			if err := flush(); err != nil {
				return err
			}
			family = &dto.MetricFamily{Name: &name, Type: &typ}
		}
		family.Metric = append(family.Metric, federatedMetric(f))
	}
	return flush()
}

func federatedType(f *federated) dto.MetricType {
	switch {
	case f.h == nil:
		return dto.MetricType_UNTYPED
	case f.h.CounterResetHint == histogram.GaugeType:
		return dto.MetricType_GAUGE_HISTOGRAM
	default:
		return dto.MetricType_HISTOGRAM
	}
}

func federatedMetric(f *federated) *dto.Metric {
	m := &dto.Metric{TimestampMs: &f.t}
	instance := false
	for name, value := range f.labels.All() {
		if name == storage.MetricName {
			continue
		}
		instance = instance || name == "instance"
		m.Label = append(m.Label, &dto.LabelPair{Name: &name, Value: &value})
	}
	if !instance { // so that the scraper's own instance does not take its place
		name, value := "instance", ""
		m.Label = append(m.Label, &dto.LabelPair{Name: &name, Value: &value})
	}
	switch {
	case f.h == nil:
		m.Untyped = &dto.Untyped{Value: &f.v}
	case f.h.UsesCustomBuckets():
		m.Histogram = classicHistogram(f.h)
	default:
		m.Histogram = nativeHistogram(f.h)
	}
	return m
}

func nativeHistogram(h *histogram.FloatHistogram) *dto.Histogram {
	return &dto.Histogram{
		SampleCountFloat: &h.Count, SampleSum: &h.Sum, Schema: &h.Schema,
		ZeroThreshold: &h.ZeroThreshold, ZeroCountFloat: &h.ZeroCount,
		PositiveSpan: bucketSpans(h.PositiveSpans), PositiveCount: h.PositiveBuckets,
		NegativeSpan: bucketSpans(h.NegativeSpans), NegativeCount: h.NegativeBuckets,
	}
}

func bucketSpans(spans []histogram.Span) []*dto.BucketSpan {
	var out []*dto.BucketSpan
	for _, s := range spans {
		out = append(out, &dto.BucketSpan{Offset: &s.Offset, Length: &s.Length})
	}
	return out
}

// classicHistogram turns custom buckets into cumulative ones; the +Inf bucket is
// the encoder's to add.
func classicHistogram(h *histogram.FloatHistogram) *dto.Histogram {
	counts := make(map[int32]float64, len(h.PositiveBuckets))
	for it := h.PositiveBucketIterator(); it.Next(); {
		counts[it.At().Index] = it.At().Count
	}
	out := &dto.Histogram{SampleCountFloat: &h.Count, SampleSum: &h.Sum}
	total := 0.0
	for i, bound := range h.CustomValues {
		total += counts[int32(i)]
		cumulative := total
		out.Bucket = append(out.Bucket, &dto.Bucket{UpperBound: &bound, CumulativeCountFloat: &cumulative})
	}
	return out
}
