package tenancy

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/luminate/luminate/storage"
)

// filter says which parts of a batch are refused; nil refuses none. It is the slow
// path: batches that pass whole are never copied.
type filter struct {
	series     map[int]refusedPart // whole series
	mint, maxt int64               // with window
	window     bool
	exemplars  int // kept in all, 0 = no bound
	buckets    int // of a histogram, 0 = no bound
}

// refusedPart says why, and how it is told.
type refusedPart struct {
	reason  storage.RefusalReason
	message func(storage.Labels) string
}

func (f *filter) orNew() *filter {
	if f == nil {
		return &filter{}
	}
	return f
}

// refuseUnmatched refuses the series that the holder of a narrowed token could not
// read back.
func (f *filter) refuseUnmatched(b *storage.Batch, ms []*storage.Matcher) *filter {
	for i := range b.Series {
		if storage.Matches(b.At(i).Labels, ms) {
			continue
		}
		f = f.orNew()
		if f.series == nil {
			f.series = map[int]refusedPart{}
		}
		f.series[i] = refusedPart{storage.ReasonForbidden, func(ls storage.Labels) string {
			return fmt.Sprintf("series %s is outside what the token's matchers allow", ls)
		}}
	}
	return f
}

// filtered is the batch that passes, and where its parts stood in the whole one.
type filtered struct {
	batch   storage.Batch
	series  []int   // original position of each series
	samples [][]int // of each series' samples, histograms and exemplars
	hists   [][]int
	exs     [][]int
	refused []storage.Refusal
}

// append stores what passes, and reports refusals by their positions in b.
func (f *filter) append(ctx context.Context, next storage.Store, t storage.Tenant, b *storage.Batch) (storage.AppendResult, error) {
	var p filtered
	left := f.exemplars
	for i := range b.Series {
		v := b.At(i)
		if why, ok := f.series[i]; ok {
			p.refuse(storage.Refusal{Series: i, Sample: -1, Reason: why.reason}, func() string { return why.message(v.Labels) })
			continue
		}
		f.copySeries(&p, i, v, &left)
	}
	p.batch.Metadata = b.Metadata
	if len(b.STs) == 0 {
		p.batch.STs = nil
	}
	res := storage.AppendResult{}
	if len(p.batch.Series)+len(p.batch.Metadata) > 0 {
		var err error
		if res, err = next.Append(ctx, t, &p.batch); err != nil {
			return res, err
		}
	}
	for _, r := range res.Refused {
		r.Sample = p.original(r)
		r.Series = p.series[r.Series]
		p.refused = append(p.refused, r)
	}
	slices.SortStableFunc(p.refused, func(x, y storage.Refusal) int { return cmp.Compare(x.Series, y.Series) })
	for i := storage.MaxNamedRefusals; i < len(p.refused); i++ {
		p.refused[i].Message = ""
	}
	res.Refused = p.refused
	return res, nil
}

// original maps a refused sample's position back.
func (p *filtered) original(r storage.Refusal) int {
	var positions []int
	switch {
	case r.Sample < 0:
		return r.Sample
	case r.Histogram:
		positions = p.hists[r.Series]
	case r.Exemplar:
		positions = p.exs[r.Series]
	default:
		positions = p.samples[r.Series]
	}
	return positions[r.Sample]
}

func (p *filtered) refuse(r storage.Refusal, message func() string) {
	if len(p.refused) < storage.MaxNamedRefusals {
		r.Message = message()
	}
	p.refused = append(p.refused, r)
}

// copySeries copies the parts of series i that pass; a series of which nothing is
// left is left out.
func (f *filter) copySeries(p *filtered, i int, v storage.BatchView, left *int) {
	var samples, hists, exs []int
	inside := func(j int, t int64, hist bool) bool {
		if !f.window || t >= f.mint && t <= f.maxt {
			return true
		}
		r := storage.Refusal{Series: i, Sample: j, Histogram: hist, T: t, Reason: storage.ReasonTooOld}
		setting := "limits.maxPast"
		if t > f.maxt {
			r.Reason, setting = storage.ReasonTooFarAhead, "limits.maxFuture"
		}
		p.refuse(r, func() string {
			return fmt.Sprintf("sample of %s at %d is outside [%d, %d] (ingestion-window, set by %s)", v.Labels, t, f.mint, f.maxt, setting)
		})
		return false
	}
	for j, x := range v.Samples {
		if !inside(j, x.T, false) {
			continue
		}
		p.batch.Samples = append(p.batch.Samples, x)
		if v.STs != nil {
			p.batch.STs = append(p.batch.STs, v.STs[j])
		}
		samples = append(samples, j)
	}
	for j, h := range v.Histograms {
		if !inside(j, h.T, true) {
			continue
		}
		if n := bucketsOf(h); f.buckets > 0 && n > f.buckets {
			p.refuse(storage.Refusal{Series: i, Sample: j, Histogram: true, T: h.T, Reason: storage.ReasonBucketLimit}, func() string {
				return fmt.Sprintf("histogram of %s has %d buckets, at most %d are allowed (max-histogram-buckets, set by limits.maxHistogramBuckets)", v.Labels, n, f.buckets)
			})
			continue
		}
		p.batch.Histograms = append(p.batch.Histograms, h)
		hists = append(hists, j)
	}
	for j, e := range v.Exemplars {
		if f.exemplars > 0 {
			if *left--; *left < 0 {
				p.refuse(storage.Refusal{Series: i, Sample: j, Exemplar: true, T: e.T, Reason: storage.ReasonExemplarLimit}, func() string {
					return fmt.Sprintf("exemplar of %s: the request has more than %d (max-exemplars-per-request, set by limits.maxExemplarsPerRequest)", v.Labels, f.exemplars)
				})
				continue
			}
		}
		p.batch.Exemplars = append(p.batch.Exemplars, e)
		exs = append(exs, j)
	}
	if len(samples)+len(hists)+len(exs) == 0 && len(v.Samples)+len(v.Histograms)+len(v.Exemplars) > 0 {
		return
	}
	p.batch.Labels = append(p.batch.Labels, v.Labels...)
	p.batch.EndSeries()
	p.series = append(p.series, i)
	p.samples, p.hists, p.exs = append(p.samples, samples), append(p.hists, hists), append(p.exs, exs)
}
