package index

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"sort"
)

// valueOrder lists the values 1..len(byValue) of a label in ascending order. Values are only ever added, so an old
// order stays right; readers look through the few values behind it one by one.
type valueOrder struct{ byValue []uint32 }

// A new order is made when more than tailMin values, and more than a tailShare-th of all, are not in the old one.
const (
	tailMin   = 256
	tailShare = 16
)

// orderOf returns an order that covers nearly all values. Readers call it: the first that needs a newer one builds it.
func (m *Mem) orderOf(name uint32) []uint32 {
	x := m.label[name-1]
	fresh := func() ([]uint32, bool) {
		if o := x.order.Load(); o != nil {
			tail := x.len() - uint32(len(o.byValue))
			return o.byValue, tail <= max(tailMin, x.len()/tailShare)
		}
		return nil, x.len() <= tailMin
	}
	if o, ok := fresh(); ok {
		return o
	}
	m.orderMu.Lock()
	defer m.orderMu.Unlock()
	o, ok := fresh()
	if ok {
		return o
	}
	o = m.mergeOrder(x, o, m.sortedTail(x, uint32(len(o))))
	x.order.Store(&valueOrder{byValue: o})
	return o
}

// sortedValues returns all values in order.
func (m *Mem) sortedValues(name uint32) []uint32 {
	x := m.label[name-1]
	o := m.orderOf(name)
	if uint32(len(o)) == x.len() {
		return o
	}
	return m.mergeOrder(x, o, m.sortedTail(x, uint32(len(o))))
}

// sortedTail sorts the values behind number n. It compares eight bytes behind the longest common prefix first, which
// mostly decide, and without touching the values' memory.
func (m *Mem) sortedTail(x *nameIndex, n uint32) []uint32 {
	if n == x.len() {
		return nil
	}
	type keyed struct {
		key uint64
		v   uint32
	}
	ks := make([]keyed, 0, x.len()-n)
	first := x.value(&m.sym, n+1)
	common := len(first)
	for v := n + 1; v <= x.len(); v++ {
		b := x.value(&m.sym, v)
		i := 0
		for i < common && i < len(b) && b[i] == first[i] {
			i++
		}
		common = i
	}
	for v := n + 1; v <= x.len(); v++ {
		var key [8]byte
		copy(key[:], x.value(&m.sym, v)[common:])
		ks = append(ks, keyed{binary.BigEndian.Uint64(key[:]), v})
	}
	slices.SortFunc(ks, func(a, b keyed) int {
		if c := cmp.Compare(a.key, b.key); c != 0 {
			return c
		}
		return bytes.Compare(x.value(&m.sym, a.v), x.value(&m.sym, b.v))
	})
	out := make([]uint32, len(ks))
	for i, k := range ks {
		out[i] = k.v
	}
	return out
}

func (m *Mem) mergeOrder(x *nameIndex, a, b []uint32) []uint32 {
	out := make([]uint32, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		// The tail is short, so the stretch of a before b's next value is found by bisection.
		v := x.value(&m.sym, b[0])
		n := sort.Search(len(a), func(i int) bool { return bytes.Compare(x.value(&m.sym, a[i]), v) > 0 })
		out = append(append(out, a[:n]...), b[0])
		a, b = a[n:], b[1:]
	}
	return append(append(out, a...), b...)
}

// prefixRange returns the part of an order whose values begin with prefix.
func (m *Mem) prefixRange(x *nameIndex, order []uint32, prefix string) []uint32 {
	p := viewBytes(prefix)
	lo := sort.Search(len(order), func(i int) bool { return bytes.Compare(x.value(&m.sym, order[i]), p) >= 0 })
	n := sort.Search(len(order)-lo, func(i int) bool { return !bytes.HasPrefix(x.value(&m.sym, order[lo+i]), p) })
	return order[lo : lo+n]
}
