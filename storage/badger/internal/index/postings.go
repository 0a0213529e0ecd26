package index

import (
	"math/bits"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
)

const (
	// listMax is the length at which a list of ids becomes a bitmap: there a bitmap over a million ids is smaller.
	listMax     = 1024
	listMin     = 4
	listClasses = 9 // 4, 8, … 1024

	multiFlag = 1 << 31
)

// postingRef is the set of series of one value: 0 for none, id+1 for one, multiFlag|n for entry n of postingStore.multi.
type postingRef = uint32

// postingStore holds all sets of more than one id: short ones as sorted arrays in a slab, long ones as bitmaps.
type postingStore struct {
	multi   slab[multiPosting]
	ids     slab[uint32]
	free    [listClasses]uint32 // index+1 of the first free array of a class; its first element is the next
	bitmaps []*roaring.Bitmap
}

// multiPosting is an array of n ids at off, in the class that n needs; or bitmap number off when n is 0.
type multiPosting struct{ off, n uint32 }

// posting is a set of series to read. It points into the index: valid under the lock, not to be changed.
type posting struct {
	n      uint64
	single uint32 // the series, or the metric's number in mem
	list   []uint32
	bitmap *roaring.Bitmap
	mem    *Mem // set: all series of a metric, as extents
}

func listClass(n uint32) int { return max(0, bits.Len32(n-1)-2) }

func (p *postingStore) allocList(class int) uint32 {
	if f := p.free[class]; f != 0 {
		p.free[class] = *p.ids.at(f - 1)
		return f - 1
	}
	return p.ids.run(listMin << class)
}

func (p *postingStore) freeList(off uint32, class int) {
	*p.ids.at(off) = p.free[class]
	p.free[class] = off + 1
}

// add puts id into the set; it returns the set's new reference. Adding an id twice is the caller's fault.
func (p *postingStore) add(ref postingRef, id uint32) postingRef {
	if ref == 0 {
		return id + 1
	}
	if ref&multiFlag == 0 {
		a, b := min(ref-1, id), max(ref-1, id)
		off := p.allocList(0)
		l := p.ids.view(off, 2)
		l[0], l[1] = a, b
		p.multi.push(multiPosting{off: off, n: 2})
		return multiFlag | (p.multi.n - 1)
	}
	m := p.multi.at(ref &^ multiFlag)
	if m.n == 0 {
		p.bitmaps[m.off].Add(id)
		return ref
	}
	class := listClass(m.n)
	if m.n == listMax {
		b := roaring.New()
		b.AddMany(p.ids.view(m.off, m.n))
		b.Add(id)
		p.freeList(m.off, class)
		p.bitmaps = append(p.bitmaps, b)
		*m = multiPosting{off: uint32(len(p.bitmaps) - 1)}
		return ref
	}
	if m.n == listMin<<class {
		off := p.allocList(class + 1)
		copy(p.ids.view(off, m.n), p.ids.view(m.off, m.n))
		p.freeList(m.off, class)
		m.off = off
	}
	l := p.ids.view(m.off, m.n+1)
	at := int(m.n)
	if l[at-1] > id { // extents of other metrics lie between
		at, _ = slices.BinarySearch(l[:at], id)
		copy(l[at+1:], l[at:m.n])
	}
	l[at] = id
	m.n++
	return ref
}

func (p *postingStore) get(ref postingRef) posting {
	if ref == 0 {
		return posting{}
	}
	if ref&multiFlag == 0 {
		return posting{n: 1, single: ref - 1}
	}
	m := p.multi.at(ref &^ multiFlag)
	if m.n == 0 {
		b := p.bitmaps[m.off]
		return posting{n: b.GetCardinality(), bitmap: b}
	}
	return posting{n: uint64(m.n), list: p.ids.view(m.off, m.n)}
}

// toBitmap returns the set as a bitmap that may be the index's own.
func (x posting) toBitmap() *roaring.Bitmap {
	switch {
	case x.bitmap != nil:
		return x.bitmap
	case x.mem != nil:
		return x.mem.metricBitmap(x.single)
	case x.list != nil:
		b := roaring.New()
		b.AddMany(x.list)
		return b
	case x.n == 1:
		return roaring.BitmapOf(x.single)
	default:
		return roaring.New()
	}
}

// owned returns the set as a bitmap that the caller may change.
func (x posting) owned() *roaring.Bitmap {
	if x.bitmap != nil {
		return x.bitmap.Clone()
	}
	return x.toBitmap()
}

// intersects tells whether the set and ids have a series in common.
func (x posting) intersects(ids *roaring.Bitmap) bool {
	switch {
	case x.bitmap != nil || x.mem != nil:
		return x.toBitmap().Intersects(ids)
	case x.list != nil:
		return slices.ContainsFunc(x.list, ids.Contains)
	default:
		return x.n == 1 && ids.Contains(x.single)
	}
}

// countIn counts the series that the set and ids have in common; nil ids are all.
func (x posting) countIn(ids *roaring.Bitmap) uint64 {
	switch {
	case ids == nil:
		return x.n
	case x.bitmap != nil || x.mem != nil:
		return x.toBitmap().AndCardinality(ids)
	}
	n := uint64(0)
	for _, id := range x.list {
		if ids.Contains(id) {
			n++
		}
	}
	if x.list == nil && x.n == 1 && ids.Contains(x.single) {
		n++
	}
	return n
}

// union collects sets into one bitmap. Single ids wait in a buffer; when they grow many they become bits of a dense
// set, which costs one bit for each id of the partition and no sorting.
type union struct {
	bound  uint32 // above every id
	ids    []uint32
	dense  []uint64
	result *roaring.Bitmap
}

// denseShare is the share of all ids from which a dense set is cheaper than sorting.
const denseShare = 128

func (u *union) add(p posting) {
	switch {
	case (p.bitmap != nil || p.mem != nil) && u.result == nil:
		u.result = p.owned()
	case p.bitmap != nil || p.mem != nil:
		u.result.Or(p.toBitmap())
	case p.list != nil:
		u.addIDs(p.list...)
	case p.n == 1:
		u.addIDs(p.single)
	}
}

func (u *union) addIDs(ids ...uint32) {
	if u.dense == nil {
		u.ids = append(u.ids, ids...)
		if len(u.ids) <= int(u.bound/denseShare)+1024 {
			return
		}
		u.dense = make([]uint64, (uint64(u.bound)+63)/64)
		ids, u.ids = u.ids, nil
	}
	for _, id := range ids {
		if int(id>>6) >= len(u.dense) { // only damaged postings name ids beyond the bound
			u.ids = append(u.ids, id)
			continue
		}
		u.dense[id>>6] |= 1 << (id & 63)
	}
}

// bitmap returns the union, owned by the caller.
func (u *union) bitmap() *roaring.Bitmap {
	out := u.result
	if out == nil {
		out = roaring.New()
	}
	if u.dense != nil {
		d := roaring.FromDense(u.dense, false)
		if out.IsEmpty() {
			out = d.Clone()
		} else {
			out.Or(d)
		}
	}
	if len(u.ids) > 0 {
		slices.Sort(u.ids)
		out.AddMany(u.ids)
	}
	return out
}
