package index

// Bytes estimates the memory that the index holds. It looks at every bitmap: not for hot paths.
func (m *Mem) Bytes() uint64 {
	const perShape, perLabel = 96, 256 // structs and map entries
	n := 16*m.hashes.capacity() + 4*(m.records.capacity()+m.values.capacity()) + 8*len(m.table)
	n += 16*m.groups.capacity() + 24*m.metrics.capacity() + 8*m.dirty.capacity()
	n += 8*m.post.multi.capacity() + 4*m.post.ids.capacity()
	n += 4*m.names.refs.capacity() + 8*len(m.names.table)
	for _, c := range m.sym.chunks {
		n += cap(c)
	}
	for _, x := range m.label {
		n += perLabel + 4*(x.refs.capacity()+x.post.capacity()) + 8*len(x.table)
		if o := x.order.Load(); o != nil {
			n += 4 * len(o.byValue)
		}
	}
	for i := range m.shapes {
		n += perShape + 8*len(m.shapes[i].names)
	}
	total := uint64(n)
	for _, b := range m.post.bitmaps {
		total += b.GetSizeInBytes()
	}
	return total
}
