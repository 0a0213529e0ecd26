//go:build unix

package block

import "golang.org/x/sys/unix"

// allocSlab returns zeroed memory of slabBytes. When the kernel refuses a map
// the heap serves.
func allocSlab(offHeap bool) []byte {
	if offHeap {
		b, err := unix.Mmap(-1, 0, slabBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err == nil {
			return b
		}
	}
	return make([]byte, slabBytes)
}

func freeSlab(b []byte, offHeap bool) {
	if offHeap {
		// unix.Munmap refuses memory that it did not map, so a slab from the heap is left to the collector.
		_ = unix.Munmap(b)
	}
}
