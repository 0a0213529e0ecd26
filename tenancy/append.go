package tenancy

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/luminate/luminate/storage"
)

// Append implements storage.Store. Rates and quotas refuse a batch as a whole, for
// the sender to come again; what is wrong with single series or samples is refused
// alone and the rest is stored.
func (s *guarded) Append(ctx context.Context, t storage.Tenant, b *storage.Batch) (storage.AppendResult, error) {
	id, err := s.enter(ctx, "append", t)
	if err != nil {
		return storage.AppendResult{}, err
	}
	if id.Federated != nil {
		return storage.AppendResult{}, storage.Errorf(storage.KindInvalid, "append", "several tenants at once can only be read")
	}
	var f *filter
	var st *tenantState
	if s.limiter != nil {
		st = s.limiter.state(t)
		defer b.ForgetHashes() // the caller may change the batch then
		if f, err = s.limiter.checkBatch(ctx, st, b); err != nil {
			return storage.AppendResult{}, err
		}
	}
	if len(id.Matchers) > 0 {
		f = f.refuseUnmatched(b, id.Matchers)
	}
	var res storage.AppendResult
	if f == nil {
		res, err = s.next.Append(ctx, t, b)
	} else {
		res, err = f.append(ctx, s.next, t, b)
	}
	if st != nil {
		st.accept(res.Samples+res.Histograms, s.limiter.cfg.Now())
		st.saw(newestOf(b))
		s.limiter.metrics.notStored(t, res.Refused)
	}
	return res, err
}

// accept counts what was stored.
func (s *tenantState) accept(n int, now time.Time) {
	s.accepted.Add(uint64(n))
	s.used.Store(now.UnixNano())
	if s.limits.Load().SamplesPerDay == 0 {
		return
	}
	s.mu.Lock()
	s.dayLocked(now)
	s.today += int64(n)
	s.mu.Unlock()
}

// saw notes the greatest timestamp of a batch.
func (s *tenantState) saw(ms int64) {
	for old := s.newest.Load(); ms > old; old = s.newest.Load() {
		if s.newest.CompareAndSwap(old, ms) {
			return
		}
	}
}

// newestOf returns the greatest timestamp of a batch, 0 if it has none after 1970.
func newestOf(b *storage.Batch) (ms int64) {
	for i := range b.Samples {
		ms = max(ms, b.Samples[i].T)
	}
	for i := range b.Histograms {
		ms = max(ms, b.Histograms[i].T)
	}
	return ms
}

// dayLocked begins a new day's count when a new UTC day has begun.
func (s *tenantState) dayLocked(now time.Time) {
	if day := now.Unix() / 86400; day != s.day {
		s.day, s.today = day, 0
	}
}

// checkBatch refuses the batch as a whole with an error, or parts of it in the
// filter, which is nil where all may pass.
func (l *Limiter) checkBatch(ctx context.Context, s *tenantState, b *storage.Batch) (*filter, error) {
	limits, now := s.limits.Load(), l.cfg.Now()
	n := len(b.Samples) + len(b.Histograms)
	if e := l.checkWhole(s, limits, b, n, now); e != nil {
		if e = l.refuse(s.tenant, e); e != nil {
			return nil, e
		}
	}
	if l.cfg.Observe {
		l.observeShape(s, limits, b)
	}
	var f *filter
	if limits.tracksSeries() && len(b.Series) > 0 {
		f = l.checkSeries(ctx, s, limits, b, now)
	}
	if limits.MaxPast > 0 || limits.MaxFuture > 0 {
		mint, maxt := int64(-1<<63), int64(1<<63-1)
		if limits.MaxPast > 0 {
			mint = now.Add(-time.Duration(limits.MaxPast)).UnixMilli()
		}
		if limits.MaxFuture > 0 {
			maxt = now.Add(time.Duration(limits.MaxFuture)).UnixMilli()
		}
		if outside(b, mint, maxt) {
			l.metrics.limited.WithLabelValues(s.tenant.String(), "ingestion-window").Inc()
			if !l.cfg.Observe {
				f = f.orNew()
				f.mint, f.maxt, f.window = mint, maxt, true
			}
		}
	}
	if limits.MaxExemplarsPerRequest > 0 && len(b.Exemplars) > limits.MaxExemplarsPerRequest {
		l.metrics.limited.WithLabelValues(s.tenant.String(), "max-exemplars-per-request").Inc()
		if !l.cfg.Observe {
			f = f.orNew()
			f.exemplars = limits.MaxExemplarsPerRequest
		}
	}
	if limits.MaxHistogramBuckets > 0 && hasWide(b, limits.MaxHistogramBuckets) {
		l.metrics.limited.WithLabelValues(s.tenant.String(), "max-histogram-buckets").Inc()
		if !l.cfg.Observe {
			f = f.orNew()
			f.buckets = limits.MaxHistogramBuckets
		}
	}
	return f, nil
}

// observeShape counts what the tenant's limits on labels and size would refuse. Enforced,
// they are the decoders' business, which let less memory be taken; these counts go by the
// batch, so its size is that of labels and samples.
func (l *Limiter) observeShape(s *tenantState, limits *Limits, b *storage.Batch) {
	count := func(id string) { l.metrics.limited.WithLabelValues(s.tenant.String(), id).Inc() }
	over := func(n, most int) bool { return most > 0 && n > most }
	if size := int64(len(b.Labels)) + 16*int64(len(b.Samples)+len(b.Histograms)); limits.MaxDecodedBytes > 0 && size > limits.MaxDecodedBytes {
		count("max-decoded-bytes")
	}
	for i := range b.Series {
		labels, name, value := 0, false, false
		for n, v := range b.At(i).Labels.All() {
			labels++
			name = name || over(len(n), limits.MaxLabelNameBytes)
			value = value || over(len(v), limits.MaxLabelValueBytes)
		}
		if over(labels, limits.MaxLabelsPerSeries) {
			count("max-labels-per-series")
		}
		if name {
			count("max-label-name-bytes")
		}
		if value {
			count("max-label-value-bytes")
		}
	}
}

// checkWhole checks what refuses a batch as a whole.
func (l *Limiter) checkWhole(s *tenantState, limits *Limits, b *storage.Batch, n int, now time.Time) *LimitError {
	if limits.StoredBytes > 0 && s.bytes.Load() >= uint64(limits.StoredBytes) {
		return &LimitError{Retry: time.Minute, err: storage.LimitErrorf(storage.KindLimited, "append", "stored-bytes", "limits.storedBytes",
			"%d bytes are stored, at most %d are allowed", s.bytes.Load(), limits.StoredBytes)}
	}
	if limits.SamplesPerDay > 0 {
		s.mu.Lock()
		s.dayLocked(now)
		left := limits.SamplesPerDay/int64(l.processes()) - s.today
		s.mu.Unlock()
		if int64(n) > left {
			midnight := now.UTC().Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(now)
			return &LimitError{Retry: midnight, Limit: limits.SamplesPerDay, Remaining: max(0, left), Reset: midnight,
				err: storage.LimitErrorf(storage.KindLimited, "append", "samples-per-day", "limits.samplesPerDay",
					"%d samples are left of the %d of this UTC day", max(0, left), limits.SamplesPerDay)}
		}
	}
	e := s.samples.take(now, n)
	if e != nil && e.Retry > 0 {
		s.blockedUntil.Store(now.Add(e.Retry).UnixNano())
	}
	return e
}

// maxExchanges bounds how often an append waits for the other processes: when little is
// left, each exchange gives a process its part of the rest.
const maxExchanges = 8

// checkSeries counts the batch's series and refuses new ones over a limit. Where
// processes agree on limits and this one's lease is used up, it waits for an exchange.
func (l *Limiter) checkSeries(ctx context.Context, s *tenantState, limits *Limits, b *storage.Batch, now time.Time) *filter {
	if l.share != nil && !l.share.inForce(now) {
		l.share.soon(ctx)
	}
	hashes := b.HashSeries(l.seriesSeed()) // before the lock is held
	var refused []refusedSeries
	for range maxExchanges {
		agreed := l.share != nil && l.share.inForce(now)
		s.mu.Lock()
		s.trackLocked(now, l.share != nil)
		a := s.agreed
		if !agreed {
			a = nil
		}
		refused = s.series.observe(b, hashes, limits, a, now, refused[:0])
		s.mu.Unlock()
		if !slices.ContainsFunc(refused, func(r refusedSeries) bool { return r.waits }) || ctx.Err() != nil {
			break
		}
		l.share.soon(ctx)
	}
	if len(refused) == 0 {
		return nil
	}
	for _, r := range refused {
		l.metrics.limited.WithLabelValues(s.tenant.String(), seriesLimitIDs[r.limit]).Inc()
	}
	if l.cfg.Observe {
		return nil
	}
	f := (*filter)(nil).orNew()
	f.series = map[int]refusedPart{}
	for _, r := range refused {
		f.series[r.index] = refusedPart{storage.ReasonSeriesLimit, func(ls storage.Labels) string {
			return fmt.Sprintf("series %s is new and over the limit of %d (%s, set by limits.%s)", ls, r.maximum, seriesLimitIDs[r.limit], r.limit)
		}}
	}
	return f
}

// seriesLimitIDs are the public ids of the limits on series.
var seriesLimitIDs = map[string]string{
	"maxActiveSeries": "max-active-series", "maxActiveSeriesPerMetric": "max-active-series-per-metric", "maxMetrics": "max-metrics",
}

func outside(b *storage.Batch, mint, maxt int64) bool {
	for i := range b.Samples {
		if t := b.Samples[i].T; t < mint || t > maxt {
			return true
		}
	}
	for i := range b.Histograms {
		if t := b.Histograms[i].T; t < mint || t > maxt {
			return true
		}
	}
	return false
}

func hasWide(b *storage.Batch, maximum int) bool {
	for i := range b.Histograms {
		if bucketsOf(b.Histograms[i]) > maximum {
			return true
		}
	}
	return false
}

// bucketsOf counts a histogram's buckets, empty ones of its spans included.
func bucketsOf(h storage.HistogramSample) int {
	spans := func(ss []histogram.Span) int {
		n := 0
		for _, s := range ss {
			n += int(s.Length)
		}
		return n
	}
	if h.FH != nil {
		return spans(h.FH.PositiveSpans) + spans(h.FH.NegativeSpans)
	}
	return spans(h.H.PositiveSpans) + spans(h.H.NegativeSpans)
}
