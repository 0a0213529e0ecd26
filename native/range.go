package native

import (
	"cmp"
	"container/heap"
	"context"
	"slices"
	"time"

	"github.com/luminate/luminate/storage"
)

// rangeSelection translates a range query.
func rangeSelection(p *plan) storage.Selection {
	return storage.Selection{
		Matchers: p.matchers, MinT: p.start, MaxT: p.end - 1,
		MaxSeries: p.lim.MaxSeries, MaxSamples: p.lim.MaxSamples, Unsorted: true, Hold: p.reserved.Use,
	}
}

// rangePoints returns the newest points up to the limit; only they are held while
// the series stream by.
func (a *API) rangePoints(ctx context.Context, t storage.Tenant, p *plan) ([]RawPoint, bool, error) {
	begin := time.Now()
	var newest pointHeap
	var series, samples uint64
	truncated := false
	for s, err := range a.store.Select(ctx, t, rangeSelection(p)) {
		if err != nil {
			return nil, false, err
		}
		if err := storage.ContextError(ctx, "range"); err != nil {
			return nil, false, err
		}
		if len(s.Histograms) > 0 {
			return nil, false, storage.Errorf(storage.KindUnsupported, "range",
				"series %s has native histograms, which have no place in points of one value: ask with PromQL", s.Labels)
		}
		series++
		samples += uint64(len(s.Samples))
		for _, x := range slices.Backward(s.Samples) {
			if storage.IsStale(x.V) {
				continue
			}
			pt := heldPoint{t: x.T, v: x.V, labels: s.Labels}
			switch {
			case len(newest) < p.limit:
				heap.Push(&newest, pt)
			case newest[0].compare(pt) < 0:
				truncated = true
				newest[0] = pt
				heap.Fix(&newest, 0)
			default:
				truncated = true
			}
			if len(newest) == p.limit && newest[0].t > x.T {
				truncated = true
				break // the rest of the series is older still
			}
		}
	}
	p.explain.addSelect(series, samples, time.Since(begin))
	slices.SortFunc(newest, func(x, y heldPoint) int {
		if p.order.desc {
			return y.compare(x)
		}
		return x.compare(y)
	})
	return p.rawPoints(newest), truncated, nil
}

// heldPoint is a point that may be among the newest.
type heldPoint struct {
	t      int64
	v      float64
	labels storage.Labels
}

// compare orders points by time; of one time the greater labels come first, so
// that newest first means ascending labels.
func (x heldPoint) compare(y heldPoint) int {
	return cmp.Or(cmp.Compare(x.t, y.t), -storage.CompareLabels(x.labels, y.labels))
}

// pointHeap has the oldest point on top.
type pointHeap []heldPoint

func (h pointHeap) Len() int           { return len(h) }
func (h pointHeap) Less(i, j int) bool { return h[i].compare(h[j]) < 0 }
func (h pointHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *pointHeap) Push(x any)        { *h = append(*h, x.(heldPoint)) }
func (h *pointHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

// rawPoints renders the points; those of one series share its dimensions.
func (p *plan) rawPoints(points []heldPoint) []RawPoint {
	type identity struct {
		metric     string
		dimensions map[string]string
	}
	single := p.singleMetric()
	known := map[string]identity{}
	out := make([]RawPoint, len(points))
	for i, x := range points {
		id, ok := known[string(x.labels)]
		if !ok {
			id.dimensions = map[string]string{}
			for n, v := range x.labels.All() {
				switch {
				case n != storage.MetricName:
					id.dimensions[n] = v
				case !single:
					id.metric = v
				}
			}
			known[string(x.labels)] = id
		}
		out[i] = RawPoint{Timestamp: x.t, Value: Value(x.v), Metric: id.metric, Dimensions: id.dimensions}
	}
	return out
}
