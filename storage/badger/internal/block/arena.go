package block

import "math/bits"

const (
	segmentBytes = 64                // one cache line
	payloadBytes = 59                // bytes 0..58: tokens
	usedAt       = 59                // byte 59: tokens' bytes in a full (not last) segment
	nextAt       = 60                // bytes 60..63: reference of the next segment, little endian, 0 = none
	slabShift    = 12                // segments in a slab, as a power of two
	slabSegments = 1 << slabShift    // 4096
	slabMask     = slabSegments - 1  //
	slabBytes    = slabSegments * 64 // 256 KiB
	maxSlabs     = 1<<(32-12) - 1    // references are 32 bits
)

// Arena hands out 64-byte segments for streams from slabs of 256 KiB that hold no pointers, so that a million open
// series cost the garbage collector nothing. Freed segments are reused, lowest slab first; a slab that is wholly free
// is given back, but for one kept as a reserve.
//
// An Arena is not safe for concurrent mutation. Any number of goroutines may decode while none mutates.
type Arena struct {
	slabs   []slab
	room    []uint64 // bit i: slab i has a free segment
	offHeap bool
	used    int // segments handed out
	mapped  int // slabs that own memory
	empty   int // of these, wholly free ones
}

type slab struct {
	buf   []byte
	free  uint16 // 1 + local number of the first freed segment, 0 = none
	fresh uint16 // segments from here on were never handed out
	used  uint16
}

// NewArena returns an empty arena. With offHeap slabs are anonymous memory maps where the platform has them: they then
// count neither as Go heap nor towards its growth target, and Close must be called to give them back.
func NewArena(offHeap bool) *Arena { return &Arena{offHeap: offHeap} }

// Bytes returns the memory that the arena holds, in bytes, free segments included.
func (a *Arena) Bytes() int64 { return int64(a.mapped) * slabBytes }

// UsedBytes returns the bytes of segments that streams hold.
func (a *Arena) UsedBytes() int64 { return int64(a.used) * segmentBytes }

// Close gives all memory back. Streams of the arena must not be used afterwards; the arena itself is empty and usable.
func (a *Arena) Close() {
	for i := range a.slabs {
		if a.slabs[i].buf != nil {
			a.dropMemory(&a.slabs[i])
		}
	}
	a.slabs, a.room, a.used, a.empty = nil, nil, 0, 0
}

// segment returns the segment of a reference; ref must not be 0.
func (a *Arena) segment(ref uint32) *[segmentBytes]byte {
	i := ref - 1
	return (*[segmentBytes]byte)(a.slabs[i>>slabShift].buf[int(i&slabMask)*segmentBytes:])
}

// alloc returns the reference of a segment whose bytes are arbitrary. References start at 1.
func (a *Arena) alloc() uint32 {
	n := a.slabWithRoom()
	s := &a.slabs[n]
	if s.used == 0 {
		a.empty--
	}
	var local uint16
	if s.free != 0 {
		local = s.free - 1
		next := s.buf[int(local)*segmentBytes:]
		s.free = uint16(next[0]) | uint16(next[1])<<8
	} else {
		local = s.fresh
		s.fresh++
	}
	s.used++
	a.used++
	if s.used == slabSegments {
		a.room[n>>6] &^= 1 << (n & 63)
	}
	return uint32(n)<<slabShift + uint32(local) + 1
}

// slabWithRoom returns the lowest slab with a free segment that owns memory, or one that it just made.
func (a *Arena) slabWithRoom() int {
	for w, word := range a.room {
		if word != 0 {
			return w<<6 + bits.TrailingZeros64(word)
		}
	}
	n := len(a.slabs)
	if a.mapped < n { // reuse the number of a slab that was given back
		for n = 0; a.slabs[n].buf != nil; n++ {
		}
	} else {
		if n >= maxSlabs {
			panic("block: arena exceeds 256 GiB") // references would wrap: our own bug, memory ends long before
		}
		a.slabs = append(a.slabs, slab{})
		if n>>6 == len(a.room) {
			a.room = append(a.room, 0)
		}
	}
	a.slabs[n] = slab{buf: allocSlab(a.offHeap)}
	a.mapped++
	a.empty++
	a.room[n>>6] |= 1 << (n & 63)
	return n
}

// release gives the segment back and returns the reference that its chain field holds.
func (a *Arena) release(ref uint32) (next uint32) {
	seg := a.segment(ref)
	next = uint32(seg[nextAt]) | uint32(seg[nextAt+1])<<8 | uint32(seg[nextAt+2])<<16 | uint32(seg[nextAt+3])<<24
	n := int(ref-1) >> slabShift
	s := &a.slabs[n]
	seg[0], seg[1] = byte(s.free), byte(s.free>>8)
	s.free = uint16((ref-1)&slabMask) + 1
	s.used--
	a.used--
	a.room[n>>6] |= 1 << (n & 63)
	if s.used > 0 {
		return next
	}
	if a.empty > 0 { // one reserve is enough
		a.room[n>>6] &^= 1 << (n & 63)
		a.dropMemory(s)
		return next
	}
	s.free, s.fresh = 0, 0
	a.empty++
	return next
}

func (a *Arena) dropMemory(s *slab) {
	freeSlab(s.buf, a.offHeap)
	*s = slab{}
	a.mapped--
}
