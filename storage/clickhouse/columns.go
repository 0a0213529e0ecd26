package clickhouse

import (
	"sync"

	"github.com/ClickHouse/ch-go/proto"
)

// piece is the rows of one request in one block, by columns. What most rows share is
// held once: the tenant, and the metric of neighbouring rows.
type piece struct {
	tenant  string
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
	name  string
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

// allSTs is sts with the rows that have none.
func (p *piece) allSTs() []int64 {
	for len(p.sts) < len(p.ids) {
		p.sts = append(p.sts, 0)
	}
	return p.sts
}

// columns returns the block as the columns of its table, which refer to the pieces'
// memory: they are sent from where they lie.
func (b *block) columns() proto.Input {
	var tenants, metrics dictionary
	locs, ids, times := stretches{typ: proto.ColumnTypeUInt32}, stretches{typ: proto.ColumnTypeUInt64}, stretches{typ: timeColumn}
	images, sts := stretches{typ: proto.ColumnTypeUInt64}, stretches{typ: proto.ColumnTypeInt64}
	positions := stretches{typ: proto.ColumnTypeUInt32}
	var data proto.ColStr
	for _, p := range b.pieces {
		tenants.add(p.tenant, len(p.ids))
		row := 0
		for _, run := range p.metrics {
			metrics.add(run.name, run.until-row)
			row = run.until
		}
		locs.add(proto.ColUInt32(p.locs))
		ids.add(proto.ColUInt64(p.ids))
		times.add(proto.ColInt64(p.times))
		images.add(proto.ColUInt64(p.images))
		if b.kind != kindExemplars {
			sts.add(proto.ColInt64(p.allSTs()))
		}
		positions.add(proto.ColUInt32(p.positions))
		data.AppendArr(p.data)
	}
	in := proto.Input{
		{Name: "tenant", Data: tenants.column()}, {Name: "metric", Data: metrics.column()},
		{Name: "loc", Data: locs}, {Name: "series_id", Data: ids}, {Name: "ts", Data: times},
	}
	switch b.kind {
	case kindSamples:
		in = append(in, proto.InputColumn{Name: "image", Data: images}, proto.InputColumn{Name: "st", Data: sts})
	case kindHistograms:
		in = append(in, proto.InputColumn{Name: "digest", Data: images}, proto.InputColumn{Name: "st", Data: sts}, proto.InputColumn{Name: "data", Data: data})
	default:
		in = append(in, proto.InputColumn{Name: "image", Data: images}, proto.InputColumn{Name: "labels", Data: data}, proto.InputColumn{Name: "position", Data: positions})
	}
	return append(in, proto.InputColumn{Name: "retention_days", Data: constant(b.class, b.count)})
}

// timeColumn is the type of the column of time stamps, which are sent as they are.
const timeColumn proto.ColumnType = "DateTime64(3, 'UTC')"

// constant returns a column of n equal values.
func constant(v uint16, n int) proto.ColUInt16 {
	out := make(proto.ColUInt16, n)
	for i := range out {
		out[i] = v
	}
	return out
}

// stretches is a column whose rows lie in several slices, one after the other.
type stretches struct {
	typ   proto.ColumnType
	parts []proto.ColInput
	rows  int
}

func (c *stretches) add(part proto.ColInput) {
	c.parts = append(c.parts, part)
	c.rows += part.Rows()
}

// Type implements proto.ColInput.
func (c stretches) Type() proto.ColumnType { return c.typ }

// Rows implements proto.ColInput.
func (c stretches) Rows() int { return c.rows }

// EncodeColumn implements proto.ColInput.
func (c stretches) EncodeColumn(b *proto.Buffer) {
	for _, p := range c.parts {
		p.EncodeColumn(b)
	}
}

// WriteColumn implements proto.ColInput.
func (c stretches) WriteColumn(w *proto.Writer) {
	for _, p := range c.parts {
		p.WriteColumn(w)
	}
}

// dictionary gathers a column of type LowCardinality(String). Zero is empty.
type dictionary struct {
	values proto.ColStr
	keys   map[string]uint32
	rows   []uint32 // keys of the rows
}

// add appends n rows of one value.
func (d *dictionary) add(value string, n int) {
	key, ok := d.keys[value]
	if !ok {
		if d.keys == nil {
			d.keys = map[string]uint32{}
		}
		key = uint32(len(d.keys))
		d.keys[value] = key
		d.values.Append(value)
	}
	for range n {
		d.rows = append(d.rows, key)
	}
}

// column returns the column, its keys as narrow as they can be.
func (d *dictionary) column() proto.ColLowCardinalityRaw {
	c := proto.ColLowCardinalityRaw{Index: &d.values}
	switch n := len(d.keys); {
	case n <= 1<<8:
		c.Key, c.Keys8 = proto.KeyUInt8, narrow[uint8](d.rows)
	case n <= 1<<16:
		c.Key, c.Keys16 = proto.KeyUInt16, narrow[uint16](d.rows)
	default:
		c.Key, c.Keys32 = proto.KeyUInt32, d.rows
	}
	return c
}

func narrow[T uint8 | uint16](rows []uint32) []T {
	out := make([]T, len(rows))
	for i, v := range rows {
		out[i] = T(v)
	}
	return out
}

// lists is a column of arrays; row i ends before element ends[i] of values.
type lists struct {
	ends   proto.ColUInt64
	values proto.ColInput
}

// Type implements proto.ColInput.
func (c lists) Type() proto.ColumnType { return proto.ColumnTypeArray.Sub(c.values.Type()) }

// Rows implements proto.ColInput.
func (c lists) Rows() int { return c.ends.Rows() }

// EncodeState implements proto.StateEncoder.
func (c lists) EncodeState(b *proto.Buffer) {
	if s, ok := c.values.(proto.StateEncoder); ok {
		s.EncodeState(b)
	}
}

// EncodeColumn implements proto.ColInput.
func (c lists) EncodeColumn(b *proto.Buffer) {
	c.ends.EncodeColumn(b)
	c.values.EncodeColumn(b)
}

// WriteColumn implements proto.ColInput.
func (c lists) WriteColumn(w *proto.Writer) {
	c.ends.WriteColumn(w)
	c.values.WriteColumn(w)
}
