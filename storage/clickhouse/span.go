package clickhouse

import (
	"math"
	"slices"
	"sort"

	"github.com/ClickHouse/ch-go/proto"
)

// span is what a statement of an evaluation asks for: the samples of some neighbours in a roster.
type span struct {
	roster     *roster
	members    *members
	from, to   int // positions in the roster
	mint, maxt int64
}

// sampleRows are the columns of statement evaluate/samples.
type sampleRows struct {
	id    proto.ColUInt64
	t     proto.ColInt64
	short proto.ColInt32 // t - maxt, where that fits
	image proto.ColUInt64
	wide  bool
}

// statement renders evaluate/samples for the span; the rows arrive in r's columns, in no order.
func (r *sampleRows) statement(x span, where string, p *params) (sql string) {
	r.wide = x.maxt-x.mint > math.MaxInt32
	t := "toInt32(toUnixTimestamp64Milli(ts) - " + p.i64(x.maxt) + ")"
	if r.wide {
		t = "toUnixTimestamp64Milli(ts)"
	}
	return render("evaluate/samples", fragments{"Time": t, "Where": where})
}

func (r *sampleRows) result() proto.Results {
	out := proto.Results{{Name: "series_id", Data: &r.id}, {Name: "t", Data: &r.short}, {Name: "image", Data: &r.image}}
	if r.wide {
		out[1].Data = &r.t
	}
	return out
}

// time is a row's time in milliseconds.
func (r *sampleRows) time(x span, i int) int64 {
	if r.wide {
		return r.t[i]
	}
	return x.maxt + int64(r.short[i])
}

// finder finds the series of rows, which come in runs of one series and, within a part of the table, in the roster's
// order.
type finder struct {
	span
	unknown func(id uint64) // takes ids that the roster lacks
	last    uint64
	any     bool
	near    int
	at      int
}

// find returns the place of a row's series within the span, -1 if it is not wanted.
func (f *finder) find(id uint64) int {
	if id == f.last && f.any {
		return f.at
	}
	f.last, f.any, f.at = id, true, -1
	at, ok := f.roster.find(id, f.near)
	if !ok {
		f.unknown(id)
		return -1
	}
	f.near = at + 1
	if at >= f.from && at < f.to && f.members.group(at) != noGroup {
		f.at = at - f.from
	}
	return f.at
}

// keyRange is the SQL for the keys of the positions [from, to) of a roster and, before the first and behind the last, of
// all that it lacks. Ends are cut by loc alone, which the server reads fastest, unless that brings many neighbours.
func keyRange(p *params, r *roster, from, to int) []string {
	vain := max(1, (to-from)/16)
	var conds []string
	if from > 0 {
		loc := r.locs[from]
		at := p.u32(loc)
		conds = append(conds, "loc >= "+at)
		if before, _ := slices.BinarySearch(r.locs[:from], loc); from-before > vain {
			conds = append(conds, "(loc > "+at+" OR series_id >= "+p.u64(r.ids[from])+")")
		}
	}
	if to < len(r.ids) {
		loc := r.locs[to]
		at := p.u32(loc)
		conds = append(conds, "loc <= "+at)
		if after := sort.Search(len(r.locs)-to, func(i int) bool { return r.locs[to+i] > loc }); after > vain {
			conds = append(conds, "(loc < "+at+" OR series_id < "+p.u64(r.ids[to])+")")
		}
	}
	return conds
}
