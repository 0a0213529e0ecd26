package clickhouse

import (
	"sync"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// piece is the rows of one request in one block, by columns. What most rows share is
// held once: the tenant, and the metric of neighbouring rows.
type piece struct {
	tenant  any // a string, boxed once for all rows
	metrics []metricRun
	locs    []uint32
	ids     []uint64
	times   []int64
	images  []uint64 // histograms: digests
	sts     []int64  // start timestamps of the first len(sts) rows; the rest have none
	data    []string // histograms: messages; exemplars: labels
	// positions are of exemplars.
	positions []uint32
}

// metricRun is a metric whose rows end before row until.
type metricRun struct {
	name  any // a string, boxed once
	until int
}

// pieces are used again: a busy process would allocate their memory anew for each
// request, and the collector would have to look through it.
var pieces = sync.Pool{New: func() any { return new(piece) }}

// recycle hands a piece on to later requests; nobody may hold it any more.
func (p *piece) recycle() {
	clear(p.metrics)
	clear(p.data)
	*p = piece{
		metrics: p.metrics[:0], locs: p.locs[:0], ids: p.ids[:0], times: p.times[:0], images: p.images[:0],
		sts: p.sts[:0], data: p.data[:0], positions: p.positions[:0],
	}
	pieces.Put(p)
}

// addST notes the start timestamp of the row that was added last.
func (p *piece) addST(st int64) {
	if st == 0 {
		return // most have none, and then the column is not built
	}
	for len(p.sts) < len(p.ids)-1 {
		p.sts = append(p.sts, 0)
	}
	p.sts = append(p.sts, st)
}

// Positions of the columns in the INSERT statements of write.sql. Every table begins
// alike.
const (
	columnTenant = iota
	columnMetric
	columnLoc
	columnID
	columnTime
	columnImage
)

// send appends the rows to the columns of an INSERT.
func (p *piece) send(b driver.Batch, kind rowKind, class uint16) error {
	n := len(p.ids)
	cols := b.Columns()
	// Row by row with a value that is boxed already: the driver's Append of these
	// columns goes through reflection and allocates for each row.
	for range n {
		if err := cols[columnTenant].AppendRow(p.tenant); err != nil {
			return err
		}
	}
	row := 0
	for _, run := range p.metrics {
		for ; row < run.until; row++ {
			if err := cols[columnMetric].AppendRow(run.name); err != nil {
				return err
			}
		}
	}
	list := []any{p.locs, p.ids, p.times, p.images}
	switch kind {
	case kindSamples:
		list = append(list, p.allSTs(), repeat(class, n))
	case kindHistograms:
		list = append(list, p.allSTs(), repeat(class, n), p.data)
	default:
		list = append(list, p.data, p.positions, repeat(class, n))
	}
	for i, col := range list {
		if err := b.Column(columnLoc + i).Append(col); err != nil {
			return err
		}
	}
	return nil
}

// allSTs is sts with the rows that have none.
func (p *piece) allSTs() []int64 {
	for len(p.sts) < len(p.ids) {
		p.sts = append(p.sts, 0)
	}
	return p.sts
}

func repeat(v uint16, n int) []uint16 {
	out := make([]uint16, n)
	for i := range out {
		out[i] = v
	}
	return out
}
