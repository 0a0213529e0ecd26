package index

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// PackedCache keeps the packed indexes that were used last, so that queries share what they read. It is safe for
// concurrent use.
type PackedCache[K comparable] struct {
	max int

	mu   sync.Mutex
	kept []keptPacked[K] // most recently used last
}

type keptPacked[K comparable] struct {
	key    K
	packed *Packed
}

// NewPackedCache returns a cache of at most max indexes, max > 0. Each holds its names, four bytes for each group, and
// up to keptRecords decoded records of some tens of KiB.
func NewPackedCache[K comparable](maxIndexes int) *PackedCache[K] {
	return &PackedCache[K]{max: maxIndexes}
}

// Open returns the packed index in src, the keys of the partition that key names. It is a view if the partition's
// present packed form is in the cache.
func (c *PackedCache[K]) Open(ctx context.Context, key K, src Source) (*Packed, error) {
	if known := c.take(key); known != nil {
		view, ok, err := known.View(src)
		if err != nil {
			return nil, fmt.Errorf("open packed index: %w", err)
		}
		if ok {
			return view, nil
		}
	}
	p, err := OpenPacked(ctx, src)
	if err != nil {
		return nil, err
	}
	c.put(key, p)
	return p, nil
}

func (c *PackedCache[K]) take(key K) *Packed {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.kept, func(k keptPacked[K]) bool { return k.key == key })
	if i < 0 {
		return nil
	}
	k := c.kept[i]
	c.kept = append(slices.Delete(c.kept, i, i+1), k)
	return k.packed
}

func (c *PackedCache[K]) put(key K, p *Packed) {
	// The cache must not keep the caller's snapshot of the store alive.
	kept := keptPacked[K]{key, &Packed{packedParts: p.packedParts}}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = slices.DeleteFunc(c.kept, func(k keptPacked[K]) bool { return k.key == key })
	if len(c.kept) >= c.max {
		c.kept = slices.Delete(c.kept, 0, 1)
	}
	c.kept = append(c.kept, kept)
}

// Forget removes a partition's index, to free its memory at once.
func (c *PackedCache[K]) Forget(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = slices.DeleteFunc(c.kept, func(k keptPacked[K]) bool { return k.key == key })
}
