package native

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/luminate/luminate/storage"
)

// assembler turns records into a batch: one entry for each series with all its
// samples, measurements of one series on one millisecond moved apart.
type assembler struct {
	batch    storage.Batch
	order    []int32 // index of the metric of each sample of the batch
	adjusted int

	table  []int32 // open addressing, positions in series + 1; a power of two long
	series []seriesEntry
	of     []int32 // series of each record
	sorted []int32 // records by series, in the request's order
	moved  []int32 // scratch of spread
}

type seriesEntry struct {
	hash     uint64
	from, to uint32 // labels
	count    int32
	last     int64
	ascends  bool // times strictly ascend in the request's order
}

// assemble builds the batch from d's records; what cannot be moved within the
// limit is refused through d.
func (a *assembler) assemble(d *decoder) {
	a.batch.Reset()
	a.order, a.adjusted = a.order[:0], 0
	a.group(d)
	a.sortRecords(d)
	begin := 0
	for i := range a.series {
		s := &a.series[i]
		share := a.sorted[begin : begin+int(s.count)]
		begin += int(s.count)
		n := len(a.batch.Samples)
		if s.ascends {
			for _, r := range share {
				a.add(&d.records[r])
			}
		} else {
			a.spread(d, share)
		}
		if len(a.batch.Samples) == n {
			continue
		}
		a.batch.Labels = append(a.batch.Labels, d.labels[s.from:s.to]...)
		a.batch.EndSeries()
	}
}

func (a *assembler) add(r *record) {
	a.batch.Samples = append(a.batch.Samples, storage.Sample{T: r.t, V: r.v})
	a.order = append(a.order, r.index)
}

// group finds the distinct series, in order of appearance.
func (a *assembler) group(d *decoder) {
	size := 16
	for size < 2*len(d.records) {
		size *= 2
	}
	if cap(a.table) < size {
		a.table = make([]int32, size)
	}
	a.table = a.table[:size]
	clear(a.table)
	a.series, a.of = a.series[:0], a.of[:0]
	mask := uint64(size - 1)
	for i := range d.records {
		r := &d.records[i]
		slot := r.hash & mask
		var at int32
		for {
			at = a.table[slot] - 1
			if at < 0 {
				break
			}
			s := &a.series[at]
			if s.hash == r.hash && bytes.Equal(d.labels[s.from:s.to], d.labels[r.from:r.to]) {
				break
			}
			slot = (slot + 1) & mask
		}
		if at < 0 {
			at = int32(len(a.series))
			a.series = append(a.series, seriesEntry{hash: r.hash, from: r.from, to: r.to, ascends: true, last: r.t - 1})
			a.table[slot] = at + 1
		}
		s := &a.series[at]
		s.count++
		s.ascends = s.ascends && r.t > s.last
		s.last = r.t
		a.of = append(a.of, at)
	}
}

// sortRecords orders the records by series and keeps the request's order within.
func (a *assembler) sortRecords(d *decoder) {
	n := len(d.records)
	if cap(a.sorted) < n {
		a.sorted = make([]int32, n)
	}
	a.sorted = a.sorted[:n]
	next := make([]int32, len(a.series))
	var sum int32
	for i := range a.series {
		next[i] = sum
		sum += a.series[i].count
	}
	for i, s := range a.of {
		a.sorted[next[s]] = int32(i)
		next[s]++
	}
}

// spread gives every measurement of one series its own millisecond: the first of
// each millisecond stays, the others move, in order of time and then of the
// request, to the next milliseconds that no measurement has. So the result
// depends on the batch alone, and the same batch lands on itself.
func (a *assembler) spread(d *decoder, share []int32) {
	slices.SortStableFunc(share, func(x, y int32) int {
		switch tx, ty := d.records[x].t, d.records[y].t; {
		case tx < ty:
			return -1
		case tx > ty:
			return 1
		default:
			return 0
		}
	})
	waiting := a.moved[:0]
	head := 0
	free := int64(0) // next millisecond that may be free
	most := d.lim.MaxAdjustment.Milliseconds()
	settle := func(until int64) { // until is taken
		for ; head < len(waiting) && free < until; head++ {
			r := &d.records[waiting[head]]
			if free-r.t > most {
				d.refuse(int(r.index), metricOf(d, r), CodeInvalidTimestamp, fmt.Sprintf(
					"the series has so many measurements on millisecond %d that this one would move by more than %s: send a counter instead of single events", r.t, d.lim.MaxAdjustment))
				continue
			}
			moved := *r
			moved.t = free
			a.add(&moved)
			a.adjusted++
			free++
		}
	}
	for i, at := range share {
		r := &d.records[at]
		if i > 0 && d.records[share[i-1]].t == r.t {
			waiting = append(waiting, at)
			continue
		}
		settle(r.t)
		a.add(r)
		free = r.t + 1
	}
	settle(1<<63 - 1)
	a.moved = waiting[:0]
}

func metricOf(d *decoder, r *record) string { return storage.Labels(d.labels[r.from:r.to]).Metric() }
