package promql

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/luminate/luminate/storage"
)

// hintLookback is how far before a selection the predecessor of a histogram is
// looked for, in milliseconds.
const hintLookback = 5 * 60 * 1000

// setResetHints gives every counter histogram the hint that Prometheus's own
// storage would read back: "not reset" after a predecessor that it continues,
// else "unknown". What senders wrote is not trusted, since samples may have
// arrived between since; only "gauge" and an explicit reset stay.
func (q *querier) setResetHints(ctx context.Context, s storage.Selection, found []series) error {
	if !slices.ContainsFunc(found, func(x series) bool { return len(x.data.Histograms) > 0 }) {
		return nil
	}
	before, err := q.predecessors(ctx, s)
	if err != nil {
		return err
	}
	var scratch hintScratch
	for i := range found {
		d := &found[i].data
		prev, ok := before[string(d.Labels)]
		var p *storage.HistogramSample
		if ok {
			p = &prev
		}
		scratch.set(d, p)
	}
	return nil
}

// predecessors returns, by label bytes, the last sample before the selection of
// each series whose last sample there is a histogram.
func (q *querier) predecessors(ctx context.Context, s storage.Selection) (map[string]storage.HistogramSample, error) {
	s.MinT, s.MaxT, s.Unsorted, s.Limit = s.MinT-hintLookback, s.MinT-1, true, 0
	out := map[string]storage.HistogramSample{}
	for d, err := range q.store.Select(ctx, q.opts.Tenant(ctx), s) {
		if err != nil {
			return nil, err
		}
		if n := len(d.Histograms); n > 0 && (len(d.Samples) == 0 || d.Samples[len(d.Samples)-1].T < d.Histograms[n-1].T) {
			out[string(d.Labels)] = d.Histograms[n-1]
		}
	}
	return out, nil
}

// hintScratch reuses the float forms of integer histograms.
type hintScratch struct{ a, b *histogram.FloatHistogram }

// set walks one series; prev is the sample before its first, nil if unknown.
func (s *hintScratch) set(d *storage.Series, prev *storage.HistogramSample) {
	floats := 0 // floats before the current histogram
	for i := range d.Histograms {
		cur := &d.Histograms[i]
		was := floats
		for floats < len(d.Samples) && d.Samples[floats].T < cur.T {
			floats++
		}
		if floats > was { // a float between: no histogram to continue
			prev = nil
		}
		if hint := hintOf(cur); hint != histogram.GaugeType && hint != histogram.CounterReset {
			setHint(cur, histogram.UnknownCounterReset) // else DetectReset would believe it
			if prev != nil && s.continues(cur, prev) {
				setHint(cur, histogram.NotCounterReset)
			}
		}
		prev = cur
	}
}

// continues tells whether cur follows prev in one counter without a reset.
func (s *hintScratch) continues(cur, prev *storage.HistogramSample) bool {
	switch {
	case (cur.H == nil) != (prev.H == nil), hintOf(prev) == histogram.GaugeType:
		return false
	case cur.IsStale():
		return true
	case prev.IsStale():
		return false
	case cur.H == nil:
		return !cur.FH.DetectReset(prev.FH)
	}
	s.a, s.b = cur.H.ToFloat(s.a), prev.H.ToFloat(s.b)
	return !s.a.DetectReset(s.b)
}

func hintOf(h *storage.HistogramSample) histogram.CounterResetHint {
	if h.H != nil {
		return h.H.CounterResetHint
	}
	return h.FH.CounterResetHint
}

// setHint changes the hint of a copy: the histogram itself may be what a store
// keeps in memory. The copy shares spans and buckets, which nobody changes.
func setHint(s *storage.HistogramSample, hint histogram.CounterResetHint) {
	switch {
	case hintOf(s) == hint:
	case s.H != nil:
		h := *s.H
		h.CounterResetHint = hint
		s.H = &h
	default:
		h := *s.FH
		h.CounterResetHint = hint
		s.FH = &h
	}
}
