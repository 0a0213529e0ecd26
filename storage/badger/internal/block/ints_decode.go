package block

import "encoding/binary"

// intSource are the three streams on the way back.
type intSource struct {
	desc   reader
	packed reader
	varint reader
}

// decode fills out, or passes over the sequence when out is nil; n is its length. Damage is left in the readers' bad.
func (s *intSource) decode(kind byte, n int, out []int64) {
	kind &= kindMask // the caller has seen to it that it is below kindConst
	if kind >= kindZigzag {
		s.decodeVarints(kind, out)
		return
	}
	r := int(kind % 3)
	if r > n {
		s.desc.fail()
		return
	}
	var head [2]int64
	for i := range r {
		head[i] = s.desc.varint()
	}
	lo := s.desc.varint()
	width, shift := int(s.desc.byte()), 0
	if kind >= kindShifted {
		shift = int(s.desc.byte())
	}
	if width > 64 || shift > 63 {
		s.desc.fail()
		return
	}
	tail := s.packed.b
	s.packed.bytes(uint64(packedBytes(n-r, width)))
	if out == nil || s.packed.bad || s.desc.bad {
		return
	}
	copy(out, head[:r])
	unpackBits(out[r:], tail, lo, shift, width)
	integrate(out, r)
}

// decodeVarints is decode for the varint kinds.
func (s *intSource) decodeVarints(kind byte, out []int64) {
	size := s.desc.uvarint()
	lo := int64(0)
	if kind >= kindOffset {
		lo = s.desc.varint()
	}
	p := s.varint.bytes(size)
	if out == nil || s.varint.bad || s.desc.bad {
		return
	}
	if !readUvarints(out, p) {
		s.desc.fail()
		return
	}
	r := int(kind % 3)
	signed := out // zigzag are all or the first values
	if kind >= kindOffset {
		signed = out[:min(r, len(out))]
		rest := out[len(signed):]
		for i := range rest {
			rest[i] += lo
		}
	}
	for i, x := range signed {
		signed[i] = unzigzag(uint64(x))
	}
	integrate(out, r)
}

// readUvarints fills out from exactly the bytes of p.
func readUvarints(out []int64, p []byte) bool {
	at := 0
	for i := range out {
		if at < len(p) && p[at] < 0x80 {
			out[i] = int64(p[at])
			at++
			continue
		}
		x, w := binary.Uvarint(p[min(at, len(p)):])
		if w <= 0 {
			return false
		}
		out[i] = int64(x)
		at += w
	}
	return at == len(p)
}

// integrate undoes r rounds of differences.
func integrate(xs []int64, r int) {
	switch {
	case r == 1:
		acc := int64(0)
		for i, x := range xs {
			acc += x
			xs[i] = acc
		}
	case r == 2 && len(xs) > 0:
		acc := xs[0]
		d := int64(0)
		for i, x := range xs[1:] {
			d += x
			acc += d
			xs[i+1] = acc
		}
	}
}
