package remote

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/prometheus/storage/remote/otlptranslator/prometheusremotewrite"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/luminate/luminate/storage"
)

// eachMetric calls fn for every metric and removes those for which it answers false.
func eachMetric(md pmetric.Metrics, keep func(pcommon.Resource, pmetric.ScopeMetrics, pmetric.Metric) bool) {
	for i := range md.ResourceMetrics().Len() {
		rm := md.ResourceMetrics().At(i)
		for j := range rm.ScopeMetrics().Len() {
			sm := rm.ScopeMetrics().At(j)
			sm.Metrics().RemoveIf(func(m pmetric.Metric) bool { return !keep(rm.Resource(), sm, m) })
		}
	}
}

// maxTargetInfo bounds the target_info samples that a request's span of time makes.
// The translator writes one at every half of the lookback delta from the first to the
// last timestamp, which for two data points at the ends of time is a hundred million.
const maxTargetInfo = 100_000

// targetInfoSamples counts the target_info samples that the translator would write
// beyond one for each resource.
func targetInfoSamples(md pmetric.Metrics, interval time.Duration) (n uint64) {
	for i := range md.ResourceMetrics().Len() {
		first, last := pcommon.Timestamp(math.MaxUint64), pcommon.Timestamp(0)
		seen := func(t pcommon.Timestamp) {
			first, last = min(first, t), max(last, t)
		}
		sms := md.ResourceMetrics().At(i).ScopeMetrics()
		for j := range sms.Len() {
			for k := range sms.At(j).Metrics().Len() {
				eachTimestamp(sms.At(j).Metrics().At(k), seen)
			}
		}
		if last > first {
			n += uint64(last-first) / uint64(interval)
		}
	}
	return n
}

func eachTimestamp(m pmetric.Metric, fn func(pcommon.Timestamp)) {
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		eachPoint(m.Gauge().DataPoints(), fn)
	case pmetric.MetricTypeSum:
		eachPoint(m.Sum().DataPoints(), fn)
	case pmetric.MetricTypeHistogram:
		eachPoint(m.Histogram().DataPoints(), fn)
	case pmetric.MetricTypeExponentialHistogram:
		eachPoint(m.ExponentialHistogram().DataPoints(), fn)
	case pmetric.MetricTypeSummary:
		eachPoint(m.Summary().DataPoints(), fn)
	}
}

func eachPoint[P interface{ Timestamp() pcommon.Timestamp }](points interface {
	Len() int
	At(int) P
}, fn func(pcommon.Timestamp)) {
	for i := range points.Len() {
		fn(points.At(i).Timestamp())
	}
}

// screenTemporality removes the metrics that are not cumulative and tells why.
func screenTemporality(md pmetric.Metrics, rejected *rejections) {
	eachMetric(md, func(_ pcommon.Resource, _ pmetric.ScopeMetrics, m pmetric.Metric) bool {
		temporality, points := pmetric.AggregationTemporalityCumulative, 0
		switch m.Type() {
		case pmetric.MetricTypeSum:
			temporality, points = m.Sum().AggregationTemporality(), m.Sum().DataPoints().Len()
		case pmetric.MetricTypeHistogram:
			temporality, points = m.Histogram().AggregationTemporality(), m.Histogram().DataPoints().Len()
		case pmetric.MetricTypeExponentialHistogram:
			temporality, points = m.ExponentialHistogram().AggregationTemporality(), m.ExponentialHistogram().DataPoints().Len()
		case pmetric.MetricTypeEmpty:
			rejected.note(fmt.Sprintf("metric %q has no data", m.Name()))
			return false
		}
		switch temporality {
		case pmetric.AggregationTemporalityCumulative:
			return true
		case pmetric.AggregationTemporalityDelta:
			rejected.add(points, fmt.Sprintf("metric %q has delta temporality, which is not stored: send cumulative "+
				"(OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=cumulative)", m.Name()))
		default:
			rejected.add(points, fmt.Sprintf("metric %q has no aggregation temporality", m.Name()))
		}
		return false
	})
}

// pruneBadPoints removes every data point that the translator refuses by itself.
func pruneBadPoints(ctx context.Context, md pmetric.Metrics, settings prometheusremotewrite.Settings, rejected *rejections) error {
	settings.DisableTargetInfo = true
	app := newBatchAppender(&storage.Batch{}, ShapeLimits{}, maxMessageBytes)
	app.discard = true
	one := pmetric.NewMetrics()
	rm := one.ResourceMetrics().AppendEmpty()
	sm := rm.ScopeMetrics().AppendEmpty()
	eachMetric(md, func(r pcommon.Resource, s pmetric.ScopeMetrics, m pmetric.Metric) bool {
		r.CopyTo(rm.Resource())
		s.Scope().CopyTo(sm.Scope())
		sm.SetSchemaUrl(s.SchemaUrl())
		probe := newProbe(sm, m)
		check := func() (bad bool) {
			if ctx.Err() != nil {
				return false // told by the caller
			}
			_, err := prometheusremotewrite.NewPrometheusConverter(app).FromMetrics(ctx, one, settings)
			if err != nil {
				rejected.add(1, fmt.Sprintf("metric %q: %v", m.Name(), err))
			}
			return err != nil
		}
		return probe.prune(m, check)
	})
	return storage.ContextError(ctx, "translate")
}

// probe is a metric that holds one data point of another at a time.
type probe struct{ m pmetric.Metric }

func newProbe(sm pmetric.ScopeMetrics, of pmetric.Metric) probe {
	sm.Metrics().RemoveIf(func(pmetric.Metric) bool { return true })
	m := sm.Metrics().AppendEmpty()
	m.SetName(of.Name())
	m.SetUnit(of.Unit())
	m.SetDescription(of.Description())
	return probe{m}
}

// prune removes the points of m for which bad answers true while the probe holds
// them. It reports whether any is left.
func (p probe) prune(m pmetric.Metric, bad func() bool) bool {
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		m.Gauge().DataPoints().RemoveIf(func(dp pmetric.NumberDataPoint) bool {
			dp.CopyTo(p.m.SetEmptyGauge().DataPoints().AppendEmpty())
			return bad()
		})
		return m.Gauge().DataPoints().Len() > 0
	case pmetric.MetricTypeSum:
		m.Sum().DataPoints().RemoveIf(func(dp pmetric.NumberDataPoint) bool {
			sum := p.m.SetEmptySum()
			sum.SetAggregationTemporality(m.Sum().AggregationTemporality())
			sum.SetIsMonotonic(m.Sum().IsMonotonic())
			dp.CopyTo(sum.DataPoints().AppendEmpty())
			return bad()
		})
		return m.Sum().DataPoints().Len() > 0
	case pmetric.MetricTypeHistogram:
		m.Histogram().DataPoints().RemoveIf(func(dp pmetric.HistogramDataPoint) bool {
			h := p.m.SetEmptyHistogram()
			h.SetAggregationTemporality(m.Histogram().AggregationTemporality())
			dp.CopyTo(h.DataPoints().AppendEmpty())
			return bad()
		})
		return m.Histogram().DataPoints().Len() > 0
	case pmetric.MetricTypeExponentialHistogram:
		m.ExponentialHistogram().DataPoints().RemoveIf(func(dp pmetric.ExponentialHistogramDataPoint) bool {
			h := p.m.SetEmptyExponentialHistogram()
			h.SetAggregationTemporality(m.ExponentialHistogram().AggregationTemporality())
			dp.CopyTo(h.DataPoints().AppendEmpty())
			return bad()
		})
		return m.ExponentialHistogram().DataPoints().Len() > 0
	default:
		m.Summary().DataPoints().RemoveIf(func(dp pmetric.SummaryDataPoint) bool {
			dp.CopyTo(p.m.SetEmptySummary().DataPoints().AppendEmpty())
			return bad()
		})
		return m.Summary().DataPoints().Len() > 0
	}
}
