package badger

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger/internal/block"
	"github.com/luminate/luminate/storage/badger/internal/index"
	"github.com/luminate/luminate/storage/badger/internal/wal"
)

const (
	noRef = math.MaxUint32
	// maxPartSamples bounds one log record; larger batches become several.
	maxPartSamples = 1 << 18
)

// request is one Append on its way through the committer, or a function that the
// committer runs between appends.
type request struct {
	tenant   storage.Tenant
	tn       *tenant // nil: the committer makes it
	batch    *storage.Batch
	parts    []*partRequest
	metadata []storage.Metadata
	samples  int
	run      func() error

	db *DB
	// rejected are series that the index could not take, told by the committer.
	rejected []rejection
	done     chan error
	enc      wal.SamplesEncoder
	used     int // of parts, when reused
}

// partRequest is a request's share of one day: samples as columns, refs resolved
// as far as the index knew the series.
type partRequest struct {
	day       int32
	p         *partition // as prepare saw it, nil if absent
	samples   wal.Samples
	missing   []missingSeries
	hists     []histogramRow
	exemplars []exemplarRow
	payload   []byte // encoded samples, if nothing was missing

	dayStart int64
	locked   bool
}

// missingSeries is a series that the index did not know, with its ranges in the
// columns of the partRequest.
type missingSeries struct {
	series             int // in the batch
	hash               index.Hash128
	from, to           int // samples
	histFrom, histTo   int
	exempFrom, exempTo int
}

// histogramRow is a native histogram of a series.
type histogramRow struct {
	ref uint32
	h   storage.HistogramSample
}

// exemplarRow is an exemplar of a series.
type exemplarRow struct {
	ref uint32
	e   storage.Exemplar
}

var requests = sync.Pool{New: func() any { return &request{done: make(chan error, 1)} }}

func (r *request) reset() {
	for _, pr := range r.parts {
		clear(pr.hists)
		clear(pr.exemplars)
		pr.hists, pr.exemplars, pr.missing, pr.payload = pr.hists[:0], pr.exemplars[:0], pr.missing[:0], pr.payload[:0]
		pr.p = nil
		if cap(pr.samples.Ref) > 1<<16 { // one giant batch must not pin its memory
			pr.samples, pr.payload = wal.Samples{}, nil
		}
	}
	if len(r.parts) > 8 {
		r.parts = r.parts[:8]
	}
	r.tenant, r.tn, r.batch, r.metadata, r.run = storage.Tenant{}, nil, nil, nil, nil
	clear(r.rejected)
	r.rejected = r.rejected[:0]
	r.samples, r.used = 0, 0
}

// part returns the share of a day, beginning a new one if the last is full.
func (r *request) part(day int32) *partRequest {
	for i := r.used - 1; i >= 0; i-- {
		if r.parts[i].day == day && r.parts[i].samples.Len() < maxPartSamples {
			return r.parts[i]
		}
	}
	if r.used == len(r.parts) {
		r.parts = append(r.parts, &partRequest{})
	}
	pr := r.parts[r.used]
	r.used++
	pr.day, pr.dayStart, pr.locked = day, dayStart(day), false
	pr.samples.Reset(0, day)
	if r.tn != nil {
		if pr.p = r.tn.part(day); pr.p != nil {
			// Several shares of one day hold one read lock between them.
			shared := slices.ContainsFunc(r.parts[:r.used-1], func(o *partRequest) bool { return o.locked && o.p == pr.p })
			if !shared {
				pr.p.mu.RLock()
				pr.locked = true
			}
		}
	}
	return pr
}

func (r *request) unlock() {
	for _, pr := range r.parts[:r.used] {
		if pr.locked {
			pr.p.mu.RUnlock()
			pr.locked = false
		}
	}
}

// Append implements storage.Store.
func (db *DB) Append(ctx context.Context, t storage.Tenant, b *storage.Batch) (storage.AppendResult, error) {
	var res storage.AppendResult
	if err := db.enter(ctx, "append", t); err != nil {
		return res, err
	}
	defer db.leave()
	if err := db.writable("append"); err != nil {
		return res, err
	}
	r := requests.Get().(*request)
	defer func() {
		r.reset()
		requests.Put(r)
	}()
	r.db, r.tenant, r.tn, r.batch = db, t, db.lookupTenant(t), b
	r.prepare(db, &res)
	for _, f := range res.Refused {
		db.met.refused.WithLabelValues(string(f.Reason)).Inc()
	}
	if r.used == 0 && len(r.metadata) == 0 {
		return res, nil
	}
	if err := r.encode(); err != nil {
		return storage.AppendResult{}, internal("append", err)
	}
	if err := db.submit(ctx, "append", r); err != nil {
		return storage.AppendResult{}, err
	}
	for _, x := range r.rejected {
		res.Samples -= x.samples
		res.Histograms -= x.histograms
		res.Exemplars -= x.exemplars
		refuse(&res, storage.Refusal{Series: x.series, Sample: -1, Reason: x.reason}, x.err.Error)
		db.met.refused.WithLabelValues(string(x.reason)).Inc()
	}
	return res, nil
}

// rejection is a series that was refused by the index: more labels than it takes, or
// a day with as many series as it can number.
type rejection struct {
	series                         int
	reason                         storage.RefusalReason
	err                            error
	samples, histograms, exemplars int
}

// limits are the times that samples of a metric may have.
type limits struct{ mint, maxt int64 }

// prepare splits the batch by day, checks times and labels, hashes labels, and
// resolves the series that the index knows. Refused samples are told in res.
func (r *request) prepare(db *DB, res *storage.AppendResult) {
	defer r.unlock()
	b := r.batch
	clock := db.clock(r.tn)
	lim := clock.limits("")
	var cur *partRequest
	metric := ""
	hashes := b.Hashes(db.hashSeed) // known where limits on series needed them first
	for i := range b.Series {
		v := b.At(i)
		if clock.perMetric() {
			if name := v.Labels.Metric(); name != metric {
				metric, lim = name, clock.limits(name)
			}
		}
		var h index.Hash128
		if hashes != nil {
			h = hashes[i]
		} else {
			h = db.hash(v.Labels)
		}
		ref := r.known(cur, h)
		if ref == noRef {
			if err := v.Labels.Validate(); err != nil {
				refuse(res, storage.Refusal{Series: i, Sample: -1, Reason: storage.ReasonInvalidLabels}, func() string { return err.Error() })
				continue
			}
		}
		cur = r.addSamples(i, h, v, lim, cur, ref, res)
		if len(v.Histograms) > 0 {
			r.addHistograms(i, h, v, lim, res)
		}
		if len(v.Exemplars) > 0 {
			r.addExemplars(i, h, v, lim, res)
		}
	}
	r.metadata = db.changedMetadata(r.tn, b.Metadata)
}

// known returns the series' ref in the day at hand, or noRef. Labels of a known series
// were validated when it was created.
func (r *request) known(cur *partRequest, h index.Hash128) uint32 {
	if cur == nil || cur.p == nil {
		return noRef
	}
	return cur.p.refOf(h)
}

// addSamples adds the samples of one series; ref is its number in cur, if known.
func (r *request) addSamples(i int, h index.Hash128, v storage.BatchView, lim limits, cur *partRequest, ref uint32, res *storage.AppendResult) *partRequest {
	last := (*partRequest)(nil)
	if ref != noRef {
		last = cur
	}
	for j, s := range v.Samples {
		if s.T < lim.mint || s.T > lim.maxt {
			refuseTime(res, storage.Refusal{Series: i, Sample: j, T: s.T}, v.Labels, lim)
			continue
		}
		if cur == nil || uint64(s.T-cur.dayStart) >= dayMillis || cur.samples.Len() >= maxPartSamples {
			cur = r.part(dayOf(s.T))
		}
		if cur != last {
			ref = r.resolve(cur, i, h)
			last = cur
		}
		st := int64(0)
		if v.STs != nil {
			st = v.STs[j]
		}
		cur.samples.Append(ref, s.T, s.V, st)
		if ref == noRef {
			cur.missing[len(cur.missing)-1].to = cur.samples.Len()
		}
		res.Samples++
		r.samples++
	}
	return cur
}

// resolve returns the series' ref, or noRef after noting it as missing.
func (r *request) resolve(pr *partRequest, series int, h index.Hash128) uint32 {
	if pr.p != nil {
		if ref := pr.p.refOf(h); ref != noRef {
			return ref
		}
	}
	n := len(pr.missing)
	if n > 0 && pr.missing[n-1].series == series && pr.missing[n-1].to == pr.samples.Len() {
		return noRef
	}
	pr.missing = append(pr.missing, missingSeries{
		series: series, hash: h, from: pr.samples.Len(), to: pr.samples.Len(),
		histFrom: len(pr.hists), histTo: len(pr.hists), exempFrom: len(pr.exemplars), exempTo: len(pr.exemplars),
	})
	return noRef
}

func (r *request) addHistograms(i int, h index.Hash128, v storage.BatchView, lim limits, res *storage.AppendResult) {
	for j, s := range v.Histograms {
		if s.T < lim.mint || s.T > lim.maxt {
			refuseTime(res, storage.Refusal{Series: i, Sample: j, T: s.T, Histogram: true}, v.Labels, lim)
			continue
		}
		row := block.HistogramSample(s)
		if err := row.Check(); err != nil {
			refuse(res, storage.Refusal{Series: i, Sample: j, T: s.T, Histogram: true, Reason: storage.ReasonInvalidValue},
				func() string { return fmt.Sprintf("histogram of %s at %d: %v", v.Labels, s.T, err) })
			continue
		}
		pr := r.part(dayOf(s.T))
		ref := r.resolve(pr, i, h)
		// The batch's memory is the caller's again after Append: keep a copy.
		if s.H != nil {
			s.H = s.H.Copy()
		} else {
			s.FH = s.FH.Copy()
		}
		pr.hists = append(pr.hists, histogramRow{ref: ref, h: s})
		if ref == noRef {
			pr.missing[len(pr.missing)-1].histTo = len(pr.hists)
		}
		res.Histograms++
		r.samples++
	}
}

func (r *request) addExemplars(i int, h index.Hash128, v storage.BatchView, lim limits, res *storage.AppendResult) {
	for j, e := range v.Exemplars {
		if e.T < lim.mint || e.T > lim.maxt {
			refuseTime(res, storage.Refusal{Series: i, Sample: j, T: e.T, Exemplar: true}, v.Labels, lim)
			continue
		}
		pr := r.part(dayOf(e.T))
		ref := r.resolve(pr, i, h)
		e.Labels = e.Labels.Clone()
		pr.exemplars = append(pr.exemplars, exemplarRow{ref: ref, e: e})
		if ref == noRef {
			pr.missing[len(pr.missing)-1].exempTo = len(pr.exemplars)
		}
		res.Exemplars++
		r.samples++
	}
}

// encode builds the log payloads of the shares whose series are all known, here,
// where requests run in parallel, and not in the committer.
func (r *request) encode() error {
	for _, pr := range r.parts[:r.used] {
		if len(pr.missing) > 0 || pr.samples.Len() == 0 {
			continue
		}
		if err := pr.encodeSamples(&r.enc, r.tn.id); err != nil {
			return err
		}
	}
	return nil
}

func (pr *partRequest) encodeSamples(enc *wal.SamplesEncoder, tenant uint32) (err error) {
	pr.samples.Tenant = tenant
	pr.payload, err = enc.AppendTo(pr.payload[:0], &pr.samples)
	return err
}

func refuseTime(res *storage.AppendResult, r storage.Refusal, ls storage.Labels, lim limits) {
	r.Reason = storage.ReasonTooOld
	if r.T > lim.maxt {
		r.Reason = storage.ReasonTooFarAhead
	}
	refuse(res, r, func() string {
		return fmt.Sprintf("sample of %s at %d is outside of [%d, %d], the times that are taken now", ls, r.T, lim.mint, lim.maxt)
	})
}

func refuse(res *storage.AppendResult, r storage.Refusal, message func() string) {
	if len(res.Refused) < storage.MaxNamedRefusals {
		r.Message = message()
	}
	res.Refused = append(res.Refused, r)
}
